"""A checkpoint's folder as a manifest and contents, and a folder again. Reads none of its formats.

Owns that a folder appears under its name only when every byte was checked.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from argosy.training.inner import CheckpointError
from argosy.training.island.held_copies import fault_of
from argosy.training.wire import CopiedFile, Copy

_READ_BYTES = 2**20
_LABEL = re.compile(r"[0-9]{6,}-[0-9]{9,}")  # epoch and steps: see `label_of`


def label_of(epoch: int, steps: int) -> str:
    """Of a checkpoint's folder: later ones of an island are greater, as text."""
    return f"{epoch:06d}-{steps:09d}"


def labels_in(folder: Path) -> list[str]:
    """Of all checkpoints there, the newest first; whether they are whole is not looked at."""
    if not folder.is_dir():
        return []
    names = (one.name for one in folder.iterdir())
    return sorted((name for name in names if _LABEL.fullmatch(name)), reverse=True)


@contextlib.contextmanager
def opened(folder: Path, island: str) -> Iterator[tuple[Copy, Mapping[str, BinaryIO]]]:
    """Its manifest, and its files by SHA-256: open, so that they may be pruned meanwhile.

    Raises OSError, CheckpointError.
    """
    files: list[CopiedFile] = []
    contents: dict[str, BinaryIO] = {}
    with contextlib.ExitStack() as stack:
        paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
        if any(path.is_symlink() for path in paths):
            raise CheckpointError(f"{folder} has a link: a copy has plain files alone")
        handles = [stack.enter_context(path.open("rb")) for path in paths]
        if not all(path.exists() for path in paths):
            raise CheckpointError(f"{folder} was pruned meanwhile")
        for path, file in zip(paths, handles, strict=True):
            sha256, size = hash_of(file)
            inside = path.relative_to(folder).as_posix()
            files.append(CopiedFile(path=inside, bytes=size, sha256=sha256))
            contents[sha256] = file
        copy = Copy(island=island, label=folder.name, files=tuple(files))
        fault = fault_of(copy)
        if fault is not None:
            raise CheckpointError(f"{folder} cannot be copied: {fault}")
        yield copy, contents


def hash_of(file: BinaryIO) -> tuple[str, int]:
    """SHA-256 and size."""
    seen = hashlib.sha256()
    while chunk := file.read(_READ_BYTES):
        seen.update(chunk)
    return seen.hexdigest(), file.tell()


def put_back(parent: Path, copy: Copy, read: Callable[[CopiedFile], Iterator[bytes]]) -> Path:
    """The folder of that label, made of what `read` gives; what was there under it goes.

    Raises CheckpointError (and what `read` raises): nothing is there then that was not before.
    """
    fault = fault_of(copy)
    if fault is None and not _LABEL.fullmatch(copy.label):
        fault = f"label {copy.label[:80]!r}"
    if fault is not None:
        raise CheckpointError(f"that is no checkpoint: {fault}")
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in parent.glob(".*.copy"):  # of a life that ended meanwhile
            shutil.rmtree(left, ignore_errors=True)
        fresh = parent / f".{copy.label}.copy"
        try:
            fresh.mkdir(mode=0o700)
            for file in copy.files:
                _write(fresh / file.path, file, read(file))
            folder = parent / copy.label
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    except OSError as error:
        raise CheckpointError(f"{copy.label} cannot be written to {parent}: {error}") from error
    return folder


def _write(path: Path, file: CopiedFile, pieces: Iterator[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seen = hashlib.sha256()
    size = 0
    with path.open("wb") as to:
        for piece in pieces:
            size += len(piece)
            if size > file.bytes:
                break
            seen.update(piece)
            to.write(piece)
        to.flush()
        os.fsync(to.fileno())
    if size != file.bytes or seen.hexdigest() != file.sha256:
        raise CheckpointError(f"{file.path} of {file.bytes} bytes is torn or not what was copied")
