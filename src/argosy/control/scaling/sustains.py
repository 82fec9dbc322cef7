"""What one replica of each deployment sustains: given, measured, and corrected by what is seen.

Given: a simulated engine's rates are its configuration's. Measured: by `argosy calibrate --local`,
or by `warmup.measure` when the first replica is ready. Corrected, a minute at a time: a replica
that did more while its answers kept the SLO shows that more is sustained; one whose slots were all
taken, and that did less, that less is. How a prompt's token compares to an answer's stays as
measured.

Where a prompt and an answer token cost 1/p and 1/d seconds of a replica, doing P and D of them a
second takes the share P/p + D/d of its time: above 1, and p and d were too small.
"""

from typing import TYPE_CHECKING

import msgspec

from argosy.control.scaling.signals import ReplicaSignals, Signals
from argosy.fleet.config import Deployment, Fleet, LlamaCppEngine, SimulatedEngine
from argosy.fleet.demand import Slo
from argosy.observability.counts import Histogram
from argosy.policies.autoscaling import Sustains

if TYPE_CHECKING:  # perf loads numba, which `argosy up` must not
    from argosy.perf.local import LocalCalibration, LocalCalibrations

WINDOW_S = 60.0
_MOVED = 0.05  # of what was told, before something else is: all loads are counted in it
_RAISED_MAX = 2.0  # times, by one window
_LOWERED = 0.1  # of the way, by one window: a burst of long waits for clients looks like it too
_SHARE_MIN, _SHARE_MAX = 0.25, 20.0  # of the seed
_DECODE_COST = 8.0  # a token written over one read, where nothing was measured
_TTFT_SHARE, _ITL_SHARE = 0.95, 0.99  # that keep the SLO, where it is kept
_CONTEXT_TOKENS = 512  # of a request that decodes


def given(deployment: Deployment) -> Sustains | None:
    """As the fleet file says; None where it does not."""
    engine = deployment.engine
    if not isinstance(engine, SimulatedEngine):
        return None
    return Sustains(
        prefill_tokens_per_s=engine.prefill_tokens_per_s,
        decode_tokens_per_s=engine.slots * engine.decode_tokens_per_s,
    )


def calibrated(fleet: Fleet, local: "LocalCalibrations") -> dict[str, Sustains]:
    """By deployment, what `argosy calibrate --local` found on this machine."""
    found: dict[str, Sustains] = {}
    for one in fleet.deployments:
        if isinstance(one.engine, LlamaCppEngine):
            known = local.of(one.model, one.engine, one.replicas)
            if known is not None:
                found[one.name] = of_calibration(known)
    return found


def of_calibration(known: "LocalCalibration") -> Sustains:
    """Of steps that read a whole chunk, and of steps that decode in all slots."""
    step, chunk, slots = known.step_time, known.prefill_tokens_max, known.slots
    context = min(_CONTEXT_TOKENS, known.context_tokens)
    read_s = step.step_s(tokens=chunk, pairs=chunk * chunk / 2) * known.slowdown
    decode_s = step.step_s(tokens=slots, contexts=slots * context) * known.slowdown
    return Sustains(
        prefill_tokens_per_s=chunk / read_s,
        decode_tokens_per_s=slots / decode_s,
    )


class Belief(msgspec.Struct, kw_only=True):
    """Of one deployment."""

    seed: Sustains
    now: Sustains
    told: Sustains
    is_fixed: bool = False  # given by the file: nothing is learned


class Window(msgspec.Struct, kw_only=True):
    """What one replica did since."""

    since_s: float
    was_full: bool
    read: int = 0
    written: int = 0
    ttft: Histogram | None = None
    itl: Histogram | None = None


class Learned:
    """Of all deployments. `beliefs` may be stored; the windows begin anew."""

    def __init__(self, beliefs: dict[str, Belief] | None = None) -> None:
        self.beliefs = beliefs or {}
        self._windows: dict[str, Window] = {}  # by replica
        self._before: dict[tuple[str, str], ReplicaSignals] = {}  # by source and replica

    def seed(self, deployment: str, sustains: Sustains, *, is_fixed: bool = False) -> None:
        """Believe this from now on."""
        self.beliefs[deployment] = Belief(
            seed=sustains, now=sustains, told=sustains, is_fixed=is_fixed
        )

    def of(self, deployment: str) -> Sustains | None:
        """What is believed, to 5 %; None where nothing is known."""
        belief = self.beliefs.get(deployment)
        if belief is None:
            return None
        moved = belief.now.decode_tokens_per_s / belief.told.decode_tokens_per_s
        if not 1 - _MOVED <= moved <= 1 + _MOVED:
            belief.told = belief.now
        return belief.told

    def hear(self, signals: Signals) -> None:
        """The replicas' counts of one gateway; `look` sums them up."""
        for name, now in signals.replicas.items():
            before = self._before.get((signals.source, name))
            self._before[signals.source, name] = now
            window = self._windows.get(name)
            if window is None or before is None or now.output_tokens < before.output_tokens:
                continue  # nothing to compare with, or counted anew
            window.read += max(0, now.read_tokens - before.read_tokens)
            window.written += now.output_tokens - before.output_tokens
            window.ttft = _more(window.ttft, now.ttft, before.ttft)
            window.itl = _more(window.itl, now.itl, before.itl)

    def look(self, now_s: float, replica: str, deployment: str, *, is_full: bool, slo: Slo) -> None:
        """At a ready replica, now and then; what it did counts when its window has ended."""
        window = self._windows.get(replica)
        if window is None:
            self._windows[replica] = Window(since_s=now_s, was_full=is_full)
        elif now_s - window.since_s >= WINDOW_S:
            self._learn(deployment, window, now_s - window.since_s, is_full=is_full, slo=slo)
            self._windows[replica] = Window(since_s=now_s, was_full=is_full)

    def forget(self, replicas: set[str]) -> None:
        """All but these are no longer ready: what they do then says nothing."""
        for name in [name for name in self._windows if name not in replicas]:
            del self._windows[name]
        for key in [key for key in self._before if key[1] not in replicas]:
            del self._before[key]

    def _learn(
        self, deployment: str, window: Window, seconds: float, *, is_full: bool, slo: Slo
    ) -> None:
        belief, was_full = self.beliefs.get(deployment), is_full and window.was_full
        read, written = window.read / seconds, window.written / seconds
        has_kept = _has_kept(window, slo)
        if belief is None:
            if was_full and written > 0:
                decode = read / _DECODE_COST + written
                self.seed(
                    deployment,
                    Sustains(
                        prefill_tokens_per_s=_DECODE_COST * decode, decode_tokens_per_s=decode
                    ),
                )
            return
        if belief.is_fixed:
            return
        now = belief.now
        share = read / now.prefill_tokens_per_s + written / now.decode_tokens_per_s
        if share > 1.0 and has_kept:
            belief.now = _times(belief, min(share, _RAISED_MAX))
        elif share < 1.0 and was_full:
            belief.now = _times(belief, 1.0 - _LOWERED * (1.0 - share))


def _times(belief: Belief, factor: float) -> Sustains:
    now, seed = belief.now, belief.seed
    share = factor * now.decode_tokens_per_s / seed.decode_tokens_per_s
    share = min(_SHARE_MAX, max(_SHARE_MIN, share))
    return Sustains(
        prefill_tokens_per_s=share * seed.prefill_tokens_per_s,
        decode_tokens_per_s=share * seed.decode_tokens_per_s,
    )


def _has_kept(window: Window, slo: Slo) -> bool:
    for seen, limit_s, least in (
        (window.ttft, slo.ttft_s_p95, _TTFT_SHARE),
        (window.itl, slo.itl_s_p99, _ITL_SHARE),
    ):
        if limit_s is not None and seen is not None and share_within(seen, limit_s) < least:
            return False
    return True


def share_within(seen: Histogram, limit_s: float) -> float:
    """The share that was at most so long; within a bucket, evenly. 1 of nothing."""
    total, within, low_s = sum(seen.counts), 0.0, 0.0
    for bound_s, count in zip(seen.bounds, seen.counts, strict=False):
        if limit_s >= bound_s:
            within += count
        elif limit_s > low_s:
            within += count * (limit_s - low_s) / (bound_s - low_s)
        low_s = bound_s
    return within / total if total else 1.0


def _more(
    sums: Histogram | None, now: Histogram | None, before: Histogram | None
) -> Histogram | None:
    """What came between two readings, on top."""
    if now is None:
        return sums
    old = [0] * len(now.counts) if before is None else before.counts
    came = [max(0, a - b) for a, b in zip(now.counts, old, strict=True)]
    whole = sums or Histogram.of(now.bounds)
    whole.add(Histogram(now.bounds, came))
    return whole
