"""Several streams of requests as one, in the order of arrival, holding a window of each."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from argosy.simulator.traces.window import Window, in_order, joined, part


def interleaved(streams: Sequence[Iterator[Window]]) -> Iterator[Window]:
    """The windows of several streams as one, by arrival; together: the first stream's row first.

    Holds a window and a half of each, besides rows that arrive at the very same time.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
    heads = [_Head(stream=stream) for stream in streams]
    while running := [head for head in heads if not head.is_ended]:
        low = [head for head in running if head.is_low]
        for head in low:
            head.read_on()
        if any(head.rows == 0 for head in low):
            continue
        behind = min(running, key=lambda head: head.last_s)
        yield from _gathered([head.before(behind.last_s) for head in heads if head.rows])
        if not low:
            behind.read_on()
    yield from _gathered([head.held for head in heads if head.held is not None])


@dataclass
class _Head:
    """What was read of one stream and is not passed on yet."""

    stream: Iterator[Window]
    held: Window | None = None
    is_ended: bool = False
    rows_read: int = 0  # in the largest window

    @property
    def rows(self) -> int:
        return 0 if self.held is None else self.held.rows

    @property
    def is_low(self) -> bool:
        """Reading on early lets all streams pass on many rows in one round: 3x with 200 streams."""
        return 2 * self.rows <= self.rows_read

    @property
    def last_s(self) -> float:
        """Nothing of this stream that is still unread arrives earlier."""
        return -math.inf if self.held is None else float(self.held.arrival_s[-1])

    def read_on(self) -> None:
        more = next(self.stream, None)
        if more is None:
            self.is_ended = True
        else:
            self.rows_read = max(self.rows_read, more.rows)
            self.held = joined([self.held, more]) if self.held is not None and self.rows else more

    def before(self, bound_s: float) -> Window:
        """Take out what arrives before; what arrives right then may have company still unread."""
        assert self.held is not None
        stop = int(self.held.arrival_s.searchsorted(bound_s))
        taken, self.held = part(self.held, 0, stop), part(self.held, stop, self.held.rows)
        return taken


def _gathered(parts: Sequence[Window]) -> Iterator[Window]:
    filled = [window for window in parts if window.rows]
    if filled:
        yield in_order(joined(filled))
