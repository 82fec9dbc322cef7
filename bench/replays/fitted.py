"""Four numbers of a replica, fitted on the first requests of its own run.

The roofline of `argosy.perf` keeps its shape; the shares that it reaches of the chip's peaks are
divided by a factor each for memory, compute and KV reads, and every request waits a fixed time
before a step can take it. None is faster than the datasheet. What a user's telemetry would give:
times of requests that ended, no profile of a kernel.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from argosy.perf.calibration import shipped
from argosy.perf.chip_peaks import peaks_of
from argosy.perf.groups import efficiency_of
from argosy.perf.replica import KNOTS_TOKENS
from argosy.perf.roofline import Efficiency, Peaks, context_s_per_token, pair_s, tokens_s
from argosy.perf.step_time import StepTime
from argosy.perf.work import Work, work
from bench.replays.recorded import Floats, Recorded
from bench.replays.replayed import Replica, replayed

# Shares that one factor stands for: one run cannot tell apart those of a line.
_SHARES = (
    ("linear_memory",),
    ("linear_compute", "pair_compute", "link"),  # all grow with the tokens of a step
    ("context_memory", "context_compute"),
)
_TPOT_GOAL, _TTFT_GOAL = 0.03, 0.10  # errors that weigh alike
_TTFT_LEAST = 0.1  # of the mean: a TTFT shorter than that counts as so long
_FACTOR_USUAL = 0.5  # logarithm: a factor this far from 1 costs as one request that misses its goal
_OVERHEAD_S_USUAL = 0.1
_FACTOR_MAX, _WAITS_MAX = 8.0, 3.0
_STEP = 0.02  # for slopes: answers jump where a request joins another step
_GRID = (1.0, 1.15, 1.3)  # of each factor, to begin where the first requests fit best
_BEGUN_AT = 2  # places of the grid


class Physics(NamedTuple):
    """What the shipped calibration says of a run's chip and model, before its neighbours."""

    asked: Work
    peaks: Peaks
    reached: Efficiency


class Fit(NamedTuple):
    """Factors on seconds (1: as shipped), and each request's own wait."""

    memory: float
    compute: float
    context: float
    overhead_s: float


def physics_of(recorded: Recorded) -> Physics:
    """Of its chip, which has all figures that are needed."""
    run, layout = recorded.run, recorded.layout
    peaks = peaks_of(run.model, run.chip, layout)
    if peaks is None:
        raise ValueError(f"{run.chip.name} lacks bf16_flops or memory_bytes_per_s")
    return Physics(
        asked=work(run.model, layout),
        peaks=peaks,
        reached=efficiency_of(run.model, run.chip, layout, recorded.settings.name, shipped()),
    )


def step_time(physics: Physics, fit: Fit) -> StepTime:
    """The physics with such factors."""
    asked, peaks = physics.asked, physics.peaks
    shares = {
        name: min(1.0, float(getattr(physics.reached, name)) / factor)
        for names, factor in zip(_SHARES, fit[:3], strict=True)
        for name in names
    }
    reached = physics.reached._replace(**shares)
    seconds = tokens_s(asked, peaks, reached, np.array(KNOTS_TOKENS))
    return StepTime(
        knots_tokens=KNOTS_TOKENS,
        knots_s=tuple(float(value) for value in np.asarray(seconds)),
        context_s_per_token=float(context_s_per_token(asked, peaks, reached)),
        pair_s=float(pair_s(asked, peaks, reached)),
    )


def fitted(recorded: Recorded, kv_tokens: int, first: int) -> Fit:
    """On the times of the first so many requests; those of the others are not looked at.

    All arrivals and lengths go in, since the later requests share steps with the first.
    """
    physics = physics_of(recorded)
    seen = slice(0, first)
    ttft_s, tpot_s = recorded.measured.ttft_s[seen], recorded.measured.tpot_s[seen]
    ttft_s_counted = np.maximum(ttft_s, _TTFT_LEAST * ttft_s.mean())

    def misses(place: Floats) -> Floats:
        fit = _fit_at(place)
        step = step_time(physics, fit)
        times = replayed(recorded, Replica(step, kv_tokens, fit.overhead_s)).times
        tpot = np.log(times.tpot_s[seen] / tpot_s) / _TPOT_GOAL
        ttft = (times.ttft_s[seen] - ttft_s) / ttft_s_counted / _TTFT_GOAL
        usual = [*(np.log(place[:3]) / _FACTOR_USUAL), place[3] - 1.0]
        return np.concatenate([tpot, ttft, usual])

    least = [float(getattr(physics.reached, names[0])) for names in _SHARES]
    return _fit_at(_least_misses(misses, (*least, 1.0)))


def _least_misses(misses: Callable[[Floats], Floats], least: tuple[float, ...]) -> Floats:
    """Where the misses are least, begun at the best places of a grid: there are local ones."""

    def cost(place: Floats) -> float:
        return float(np.sum(np.sqrt(1.0 + misses(place) ** 2)))

    grid = [np.maximum((*factors, 1.1), least) for factors in product(_GRID, repeat=3)]
    found = [
        least_squares(
            misses,
            start,
            bounds=(least, (_FACTOR_MAX, _FACTOR_MAX, _FACTOR_MAX, _WAITS_MAX)),
            diff_step=_STEP,
            loss="soft_l1",
            max_nfev=40,
        )
        for start in sorted(grid, key=cost)[:_BEGUN_AT]
    ]
    return min(found, key=lambda one: one.cost).x


def _fit_at(place: Floats) -> Fit:
    """Of four numbers around 1: relative steps mean the same for each."""
    memory, compute, context, waits = (float(value) for value in place)
    return Fit(memory, compute, context, (waits - 1.0) * _OVERHEAD_S_USUAL)
