"""What came out, beside what was measured: errors of means, medians and p95, as a table."""

from typing import NamedTuple

import numpy as np

from argosy.perf.refusal import DoesNotFit
from argosy.perf.replica import ReplicaModel, replica
from bench.replays.fitted import Fit, fitted, physics_of, step_time
from bench.replays.recorded import Floats, Recorded
from bench.replays.replayed import Replayed, Replica, replayed


class Compared(NamedTuple):
    """One of TTFT and TPOT, in seconds: simulated, measured."""

    mean: tuple[float, float]
    median: tuple[float, float]
    p95: tuple[float, float]
    each: float  # median over requests of |simulated / measured - 1|

    @property
    def error(self) -> float:
        """Of the mean, as a share of the measured."""
        return self.mean[0] / self.mean[1] - 1.0


class Stage(NamedTuple):
    """A run answered in one way, over the requests that judge it."""

    replayed: Replayed
    ttft: Compared
    tpot: Compared


def as_shipped(recorded: Recorded) -> tuple[ReplicaModel, Stage]:
    """Stage a: nothing of the run is known but its settings, lengths and arrivals.

    Without the shipped `overhead_s`: these runs had no HTTP and no tokenizer before the engine.
    """
    run = recorded.run
    model = replica(run.model, run.chip, recorded.layout, recorded.settings)
    assert not isinstance(model, DoesNotFit), model
    told = replayed(recorded, Replica(model.step_time, model.kv_tokens))
    return model, stage(recorded, told)


def after_first(recorded: Recorded, first: int) -> tuple[Fit, Stage]:
    """Stage b: calibrated on the first requests, judged by the others."""
    kv_tokens = kv_tokens_of(recorded)
    fit = fitted(recorded, kv_tokens, first)
    return fit, stage(recorded, with_fit(recorded, fit, kv_tokens), first)


def with_fit(recorded: Recorded, fit: Fit, kv_tokens: int) -> Replayed:
    """A run replayed with factors, its own or another run's."""
    times = step_time(physics_of(recorded), fit)
    return replayed(recorded, Replica(times, kv_tokens, fit.overhead_s))


def kv_tokens_of(recorded: Recorded) -> int:
    """As the engine said when it started; else as the model reckons."""
    return recorded.kv_tokens or as_shipped(recorded)[0].kv_tokens


def stage(recorded: Recorded, told: Replayed, first: int = 0) -> Stage:
    """Judged by the requests from the `first` on."""
    times, measured = told.times, recorded.measured
    return Stage(
        replayed=told,
        ttft=_compared(times.ttft_s[first:], measured.ttft_s[first:]),
        tpot=_compared(times.tpot_s[first:], measured.tpot_s[first:]),
    )


def is_inside(model: ReplicaModel, judged: Stage) -> tuple[bool, bool]:
    """Whether the measured means of TTFT and TPOT lie in the answer's 80 % interval."""
    width = model.interval
    ttft, tpot = (one.mean[1] / one.mean[0] for one in (judged.ttft, judged.tpot))
    return (
        width.ttft_low <= ttft <= width.ttft_high,
        width.tpot_low <= tpot <= width.tpot_high,
    )


def _compared(simulated: Floats, measured: Floats) -> Compared:
    both = np.stack([simulated, measured])
    mean, median, p95 = both.mean(axis=1), *np.percentile(both, (50, 95), axis=1)
    return Compared(
        mean=(float(mean[0]), float(mean[1])),
        median=(float(median[0]), float(median[1])),
        p95=(float(p95[0]), float(p95[1])),
        each=float(np.median(np.abs(both[0] / both[1] - 1.0))),
    )
