"""What stages made, by what they made it from: a second run, or one after a kill, finds it here.

A key is a hash of the stage's name and version, its settings and the content of its inputs; never
a path or a time. An entry appears whole or not at all, so that a kill costs what was under way.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from argosy.training.data.shards import write_whole


class Cache:
    """A folder of entries. Any number of processes may use it at once; a picklable value."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, stage: str, key: str) -> Path:
        """Where the entry is, or would be."""
        return self.root / stage / key[:2] / key

    def has(self, stage: str, key: str) -> bool:
        return self.path(stage, key).exists()

    def get_or_make(self, stage: str, key: str, make: Callable[[], bytes]) -> Path:
        """The entry's file; made first where it is missing. Raises DiskFullError."""
        path = self.path(stage, key)
        if not path.exists():
            write_whole(path, make())
        return path

    def folder(self, stage: str, key: str, fill: Callable[[Path], None]) -> Path:
        """The same for an entry of many files, which `fill` writes into an empty folder."""
        path = self.path(stage, key)
        if path.exists():
            return path
        aside = path.with_name(f".{key}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            fill(aside)
            aside.rename(path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            if path.exists():
                return path  # another process was first
            raise
        return path


def key_of(*parts: object) -> str:
    """Of anything that msgspec encodes: settings, names, hashes."""
    return hashlib.sha256(msgspec.msgpack.encode(parts, order="deterministic")).hexdigest()
