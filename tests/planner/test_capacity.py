"""What one replica sustains within its SLO: found by trying, told when it is nothing."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from argosy.fleet import load
from argosy.fleet.architectures import architecture
from argosy.fleet.catalogue import chip
from argosy.fleet.config import Fleet
from argosy.fleet.layout import Layout
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.replica import ReplicaModel, replica
from argosy.planner.capacity.lengths import classes_of
from argosy.planner.capacity.rates import Rates, limits_of, measured
from argosy.planner.capacity.sustain import Drawn, Limits, OneReplica, Tried, Within, largest
from argosy.planner.capacity.table import Capacity, capacity_of
from argosy.planner.problem import layout_text
from argosy.simulator.demanded import trace_of_demand
from argosy.simulator.report import report_of
from argosy.simulator.scenario import scenario_of
from argosy.simulator.serving import simulate

EXAMPLE = Path(__file__).parents[2] / "examples" / "five-makers.yaml"
REQUESTS = 1500
WITHIN = Within(least=0.01, most=10.0, widen=1.4, exact_to=0.01)
TEXT = """
fleet: small
pools:
  - {name: gpus, launcher: {kind: planned}, region: aws/us-east-1, chip: H100-SXM, nodes: {max: 9}}
  - name: tpus
    launcher: {kind: planned}
    region: gcp/us-east5
    chip: TPU-v6e
    nodes: {max: 9, chips_per_node: 4}
  - {name: amds, launcher: {kind: planned}, region: own/site, chip: MI300X, nodes: {max: 9}}
models:
  - {name: chat, architecture: Llama-3.1-8B, slo: {ttft_s_p95: 1.0, itl_s_p99: 0.05}}
deployments:
  - {model: chat, pool: gpus, engine: {kind: trtllm}, layout: {dtype: fp8}}
demand:
  - model: chat
    origin: aws/us-east-1
    requests_per_s: 5
    prompt_tokens: {mean: 900, p95: 3000}
    output_tokens: {mean: 200, p95: 600}
"""
VALUE = yaml.safe_load(TEXT)


def fleet_of(**changes: Any) -> Fleet:
    return load.parse(yaml.safe_dump({**VALUE, **changes}), source="small.yaml")


def in_steps_of(tokens: int, **changes: Any) -> dict[str, Any]:
    """The deployment, with a step's tokens set by the operator."""
    engine = {"kind": "trtllm", "prefill_tokens_max": tokens}
    return {**VALUE["deployments"][0], "engine": engine, **changes}


@pytest.fixture(scope="module")
def small() -> Capacity:
    return capacity_of(fleet_of(), requests=REQUESTS)


def tried_below(limit: float):
    def tried(rate: float) -> Tried:
        return Tried(
            requests_per_s=rate,
            broken=() if rate <= limit else ("itl_s_p99",),
            ttft_s_p95=0.1,
            itl_s_p99=0.01,
            busy_share=1.0,
            batch_mean=1.0,
            spared_share=0.0,
        )

    return tried


@pytest.mark.parametrize("limit", [0.05, 0.9, 1.0, 3.7, 9.5])
def test_the_largest_rate_is_found_to_one_percent_from_either_side(limit):
    found = largest(tried_below(limit), guess=1.0, within=WITHIN)
    assert 0.99 * limit <= found.requests_per_s <= limit
    assert found.binds == ("itl_s_p99",)


def test_a_rate_is_zero_where_not_even_the_least_is_kept_and_bounded_where_all_are():
    none = largest(tried_below(0.001), guess=1.0, within=WITHIN)
    assert none.requests_per_s == 0.0
    assert none.at.requests_per_s == 0.01
    every = largest(tried_below(1e9), guess=1.0, within=WITHIN)
    assert every.requests_per_s == 10.0
    assert every.binds == ()


def test_demands_with_like_lengths_share_a_class_and_others_do_not():
    one = VALUE["demand"][0]
    near = {**one, "origin": "gcp/us-east5", "prompt_tokens": {"mean": 950, "p95": 3100}}
    far = {**one, "prompt_tokens": {"mean": 2000, "p95": 6000}}
    chats = {**one, "turns": 3}
    fleet = fleet_of(demand=[one, near, far, chats])
    found = classes_of(fleet, fleet.demand)["chat"]
    assert [kind.members for kind in found] == [(0, 1), (2,), (3,)]
    assert found[0].tokens_in == pytest.approx(900, rel=0.05)
    assert found[2].tokens_in > 1.5 * found[0].tokens_in  # what the chat said before


def test_a_class_holds_as_many_slots_as_the_gateway_lets_its_tenants_have():
    tenants = [{"name": "a", "tier": "enterprise"}, {"name": "b"}, {"name": "c", "tier": "batch"}]
    one = VALUE["demand"][0]
    for tier, share in (("enterprise", 0.75), ("consumer", 0.75), ("batch", 0.5)):
        fleet = fleet_of(tenants=tenants, demand=[{**one, "tier": tier}])
        assert classes_of(fleet, fleet.demand)["chat"][0].slots_share == share
    assert classes_of(fleet_of(), fleet_of().demand)["chat"][0].slots_share == 1.0


def test_the_same_fleet_gives_the_same_rates_and_what_is_known_is_not_measured_again(small):
    known: dict[str, Rates] = {}
    again = capacity_of(fleet_of(), known=known, requests=REQUESTS)
    assert again == small
    for key, rates in known.items():
        known[key] = replace(rates, busy_share=0.77)
    told = capacity_of(fleet_of(), known=known, requests=REQUESTS)
    assert {one.rates[0].busy_share for one in told.options} == {0.77}
    assert [one.requests_per_s for one in told.options] == [
        one.requests_per_s for one in small.options
    ]


def test_what_is_known_of_another_slo_is_measured_again():
    slow = {**VALUE["models"][0], "slo": {"ttft_s_p95": 0.5, "itl_s_p99": 0.05}}
    known: list[dict[str, Rates]] = [{}, {}]
    for models, kept in zip((VALUE["models"], [slow]), known, strict=True):
        capacity_of(fleet_of(models=models), known=kept, requests=200)
    assert known[0]
    assert not known[0].keys() & known[1].keys()


def test_an_engine_that_does_not_run_on_a_maker_is_replaced_by_one_that_does(small):
    engines = {one.pool: one.settings.name for one in small.options}
    assert engines == {"gpus": "trtllm", "tpus": "vllm", "amds": "vllm"}


def test_larger_replicas_are_tried_while_their_chips_do_more(small):
    for pool in ("gpus", "tpus", "amds"):
        found = [one for one in small.options if one.pool == pool]
        each = [one.requests_per_s[0] / one.chips for one in found]
        assert [one.chips for one in found] == [2**k for k in range(len(found))]
        assert each[:-1] == sorted(each[:-1])


def test_a_slower_case_has_no_higher_rate_and_a_wider_interval_is_of_who_is_not_measured(small):
    for one in small.options:
        [rates] = one.rates
        assert 0 < rates.low < rates.requests_per_s < rates.high
    gpu = next(one.rates[0] for one in small.options if one.pool == "gpus")
    amd = next(one.rates[0] for one in small.options if one.pool == "amds")
    assert amd.low / amd.requests_per_s < gpu.low / gpu.requests_per_s
    assert next(one for one in small.options if one.pool == "amds").uncalibrated


def test_a_promise_that_no_replica_keeps_is_refused_with_what_comes_nearest():
    model = {**VALUE["models"][0], "slo": {"itl_s_p99": 0.0001}}
    found = capacity_of(fleet_of(models=[model]), requests=200)
    assert not found.options
    nearest = found.nearest("chat")
    assert nearest is not None
    assert "cannot keep the SLO: ITL p99 is" in nearest.reason
    assert nearest.near is not None
    assert nearest.near > 10


def test_what_fits_no_node_is_cut_into_stages_and_what_chips_do_not_compute_is_refused():
    models = [{**VALUE["models"][0], "architecture": "Llama-3.1-70B", "slo": {"ttft_s_p95": 9.0}}]
    deployments = [
        {"model": "chat", "pool": "tpus", "engine": {"kind": "vllm"}, "layout": {"tp": 4}},
        {
            "model": "chat",
            "pool": "gpus",
            "engine": {"kind": "vllm"},
            "layout": {"tp": 4, "dtype": "fp4"},
        },
    ]
    fleet = fleet_of(pools=VALUE["pools"][:2], models=models, deployments=deployments)
    found = capacity_of(fleet, requests=300)
    on_tpus = [layout_text(one.layout) for one in found.options if one.pool == "tpus"]
    assert on_tpus == ["tp4 pp2 bf16"]
    told = [one.reason for one in found.refused if one.pool == "tpus"]
    assert any("does not fit 4 x TPU-v6e" in reason for reason in told)
    assert any("TPU-v6e computes no fp4" in reason for reason in told)


def test_way_and_back_leave_less_of_the_ttft_for_the_replica():
    slow = {**VALUE["models"][0], "slo": {"ttft_s_p95": 0.3}}
    vllm = [{**VALUE["deployments"][0], "engine": {"kind": "vllm"}}]
    rates = list[float]()
    for share in (0.0, 0.5):
        fleet = fleet_of(
            models=[slow],
            pools=VALUE["pools"][:1],
            deployments=vllm,
            plan={"network_share_max": share},
        )
        rates.append(capacity_of(fleet, requests=600).options[0].requests_per_s[0])
    assert rates[1] < 0.8 * rates[0]


def test_a_simulated_fleet_at_that_rate_keeps_the_slo_and_at_twice_of_it_does_not(small):
    option = next(one for one in small.options if one.pool == "gpus")
    keeps = []
    for times in (0.95, 2.0):
        rate = 4 * times * option.requests_per_s[0]
        fleet = fleet_of(
            pools=VALUE["pools"][:1],
            deployments=[in_steps_of(option.settings.prefill_tokens_max, replicas=4)],
            demand=[{**VALUE["demand"][0], "requests_per_s": rate}],
        )
        ran = simulate(scenario_of(fleet), trace_of_demand(fleet, seed=3, until_s=200.0))
        keeps.append(report_of(ran, trace="").models[0].keeps_slo)
    assert keeps == [True, False]


def test_without_a_promise_a_replica_takes_what_it_can_finish():
    fleet = fleet_of(models=[{**VALUE["models"][0], "slo": {}}], pools=VALUE["pools"][:1])
    [rates] = capacity_of(fleet, requests=REQUESTS).options[0].rates
    assert rates.binds == ("ttft_s_p95",)
    assert rates.busy_share > 0.95


def test_requests_at_any_rate_are_the_same_requests_closer_together():
    fleet = fleet_of()
    drawn = Drawn(classes_of(fleet, fleet.demand)["chat"][0], requests=100)
    slow, fast = drawn.window(1.0), drawn.window(4.0)
    assert (slow.prompt_tokens == fast.prompt_tokens).all()
    assert slow.arrival_s == pytest.approx(4.0 * fast.arrival_s)


def test_steps_that_the_operator_set_are_kept_and_what_others_would_do_is_hinted_at(small):
    fleet = fleet_of(pools=VALUE["pools"][:1], deployments=[in_steps_of(8192)])
    found = capacity_of(fleet, requests=REQUESTS)
    assert {one.settings.prefill_tokens_max for one in found.options} == {8192}
    assert not any(one.is_step_chosen for one in found.options)
    [hint] = found.hints
    assert hint.startswith("chat reads prompts in the steps that its deployments' engines set")
    assert "gpus " in hint
    assert "(1,024)" in hint
    assert small.hints == ()


def test_steps_that_nobody_set_are_chosen_so_that_a_slower_replica_does_the_most(small):
    chosen = next(one for one in small.options if one.pool == "gpus")
    assert chosen.is_step_chosen
    assert 256 <= chosen.settings.prefill_tokens_max < 8192
    slow = []
    for tokens in (256, chosen.settings.prefill_tokens_max, 8192):
        fleet = fleet_of(pools=VALUE["pools"][:1], deployments=[in_steps_of(tokens)])
        settings = replace(chosen.settings, prefill_tokens_max=tokens)
        perf = replica(architecture("Llama-3.1-8B"), chip("H100-SXM"), chosen.layout, settings)
        assert isinstance(perf, ReplicaModel)
        one = OneReplica(perf, settings)
        drawn = Drawn(classes_of(fleet, fleet.demand)["chat"][0], requests=REQUESTS)
        limits = limits_of(fleet, fleet.models[0], perf)
        slow.append(one.rate(drawn, limits, slowness=1.5).requests_per_s)
    assert slow[1] > slow[0]
    assert slow[1] > 1.5 * slow[2]


def test_with_no_headroom_the_steps_are_those_that_do_the_most_as_believed(small):
    fleet = fleet_of(pools=VALUE["pools"][:1], plan={"headroom": 0.0})
    bold = capacity_of(fleet, requests=REQUESTS).options[0]
    careful = next(one for one in small.options if one.pool == "gpus")
    assert bold.requests_per_s[0] >= careful.requests_per_s[0]
    assert bold.settings.prefill_tokens_max >= careful.settings.prefill_tokens_max


def test_a_step_can_decode_all_the_requests_that_the_operator_wants_together():
    engine = {"kind": "trtllm", "requests_max": 1500}
    deployments = [{**VALUE["deployments"][0], "engine": engine}]
    fleet = fleet_of(pools=VALUE["pools"][:1], deployments=deployments)
    for one in capacity_of(fleet, requests=300).options:
        assert one.settings.prefill_tokens_max >= 2048
        assert one.settings.requests_max == 1500


def test_fewer_requests_say_about_where_the_rate_is_and_all_of_them_say_it():
    fleet = fleet_of()
    drawn = Drawn(classes_of(fleet, fleet.demand)["chat"][0], requests=4000)
    assert drawn.roughly.requests == 2000
    assert drawn.roughly.roughly is drawn.roughly
    few, all_ = drawn.roughly.window(2.0), drawn.window(2.0)
    assert (few.prompt_tokens == all_.prompt_tokens[:2000]).all()
    perf = replica(architecture("Llama-3.1-8B"), chip("H100-SXM"), Layout(), EngineSettings())
    assert isinstance(perf, ReplicaModel)
    one, limits = OneReplica(perf, EngineSettings()), Limits(ttft_s_p95=1.0, itl_s_p99=0.05)
    near = measured(one, drawn, limits, perf).requests_per_s
    assert near == pytest.approx(one.rate(drawn, limits).requests_per_s, rel=0.02)
