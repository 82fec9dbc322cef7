"""Reads ahead in a thread: worth it where shards are fetched first, or disks are slow."""

import threading
from collections.abc import Generator, Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Protocol

from argosy.training.inner import Blocks

_LOOK_S = 0.1  # how often a full queue looks whether anyone still wants it


class Source(Protocol):
    """Where blocks come from: `reader.py`'s Reader is one."""

    def read(self, start: int, stop: int) -> Blocks:
        """Those at start <= position < stop of the run."""
        ...


def read_ahead(
    reader: Source, spans: Iterable[tuple[int, int]], *, blocks: int, depth: int = 2
) -> Generator[Blocks, None, None]:
    """The spans' blocks in portions of `blocks`, the next `depth` read meanwhile.

    A portion ends with its span. What goes wrong in the thread is raised here, in its place.
    """
    ahead = _Ahead(reader, [*_portions(spans, blocks)], depth)
    ahead.start()
    try:
        yield from ahead.blocks()
    finally:
        ahead.end()


class _Ahead(threading.Thread):
    def __init__(self, reader: Source, portions: list[tuple[int, int]], depth: int) -> None:
        super().__init__(name="read-ahead", daemon=True)
        self._reader = reader
        self._portions = portions
        self._ready: Queue[Blocks | Exception] = Queue(maxsize=depth)
        self._is_over = threading.Event()

    def run(self) -> None:
        for start, stop in self._portions:
            try:
                item: Blocks | Exception = self._reader.read(start, stop)
            except Exception as error:  # noqa: BLE001  raised again where the blocks are wanted
                item = error
            if not self._put(item):
                return

    def blocks(self) -> Iterator[Blocks]:
        for _ in self._portions:
            item = self._ready.get()
            if isinstance(item, Exception):
                raise item
            yield item

    def end(self) -> None:
        """Returns when the thread is gone."""
        self._is_over.set()
        while self.is_alive():
            try:
                self._ready.get_nowait()
            except Empty:
                self.join(_LOOK_S)

    def _put(self, item: Blocks | Exception) -> bool:
        """False when nobody wants it any more."""
        while not self._is_over.is_set():
            try:
                self._ready.put(item, timeout=_LOOK_S)
            except Full:
                continue
            return True
        return False


def _portions(spans: Iterable[tuple[int, int]], blocks: int) -> Iterator[tuple[int, int]]:
    for start, stop in spans:
        for first in range(start, stop, blocks):
            yield first, min(stop, first + blocks)
