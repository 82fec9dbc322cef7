"""The syncer's bytes: fragments by their SHA-256, uploads under way, what is thrown away.

A fragment has its name only once all of it is on the disk and its hash is right; until then it is
a part, which its sender may go on with. Nothing here blocks for long but the disk itself: call
`commit` and `open_upload` in a thread.
"""

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

_NAME = re.compile(r"[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FullError(Exception):
    """The disk takes no more; what was acknowledged is safe. Free some space: all go on then."""


class TooMuchError(Exception):
    """An island sends more than any delta of this run is long."""


class WrongHashError(Exception):
    """The bytes are not those that the name says; they were thrown away."""


class Upload:
    """One fragment that comes in; `offset` bytes of it are here."""

    def __init__(self, vault: "Vault", path: Path, name: str, limit_bytes: int) -> None:
        self._vault = vault
        self._path = path
        self._name = name
        self._limit_bytes = limit_bytes
        self._sha = hashlib.sha256()
        self.offset = 0
        with disk_errors(path):
            # No buffer: what is written is written, and closing cannot fail for want of room.
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            while chunk := os.read(self._file, 1 << 20):
                self._sha.update(chunk)
                self.offset += len(chunk)

    def write(self, chunk: bytes) -> None:
        """The next bytes. Raises FullError, TooMuchError."""
        if self.offset + len(chunk) > self._limit_bytes:
            self.abandon()
            raise TooMuchError(
                f"a fragment of this run has at most {self._limit_bytes} bytes; more were sent"
            )
        left = memoryview(chunk)
        while len(left) and self._file is not None:
            with disk_errors(self._path):
                written = os.write(self._file, left)
            self._sha.update(left[:written])
            self.offset += written
            left = left[written:]

    def commit(self) -> None:
        """It is whole: on the disk, under its name. Raises WrongHashError, FullError."""
        if self._sha.hexdigest() != self._name:
            self.abandon()
            raise WrongHashError(
                f"{self.offset} bytes were sent as {self._name}; their SHA-256 is"
                f" {self._sha.hexdigest()}. Send them again"
            )
        with disk_errors(self._path):
            if self._file is not None:
                os.fsync(self._file)
            self.close()
            self._path.replace(self._vault.path(self._name))
            sync_folder(self._vault.blobs)

    def close(self) -> None:
        """What came stays, for its sender to go on with."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def abandon(self) -> None:
        """What came is thrown away."""
        self.close()
        self._path.unlink(missing_ok=True)


class Vault:
    """A folder of fragments."""

    def __init__(self, folder: Path, *, fragment_bytes_max: int) -> None:
        """Raises FullError, OSError."""
        self.blobs = folder / "fragments"
        self._parts = folder / "parts"
        self._fragment_bytes_max = fragment_bytes_max
        with disk_errors(folder):
            self.blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._parts.mkdir(mode=0o700, exist_ok=True)

    def path(self, name: str) -> Path:
        """Of a fragment that is here, or may come. Raises ValueError for no SHA-256."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is no SHA-256 in lower-case hexadecimal digits")
        return self.blobs / name

    def has(self, name: str) -> bool:
        """Whether all of it is here."""
        return self.path(name).exists()

    def read(self, name: str) -> bytes:
        """Raises OSError where it is not here."""
        return self.path(name).read_bytes()

    def put(self, name: str, content: bytes) -> None:
        """What the syncer made itself: whole at once, not forced to the disk. Raises FullError."""
        fresh = self._parts / f"own.{name}"
        with disk_errors(fresh):
            fresh.write_bytes(content)
            fresh.replace(self.path(name))

    def open_upload(self, island: str, name: str) -> Upload:
        """A fragment that this island sends, from where it got to. Raises FullError."""
        self.path(name)
        part = self._parts / f"{quote(island, safe='')}.{name}"
        return Upload(self, part, name, self._fragment_bytes_max)

    def offset(self, island: str, name: str) -> int:
        """How many bytes of it came from this island."""
        self.path(name)
        try:
            return (self._parts / f"{quote(island, safe='')}.{name}").stat().st_size
        except FileNotFoundError:
            return 0

    def drop_parts(self, island: str) -> None:
        """What an earlier life of it left half sent."""
        for part in self._parts.glob("*"):
            if part.name.rpartition(".")[0] == quote(island, safe=""):
                part.unlink(missing_ok=True)

    def keep_only(self, names: Iterable[str], *, older_than_s: float) -> int:
        """Throw away all others that were written so long before the newest of them; how many.

        Younger ones may be of a delta whose contribution is still to come.
        """
        kept = set(names)
        written: dict[Path, float] = {}
        for path in (*self.blobs.iterdir(), *self._parts.iterdir()):
            with suppress(FileNotFoundError):
                written[path] = path.stat().st_mtime
        newest = max(written.values(), default=0.0)
        gone = [
            path
            for path, at_s in written.items()
            if path.name not in kept and at_s < newest - older_than_s
        ]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """A full disk becomes a FullError in words."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise FullError(
                f"{path.parent}: the disk is full or a quota is used up ({error.strerror})."
                " Free some space; nothing that was acknowledged is lost, and all go on then"
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Names in it survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
