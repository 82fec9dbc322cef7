"""The simplest driver: recorded arrivals, round robin, when each first token and each end came.

Arrivals are fed in windows and slots are used again, so that memory is that of a window and of the
requests alive, however many there are in all. Two ways, the same answers to the last bit: by event,
all replicas in one order of time, as a driver that routes by state has to; and by replica, each
through the whole window before the next, which round robin permits: no heap, and one replica's
arrays stay in the processor's cache.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from argosy.simulator.engine.build import grow
from argosy.simulator.engine.events import (
    ACCEPTED,
    NOTHING,
    advance,
    enqueue,
    pop_event,
    submit_hashed,
)
from argosy.simulator.engine.kernels import inlined, kernel
from argosy.simulator.engine.state import IDLE, QUEUE_TAIL, STEPPING, Numbers, State
from argosy.simulator.engine.steps import FINISHED, FIRST_TOKEN

WINDOW = 1 << 18
_NO_RANGES = np.zeros((0, 2), np.int64)
_FREE, _ENDED = 0, 1  # places in `_Book.marks`


class Arrivals(NamedTuple):
    """A window of requests in order of time, or all of them. All arrays are as long."""

    at_s: np.ndarray  # float64
    prompt_tokens: np.ndarray  # int32
    output_tokens: np.ndarray  # int32
    hashes: np.ndarray = _NO_RANGES  # int64 [requests, 2]: ranges of State.hashes; or empty


class Answers(NamedTuple):
    """Of the requests that ended while a window was fed. NaN: refused, it can never fit."""

    request: np.ndarray  # int64: its place among all that were fed
    ttft_s: np.ndarray  # float64
    finish_s: np.ndarray  # float64: the time of its last token


class _Book(NamedTuple):
    slots: Numbers  # int32: those that are free, as a stack
    marks: Numbers  # int64: how many are free, how many ended
    request: Numbers  # int64, by slot
    at_s: Numbers  # float64, by slot
    ttft_s: Numbers  # float64, by slot
    ended_request: Numbers
    ended_ttft_s: Numbers
    ended_finish_s: Numbers


class Replay:
    """A replay that goes on: owns the state of the engines and the requests alive."""

    def __init__(self, state: State, *, is_by_event: bool = False) -> None:
        self.state = state
        self.fed = 0
        self._is_by_event = is_by_event
        self._book = _book(state.requests.size, 0)

    def feed(self, arrivals: Arrivals) -> Answers:
        """Take a window to the time of its last arrival; what ended. Refuses times that go back."""
        if arrivals.at_s.size and np.diff(arrivals.at_s).min(initial=0.0) < 0:
            raise ValueError("arrivals are not in order of time; sort them by at_s")
        self._make_room(arrivals.at_s.size)
        first = self.fed
        self.fed += arrivals.at_s.size
        if self._is_by_event:
            _feed_by_event(self.state, self._book, arrivals, first)
        else:
            _feed_by_replica(self.state, self._book, arrivals, first)
        return self._ended()

    def drain(self) -> Answers:
        """No more arrivals: run until all is idle."""
        self._make_room(0)
        if self._is_by_event:
            _pop_until(self.state, self._book, np.inf)
        else:
            _drain_by_replica(self.state, self._book)
        return self._ended()

    def _make_room(self, arrivals: int) -> None:
        free = int(self._book.marks[_FREE])
        if free < arrivals:
            old, alive = self._book, self._book.slots.size - free
            size = alive + max(arrivals, alive // 2)
            grow(self.state, size)
            self._book = _grown_book(old, size)

    def _ended(self) -> Answers:
        book = self._book
        count = int(book.marks[_ENDED])
        book.marks[_ENDED] = 0
        return Answers(
            book.ended_request[:count].copy(),
            book.ended_ttft_s[:count].copy(),
            book.ended_finish_s[:count].copy(),
        )


def replay(
    state: State, arrivals: Arrivals, *, is_by_event: bool = False, window: int = WINDOW
) -> Answers:
    """Feed all, drain, and answer in the order of the requests."""
    run = Replay(state, is_by_event=is_by_event)
    ttft_s = np.full(arrivals.at_s.size, np.nan)
    finish_s = np.full(arrivals.at_s.size, np.nan)
    for answers in _all(run, arrivals, window):
        ttft_s[answers.request] = answers.ttft_s
        finish_s[answers.request] = answers.finish_s
    return Answers(np.arange(arrivals.at_s.size), ttft_s, finish_s)


def _all(run: Replay, arrivals: Arrivals, window: int) -> Iterable[Answers]:
    for first in range(0, arrivals.at_s.size, window):
        yield run.feed(Arrivals(*(column[first : first + window] for column in arrivals)))
    yield run.drain()


def _book(slots: int, taken: int) -> _Book:
    """With `slots` in all, the first `taken` of them in use."""
    return _Book(
        slots=np.arange(slots - 1, -1, -1, dtype=np.int32),
        marks=np.array([slots - taken, 0], np.int64),
        request=np.zeros(slots, np.int64),
        at_s=np.zeros(slots),
        ttft_s=np.zeros(slots),
        ended_request=np.zeros(slots, np.int64),
        ended_ttft_s=np.zeros(slots),
        ended_finish_s=np.zeros(slots),
    )


def _grown_book(old: _Book, slots: int) -> _Book:
    new = _book(slots, 0)
    before = old.slots.size
    free = int(old.marks[_FREE])
    new.slots[slots - before : slots - before + free] = old.slots[:free]
    new.marks[_FREE] = slots - before + free
    for name in ("request", "at_s", "ttft_s"):
        getattr(new, name)[:before] = getattr(old, name)
    return new


@kernel
def _feed_by_event(state: State, book: _Book, arrivals: Arrivals, first: int) -> None:
    replicas = state.replicas.size
    for place in range(arrivals.at_s.size):
        at_s = arrivals.at_s[place]
        _pop_until(state, book, at_s)
        slot = _take_slot(book, first + place, at_s)
        tokens = (np.int64(arrivals.prompt_tokens[place]), np.int64(arrivals.output_tokens[place]))
        hashes = _range(arrivals, place)
        code = submit_hashed(state, (first + place) % replicas, slot, tokens, at_s, hashes)
        if code != ACCEPTED:
            _refuse(book, slot)


@inlined
def _pop_until(state: State, book: _Book, until_s: float) -> None:
    while True:
        time_s, kind, _, slot = pop_event(state, until_s)
        if kind == NOTHING:
            return
        _record(book, kind, slot, time_s)


@kernel
def _feed_by_replica(state: State, book: _Book, arrivals: Arrivals, first: int) -> None:
    replicas = state.replicas.size
    for replica in range(replicas):
        for place in range((replica - first) % replicas, arrivals.at_s.size, replicas):
            at_s = arrivals.at_s[place]
            _run_until(state, book, replica, at_s)
            slot = _take_slot(book, first + place, at_s)
            tokens = (
                np.int64(arrivals.prompt_tokens[place]),
                np.int64(arrivals.output_tokens[place]),
            )
            code = enqueue(state, replica, slot, tokens, at_s, _range(arrivals, place))
            if code != ACCEPTED:
                _refuse(book, slot)


@kernel
def _drain_by_replica(state: State, book: _Book) -> None:
    for replica in range(state.replicas.size):
        _run_until(state, book, replica, np.inf)


@inlined
def _run_until(state: State, book: _Book, replica: int, until_s: float) -> None:
    """One replica's boundaries up to `until_s`; what starts at it waits, as in `pop_event`."""
    it = state.replicas[replica]
    while it.end_s < until_s or (it.end_s == until_s and it.phase == STEPPING):
        if it.phase == IDLE:
            return
        now_s = it.end_s
        advance(state, replica)
        for place in range(state.marks[QUEUE_TAIL]):
            _record(book, state.queue[place].kind, state.queue[place].slot, now_s)
        state.marks[QUEUE_TAIL] = 0


@inlined
def _range(arrivals: Arrivals, place: int) -> tuple[int, int]:
    if arrivals.hashes.shape[0] == 0:
        return (0, 0)
    return (arrivals.hashes[place, 0], arrivals.hashes[place, 1])


@inlined
def _take_slot(book: _Book, request: int, at_s: float) -> int:
    book.marks[_FREE] -= 1
    slot = book.slots[book.marks[_FREE]]
    book.request[slot] = request
    book.at_s[slot] = at_s
    book.ttft_s[slot] = np.nan
    return slot


@inlined
def _record(book: _Book, kind: int, slot: int, time_s: float) -> None:
    if kind == FIRST_TOKEN:
        book.ttft_s[slot] = time_s - book.at_s[slot]
    elif kind == FINISHED:
        _end(book, slot, time_s)


@inlined
def _refuse(book: _Book, slot: int) -> None:
    _end(book, slot, np.nan)


@inlined
def _end(book: _Book, slot: int, finish_s: float) -> None:
    place = book.marks[_ENDED]
    book.ended_request[place] = book.request[slot]
    book.ended_ttft_s[place] = book.ttft_s[slot]
    book.ended_finish_s[place] = finish_s
    book.marks[_ENDED] += 1
    book.slots[book.marks[_FREE]] = slot
    book.marks[_FREE] += 1
