"""Recorded demand becomes the typical day that a plan is made for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from argosy.fleet import load
from argosy.fleet.config import Fleet
from argosy.planner.capacity.lengths import classes_of
from argosy.planner.framing.forecast import Names, demand_of_file, demand_of_trace
from argosy.simulator.traces.window import Trace, TraceError, window_of

TRACES = Path(__file__).parents[2] / "traces"
FLEET = yaml.safe_load("""
fleet: small
pools:
  - {name: gpus, launcher: {kind: planned}, region: aws/us-east-1, chip: H100-SXM, nodes: {max: 9}}
models: [{name: chat, architecture: Llama-3.1-8B}]
deployments: [{model: chat, pool: gpus, engine: {kind: vllm}}]
""")
HOUR_S = 3600.0


def fleet_of(**changes: Any) -> Fleet:
    return load.parse(yaml.safe_dump({**FLEET, **changes}), source="small.yaml")


def trace_of(arrival_s: np.ndarray, **columns: Any) -> Trace:
    names = {
        key: columns.pop(key) for key in ("models", "origins", "starts_at_s") if key in columns
    }
    rows = arrival_s.size
    made = {"arrival_s": arrival_s, "prompt_tokens": 100, "output_tokens": 10, **columns}
    return Trace(pieces=lambda: iter([window_of(made, rows=rows)]), found="a test's", **names)


def per_hour(*counts: int) -> np.ndarray:
    """So many arrivals in each hour, evenly; one more at the end of the last."""
    parts = [
        hour * HOUR_S + np.arange(count) * (HOUR_S / count)
        for hour, count in enumerate(counts)
        if count
    ]
    return np.concatenate([*parts, [len(counts) * HOUR_S - 1e-3]])


def test_an_hour_is_planned_as_on_its_busiest_days():
    hours = [360] * 72
    hours[24 + 7] = 720
    [found] = demand_of_trace(trace_of(per_hour(*hours)), fleet_of())
    assert len(found.hourly) == 24
    assert found.requests_per_s * found.hourly[7] == pytest.approx(0.2, rel=1e-3)
    assert found.requests_per_s * found.hourly[8] == pytest.approx(0.1, rel=1e-3)
    [median] = demand_of_trace(trace_of(per_hour(*hours)), fleet_of(), share=0.5)
    assert median.requests_per_s * (median.hourly or [1.0] * 24)[7] == pytest.approx(0.1, rel=1e-3)


def test_a_recording_with_a_date_has_its_hours_in_utc():
    arrivals = per_hour(*[36] * 12, *[360] * 12)
    [found] = demand_of_trace(trace_of(arrivals, starts_at_s=6 * HOUR_S + 86_400.0), fleet_of())
    assert found.hourly[6] < 0.5 < 1.5 < found.hourly[18]
    assert found.hourly[5] > 1.5


def test_an_hour_of_recording_is_planned_for_all_day():
    [found] = demand_of_trace(trace_of(per_hour(7200)), fleet_of())
    assert found.hourly == ()
    assert found.requests_per_s == pytest.approx(2.0, rel=1e-3)


def test_models_tiers_and_origins_are_kept_apart():
    arrivals = np.sort(np.random.default_rng(1).random(4000) * HOUR_S)
    tier = np.arange(4000) % 2 * 2
    origin = (np.arange(4000) % 4 == 0).astype(int)
    trace = trace_of(
        arrivals, models=("chat",), origins=("aws/us-east-1", "own/site"), tier=tier, origin=origin
    )
    found = demand_of_trace(trace, fleet_of())
    assert [(one.tier, one.origin) for one in found] == [
        ("batch", "aws/us-east-1"),
        ("enterprise", "aws/us-east-1"),
        ("enterprise", "own/site"),
    ]
    assert [round(one.requests_per_s * HOUR_S, -2) for one in found] == [2000, 1000, 1000]


def test_lengths_keep_their_mean_and_what_95_of_100_stay_below():
    rng = np.random.default_rng(2)
    prompt = np.maximum(1, rng.lognormal(6, 1, 60_000)).astype(np.int32)
    trace = trace_of(np.sort(rng.random(60_000) * HOUR_S), prompt_tokens=prompt)
    [found] = demand_of_trace(trace, fleet_of())
    assert found.prompt_tokens.mean == pytest.approx(prompt.mean(), rel=0.03)
    assert found.prompt_tokens.p95 == pytest.approx(np.quantile(prompt, 0.95), rel=0.03)
    assert found.output_tokens.mean == found.output_tokens.p95 == 10
    assert classes_of(fleet_of(), [found])["chat"][0].tokens_out == 10


def test_what_a_recording_does_not_say_is_asked_for():
    two = [*FLEET["models"], {"name": "other", "architecture": "Llama-3.1-8B"}]
    deployed = [*FLEET["deployments"], {**FLEET["deployments"][0], "model": "other"}]
    fleet = fleet_of(models=two, deployments=deployed)
    arrivals = per_hour(36)
    with pytest.raises(TraceError, match=r"does not say which model.*--model NAME"):
        demand_of_trace(trace_of(arrivals), fleet)
    with pytest.raises(TraceError, match=r"asks for gpt.*has chat, other"):
        demand_of_trace(trace_of(arrivals, models=("gpt",)), fleet)
    [found] = demand_of_trace(trace_of(arrivals), fleet, names=Names(model="other"))
    assert (found.model, found.origin) == ("other", "aws/us-east-1")
    pools = [*FLEET["pools"], {**FLEET["pools"][0], "name": "more", "region": "aws/us-west-2"}]
    with pytest.raises(TraceError, match="--origin CLOUD/REGION"):
        demand_of_trace(trace_of(arrivals), fleet_of(pools=pools))


def test_azures_hour_of_chats_is_read_from_its_file():
    [found] = demand_of_file(TRACES / "azure_llm_2023_conv.csv.gz", fleet_of())
    assert found.hourly == ()
    assert found.prompt_tokens.mean == pytest.approx(1154.7, rel=0.01)
    # As in its busiest minutes: it asks for 5.5 on average, and 1.8 times the tokens in one.
    assert found.requests_per_s == pytest.approx(1.77 * 19_366 / 3501.7, rel=0.02)


def test_servegens_week_is_summed_from_its_rates():
    names = ("m-large", "m-mid", "m-small")
    fleet = fleet_of(
        models=[{"name": name, "architecture": "Llama-3.1-8B"} for name in names],
        deployments=[{**FLEET["deployments"][0], "model": name} for name in names],
    )
    file = TRACES / "servegen_client_rates_week1.parquet"
    found = demand_of_file(file, fleet, names=Names(left_out=("deepseek-r1", "mm-image")))
    rows = {name: [one for one in found if one.model == name] for name in names}
    assert [len(of) for of in rows.values()] == [3, 2, 3]
    assert [one.model for one in found] == [name for name, of in rows.items() for _ in of]
    # As in the busiest minutes: more than the week's means of 209, 1,613 and 1,063.
    sums = [round(sum(one.requests_per_s for one in of)) for of in rows.values()]
    assert sums == [427, 2528, 1450]
    # By night its prompts are short, by day they are long, in the evening between.
    prompts = [one.prompt_tokens.mean for one in rows["m-small"]]
    assert prompts == pytest.approx([35, 45, 58], rel=0.03)


def test_each_hour_is_in_one_row_and_has_its_rate_there():
    rng = np.random.default_rng(3)
    arrivals = np.sort(rng.random(96_000) * 24 * HOUR_S)
    is_night = arrivals < 8 * HOUR_S
    trace = trace_of(
        arrivals,
        prompt_tokens=np.where(is_night, 2000, 300).astype(np.int32),
        output_tokens=np.where(is_night, 20, 100).astype(np.int32),
    )
    night, day = demand_of_trace(trace, fleet_of())
    assert [hour for hour in range(24) if night.hourly[hour]] == list(range(8))
    assert [hour for hour in range(24) if day.hourly[hour]] == list(range(8, 24))
    assert (night.prompt_tokens.mean, day.prompt_tokens.mean) == (2000, 300)
    assert (night.output_tokens.mean, day.output_tokens.mean) == (20, 100)
    for hour in range(24):
        rate = sum(one.requests_per_s * one.hourly[hour] for one in (night, day))
        assert rate == pytest.approx(96_000 / 24 / HOUR_S, rel=0.1)
    assert len(classes_of(fleet_of(), [night, day])["chat"]) == 2


def test_lengths_that_differ_by_chance_or_little_share_a_row():
    rng = np.random.default_rng(4)
    arrivals = np.sort(rng.random(5000) * 24 * HOUR_S)
    prompt = np.maximum(1, rng.lognormal(6, 1.2, 5000)).astype(np.int32)
    assert len(demand_of_trace(trace_of(arrivals, prompt_tokens=prompt), fleet_of())) == 1
    drifting = (400 + 20 * np.sin(arrivals / HOUR_S / 24 * 2 * np.pi)).astype(np.int32)
    assert len(demand_of_trace(trace_of(arrivals, prompt_tokens=drifting), fleet_of())) == 1


def test_minutes_that_ask_for_more_than_their_hour_are_planned_for():
    rng = np.random.default_rng(5)
    even = np.sort(rng.random(36_000) * HOUR_S)
    burst = np.sort(1200.0 + rng.random(3000) * 300.0)
    arrivals = np.sort(np.concatenate([even, burst]))  # 20 a second in five minutes, 10 in others
    [found] = demand_of_trace(trace_of(arrivals), fleet_of())
    assert found.requests_per_s == pytest.approx(20.0, rel=0.1)
    [usual] = demand_of_trace(trace_of(arrivals), fleet_of(), share=0.5)
    assert usual.requests_per_s == pytest.approx(10.0, rel=0.1)
    batch = trace_of(arrivals, tier=np.full(arrivals.size, 2), models=("chat",))
    [waits] = demand_of_trace(batch, fleet_of())
    assert waits.requests_per_s == pytest.approx(39_000 / HOUR_S, rel=0.01)


def test_chance_alone_makes_no_minute_busy():
    rng = np.random.default_rng(6)
    arrivals = np.sort(rng.random(3600) * HOUR_S)
    prompt = np.maximum(1, rng.lognormal(6, 1, 3600)).astype(np.int32)
    [found] = demand_of_trace(trace_of(arrivals, prompt_tokens=prompt), fleet_of())
    # The largest of 60 minutes has 40 % more tokens.
    assert found.requests_per_s == pytest.approx(1.0, rel=0.25)
