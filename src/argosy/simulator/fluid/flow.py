"""Demand as a fluid: how many requests of each kind come in each stretch of time.

Memory is that of the stretches and of some thousand lengths, however many requests there are. Of a
recorded trace that names its prompts' blocks, the names are not kept: its prefixes are not shared
here.
"""

import math

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from argosy.fleet.config import Fleet, Tier
from argosy.policies.admission.work import TIERS
from argosy.simulator import demanded
from argosy.simulator.tally import BUCKETS
from argosy.simulator.traces.arrivals import DAY_S, HOUR_S, Diurnal, Rate
from argosy.simulator.traces.demand import Stream
from argosy.simulator.traces.lengths import LengthTable
from argosy.simulator.traces.window import Trace, TraceError, Window

STEP_S_MAX = 20.0
BINS_MAX = 2**18  # of a trace's time; two become one beyond
LENGTHS_MAX = 65_536  # that are kept of a trace
_LENGTHS_OF_WINDOW = 1024
_CV_MAX = 5.0
_SMOOTH_BINS = 60  # over which a trace's rate is called constant, to see its bursts

Floats = NDArray[np.float64]


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """Kinds of requests, and how many of each come when."""

    streams: tuple[Stream, ...]  # their rates are 1
    edges_s: Floats  # [stretches + 1], from 0
    requests: Floats  # [stretches, streams]
    found: str
    block_tokens: int | None

    @property
    def seconds(self) -> float:
        """Of arrivals."""
        return float(self.edges_s[-1])


def bucket_s_of(seconds: float) -> float:
    """The least power of 2 of which `BUCKETS` are as long, with some room for the last answers."""
    return 2.0 ** max(0, math.ceil(math.log2(max(seconds, 1.0) * 1.02 / BUCKETS)))


def step_s_of(seconds: float) -> float:
    """A whole part of a bucket of time."""
    bucket_s = bucket_s_of(seconds)
    return bucket_s / math.ceil(bucket_s / min(STEP_S_MAX, max(0.5, seconds / 600)))


def flow_of_demand(fleet: Fleet, *, until_s: float, from_hour: int = 0, scale: float = 1.0) -> Flow:
    """What `trace_of_demand` draws from, not drawn. TraceError where there is no demand."""
    if not fleet.demand:
        raise TraceError("no streams of demand; give at least one")
    streams = demanded.streams_of_demand(fleet, from_hour=from_hour, scale=scale)
    step_s = step_s_of(until_s)
    edges_s = np.append(np.arange(0.0, until_s - 1e-9, step_s), until_s)
    middles_s, widths_s = (edges_s[1:] + edges_s[:-1]) / 2, np.diff(edges_s)
    counts = [_rates(stream.rate, middles_s) * widths_s for stream in streams]
    shares = any(stream.chats is not None for stream in streams)
    return Flow(
        streams=tuple(replace(stream, rate=1.0) for stream in streams),
        edges_s=edges_s,
        requests=np.stack(counts, axis=1),
        found=f"demand of {len(streams)} streams, as rates",
        block_tokens=demanded.BLOCK_TOKENS if shares else None,
    )


def _rates(rate: Rate, times_s: Floats) -> Floats:
    if isinstance(rate, Diurnal):
        hours = (np.arange(24) + 0.5) * HOUR_S
        return np.interp(times_s, hours, rate.requests_per_s, period=DAY_S)
    assert isinstance(rate, float | int), "demand has no spikes"
    return np.full(times_s.size, float(rate))


def flow_of_trace(trace: Trace, *, scale: float = 1.0, seed: int = 0) -> Flow:
    """A trace, read once: counts by time, lengths to draw from, how bursty each kind is."""
    seen = _Seen(trace, seed)
    for window in trace.windows():
        seen.add(window)
    return seen.flow(scale)


class _Seen:
    """What is remembered of a trace's windows."""

    def __init__(self, trace: Trace, seed: int) -> None:
        self._trace = trace
        self._chance = np.random.default_rng(seed)
        self._width_s, self._last_s = 1.0, 0.0
        self._kinds: dict[tuple[int, int, int, int], int] = {}
        self._counts = np.zeros((1, 1024))
        self._lengths: list[NDArray[np.int64]] = []  # [rows, (kind, prompt, output)]
        self._kept = 0

    def add(self, window: Window) -> None:
        columns = (window.model, window.tier, window.tenant, window.origin)
        found, kind = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        numbers = [self._kinds.setdefault(tuple(row.tolist()), len(self._kinds)) for row in found]
        kinds = np.array(numbers)[kind.reshape(-1)]
        self._last_s = float(window.arrival_s[-1])
        self._reach(self._last_s)
        np.add.at(self._counts, (kinds, (window.arrival_s / self._width_s).astype(np.int64)), 1)
        self._keep(window, kinds)

    def _reach(self, at_s: float) -> None:
        while at_s >= BINS_MAX * self._width_s:
            self._width_s *= 2
            self._counts = self._counts.reshape(self._counts.shape[0], -1, 2).sum(axis=2)
        kinds, bins = self._counts.shape
        wanted = max(bins, 2 ** math.ceil(math.log2(at_s / self._width_s + 2)))
        if wanted > bins or len(self._kinds) > kinds:
            counts = np.zeros((max(kinds, 2 * len(self._kinds)), wanted))
            counts[:kinds, :bins] = self._counts
            self._counts = counts

    def _keep(self, window: Window, kinds: NDArray[np.int64]) -> None:
        count = min(window.rows, _LENGTHS_OF_WINDOW)
        rows = self._chance.choice(window.rows, count, replace=False)
        columns = (kinds[rows], window.prompt_tokens[rows], window.output_tokens[rows])
        self._lengths.append(np.stack(columns, axis=1).astype(np.int64))
        self._kept += count
        if self._kept > LENGTHS_MAX:
            self._lengths = [np.concatenate(self._lengths)[::2]]
            self._kept = len(self._lengths[0])

    def flow(self, scale: float) -> Flow:
        lengths = np.concatenate(self._lengths)
        # Whole bins: a last one cut short would be an endless rate.
        bins = int(self._last_s / self._width_s) + 1
        seconds = bins * self._width_s
        step_s = max(step_s_of(seconds), self._width_s)
        bins_of_step = max(1, round(step_s / self._width_s))
        first = np.arange(0, bins, bins_of_step)
        counts = np.add.reduceat(self._counts[: len(self._kinds), :bins], first, axis=1)
        edges_s = np.append(first * self._width_s, seconds)
        return Flow(
            streams=tuple(self._stream(kind, number, lengths) for kind, number in self._ordered()),
            edges_s=edges_s,
            requests=counts.T * scale,
            found=f"{self._trace.found}, as rates",
            block_tokens=None,
        )

    def _ordered(self) -> list[tuple[tuple[int, int, int, int], int]]:
        return sorted(self._kinds.items(), key=lambda item: item[1])

    def _stream(
        self, kind: tuple[int, int, int, int], number: int, lengths: NDArray[np.int64]
    ) -> Stream:
        model, tier, tenant, origin = kind
        own = lengths[lengths[:, 0] == number]
        drawn = own if len(own) else lengths  # a kind so rare that none of it was kept
        tiers: tuple[Tier, ...] = TIERS
        return Stream(
            rate=1.0,
            cv=self._cv(number),
            lengths=LengthTable(
                prompt_tokens=tuple(drawn[:, 1].tolist()), output_tokens=tuple(drawn[:, 2].tolist())
            ),
            model=self._trace.models[model],
            tenant=self._trace.tenants[tenant],
            tier=tiers[tier],
            origin=self._trace.origins[origin],
        )

    def _cv(self, number: int) -> float:
        """Of gaps that would make counts vary as much within a minute; 1: as chance does."""
        bins = int(self._last_s / self._width_s)
        if self._width_s > 1.0 or bins < 2 * _SMOOTH_BINS:
            return 1.0
        minutes = self._counts[number, : bins - bins % _SMOOTH_BINS].reshape(-1, _SMOOTH_BINS)
        spread = float(minutes.var(axis=1, ddof=1).sum())
        return math.sqrt(min(_CV_MAX**2, max(1.0, spread / max(minutes.mean(axis=1).sum(), 1e-9))))
