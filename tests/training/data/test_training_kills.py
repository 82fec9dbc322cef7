"""Each block of an epoch is read exactly once, whoever reads it and however often readers die."""

import hashlib
import random
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from argosy.training.data.reader import Dataset, Reader
from tests.training.data.made import dataset

_BLOCKS, _HELD_BACK, _SEED = 5000, 40, 11
_KILLS_AND_RESIZES = 20


def test_after_twenty_kills_and_resizes_every_block_was_read_exactly_once(tmp_path: Path):
    path = dataset(tmp_path, blocks=_BLOCKS, context_tokens=64, shards=3)
    crew = _Crew(path, random.Random(4))
    try:
        crew.run()
    finally:
        crew.end()
    opened = Dataset.open(path)
    wanted = Counter(map(_name, opened.take(np.arange(_BLOCKS - _HELD_BACK))))
    assert Counter(name for one in crew.done.values() for name in one) == wanted
    assert crew.kills + crew.resizes >= _KILLS_AND_RESIZES
    assert crew.kills >= 5
    # In the order of the positions it is, id for id, what one reader reads that nobody disturbs.
    alone = Reader.of(opened, seed=_SEED, held_back=_HELD_BACK).read(0, _BLOCKS - _HELD_BACK)
    together = [name for span in sorted(crew.done) for name in crew.done[span]]
    assert together == [*map(_name, alone)]


class _Crew:
    """Readers that come, go and are killed; spans are leased, and leased anew when one dies."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.done: dict[tuple[int, int], list[str]] = {}
        self.kills = self.resizes = 0
        self._path = path
        self._chance = chance
        self._open = [(0, _BLOCKS - _HELD_BACK)]
        self._readers: dict[subprocess.Popen[str], tuple[int, int]] = {}

    def run(self) -> None:
        self._hire()
        while self._open or self._readers:
            if self.kills + self.resizes < _KILLS_AND_RESIZES and self._chance.random() < 0.4:
                self._disturb()
            if self._open and not self._readers:
                self._hire()
            self._hear()

    def end(self) -> None:
        for reader in self._readers:
            reader.kill()
            reader.communicate()

    def _disturb(self) -> None:
        """Kills the reader of a span that was leased, or hires one more."""
        if len(self._readers) > 1 and self._chance.random() < 0.6:
            reader = self._chance.choice([*self._readers])
            reader.kill()
            reader.communicate()  # whatever it said at last, nobody heard: the span is anew
            self._open.append(self._readers.pop(reader))
            self.kills += 1
        elif self._open:
            self._hire()
            self.resizes += 1

    def _hire(self) -> None:
        command = [sys.executable, "-m", "tests.training.data.reading_child"]
        arguments = [str(self._path), str(_SEED), str(_HELD_BACK)]
        reader = subprocess.Popen(
            command + arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lease(reader)

    def _lease(self, reader: subprocess.Popen[str]) -> None:
        """Some of what is open, of a length by chance."""
        start, stop = self._open.pop(self._chance.randrange(len(self._open)))
        cut = min(stop, start + self._chance.randint(1, 150))
        if cut < stop:
            self._open.append((cut, stop))
        self._readers[reader] = (start, cut)
        assert reader.stdin is not None
        reader.stdin.write(f"{start} {cut}\n")
        reader.stdin.flush()

    def _hear(self) -> None:
        streams = {reader.stdout: reader for reader in self._readers}
        for stream in select.select([*streams], [], [], 30)[0]:
            reader = streams[stream]
            assert stream is not None
            self.done[self._readers.pop(reader)] = stream.readline().split()
            if self._open:
                self._lease(reader)
            else:
                reader.communicate()


def _name(block: np.ndarray) -> str:
    return hashlib.sha256(block.tobytes()).hexdigest()[:16]
