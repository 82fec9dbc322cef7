"""A heap from which anything may leave at any time: those that left are skipped later."""

import heapq
from collections.abc import Container

_SLACK = 64  # entries of works that left, which are worth no rebuilding


class Ranked:
    """Request ids by a number; the smallest first, the latest first among equals.

    O(log n) a push and, over time, a look. It holds at most twice as many ids as are alive, and
    `_SLACK` more; which are alive is the caller's to say.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []
        self._pushes = 0

    def push(self, number: float, request: str, *, alive: Container[str], count: int) -> None:
        """Put `request` in; `count` are alive, with it."""
        if len(self._heap) > 2 * count + _SLACK:
            self._heap = [entry for entry in self._heap if entry[2] in alive]
            heapq.heapify(self._heap)
        self._pushes += 1
        heapq.heappush(self._heap, (number, -self._pushes, request))

    def first(self, *, alive: Container[str]) -> tuple[float, str] | None:
        """The smallest number and whose it is; None when nobody is alive."""
        heap = self._heap
        while heap:
            number, _, request = heap[0]
            if request in alive:
                return number, request
            heapq.heappop(heap)
        return None
