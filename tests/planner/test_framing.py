"""A fleet as a problem: periods, supplies, reach and needs, and the words beside the numbers."""

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from argosy.fleet import load
from argosy.fleet.config import Fleet
from argosy.fleet.layout import Layout
from argosy.perf.engine_settings import EngineSettings
from argosy.planner.capacity.candidates import Refused
from argosy.planner.capacity.lengths import classes_of
from argosy.planner.capacity.rates import Rates
from argosy.planner.capacity.table import Capacity, Sustained
from argosy.planner.framing.frame import Framed, FramingError, frame
from argosy.planner.framing.horizon import growth_of, periods_between, periods_of, slots_of
from argosy.planner.framing.reach import reach_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "five-makers.yaml"
TEXT = """
fleet: small
pools:
  - name: gpus
    launcher: {kind: planned}
    region: azure/eastus
    chip: H100-SXM
    nodes: {min: 2, max: 9}
    price_usd_per_chip_hour: 6.0
  - name: tpus
    launcher: {kind: planned}
    region: gcp/europe-west4
    chip: TPU-v6e
    nodes: {max: 8, chips_per_node: 4}
  - name: site
    launcher: {kind: planned}
    region: own/site
    country: NOR
    chip: MI300X
    nodes: {min: 1, max: 4}
    price_usd_per_chip_hour: 2.0
models:
  - name: chat
    architecture: Llama-3.1-8B
    slo: {ttft_s_p95: 1.0, itl_s_p99: 0.05}
deployments:
  - {model: chat, pool: gpus, engine: {kind: vllm}}
tenants:
  - {name: web}
  - {name: nightly, tier: batch}
demand:
  - model: chat
    origin: azure/eastus
    requests_per_s: 10
    hourly: [2, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    prompt_tokens: {mean: 900}
    output_tokens: {mean: 200}
  - model: chat
    origin: own/site
    tier: batch
    requests_per_s: 4
    prompt_tokens: {mean: 5000}
    output_tokens: {mean: 50}
links:
  - {between: [azure/eastus, gcp/europe-west4], round_trip_s: 0.2}
  - {between: [azure/eastus, own/site], round_trip_s: 0.4}
plan: {from: 2027-01-01, years: 2, growth_per_year: 2.0}
"""
VALUE = yaml.safe_load(TEXT)


def fleet_of(**changes: Any) -> Fleet:
    return load.parse(yaml.safe_dump({**VALUE, **changes}), source="small.yaml")


def planned(**changes: Any) -> dict[str, Any]:
    return {"plan": {**VALUE["plan"], **changes}}


def rates(per_s: float) -> Rates:
    return Rates(
        requests_per_s=per_s,
        low=0.5 * per_s,
        high=2 * per_s,
        binds=("itl_s_p99",),
        ttft_s_p95=0.1,
        itl_s_p99=0.04,
        busy_share=0.9,
        batch_mean=8.0,
        spared_share=0.0,
    )


def option(pool: str, tp: int, *per_s: float) -> Sustained:
    return Sustained(
        model="chat",
        pool=pool,
        layout=Layout(tp=tp),
        settings=EngineSettings(),
        chips=tp,
        rates=tuple(map(rates, per_s)),
        power_w=None if pool == "tpus" else 600.0 * tp,
        power_w_idle=None if pool == "tpus" else 80.0 * tp,
        rung="datasheet",
        uncalibrated=pool == "site",
    )


def framed(fleet: Fleet, *options: Sustained, **words: Any) -> Framed:
    options = options or (
        option("gpus", 1, 5.0, 2.0),
        option("tpus", 2, 6.0, 2.5),
        option("site", 1, 6.0, 2.0),
    )
    found = Capacity(
        demand=fleet.demand,
        classes=classes_of(fleet, fleet.demand),
        options=options,
        refused=(Refused(model="chat", pool="tpus", layout=None, reason="too slow"),),
    )
    return frame(fleet, rates=found, **words)


DAY = datetime.date


def test_a_year_is_a_period_and_contracts_cut_it():
    first = DAY(2027, 1, 1)
    periods = periods_of(first, 2, [DAY(2027, 7, 1), DAY(2026, 1, 1), DAY(2029, 1, 1)])
    assert [(one.name, one.days) for one in periods] == [
        ("2027-01 to 2027-06", 181.0),
        ("2027-07 to 2027-12", 184.0),
        ("2028", 366.0),
    ]
    assert periods_between(periods, DAY(2027, 7, 1), None) == (1, 2)
    assert periods_between(periods, DAY(2026, 1, 1), DAY(2028, 1, 1)) == (0, 1)
    slots = slots_of(periods)
    assert len(slots) == 72
    assert sum(slot.hours for slot in slots) == 731 * 24
    assert [one.name for one in periods_of(DAY(2028, 2, 29), 1, [])] == ["2028-02-29 to 2029-02-27"]


def test_demand_of_a_period_is_that_of_its_middle():
    periods = periods_of(DAY(2027, 1, 1), 2, [])
    first, second = growth_of(periods, 2.0)
    assert first == pytest.approx(2**0.5, rel=2e-3)
    assert second == pytest.approx(2**1.5, rel=2e-3)
    problem = framed(fleet_of()).problem
    chat = problem.needs[0]
    assert chat.requests_per_s[0] == pytest.approx(20 * first)
    assert chat.requests_per_s[1] == 0.0
    assert chat.requests_per_s[24 + 2] == pytest.approx(10 * second)
    assert framed(fleet_of(), growth_per_year=1.0).problem.needs[0].requests_per_s[0] == 20.0


def test_needs_of_one_kind_are_told_apart_by_their_hours():
    chat, batch = VALUE["demand"]
    day = [0] * 8 + [1] * 14 + [0] * 2
    night = {**chat, "hourly": [1 - factor for factor in day], "prompt_tokens": {"mean": 90}}
    found = framed(fleet_of(demand=[{**chat, "hourly": day}, night, batch])).problem.needs
    assert [need.name for need in found] == [
        "chat consumer from azure/eastus at 8-22 h",
        "chat consumer from azure/eastus at 0-8, 22-24 h",
        "chat batch from own/site",
    ]


def test_kept_nodes_are_paid_the_rest_is_had_by_the_hour_and_a_site_is_ones_own():
    supplies = {one.name: one for one in framed(fleet_of()).problem.supplies}
    assert set(supplies) == {"gpus kept", "gpus on demand", "tpus on demand", "site own"}
    kept, more, own = supplies["gpus kept"], supplies["gpus on demand"], supplies["site own"]
    assert (kept.kind, kept.nodes_min, kept.nodes_max, kept.is_signed) == ("own", 2, 2, True)
    assert (more.kind, more.nodes_max, more.price_usd_per_chip_hour) == ("on_demand", 7, 6.0)
    assert (own.kind, own.nodes_min, own.nodes_max, own.is_signed) == ("own", 1, 4, False)
    assert supplies["tpus on demand"].price_usd_per_chip_hour > 0  # a list price
    problem = framed(fleet_of(**planned(on_demand=False))).problem
    assert {one.name for one in problem.supplies} == {"gpus kept", "site own"}


CONTRACTS = [
    {
        "kind": "reserved",
        "name": "deal",
        "pools": ["gpus", "tpus"],
        "price_usd_per_chip_hour": 3.0,
        "nodes": {"min": 2, "max": 2},
        "is_signed": True,
        "from": "2026-01-01",
        "until": "2027-07-01",
    },
    {
        "kind": "committed_spend",
        "name": "commit",
        "cloud": "azure",
        "usd_per_year": 1e6,
        "units": {"max": 3},
        "discount": 0.25,
        "from": "2027-07-01",
        "until": "2030-01-01",
    },
    {
        "kind": "spot",
        "name": "cheap",
        "pools": ["tpus"],
        "price_usd_per_chip_hour": 1.0,
        "availability": 0.8,
        "nodes_max": 50,
    },
    {
        "kind": "reserved",
        "name": "over",
        "pools": ["gpus"],
        "price_usd_per_chip_hour": 3.0,
        "nodes": {"max": 2},
        "from": "2025-01-01",
        "until": "2026-01-01",
    },
]


def test_contracts_hold_in_their_periods_and_a_committed_spend_is_paid_by_days():
    found = framed(fleet_of(contracts=CONTRACTS))
    problem = found.problem
    assert [one.name for one in problem.periods] == [
        "2027-01 to 2027-06",
        "2027-07 to 2027-12",
        "2028",
    ]
    supplies = {one.name: one for one in problem.supplies}
    deal = supplies["gpus deal"]
    assert (deal.kind, deal.periods, deal.nodes_min, deal.is_signed) == ("reserved", (0,), 2, True)
    assert supplies["tpus deal"].contract == "deal"
    spot = supplies["tpus cheap"]
    assert (spot.kind, spot.nodes_max, spot.availability) == ("spot", 8, 0.8)
    assert not spot.survives
    drawn = supplies["gpus commit"]
    [listed] = {offer.price_usd_per_chip_hour for offer in _cheapest("H100-SXM", "azure/eastus")}
    assert drawn.price_usd_per_chip_hour == pytest.approx(0.75 * listed)
    [credit] = problem.credits
    assert [problem.supplies[at].name for at in credit.supplies] == ["gpus commit"]
    assert credit.usd_per_unit == pytest.approx(1e6 * (184 + 366) / 365.25)
    assert (credit.units_min, credit.units_max, credit.periods) == (0, 3, (1, 2))
    assert "contract over: not in force within the plan's time" in found.left_out


def _cheapest(chip: str, region: str):
    from argosy.fleet.catalogue import offers

    found = [one for one in offers(chip, region) if one.term == "on_demand"]
    return [min(found, key=lambda one: one.price_usd_per_chip_hour)]


def test_a_pool_without_any_price_is_left_out_and_told():
    pools = [dict(pool) for pool in VALUE["pools"]]
    del pools[2]["price_usd_per_chip_hour"]
    found = framed(fleet_of(pools=pools))
    assert not any(one.pool == 2 for one in found.problem.supplies)
    assert any("site by the hour: no price of MI300X" in told for told in found.left_out)


def test_requests_go_where_their_data_may_be_and_the_way_is_short_enough():
    problem = framed(fleet_of()).problem
    assert problem.needs[0].regions == ("azure/eastus", "gcp/europe-west4")  # 0.4 s are too far
    assert problem.needs[1].regions == ("gcp/europe-west4", "own/site")  # 0.1 s are assumed
    chat = VALUE["models"][0]
    for words, regions in (
        (["eu"], {"gcp/europe-west4"}),
        (["eea"], {"gcp/europe-west4", "own/site"}),
        (["on-premises"], {"own/site"}),
        (["azure", "own/site"], {"azure/eastus", "own/site"}),
        (["us"], {"azure/eastus"}),
    ):
        there = next(one["name"] for one in VALUE["pools"] if one["region"] in regions)
        fleet = fleet_of(
            models=[{**chat, "residency": words}],
            deployments=[{**VALUE["deployments"][0], "pool": there}],
            **planned(network_share_max=0.9),
        )
        reach = reach_of(fleet, fleet.models[0], "azure/eastus", fleet.pools)
        assert set(reach.regions) == regions
    fleet = fleet_of(models=[{**chat, "slo": {}}])
    assert len(reach_of(fleet, fleet.models[0], "azure/eastus", fleet.pools).regions) == 3


def test_needs_have_a_class_a_tier_and_the_tokens_of_their_requests():
    one, batch = framed(fleet_of()).problem.needs
    assert (one.name, one.length_class, one.may_wait) == (
        "chat consumer from azure/eastus",
        0,
        False,
    )
    assert (batch.tier, batch.length_class, batch.may_wait) == ("batch", 1, True)
    assert (round(batch.tokens_in), round(batch.tokens_out)) == (5000, 50)


def test_promises_and_caps_are_passed_on():
    chat = {
        **VALUE["models"][0],
        "survive": ["any_one_cloud", "any_one_pool"],
        "spread": {"maker": 0.6},
    }
    words = planned(
        headroom=0.3,
        headroom_lost=0.1,
        power_kw_max={"own/site": 20},
        usd_per_hour_max=500,
        carbon_kg_per_day_max=7,
    )
    problem = framed(fleet_of(models=[chat], **words)).problem
    assert [(one.model, one.kind) for one in problem.survivals] == [
        ("chat", "cloud"),
        ("chat", "pool"),
    ]
    assert [(one.kind, one.share_max) for one in problem.spreads] == [("maker", 0.6)]
    assert problem.caps.power_w_of_region == {"own/site": 20_000.0}
    assert (problem.caps.usd_per_hour, problem.caps.carbon_kg_per_day) == (500, 7)
    assert (problem.headroom, problem.headroom_lost) == (0.3, 0.1)


def test_an_option_whose_chips_do_less_is_dropped_unless_it_alone_is_small():
    best = option("gpus", 4, 24.0, 9.0)
    smaller_and_worse = option("gpus", 1, 5.0, 2.0)
    larger_and_worse = option("gpus", 8, 40.0, 16.0)
    other_class = option("gpus", 2, 11.0, 5.0)
    found = framed(fleet_of(), best, smaller_and_worse, larger_and_worse, other_class).problem
    assert [one.chips for one in found.options] == [4, 1, 2]
    many = [{**one, "requests_per_s": 1000} for one in VALUE["demand"]]
    found = framed(fleet_of(demand=many), best, smaller_and_worse, other_class).problem
    assert [one.chips for one in found.options] == [4, 2]


def test_a_training_run_takes_chips_at_its_share_of_their_peak_until_its_day():
    run = {
        "name": "next",
        "architecture": "Llama-3.1-8B",
        "tokens": 1e12,
        "by": "2027-07-01",
        "pools": ["gpus", "site"],
        "mfu": 0.4,
    }
    problem = framed(fleet_of(**planned(runs=[run]))).problem
    [training] = problem.trainings
    assert training.periods == (0,)
    assert set(training.tokens_per_chip_s) == {0, 2}
    # 989 TFLOP/s x 0.4 / (6 x 8.03e9)
    assert training.tokens_per_chip_s[0] == pytest.approx(8211, rel=0.01)


def test_what_was_assumed_is_said():
    found = framed(fleet_of())
    told = "\n".join(found.assumed)
    assert "demand grows 2 times a year" in told
    assert "at the end of 2028 it is 1.42 times that" in told
    assert "own/site - gcp/europe-west4" in told
    assert "a PUE of 1.2: site" in told
    assert "power, energy and carbon without tpus" in told
    assert "carbon without site" in told
    assert "never measured: site" in told
    assert any("own/site, 0.4 s away" in one for one in found.left_out)


def test_a_model_that_no_chip_of_a_pool_serves_is_told_with_the_reason():
    found = framed(fleet_of(), option("gpus", 1, 5.0, 2.0))
    assert "chat on tpus: too slow" in found.left_out


def test_a_model_of_which_nothing_is_known_is_left_out_with_its_requests():
    other = {"name": "tiny", "weights": "pypi:tiny==1"}
    local = {"name": "here", "launcher": {"kind": "local"}}
    fleet = fleet_of(
        models=[*VALUE["models"], other],
        pools=[*VALUE["pools"], local],
        deployments=[
            *VALUE["deployments"],
            {"model": "tiny", "pool": "here", "engine": {"kind": "llama.cpp"}},
        ],
        demand=[*VALUE["demand"], {**VALUE["demand"][0], "model": "tiny"}],
    )
    found = framed(fleet)
    assert len(found.problem.pools) == 3
    assert {need.model for need in found.problem.needs} == {"chat"}
    assert "model tiny and its requests: it has no architecture" in found.left_out


def test_without_a_first_day_or_demand_there_is_nothing_to_frame():
    fleet = fleet_of(plan={})
    with pytest.raises(FramingError, match=r"plan\.from is not set"):
        framed(fleet)
    assert framed(fleet, begin=DAY(2030, 3, 1)).problem.periods[0].begin == "2030-03-01"
    with pytest.raises(FramingError, match="has no demand"):
        framed(fleet_of(demand=[]))


def test_the_example_has_contracts_a_run_and_promises():
    fleet = load.parse(EXAMPLE.read_text("utf-8"), source="five-makers.yaml")
    found = frame(
        fleet,
        rates=Capacity(
            demand=fleet.demand,
            classes=classes_of(fleet, fleet.demand),
            options=(),
            refused=(),
        ),
    )
    kinds = {one.kind for one in found.problem.supplies}
    assert kinds == {"own", "on_demand", "spot", "reserved", "committed_spend"}
    assert len(found.problem.periods) == 3
    assert "own/frankfurt" not in found.problem.needs[-1].regions
