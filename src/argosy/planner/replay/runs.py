"""One cell of a plan, simulated and judged by its SLO."""

from math import sqrt
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.planner.replay.cells import RegionCell
from argosy.policies.admission.work import TIERS
from argosy.simulator.engine import itl_counts
from argosy.simulator.outcomes import DONE
from argosy.simulator.serving import Case, Run, slos_s
from argosy.simulator.tally import share_within
from argosy.simulator.traces.window import Window, part

MINUTES = 5.0  # of an hour that are counted
WARM_S = 180.0  # before them: batches and caches fill
_TTFT_SHARE, _ITL_SHARE = 0.95, 0.99
_DEVIATIONS = 2.0  # by which chance may miss a share
_REQUESTS_MIN = 100  # fewer say nothing about a 95th percentile
_REQUESTS_MAX = 40_000  # of a cell: more say nothing more

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Judged = Literal["kept", "broken", "nothing promised", "batch alone", "too few"]


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How much is simulated."""

    minutes: float = MINUTES
    warm_s: float = WARM_S
    with_interval: bool = True  # with the ends of the step times' 80 % interval as well
    with_losses: bool = True  # those that are to be survived
    cells_max: int = 40  # of a slot: the largest, of each model at least one
    seed: int = 0


class Counted:
    """Of one cell: what became of the requests that came after it was warm."""

    def __init__(self, slos: Floats, begin_s: float) -> None:
        self._slos, self._begin_s = slos, begin_s
        self.requests: Counts = np.zeros(len(TIERS), np.int64)
        self.met: Counts = np.zeros(len(TIERS), np.int64)
        self.in_time: Counts = np.zeros(len(TIERS), np.int64)
        self.itl: Counts | None = None

    def absorb(self, results: NDArray[np.void]) -> None:
        """As `Tally.absorb`: a request meets its SLO by its own TTFT and TPOT."""
        own = results[results["arrival_s"] >= self._begin_s]
        tier, tokens = own["tier"].astype(np.int64), own["output_tokens"].astype(np.int64)
        tpot_s = (own["end_s"] - own["arrival_s"] - own["ttft_s"]) / np.maximum(tokens - 1, 1)
        is_in_time = (own["outcome"] == DONE) & (own["ttft_s"] <= self._slos[0])
        is_met = is_in_time & ((tokens <= 1) | (tpot_s <= self._slos[1]))
        np.add.at(self.requests, tier, 1)
        np.add.at(self.in_time, tier[is_in_time], 1)
        np.add.at(self.met, tier[is_met], 1)


def ran(cell: RegionCell, how: How, case: Case, *, share: float = 1.0) -> Counted:
    """The cell, simulated with a share of its requests."""
    seconds = min(how.minutes * 60.0, _REQUESTS_MAX / (cell.requests_per_s * share))
    trace = cell.trace(seed=how.seed, until_s=how.warm_s + seconds, share=share)
    run = Run(cell.scenario, trace, case=case, seed=how.seed)
    counted = Counted(slos_s(cell.scenario)[0], how.warm_s)
    run.tally = counted  # type: ignore[assignment]  # all that is asked of it
    before: Counts | None = None
    for window in trace.windows():
        early, late = _parted(window, how.warm_s)
        run.feed(early)
        if late.rows and before is None:
            before = _itl(run)
        run.feed(late)
    run.finish()
    counted.itl = _itl(run) if before is None else _itl(run) - before
    return counted


def _parted(window: Window, at_s: float) -> tuple[Window, Window]:
    cut = int(window.arrival_s.searchsorted(at_s))
    return part(window, 0, cut), part(window, cut, window.rows)


def _itl(run: Run) -> Counts:
    groups = range(len(run.scenario.groups))
    return np.sum([itl_counts(run.sim.engine, place) for place in groups], axis=0)


class Verdict(NamedTuple):
    """Of one cell; None: no request, or no gap."""

    judged: Judged
    ttft_in_time_share: float | None
    itl_in_time_share: float | None


def judged_of(cell: RegionCell, counted: Counted) -> Verdict:
    """As the SLO is promised: 95 % of first tokens and 99 % of the gaps in time, chance aside.

    Batch has no promise; its gaps are among the cell's all the same. Gaps of one answer are alike,
    so chance is that of as many draws as there are requests.
    """
    slo = cell.scenario.slos[0]
    ranks = [rank for rank, tier in enumerate(TIERS) if tier != "batch"]
    requests, everybody = int(counted.requests[ranks].sum()), int(counted.requests.sum())
    ttft = float(counted.in_time[ranks].sum() / requests) if requests else None
    itl = None
    if slo.itl_s_p99 is not None and counted.itl is not None and counted.itl.sum():
        itl = share_within(counted.itl, slo.itl_s_p99)
    if slo.ttft_s_p95 is None and slo.itl_s_p99 is None:
        return Verdict("nothing promised", ttft, itl)
    if ttft is None and everybody:
        return Verdict("batch alone", ttft, itl)
    if ttft is None or requests < _REQUESTS_MIN:
        return Verdict("too few", ttft, itl)
    is_broken = ttft < _least(_TTFT_SHARE, requests)
    is_broken |= itl is not None and itl < _least(_ITL_SHARE, everybody)
    return Verdict("broken" if is_broken else "kept", ttft, itl)


def _least(share: float, draws: int) -> float:
    return share - _DEVIATIONS * sqrt(share * (1 - share) / draws)
