"""Blocks of ids to files of a dataset, and a manifest over them.

Files carry the beginning of their hash in their name and appear whole (written aside, renamed), so
that no reader ever maps a half of one, and none that is mapped is written over.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from argosy.training.data.manifest import DatasetError, Shard, sha256

Ids = NDArray[np.integer]  # [blocks, block_tokens]
Starts = NDArray[np.bool_]  # alike: true where a document, or a part of one, begins

SHARD_BYTES = 64 * 2**20
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFullError(DatasetError):
    """There is no room; nothing that was whole is lost."""


def id_type(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smaller of the two that holds every id."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def blocks_per_shard(block_tokens: int, vocab_size: int, *, shard_bytes: int = SHARD_BYTES) -> int:
    """As many whole blocks as fit, at least one."""
    return max(1, shard_bytes // (block_tokens * np.dtype(id_type(vocab_size)).itemsize))


def write_shards(out: Path, parts: Iterable[tuple[Ids, Starts]], vocab_size: int) -> list[Shard]:
    """One shard of each part, in order. Raises DiskFullError, OSError."""
    width = np.dtype(id_type(vocab_size)).newbyteorder("<")
    shards: list[Shard] = []
    for number, (ids, starts) in enumerate(parts):
        tokens = np.ascontiguousarray(ids, dtype=width).tobytes()
        bitmap = np.packbits(starts, axis=1).tobytes()
        hashes = sha256(tokens), sha256(bitmap)
        shard = Shard(
            file=f"shard-{number:05}-{hashes[0][:12]}.u{width.itemsize * 8}",
            bytes=len(tokens),
            sha256=hashes[0],
            blocks=len(ids),
            starts_file=f"shard-{number:05}-{hashes[1][:12]}.starts",
            starts_bytes=len(bitmap),
            starts_sha256=hashes[1],
        )
        write_whole(out / shard.file, tokens)
        write_whole(out / shard.starts_file, bitmap)
        shards.append(shard)
    return shards


def write_whole(path: Path, data: bytes) -> None:
    """The file appears with all of its bytes, on the disk, or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        if error.errno in FULL:
            raise DiskFullError(
                f"no room for {path} ({len(data):,} bytes): {error.strerror}. All that was whole "
                "before is kept; free some space, or name another place, and run the same again"
            ) from error
        raise
