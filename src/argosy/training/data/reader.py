"""Blocks of a dataset by position of the run: mapped into memory, no processes.

The arithmetic: a batch of 16 blocks of 513 ids of two bytes is 16 KiB to gather and 64 KiB to write
as the int64 that embeddings take; at 10 GB/s that is 8 us, a thousandth of the smallest model's
step. So nothing is read ahead unless asked (`ahead.py`: for shards that are fetched first).
"""

import hashlib
import mmap
import threading
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from argosy.training.data.manifest import (
    MANIFEST_FILE,
    DatasetError,
    Manifest,
    Shard,
    decode,
    starts_row_bytes,
)
from argosy.training.data.order import Order
from argosy.training.data.places import CACHE_BYTES_MAX, Place, corrupt, place

Blocks = NDArray[np.int64]  # [blocks, context_tokens + 1]
Boundaries = NDArray[np.bool_]  # alike: true where a document, or a part of one, begins

_MAPS_MAX = 256  # each holds a file descriptor
_WINDOW = 4096  # positions whose blocks are worked out at once: numpy's calls cost 1 us each
_HASH_PIECE_BYTES = 16 * 2**20


class Dataset:
    """The blocks of one dataset, by index. Safe for several threads; holds maps of its files."""

    def __init__(self, manifest: Manifest, at: Place) -> None:
        self.manifest = manifest
        self.blocks = manifest.blocks
        self.block_tokens = manifest.block_tokens
        self.context_tokens = manifest.context_tokens
        self.vocab_size = manifest.tokenizer.vocab_size
        self.end_id = manifest.tokenizer.end_id  # the last of each document
        self._place = at
        counts = [shard.blocks for shard in manifest.shards]
        self._firsts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._maps: OrderedDict[str, NDArray[np.unsignedinteger]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        cache: Path | None = None,
        cache_bytes_max: int = CACHE_BYTES_MAX,
    ) -> "Dataset":
        """Of a folder or an fsspec URL; checks that all files are there and of the right size.

        Raises DatasetError, whose message says what is wrong.
        """
        at = place(str(path), cache=cache, cache_bytes_max=cache_bytes_max)
        manifest = decode(at.read(MANIFEST_FILE), source=f"{at.name}/{MANIFEST_FILE}")
        for shard in manifest.shards:
            at.check(shard.file, shard.bytes)
            at.check(shard.starts_file, shard.starts_bytes)
        return cls(manifest, at)

    def verify(self) -> int:
        """Hashes every byte; how many. Raises CorruptShardError for the first that is wrong."""
        total = 0
        tokenizer = self.manifest.tokenizer
        found = hashlib.sha256(self._place.read(tokenizer.file)).hexdigest()
        if found != tokenizer.sha256:
            raise corrupt(f"{self._place.name}/{tokenizer.file}", tokenizer.sha256, found)
        for shard in self.manifest.shards:
            for file, size, wanted in (
                (shard.file, shard.bytes, shard.sha256),
                (shard.starts_file, shard.starts_bytes, shard.starts_sha256),
            ):
                found = _hash(self._place.local(file, size, wanted))
                if found != wanted:
                    raise corrupt(f"{self._place.name}/{file}", wanted, found)
                total += size
        return total

    def tokenizer_json(self) -> str:
        """Of Hugging Face's `tokenizers`: `Tokenizer.from_str` reads it."""
        return self._place.read(self.manifest.tokenizer.file).decode("utf-8")

    def take(self, index: NDArray[np.int64]) -> Blocks:
        """Those blocks, in that order: [len(index), block_tokens]."""
        return self._gather(index, is_starts=False)

    def take_boundaries(self, index: NDArray[np.int64]) -> Boundaries:
        """Where documents begin in them: attention may be masked and positions counted anew there.

        The first token of a block always begins one, or a part of one.
        """
        rows = self._gather(index, is_starts=True)
        return np.unpackbits(rows, axis=1, count=self.block_tokens).view(np.bool_)

    def validation_blocks(self, blocks: int) -> Blocks:
        """The last ones: those that an `Order` over `self.blocks - blocks` never yields."""
        if not 0 <= blocks < self.blocks:
            raise DatasetError(
                f"{blocks} validation blocks were asked of {self._place.name}, which has "
                f"{self.blocks} in all; keep back fewer, or prepare more text"
            )
        return self.take(np.arange(self.blocks - blocks, self.blocks, dtype=np.int64))

    def _gather(self, index: NDArray[np.int64], *, is_starts: bool) -> NDArray:
        """Rows of the files' matrices, from whichever shards they are in."""
        if index.size and (int(index.min()) < 0 or int(index.max()) >= self.blocks):
            raise IndexError(
                f"blocks are 0 .. {self.blocks - 1}; asked {index.min()} .. {index.max()}"
            )
        shards = self.manifest.shards
        if len(shards) == 1:
            rows = self._map(shards[0], is_starts=is_starts).take(index, axis=0)
            return rows if is_starts else rows.astype(np.int64)
        width = starts_row_bytes(self.block_tokens) if is_starts else self.block_tokens
        rows = np.empty((len(index), width), dtype=np.uint8 if is_starts else np.int64)
        order = np.argsort(index, kind="stable")  # shard by shard, each mapped once
        cuts = np.searchsorted(index[order], self._firsts)
        for number, (first, last) in enumerate(pairwise(cuts.tolist())):
            if first < last:
                here = order[first:last]
                wanted = index[here] - self._firsts[number]
                rows[here] = self._map(shards[number], is_starts=is_starts).take(wanted, axis=0)
        return rows

    def _map(self, shard: Shard, *, is_starts: bool) -> NDArray[np.unsignedinteger]:
        """The file as a matrix of blocks; the ones used longest ago are let go."""
        file = shard.starts_file if is_starts else shard.file
        with self._lock:
            known = self._maps.get(file)
            if known is not None:
                self._maps.move_to_end(file)
                return known
        size = shard.starts_bytes if is_starts else shard.bytes
        path = self._place.local(file, size, shard.starts_sha256 if is_starts else shard.sha256)
        with path.open("rb") as opened:
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        kind = np.dtype("u1") if is_starts else np.dtype(self.manifest.dtype).newbyteorder("<")
        matrix = np.frombuffer(data, dtype=kind).reshape(shard.blocks, -1)
        with self._lock:
            self._maps[file] = matrix
            while len(self._maps) > _MAPS_MAX:
                self._maps.popitem(last=False)
        return matrix


class Reader:
    """The blocks at positions of a run. What it holds follows from the seed: nothing to save."""

    def __init__(self, dataset: Dataset, order: Order, *, held_back: int = 0) -> None:
        if order.blocks != dataset.blocks - held_back:
            raise DatasetError(
                f"an order of {order.blocks} blocks was given for a dataset of {dataset.blocks}, "
                f"{held_back} of them held back; it takes Order({dataset.blocks - held_back}, seed)"
            )
        self.dataset = dataset
        self.order = order
        self._window: tuple[int, NDArray[np.int64]] = (0, np.empty(0, dtype=np.int64))

    @classmethod
    def of(cls, dataset: Dataset, *, seed: int, held_back: int = 0) -> "Reader":
        """With the order of that seed. Raises DatasetError where nothing is left to read."""
        if held_back >= dataset.blocks:
            raise DatasetError(
                f"{held_back} of {dataset.blocks} blocks are to be held back: none is left to "
                "train on. Hold back fewer, or prepare more text"
            )
        return cls(dataset, Order(dataset.blocks - held_back, seed), held_back=held_back)

    def read(self, start: int, stop: int) -> Blocks:
        """The blocks at start <= position < stop; positions go on through the epochs."""
        return self.dataset.take(self.index(start, stop))

    def boundaries(self, start: int, stop: int) -> Boundaries:
        """Where documents begin in them."""
        return self.dataset.take_boundaries(self.index(start, stop))

    def index(self, start: int, stop: int) -> NDArray[np.int64]:
        """Which blocks of the dataset they are."""
        if stop < start or start < 0:
            raise ValueError(f"positions {start} .. {stop} were asked for: 0 <= start <= stop")
        first, known = self._window
        if not (first <= start and stop <= first + len(known)):
            ahead = max(stop - start, _WINDOW)
            known = self.order.index(np.arange(start, start + ahead, dtype=np.int64))
            first = start
            self._window = (first, known)
        return known[start - first : stop - first]


class TokensHash:
    """SHA-256 of token ids in the order they were trained on, as little-endian uint32."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, blocks: NDArray[np.integer]) -> None:
        self._digest.update(np.ascontiguousarray(blocks, dtype="<u4").data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
