"""The same load in virtual time, by the calibration of this machine and the live policies."""

import json
from collections.abc import Sequence

import msgspec
import numpy as np

from argosy.fleet.config import Fleet
from argosy.fleet.load import parse
from argosy.perf.local import LocalCalibration, LocalCalibrations
from argosy.simulator.local import Background, SharedRan, simulate_shared
from argosy.simulator.outcomes import DONE
from argosy.simulator.scenario import scenario_of, slowed
from argosy.simulator.traces.window import Trace, window_of
from bench.reality.live import FLEET, MODEL, SLOTS, WARM_UP, Lived, Planned

_TOKENS_PER_WORD, _TEMPLATE_TOKENS = 1.1, 12.0  # of the plan, for the capacity alone
_PACE_ROUNDS = 3  # batches change with the pace, and so does what a token costs: but little


def fleet() -> Fleet:
    """The live fleet's file, checked."""
    return parse(json.dumps(FLEET), source="bench")


def simulated(
    lived: Sequence[Lived],
    calibration: LocalCalibration,
    beside: Sequence[tuple[float, float]] = (),
) -> list[Lived]:
    """What would have come of the same requests; `beside`: with so many cores in use."""
    return _lived_of(_replayed(lived, calibration, _background(beside, calibration)))


def at_the_pace_had(
    lived: Sequence[Lived],
    calibration: LocalCalibration,
    beside: Sequence[tuple[float, float]],
    replicas_cpu_s: float,
) -> tuple[float, list[Lived]]:
    """The same with steps so many times as long that replicas use the CPU time of the live ones.

    What a step costs changes on a rented machine: its cores are often hyperthreads, slower while
    the other half works for somebody else. A calibration can only say what it was when it was made.
    """
    pace, watched = 1.0, _background(beside, calibration)
    for _ in range(_PACE_ROUNDS):
        ran = _replayed(lived, _paced(calibration, pace), watched)
        pace *= replicas_cpu_s / (ran.on_core_s * calibration.threads)
    return pace, _lived_of(_replayed(lived, _paced(calibration, pace), watched))


def _paced(calibration: LocalCalibration, pace: float) -> LocalCalibration:
    return msgspec.structs.replace(calibration, step_time=slowed(calibration.step_time, pace))


def _lived_of(ran: SharedRan) -> list[Lived]:
    return [
        Lived(
            at_s=float(row["arrival_s"]),
            ttft_s=float(row["ttft_s"]),
            whole_s=float(row["end_s"] - row["arrival_s"]),
            tokens_read=int(row["prompt_tokens"]),
            tokens_cached=0,
            tokens_out=int(row["output_tokens"]),
        )
        for row in ran.results
        if row["outcome"] == DONE
    ]


def _replayed(
    lived: Sequence[Lived], calibration: LocalCalibration, background: Background | None
) -> SharedRan:
    return _run(
        [one.at_s for one in lived],
        [one.tokens_read for one in lived],
        [one.tokens_out for one in lived],
        calibration,
        background,
    )


def capacity_per_s(plan: Sequence[Planned], calibration: LocalCalibration) -> float:
    """Requests like these that the fleet would do in a second with no slot ever empty."""
    plan = plan[WARM_UP:]
    prompts = [round(one.words * _TOKENS_PER_WORD + _TEMPLATE_TOKENS) for one in plan]
    ran = _run([0.0] * len(plan), prompts, [one.tokens for one in plan], calibration)
    ends_s = np.sort(ran.results["end_s"])
    full = len(plan) - 2 * SLOTS  # the last find empty slots beside them
    return full / float(ends_s[full - 1])


def _background(
    beside: Sequence[tuple[float, float]], calibration: LocalCalibration
) -> Background | None:
    if not beside:
        return None
    until_s, used_cores = zip(*beside, strict=True)
    return Background(
        cores=calibration.cores,
        threads=calibration.threads,
        until_s=until_s,
        used_cores=used_cores,
    )


def _run(
    arrival_s: Sequence[float],
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    calibration: LocalCalibration,
    background: Background | None = None,
) -> SharedRan:
    window = window_of(
        {
            "arrival_s": np.array(arrival_s),
            "prompt_tokens": np.array(prompt_tokens),
            "output_tokens": np.array(output_tokens),
        },
        rows=len(arrival_s),
    )
    trace = Trace(
        pieces=lambda: iter([window]), found="recorded", models=(MODEL,), tenants=("default",)
    )
    scenario = scenario_of(fleet(), local=LocalCalibrations(deployments=(calibration,)))
    return simulate_shared(scenario, trace, background=background)
