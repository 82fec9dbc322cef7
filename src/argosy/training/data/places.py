"""Where the files of a dataset are: a folder, or any place that fsspec knows, with a local copy.

A remote file is fetched whole when it is first wanted, checked against its hash and renamed into
the cache, under the name of its hash: two processes, two runs and two datasets share one copy, and
a fetch that was cut short leaves nothing behind. The cache keeps under a cap by giving up what was
used longest ago; what is mapped stays readable until it is let go.
"""

import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import platformdirs

from argosy.training.data.manifest import CorruptShardError, DatasetError
from argosy.training.data.shards import FULL, DiskFullError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CACHE_BYTES_MAX = 32 * 2**30
_PIECE_BYTES = 8 * 2**20


class Place(Protocol):
    """Holds the files of one dataset."""

    name: str

    def read(self, file: str) -> bytes:
        """All of a small file. Raises DatasetError where it is missing."""
        ...

    def check(self, file: str, bytes_wanted: int) -> None:
        """Raises where a file is missing or of another size, as far as that costs nothing."""
        ...

    def local(self, file: str, bytes_wanted: int, sha256: str) -> Path:
        """A local file with those bytes; fetched first where need be."""
        ...


def place(url: str, *, cache: Path | None, cache_bytes_max: int) -> Place:
    """Of a folder, or of a URL such as s3://bucket/docs. Raises DatasetError."""
    scheme, found, rest = url.partition("://")
    if not found:
        return Folder(Path(url))
    if scheme == "file":
        return Folder(Path(rest))
    try:
        import fsspec
    except ImportError as error:
        raise DatasetError(
            f"{url} takes fsspec, which is not installed: pip install 'argosy[train]'"
        ) from error
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DatasetError(f"{url} cannot be reached: {error}") from error
    folder = platformdirs.user_cache_path("argosy") / "shards" if cache is None else cache
    return Remote(filesystem, root, url=url, cache=folder, bytes_max=cache_bytes_max)


class Folder:
    """A folder here: files are mapped where they are."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path

    def read(self, file: str) -> bytes:
        try:
            return (self._path / file).read_bytes()
        except OSError as error:
            raise _missing(self.name, file, error.strerror or str(error)) from error

    def check(self, file: str, bytes_wanted: int) -> None:
        try:
            found = (self._path / file).stat().st_size
        except OSError as error:
            raise _missing(self.name, file, error.strerror or str(error)) from error
        if found != bytes_wanted:
            raise CorruptShardError(
                f"{self.name}/{file} has {found:,} bytes, its manifest says {bytes_wanted:,}. "
                "Copy it anew, or make the dataset anew: argosy data prepare"
            )

    def local(self, file: str, bytes_wanted: int, sha256: str) -> Path:
        del sha256  # hashing on each opening would cost a pass over all data: Dataset.verify
        self.check(file, bytes_wanted)
        return self._path / file


class Remote:
    """An object store, behind a cache here."""

    def __init__(
        self, filesystem: "AbstractFileSystem", root: str, *, url: str, cache: Path, bytes_max: int
    ) -> None:
        self.name = url.rstrip("/")
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._cache = cache
        self._bytes_max = bytes_max

    def read(self, file: str) -> bytes:
        try:
            with self._open(file) as far:
                return far.read()
        except OSError as error:
            raise _missing(self.name, file, str(error)) from error

    def check(self, file: str, bytes_wanted: int) -> None:
        del file, bytes_wanted  # asking for each file would take a round trip; `local` checks

    def local(self, file: str, bytes_wanted: int, sha256: str) -> Path:
        kept = self._cache / sha256
        try:
            if kept.stat().st_size == bytes_wanted:
                os.utime(kept)
                return kept
        except OSError:
            pass  # not there yet, or just given up by another process
        self._make_room(bytes_wanted)
        self._fetch(file, kept, sha256)
        return kept

    def _fetch(self, file: str, kept: Path, sha256: str) -> None:
        aside = kept.with_name(f".{kept.name}.{os.getpid()}.{threading.get_ident()}")
        digest = hashlib.sha256()
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with self._open(file) as far, aside.open("wb") as near:
                while piece := far.read(_PIECE_BYTES):
                    digest.update(piece)
                    near.write(piece)
            if digest.hexdigest() != sha256:
                raise corrupt(f"{self.name}/{file}", sha256, digest.hexdigest())
            aside.replace(kept)
        except OSError as error:
            if error.errno in FULL:
                raise DiskFullError(
                    f"{self.name}/{file} cannot be kept in {kept.parent}: {error.strerror}. Free "
                    "some space, or name another cache"
                ) from error
            raise _missing(self.name, file, str(error)) from error
        finally:
            aside.unlink(missing_ok=True)

    def _open(self, file: str) -> BinaryIO:
        return cast("BinaryIO", self._filesystem.open(f"{self._root}/{file}", "rb"))

    def _make_room(self, bytes_wanted: int) -> None:
        """Gives up what was used longest ago until the wanted bytes fit under the cap."""
        if not self._cache.is_dir():
            return
        kept = [(path, path.stat()) for path in self._cache.iterdir() if path.is_file()]
        used = sum(stat.st_size for _, stat in kept) + bytes_wanted
        for path, stat in sorted(kept, key=lambda one: one[1].st_mtime_ns):
            if used <= self._bytes_max:
                return
            path.unlink(missing_ok=True)
            used -= stat.st_size


def corrupt(name: str, wanted: str, found: str) -> CorruptShardError:
    """A file whose bytes are not the ones that were written."""
    return CorruptShardError(
        f"{name} is corrupt: its SHA-256 is {found}, its manifest says {wanted}. Copy it anew from "
        "where it is whole, or make the dataset anew: argosy data prepare (a second run takes what "
        "its cache has)"
    )


def _missing(name: str, file: str, why: str) -> DatasetError:
    return DatasetError(
        f"{name}/{file} cannot be read: {why}. A dataset is a folder with manifest.json; "
        "argosy data prepare makes one"
    )
