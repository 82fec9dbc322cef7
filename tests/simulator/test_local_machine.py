"""Replicas of one machine in virtual time: together as slow as was measured."""

import numpy as np
import pytest
from msgspec.structs import replace

from argosy.fleet.load import parse
from argosy.perf.calibration import Interval
from argosy.perf.local import LocalCalibration, LocalCalibrations, Residuals
from argosy.perf.step_time import StepTime
from argosy.simulator.local import (
    Background,
    shares_a_machine,
    simulate_shared,
)
from argosy.simulator.scenario import Scenario, ScenarioError, scenario_of, slowed
from argosy.simulator.traces.window import Trace, window_of

SLOWDOWN = 1.5
FILE = """
fleet: here
pools: [{name: local, launcher: {kind: local}}]
models: [{name: tiny, weights: "file:tiny.gguf"}]
gateway: {routing: round_robin}
deployments:
  - {model: tiny, pool: local, replicas: 2, engine: {kind: llama.cpp, slots: 4}}
"""
MADE = LocalCalibration(
    deployment="tiny@local",
    engine="llama.cpp",
    engine_version="1",
    model="tiny",
    replicas=2,
    threads=1,
    slots=4,
    context_tokens=4096,
    step_time=StepTime(
        knots_tokens=(1.0, 4.0, 1024.0),
        knots_s=(0.01, 0.03, 5.0),
        context_s_per_token=1e-5,
        pair_s=1e-6,
    ),
    slowdown=SLOWDOWN,
    overhead_s=0.01,
    interval=Interval(tpot_low=0.9, tpot_high=1.1, ttft_low=0.9, ttft_high=1.1),
    residuals=Residuals(points=10, median=0.01, p90=0.05),
    measured_on="2026-11-21",
    cpu="a CPU",
    cores=2,
    load_before=0.0,
    seconds=90.0,
)


def test_a_request_alone_takes_what_was_measured_of_an_idle_machine() -> None:
    results = simulate_shared(_scenario(), _trace([0.0])).results
    pairs = 100 * 101 / 2
    reading_s = MADE.step_time.step_s(tokens=100, pairs=pairs)
    assert results["ttft_s"][0] == pytest.approx(reading_s + MADE.overhead_s)


def test_two_on_two_replicas_are_slower_by_the_slowdown() -> None:
    together = simulate_shared(_scenario(), _trace([0.0, 0.0])).results
    always = simulate_shared(_always_shared(_scenario()), _trace([0.0, 0.0])).results
    np.testing.assert_allclose(together["end_s"], always["end_s"], rtol=1e-5)
    alone = simulate_shared(_scenario(), _trace([0.0])).results
    own_s = alone["ttft_s"][0] - MADE.overhead_s
    assert together["ttft_s"][0] == pytest.approx(SLOWDOWN * own_s + MADE.overhead_s, rel=1e-5)


def test_a_prompt_that_is_half_read_when_another_comes_is_slower_from_then_on() -> None:
    alone_s = simulate_shared(_scenario(), _trace([0.0])).results["ttft_s"][0] - MADE.overhead_s
    half_s = alone_s / 2
    results = simulate_shared(_scenario(), _trace([0.0, half_s])).results
    first = results[results["arrival_s"] == 0.0]
    wanted_s = half_s + SLOWDOWN * half_s + MADE.overhead_s
    assert first["ttft_s"][0] == pytest.approx(wanted_s, rel=1e-4)


def test_programs_beside_the_fleet_slow_it_down_while_they_run() -> None:
    alone_s = simulate_shared(_scenario(), _trace([0.0])).results["ttft_s"][0] - MADE.overhead_s
    half_s = alone_s / 2
    beside = Background(cores=2, threads=1, until_s=(half_s, 1e9), used_cores=(0.0, 1.5))
    results = simulate_shared(_scenario(), _trace([0.0]), background=beside).results
    wanted_s = half_s + 2.0 * half_s + MADE.overhead_s
    assert results["ttft_s"][0] == pytest.approx(wanted_s, rel=1e-4)


def test_waiting_for_a_core_takes_time_but_no_time_on_a_core() -> None:
    alone = simulate_shared(_scenario(), _trace([0.0]))
    beside = Background(cores=2, threads=1, until_s=(1e9,), used_cores=(1.5,))
    starved = simulate_shared(_scenario(), _trace([0.0]), background=beside)
    wanted_s = alone.results["end_s"][0] - MADE.overhead_s
    assert alone.on_core_s == pytest.approx(wanted_s, rel=1e-4)
    assert starved.on_core_s == pytest.approx(wanted_s, rel=1e-4)


@pytest.mark.parametrize(
    ("used_cores", "busy", "slowness"),
    [(0.0, 2, 1.0), (0.1, 2, 2 / 1.9), (1.0, 2, 2.0), (0.6, 1, 1.0), (2.0, 0, 1.0)],
)
def test_busy_replicas_have_the_cores_that_are_left_and_one_each_at_most(
    used_cores: float, busy: int, slowness: float
) -> None:
    beside = Background(cores=2, threads=1, until_s=(1.0,), used_cores=(used_cores,))
    assert beside.slowness(0.5, busy) == pytest.approx(slowness)
    assert beside.slowness(1.5, busy) == 1.0


def test_every_request_ends_once_and_the_same_seed_gives_the_same_bytes() -> None:
    arrivals = list(np.cumsum(np.random.default_rng(1).exponential(0.4, 60)))
    one = simulate_shared(_scenario(), _trace(arrivals)).results
    two = simulate_shared(_scenario(), _trace(arrivals)).results
    assert sorted(one["arrival_s"]) == pytest.approx(arrivals)
    assert one.tobytes() == two.tobytes()


def test_a_deployment_that_was_never_measured_is_refused_with_what_helps() -> None:
    with pytest.raises(ScenarioError, match="argosy calibrate --local"):
        scenario_of(parse(FILE, source="here.yaml"), local=LocalCalibrations())


def test_replicas_that_do_not_slow_each_other_down_share_nothing() -> None:
    apart = replace(MADE, slowdown=1.0)
    assert shares_a_machine(_scenario())
    assert not shares_a_machine(_scenario(apart))


def _scenario(made: LocalCalibration = MADE) -> Scenario:
    fleet = parse(FILE, source="here.yaml")
    return scenario_of(fleet, local=LocalCalibrations(deployments=(made,)))


def _trace(arrivals: list[float]) -> Trace:
    window = window_of(
        {
            "arrival_s": np.array(arrivals),
            "prompt_tokens": np.full(len(arrivals), 100),
            "output_tokens": np.full(len(arrivals), 20),
        },
        rows=len(arrivals),
    )
    return Trace(pieces=lambda: iter([window]), found="made", tenants=("default",))


def _always_shared(scenario: Scenario) -> Scenario:
    """The same fleet with every replica as slow as it is while all others work."""
    groups = tuple(
        replace(
            group,
            slowdown=1.0,
            perf=replace(group.perf, step_time=slowed(group.perf.step_time, group.slowdown)),
        )
        for group in scenario.groups
    )
    return replace(scenario, groups=groups)
