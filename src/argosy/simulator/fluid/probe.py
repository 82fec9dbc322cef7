"""Measures a cell with the exact simulator: a staircase of rates, each stair once it has settled.

One simulation climbs all stairs, so that caches, learned rates and queues are as they come to be.
A stair is left once as many requests are in the cell as some time before, then measured, then held
for as long as an answer takes, so that what was measured ends under the same load.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from argosy.policies.admission.work import TIERS
from argosy.simulator import driver
from argosy.simulator.engine import account, itl_counts
from argosy.simulator.fluid.cell import Cell
from argosy.simulator.fluid.surface import (
    ACCOUNT_FIELDS,
    LOADS,
    Point,
    Surface,
    enlarged,
    surface_of,
)
from argosy.simulator.outcomes import DONE
from argosy.simulator.serving import Case, Run
from argosy.simulator.tally import Tally
from argosy.simulator.traces.demand import Stream, demand
from argosy.simulator.traces.window import Trace, Window, part

ROWS_MEASURED = 6_000  # requests of a stair, at least
_ROWS_OF_IDLE = 2_000  # where a cell is nearly idle, and all requests are alike
_ROWS_S_MAX, _ROWS_MIN = 20_000.0, 200  # fewer rows where they would take longer than that
_WINDOW_ROWS = 8_192
_SETTLE_S_MIN, _SETTLE_S_MAX = 12.0, 900.0
_CHUNK_S_MIN, _CHUNK_S_MAX = 1.0, 20.0
_MEASURE_S_MIN, _MEASURE_S_MAX = 15.0, 120.0  # beyond what the rows take
_FILL_S_MAX = 900.0
_GUESSES_MAX = 8
_BURST_MAX = 25.0
_LOOKS = 64  # at how many requests there are, while a stair is measured
_CHAT_ROWS_MAX = 100_000  # until caches are as they will be, if that is sooner than a mean chat
_ONCE = 1e9  # s, one bucket of a tally's time

Floats = NDArray[np.float64]
Told = Callable[[str], None]


class Asked(NamedTuple):
    """What comes to a cell: kinds of requests, and each one's share."""

    streams: tuple[Stream, ...]
    shares: tuple[float, ...]
    block_tokens: int | None

    def trace(self, requests_per_s: float, seed: int) -> Trace:
        """Without an end."""
        streams = [
            replace(stream, rate=requests_per_s * max(share, 1e-12))
            for stream, share in zip(self.streams, self.shares, strict=True)
        ]
        return demand(streams, seed=seed, block_tokens=self.block_tokens)

    @property
    def burst(self) -> float:
        """Bursts are as chance with so many times fewer requests; more must be seen."""
        return min(_BURST_MAX, max(max(stream.cv, 1.0) ** 2 for stream in self.streams))

    @property
    def chat_s(self) -> float:
        """How long a mean chat goes on."""
        chats = [stream.chats for stream in self.streams if stream.chats is not None]
        return max(((chat.turns_mean - 1.0) * chat.pause_s_mean for chat in chats), default=0.0)


class Cells(NamedTuple):
    """The same replicas as two cells: while slots are free, and when none is."""

    free: Cell
    crowded: Cell

    @property
    def times(self) -> Floats:
        """By group, replicas of the free cell for one of the crowded."""
        return np.array(self.crowded.group_times) / np.array(self.free.group_times)


def measure(
    cells: Cells,
    asked: Asked,
    *,
    requests_per_s_max: float,
    case: Case = "expected",
    seed: int = 0,
    told: Told | None = None,
) -> Surface:
    """The free cell's surface up to at least this rate; beyond its slots, the crowded cell's."""
    times = cells.crowded.times / cells.free.times
    capacity = capacity_per_s(cells.crowded, asked, case=case, seed=seed)
    last = next(
        (place for place, load in enumerate(LOADS) if load * capacity * times > requests_per_s_max),
        len(LOADS) - 1,
    )
    probe = _Probe(cells.free, asked, case=case, seed=seed)
    points: list[Point] = []
    is_crowded = False
    for place, load in enumerate(LOADS[: last + 1]):
        if told is not None:
            model = cells.free.scenario.models[0]
            told(f"measuring {model}: {load:g} of what it can take ({place + 1} of {last + 1})")
        if not is_crowded and points and points[-1].queued >= 1.0:
            is_crowded = True
            probe = _Probe(cells.crowded, asked, case=case, seed=seed)
        if is_crowded:
            points.append(enlarged(probe.climb(load * capacity), times, cells.times))
        else:
            points.append(probe.climb(load * capacity * times))
    return surface_of(points)


def capacity_per_s(cell: Cell, asked: Asked, *, case: Case, seed: int) -> float:
    """About the rate from which on requests wait at the gateway.

    Beyond it a cell finishes more the more it is given, for the largest requests are shed first:
    a line through two such rates is followed back to where all that comes is finished.
    """
    high = 2.0 * _guess_per_s(cell, asked, seed)
    for _ in range(_GUESSES_MAX):
        probe = _Probe(cell, asked, case=case, seed=seed)
        most = probe.overload(high)
        if most is not None:
            break
        high *= 3.0
    else:  # nothing that comes takes a slot: none of it fits the context, say
        return high
    less = probe.overload(most) if most < 0.95 * high else None
    if less is None:
        return most
    slope = min(0.8, max(0.0, (most - less) / (high - most)))
    return (less - slope * most) / (1.0 - slope)


def _guess_per_s(cell: Cell, asked: Asked, seed: int) -> float:
    """From the step times: full batches of mean requests."""
    window = next(asked.trace(1.0, seed).windows(512))
    prompt, output = float(window.prompt_tokens.mean()), float(window.output_tokens.mean())
    total = 0.0
    for group in cell.scenario.groups:
        step = group.perf.step_time
        batch = min(group.engine.requests_max, group.perf.kv_tokens / (prompt + output))
        decode_s = step.step_s(tokens=batch, contexts=batch * (prompt + output / 2)) / batch
        prefill_s = step.linear_s(4096) / 4096 * prompt + step.pair_s * prompt * prompt / 2
        total += group.replicas / (output * decode_s + prefill_s)
    return total


class _Stair:
    """A tally of those that arrive in one stretch of time."""

    def __init__(self, slos_s: Floats, begin_s: float, end_s: float) -> None:
        self.begin_s, self.end_s = begin_s, end_s
        self.tally = Tally(slos_s, bucket_s=_ONCE)
        self.in_time = np.zeros(len(TIERS))
        self._ttft_s = float(slos_s[0, 0])

    def absorb(self, results: NDArray[np.void]) -> None:
        arrival_s = results["arrival_s"]
        own = results[(arrival_s >= self.begin_s) & (arrival_s < self.end_s)]
        self.tally.absorb(own)
        is_in_time = (own["outcome"] == DONE) & (own["ttft_s"] <= self._ttft_s)
        np.add.at(self.in_time, own["tier"][is_in_time].astype(np.int64), 1.0)


class _Stairs:
    """Gives results to the stair in which they arrived; the others are forgotten."""

    def __init__(self) -> None:
        self.open: list[_Stair] = []

    def absorb(self, results: NDArray[np.void]) -> None:
        for stair in self.open:
            stair.absorb(results)


class _Snapshot(NamedTuple):
    at_s: float
    accounts: Floats  # [group, field]
    itl: Floats  # [group, bin]


class _Probe:
    """One simulation of a cell, climbing."""

    def __init__(self, cell: Cell, asked: Asked, *, case: Case, seed: int) -> None:
        self._cell, self._asked, self._seed = cell, asked, seed
        self._run = Run(cell.scenario, asked.trace(1.0, seed), case=case, seed=seed)
        self._slos_s = self._run.tally.slos_s
        self._stairs = _Stairs()
        self._run.tally = self._stairs  # type: ignore[assignment]  # all that is asked of it
        self._sim = self._run.sim
        self._now_s, self._stair, self._served_per_s = 0.0, 0, 0.0
        self._standing: list[Floats] = []
        self._alive: list[tuple[float, float]] = []

    def climb(self, requests_per_s: float) -> Point:
        """Settle at this rate, and measure."""
        self._begin(requests_per_s)
        self._settle(requests_per_s)
        residence_s = self._alive_now / max(self._served_per_s, 1e-9)
        rows = ROWS_MEASURED if self._alive_now > 8 else _ROWS_OF_IDLE
        rows = max(rows * self._asked.burst, 4 * self._queued_now)
        rows_s = min(rows / requests_per_s, max(_ROWS_S_MAX, _ROWS_MIN / requests_per_s))
        measure_s = max(_MEASURE_S_MIN, rows_s, min(_MEASURE_S_MAX, 1.5 * residence_s))
        stair = _Stair(self._slos_s, self._now_s, self._now_s + measure_s)
        self._stairs.open = [stair]
        begun = self._snapshot()
        self._standing, self._alive = [], []
        for at_s in self._now_s + np.arange(1, _LOOKS + 1) * (measure_s / _LOOKS):
            self._feed_until(float(at_s))
            self._note()
        ended = self._snapshot()
        hold_s = 1.5 * self._alive_now / max(self._finished_per_s(begun, ended), 1e-9)
        self._feed_until(self._now_s + min(hold_s, _FILL_S_MAX))
        return self._point(stair, requests_per_s, begun, ended)

    def overload(self, requests_per_s: float) -> float | None:
        """Requests finished in a second when all slots are taken; None where they never are."""
        self._begin(requests_per_s)
        until_s = self._now_s + _FILL_S_MAX
        while self._queued_now == 0:
            if self._now_s >= until_s:
                return None
            self._feed_until(self._now_s + 2.0)
        begun = self._snapshot()
        self._feed_until(self._now_s + 10.0)
        residence_s = self._alive_now / max(self._finished_per_s(begun, self._snapshot()), 1e-9)
        self._feed_until(self._now_s + min(residence_s, _FILL_S_MAX / 3))
        begun = self._snapshot()
        self._feed_until(self._now_s + min(max(10.0, 2 * residence_s), _FILL_S_MAX / 2))
        return self._finished_per_s(begun, self._snapshot())

    def _settle(self, requests_per_s: float) -> None:
        chat_s = min(self._asked.chat_s, _CHAT_ROWS_MAX / requests_per_s)
        least_s = max(_SETTLE_S_MIN, chat_s)
        begun_s, seen = self._now_s, [float(self._alive_now)]
        begun = self._snapshot()
        while self._now_s - begun_s < _SETTLE_S_MAX:
            served_per_s = self._served_per_s or requests_per_s
            residence_s = max(self._alive_now, 1) / min(served_per_s, requests_per_s)
            chunk_s = min(_CHUNK_S_MAX, max(_CHUNK_S_MIN, residence_s / 2))
            parts = []
            for _ in range(4):
                self._feed_until(self._now_s + chunk_s / 4)
                parts.append(self._alive_now)
            seen.append(float(np.mean(parts)))
            is_long = self._now_s - begun_s >= max(least_s, 2 * residence_s)
            ended = self._snapshot()
            self._served_per_s = self._finished_per_s(begun, ended)
            if is_long and len(seen) > 8 and _is_level(seen, is_queue=self._queued_now > 0):
                return
            if len(seen) % 3 == 0:
                begun = ended

    # Feeding.

    def _begin(self, requests_per_s: float) -> None:
        self._stair += 1
        trace = self._asked.trace(requests_per_s, self._seed + 7919 * self._stair)
        self._windows = _shifted(trace.windows(_WINDOW_ROWS), self._now_s)
        self._held: Window | None = None

    def _feed_until(self, until_s: float) -> None:
        while True:
            if self._held is None:
                self._held = next(self._windows)
            held = self._held
            rows = int(np.searchsorted(held.arrival_s, until_s))
            if rows:
                self._run.feed(part(held, 0, rows))
            if rows < held.rows:
                self._held = part(held, rows, held.rows)
                break
            self._held = None
        driver.run_until(self._sim, until_s)
        self._run.read_results()
        self._now_s = until_s

    # Looking.

    @property
    def _alive_now(self) -> int:
        return int(self._sim.book.marks["alive"][0])

    @property
    def _queued_now(self) -> int:
        return int(self._sim.gateway.queues.lines["waiting"][0])

    def _snapshot(self) -> _Snapshot:
        engine = self._sim.engine
        groups = range(len(self._cell.scenario.groups))
        rows = []
        for place in groups:
            did = account(engine, engine.replicas["group"] == place)
            rows.append([float(getattr(did, field)) for field in ACCOUNT_FIELDS])
        itl = [itl_counts(engine, place).astype(np.float64) for place in groups]
        return _Snapshot(self._now_s, np.array(rows), np.array(itl))

    def _finished_per_s(self, begun: _Snapshot, ended: _Snapshot) -> float:
        column = ACCOUNT_FIELDS.index("finished")
        finished = float((ended.accounts - begun.accounts)[:, column].sum())
        return finished / (ended.at_s - begun.at_s)

    def _note(self) -> None:
        it, groups = self._sim.engine.replicas, len(self._cell.scenario.groups)
        columns = (it["decoding"] + it["reading"], it["waiting"], it["blocks"] - it["blocks_free"])
        sums = [np.bincount(it["group"], weights=column, minlength=groups) for column in columns]
        self._standing.append(np.stack(sums, axis=1).astype(np.float64))
        self._alive.append((float(self._alive_now), float(self._queued_now)))

    def _point(
        self, stair: _Stair, requests_per_s: float, begun: _Snapshot, ended: _Snapshot
    ) -> Point:
        tally, seconds = stair.tally, ended.at_s - begun.at_s
        outcomes = tally.outcomes[0].astype(np.float64)
        came = outcomes.sum(axis=1)

        def per_request(sums: NDArray[np.int64] | Floats) -> Floats:
            values = sums.astype(np.float64)
            shape = (-1,) + (1,) * (values.ndim - 1)
            shares = values / np.maximum(came, 1.0).reshape(shape)
            everyone = values.sum(axis=0) / max(float(came.sum()), 1.0)
            shares[came == 0] = everyone  # a tier that did not come is as all are
            return shares

        return Point(
            requests_per_s=requests_per_s,
            in_system=float(np.mean([alive for alive, _ in self._alive])),
            queued=float(np.mean([queued for _, queued in self._alive])),
            outcomes=per_request(outcomes),
            met=per_request(tally.met[0]),
            in_time=per_request(stair.in_time),
            tokens_in=per_request(tally.tokens_in[0]),
            tokens_out=per_request(tally.tokens_out[0]),
            waited_s=per_request(tally.waited_s[0]),
            ttft=per_request(tally.ttft[0]),
            tpot=per_request(tally.tpot[0]),
            accounts=(ended.accounts - begun.accounts) / seconds,
            standing=np.mean(self._standing, axis=0),
            itl=(ended.itl - begun.itl) / seconds,
            accepted_share=float(outcomes[:, DONE].sum() / max(1.0, came.sum())),
        )


def _is_level(seen: Sequence[float], *, is_queue: bool) -> bool:
    """Not more of late than before, chance aside; a queue may fill slowly."""
    late, before = float(np.mean(seen[-4:])), float(np.mean(seen[-8:-4]))
    share, deviations = (0.01, 0.3) if is_queue else (0.02, 0.7)
    return abs(late - before) <= share * before + deviations * np.sqrt(max(before, 1.0)) + 0.5


def _shifted(windows: Iterator[Window], by_s: float) -> Iterator[Window]:
    for window in windows:
        yield window._replace(arrival_s=window.arrival_s + by_s)
