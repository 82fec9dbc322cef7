"""What gateways tell of replicas, in windows: differences of counts that only grow. Pure.

All gateways together; each one's counts are taken as rates over its own time between two reports,
so that one that reports seldom, late or twice is neither doubled nor lost. Pace is of streams: the
gaps between tokens add up to the time that requests ran, so that `running_mean` and `tokens_out`
are of the same requests. Whole answers count for errors alone.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from argosy.control.scaling import Signals
from argosy.control.scaling.signals import ReplicaSignals
from argosy.observability.counts import Histogram

_NOTHING = ReplicaSignals()
_FORGET_S = 600.0  # a gateway that said nothing for so long


class Windowed(msgspec.Struct, frozen=True, kw_only=True):
    """One replica in one window."""

    running_mean: float = 0.0  # streams between their first token and their last
    in_flight_mean: float = 0.0
    tokens_out: int = 0  # of these streams
    first_tokens: int = 0
    ttft_s_p50: float | None = None
    requests_ended: int = 0  # well, or by its fault
    requests_failed: int = 0  # by its fault


class Windows:
    """Of all gateways."""

    def __init__(self, now_s: float) -> None:
        self.began_s = now_s  # of the window that runs
        self.served_s: dict[str, float] = {}  # when an answer's bytes were counted last
        self._began: dict[str, Signals] = {}  # by gateway, at the window's begin
        self._last: dict[str, Signals] = {}
        self._looks = 0
        self._in_flight: Counter[str] = Counter()  # summed over the looks

    def hear(self, signals: Iterable[Signals]) -> None:
        """The newest word of each gateway, as often as it is asked for."""
        self._looks += 1
        for one in signals:
            for name, told in one.replicas.items():
                self._in_flight[name] += told.in_flight
            before = self._last.get(one.source)
            if before is None:
                self._began[one.source] = one
            elif one.at_s <= before.at_s:
                continue
            else:
                self._witness(one, before)
            self._last[one.source] = one

    def _witness(self, one: Signals, before: Signals) -> None:
        for name, told in one.replicas.items():
            if _answers(told) > _answers(before.replicas.get(name, _NOTHING)):
                self.served_s[name] = max(self.served_s.get(name, 0.0), one.at_s)

    def close(self, now_s: float) -> dict[str, Windowed]:
        """What was seen of each replica since `began_s`; the next window begins."""
        window_s = max(1e-3, now_s - self.began_s)
        seen: dict[str, Windowed] = {}
        ttft: dict[str, Histogram] = {}
        for source, last in self._last.items():
            began = self._began.get(source, last)
            if last.at_s <= began.at_s:
                continue
            by = window_s / (last.at_s - began.at_s)
            for name, told in last.replicas.items():
                before = began.replicas.get(name, _NOTHING)
                _add_up(seen, name, _Told(now=told, before=before, by=by), window_s=window_s)
                _add_first(ttft, name, told, before)
        looks = max(1, self._looks)
        closed = {
            name: replace(
                one,
                in_flight_mean=self._in_flight[name] / looks,
                ttft_s_p50=ttft[name].quantile(0.5) if name in ttft else None,
            )
            for name, one in seen.items()
        }
        self._begin(now_s)
        return closed

    def _begin(self, now_s: float) -> None:
        old_s = now_s - _FORGET_S
        self._last = {source: one for source, one in self._last.items() if one.at_s > old_s}
        self.served_s = {name: at_s for name, at_s in self.served_s.items() if at_s > old_s}
        self.began_s, self._began = now_s, dict(self._last)
        self._looks = 0
        self._in_flight.clear()


def _answers(told: ReplicaSignals) -> int:
    """Grows with each token of a stream, and with each whole answer."""
    tokens = sum(told.itl.counts) if told.itl is not None else 0
    first = sum(told.ttft.counts) if told.ttft is not None else 0
    return tokens + first + told.finished


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """By one gateway of one replica."""

    now: ReplicaSignals
    before: ReplicaSignals
    by: float  # to make what came between as much as came in the window


def _add_up(seen: dict[str, Windowed], name: str, one: _Told, *, window_s: float) -> None:
    """Nothing where a gateway counts anew: its next window is whole."""
    told, before, by = one.now, one.before, one.by
    finished, failed = told.finished - before.finished, told.failed - before.failed
    if finished < 0 or failed < 0:
        return
    gaps = None if told.itl is None else told.itl.since(before.itl)
    first = None if told.ttft is None else told.ttft.since(before.ttft)
    old = seen.get(name, Windowed())
    seen[name] = Windowed(
        running_mean=old.running_mean + (0.0 if gaps is None else gaps.total * by / window_s),
        tokens_out=old.tokens_out + (0 if gaps is None else round(sum(gaps.counts) * by)),
        first_tokens=old.first_tokens + (0 if first is None else sum(first.counts)),
        requests_ended=old.requests_ended + finished + failed,
        requests_failed=old.requests_failed + failed,
    )


def _add_first(
    ttft: dict[str, Histogram], name: str, told: ReplicaSignals, before: ReplicaSignals
) -> None:
    first = None if told.ttft is None else told.ttft.since(before.ttft)
    if first is not None:
        ttft.setdefault(name, Histogram.of(first.bounds)).add(first)
