"""Asks: a load generator of uvloop Protocols, closed loop or at a rate, that checks each answer.

An answer counts when its status is 200 and it is whole; a stream when every token came and `[DONE]`
after them. Whatever else happens is an error with a name. Ends by itself: `run` takes the window's
length, and what is still under way then has `_DRAIN_S_MAX` more.
"""

import asyncio
import contextlib
from array import array
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from time import perf_counter

from bench.gateway.asks import DONE, TOKEN, bodies, request
from bench.gateway.scenarios import Scenario

_DRAIN_S_MAX = 8.0
_AFTER_ERROR_S = 0.05  # a gateway that refuses everything is not asked in a hot loop
_LAST_CHUNK = b"0\r\n\r\n"
_KEPT_BYTES = 32  # of the data before: what was torn is found all the same
_STALL_PACES = 10


@dataclass
class Tally:
    """What was seen in the window; errors of the whole run."""

    requests: int = 0
    events: int = 0
    stalls: int = 0  # gaps of more than ten paces
    latency_s: array = field(default_factory=lambda: array("d"))
    ttft_s: array = field(default_factory=lambda: array("d"))
    gap_s: array = field(default_factory=lambda: array("d"))
    errors: Counter = field(default_factory=Counter)

    def open_window(self) -> None:
        """Forget the warm-up, but not its errors."""
        self.requests = self.events = self.stalls = 0
        for series in (self.latency_s, self.ttft_s, self.gap_s):
            del series[:]


class Asker(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self, tally: Tally, scenario: Scenario, is_free: Callable[["Asker"], None]):
        self._loop = asyncio.get_running_loop()
        self._tally = tally
        self._events = scenario.events
        self._stall_s = scenario.pace_s * _STALL_PACES or float("inf")
        self._is_free = is_free
        self._transport: asyncio.Transport | None = None
        self._is_busy = False
        self.is_lost = False

    def ask(self, payload: bytes, at_s: float) -> None:
        """Send; `at_s` is when it was meant to be sent, by `perf_counter`."""
        self._is_busy, self._has_head = True, False
        self._at_s = self._last_s = at_s
        self._tokens, self._kept, self._missing = 0, b"", 0
        self._transport.write(payload)

    def abort(self) -> None:
        self._is_busy = False
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_busy(self) -> bool:
        """True while an answer is awaited."""
        return self._is_busy

    def connection_made(self, transport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost, self._transport = True, None
        if self._is_busy:
            self._end("connection lost")
        else:
            self._is_free(self)

    def data_received(self, data: bytes) -> None:
        if not self._is_busy:
            return
        if not self._has_head:
            data = self._kept + data
            head, found, body = data.partition(b"\r\n\r\n")
            if not found:
                self._kept = data
                return
            self._read_head(head)
            data, self._kept = body, b""
        if self._events is None or not self._is_ok:
            self._whole(data)
        else:
            self._stream(data)

    def _read_head(self, head: bytes) -> None:
        self._has_head = True
        self._status = head[9:12].decode()
        self._is_ok = self._status == "200"
        _, found, rest = head.lower().partition(b"\r\ncontent-length:")
        self._missing = int(rest.partition(b"\r\n")[0]) if found else -1

    def _whole(self, data: bytes) -> None:
        if self._missing >= 0:
            self._missing -= len(data)
            is_over = self._missing <= 0
        else:
            self._kept = (self._kept + data)[-len(_LAST_CHUNK) :]
            is_over = self._kept == _LAST_CHUNK
        if is_over:
            self._end(None if self._is_ok else f"status {self._status}")

    def _stream(self, data: bytes) -> None:
        kept = self._kept
        seen = kept + data
        count = seen.count(TOKEN) - kept.count(TOKEN)
        self._kept = seen[-_KEPT_BYTES:]
        if count:
            self._count(count)
        if seen.endswith(_LAST_CHUNK):
            whole = self._tokens == self._events and DONE in seen
            self._end(None if whole else f"{self._tokens} of {self._events} tokens")

    def _count(self, count: int) -> None:
        now_s, tally = perf_counter(), self._tally  # the loop's time is of milliseconds
        if not self._tokens:
            tally.ttft_s.append(now_s - self._at_s)
        else:
            gap_s = now_s - self._last_s
            tally.gap_s.append(gap_s)
            tally.stalls += gap_s > self._stall_s
        self._last_s = now_s
        self._tokens += count
        tally.events += count

    def _end(self, error: str | None) -> None:
        self._is_busy = False
        if error is None:
            self._tally.requests += 1
            self._tally.latency_s.append(perf_counter() - self._at_s)
            self._is_free(self)
        else:
            self._tally.errors[error] += 1
            self._loop.call_later(_AFTER_ERROR_S, self._is_free, self)


class Load:
    """One scenario against one address."""

    def __init__(self, scenario: Scenario, *, port: int, key: str | None) -> None:
        self.tally = Tally()
        self._loop = asyncio.get_running_loop()
        self._scenario, self._port = scenario, port
        made = bodies(scenario.size, events=scenario.events, pace_s=scenario.pace_s)
        host = f"127.0.0.1:{port}"
        self._payloads = cycle([request(body, host=host, key=key) for body in made])
        self._askers: set[Asker] = set()
        self._idle: deque[Asker] = deque()
        self._due: deque[float] = deque()  # times of requests that no connection was free for
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self._all_idle = asyncio.Event()  # after the end

    async def warm(self, seconds: float) -> None:
        """Connect and ask, uncounted, until everything is under way."""
        for _ in range(self._scenario.connections):
            await self._connect()
        if self._scenario.rate_per_s is None:
            self._start_all()
        else:
            self._task(self._ask_at_rate(self._scenario.rate_per_s))
        await asyncio.sleep(self._scenario.ramp_s + seconds)
        self.tally.open_window()

    async def stop(self) -> None:
        """Ask no more; let what is under way end, for a while."""
        self._is_over = True
        self._check_idle()
        with contextlib.suppress(TimeoutError):
            drain_s = max(_DRAIN_S_MAX, self._scenario.ramp_s + 1)
            await asyncio.wait_for(self._all_idle.wait(), drain_s)
        late = sum(asker.is_busy for asker in self._askers) + len(self._due)
        if late:
            self.tally.errors["unanswered"] += late
        for asker in tuple(self._askers):
            asker.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.sleep(0.05)  # lets the transports close

    async def _connect(self) -> None:
        def make() -> Asker:
            return Asker(self.tally, self._scenario, self._free)

        _, asker = await self._loop.create_connection(make, "127.0.0.1", self._port)
        self._askers.add(asker)
        self._idle.append(asker)

    def _start_all(self) -> None:
        count = len(self._idle)
        for number in range(count):
            at_s = self._loop.time() + self._scenario.ramp_s * number / count
            self._loop.call_at(at_s, self._free, self._idle.popleft())

    async def _ask_at_rate(self, rate_per_s: float) -> None:
        next_s = perf_counter()
        while not self._is_over:
            self._due.append(next_s)
            self._ask_due()
            next_s += 1 / rate_per_s
            await asyncio.sleep(max(0.0, next_s - perf_counter()))

    def _ask_due(self) -> None:
        while self._due and self._idle:
            asker = self._idle.popleft()
            if not asker.is_lost:
                asker.ask(next(self._payloads), self._due.popleft())

    def _check_idle(self) -> None:
        if not any(asker.is_busy for asker in self._askers):
            self._all_idle.set()

    def _free(self, asker: Asker) -> None:
        if self._is_over:
            self._check_idle()
            return
        if asker.is_lost:
            self._replace(asker)
        elif self._scenario.rate_per_s is None:
            asker.ask(next(self._payloads), perf_counter())
        else:
            self._idle.append(asker)
            self._ask_due()

    def _replace(self, lost: Asker) -> None:
        if lost in self._askers:
            self._askers.discard(lost)
            self._task(self._reconnect())

    async def _reconnect(self) -> None:
        try:
            await self._connect()
        except OSError:
            self.tally.errors["cannot connect"] += 1
            await asyncio.sleep(_AFTER_ERROR_S)
            self._task(self._reconnect())
            return
        if self._scenario.rate_per_s is None:
            self._free(self._idle.pop())
        else:
            self._ask_due()

    def _task(self, work) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
