"""The interval between two checkpoints that loses the least time. Pure.

Daly 2006, "A higher order estimate of the optimum checkpoint interval for restart dumps", which
becomes Young 1974's sqrt(2 * cost * MTTF) where a checkpoint costs little.
"""

import math

import msgspec


class CheckpointSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds, and what is believed before anything has failed."""

    interval_s_min: float = 10.0
    interval_s_max: float = 3600.0
    mttf_s_believed: float = 24 * 3600.0  # of one island or of whatever fails as one


class CheckpointView(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured so far."""

    cost_s: float | None  # training stood still for it, the last time; None: none was written yet
    observed_s: float  # for how long failures were counted
    failures: int


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Begin the next checkpoint so long after the last one ended."""

    interval_s: float
    reason: str


def interval(view: CheckpointView, settings: CheckpointSettings | None = None) -> Interval:
    """The best interval for what is known; within the bounds.

    The mean time to a failure is what was observed, begun with one failure at the believed mean:
    a run that has seen nothing yet is as careful as it was told to be.
    """
    settings = settings or CheckpointSettings()
    if view.cost_s is None:
        return Interval(
            interval_s=settings.interval_s_min, reason="the first one, to learn what it costs"
        )
    mttf_s = (view.observed_s + settings.mttf_s_believed) / (view.failures + 1)
    best_s = _best_s(view.cost_s, mttf_s)
    bounded_s = min(max(best_s, settings.interval_s_min), settings.interval_s_max)
    reason = f"costs {view.cost_s:.3g} s, a failure every {mttf_s:.3g} s: best is {best_s:.3g} s"
    if bounded_s != best_s:
        reason += f", bounded to {bounded_s:.3g} s"
    return Interval(interval_s=bounded_s, reason=reason)


def _best_s(cost_s: float, mttf_s: float) -> float:
    """Daly's equation 37."""
    if cost_s >= 2 * mttf_s:
        return mttf_s
    ratio = cost_s / (2 * mttf_s)
    young_s = math.sqrt(2 * cost_s * mttf_s)
    return young_s * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost_s
