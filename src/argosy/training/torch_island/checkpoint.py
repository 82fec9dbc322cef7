"""An island's own checkpoints: parameters and moments as safetensors, staged, written behind.

A folder holds one file a rank (its rows of every tensor) and `checkpoint.json`, which names them
with their SHA-256. It appears whole, by a rename, or not at all. Any number of ranks reads what any
other wrote. PyTorch's own format (DCP) is not used: its `.metadata` is a pickle, and a folder that
came from a peer must never be unpickled; docs/ISLANDS.md has both their times.
"""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from argosy.training.inner import CheckpointError
from argosy.training.torch_island.tensor_files import sha256_of, write_tensors

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW
MANIFEST = "checkpoint.json"
_RANK_S_MAX = 600.0  # that rank 0 waits for the others' files
_POLL_S = 0.02


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank saves: its rows of each tensor, by kind/name."""

    steps: int  # that the optimizer took
    tensors: dict[str, torch.Tensor]


class StoredFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rank's file."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`checkpoint.json`."""

    format: int = 1
    steps: int
    files: tuple[StoredFile, ...]  # of rank 0, 1, ...


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank says when it is done: its file, or why there is none."""

    file: StoredFile | None
    error: str | None = None


class Saver:
    """One rank's saves: one at a time, in a thread; the newest `keep` folders stay."""

    def __init__(self, *, rank: int, ranks: int, keep: int) -> None:
        """Does nothing yet."""
        self._rank, self._ranks, self._keep = rank, ranks, keep
        self._staged: dict[str, torch.Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: CheckpointError | None = None

    def save(self, path: str, state: State) -> None:
        """Copies to host memory, then returns; waits first for the save before.

        Raises CheckpointError where that one failed.
        """
        self.wait()
        folder = Path(path)
        self._stage(state)
        self._thread = threading.Thread(
            target=self._write, args=(folder, state.steps), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is being written. Raises the CheckpointError of the last save, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _stage(self, state: State) -> None:
        """Into buffers that are kept: allocating them anew would take longer than the copy."""
        if self._staged.keys() != state.tensors.keys():
            pin = any(one.device.type != "cpu" for one in state.tensors.values())
            self._staged = {
                name: torch.empty(one.shape, dtype=torch.float32, pin_memory=pin)
                for name, one in state.tensors.items()
            }
        for name, one in state.tensors.items():
            self._staged[name].copy_(one, non_blocking=True)
        if any(one.device.type != "cpu" for one in state.tensors.values()):
            torch.accelerator.synchronize()

    def _write(self, folder: Path, steps: int) -> None:
        part = part_of(folder)
        try:
            self._write_own(part)
            if self._rank == 0:
                self._finish(folder, part, steps)
        except (OSError, CheckpointError, msgspec.MsgspecError) as error:
            if self._rank == 0:
                shutil.rmtree(part, ignore_errors=True)
            kept = describe_kept(folder.parent)
            self._error = CheckpointError(f"{folder} was not written: {error}. {kept}")

    def _write_own(self, part: Path) -> None:
        file = part / file_of(self._rank)
        try:
            values = {name: one.numpy() for name, one in self._staged.items()}
            sha256 = write_tensors(file, values)
            said = _Part(file=StoredFile(sha256=sha256, bytes=file.stat().st_size))
        except OSError as error:
            file.unlink(missing_ok=True)  # makes room for the word that it failed
            said = _Part(file=None, error=str(error))
        told = part / f"rank-{self._rank}.json"
        _write_whole(told, msgspec.json.encode(said))
        if said.error is not None:
            raise CheckpointError(said.error)

    def _finish(self, folder: Path, part: Path, steps: int) -> None:
        files = tuple(self._wait_for(part, rank) for rank in range(self._ranks))
        for rank in range(self._ranks):
            (part / f"rank-{rank}.json").unlink()
        manifest = Manifest(steps=steps, files=files)
        _write_whole(part / MANIFEST, msgspec.json.encode(manifest))
        _sync_folder(part)
        part.rename(folder)
        _sync_folder(folder.parent)
        prune(folder.parent, keep=self._keep)

    def _wait_for(self, part: Path, rank: int) -> StoredFile:
        told = part / f"rank-{rank}.json"
        waited_s = 0.0
        while not told.exists():
            if waited_s > _RANK_S_MAX:
                raise CheckpointError(f"rank {rank} did not finish its file in {_RANK_S_MAX:.0f} s")
            time.sleep(_POLL_S)
            waited_s += _POLL_S
        said = msgspec.json.decode(told.read_bytes(), type=_Part)
        if said.file is None:
            raise CheckpointError(f"rank {rank}: {said.error}")
        return said.file


def prepare(path: str) -> None:
    """Makes the folder that ranks write to; what a killed process left of it goes.

    Raises CheckpointError.
    """
    folder = Path(path)
    if folder.exists():
        raise CheckpointError(f"{folder} exists; each save needs a folder of its own.")
    try:
        shutil.rmtree(part_of(folder), ignore_errors=True)
        part_of(folder).mkdir(parents=True)
    except OSError as error:
        kept = describe_kept(folder.parent)
        raise CheckpointError(f"{folder} cannot be written: {error}. {kept}") from error


def part_of(folder: Path) -> Path:
    """Where it is written before it is whole."""
    return folder.with_name(f".{folder.name}.part")


def file_of(rank: int) -> str:
    """A rank's file."""
    return f"rank-{rank}.safetensors"


def whole_ones(parent: Path) -> list[Path]:
    """Checkpoints in a folder, the newest first; whether their bytes are good is not looked at."""
    try:
        found = [one.parent for one in parent.glob(f"*/{MANIFEST}")]
        return sorted(found, key=lambda one: (one.stat().st_mtime_ns, one.name), reverse=True)
    except OSError:
        return []


def prune(parent: Path, *, keep: int) -> None:
    """Takes away all but the newest, each one's manifest first, so that none is half there."""
    for folder in whole_ones(parent)[keep:]:
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def describe_kept(parent: Path) -> str:
    """For messages: what can still be loaded."""
    names = [one.name for one in whole_ones(parent)]
    return f"Kept in {parent}: {', '.join(names)}." if names else f"Nothing is kept in {parent}."


class Stored:
    """An open checkpoint, all of whose files are as its manifest says."""

    def __init__(self, steps: int, files: list[safe_open]) -> None:
        self.steps = steps
        self._files = files

    def read(self, kind: str, name: str, rows: slice) -> NDArray[np.float32]:
        """Those rows of the whole tensor, put together from the ranks' parts."""
        found: list[NDArray[np.float32]] = []
        first = 0
        for file in self._files:
            part = file.get_slice(f"{kind}/{name}")
            count = part.get_shape()[0]
            begin, end = max(rows.start - first, 0), min(rows.stop - first, count)
            if begin < end:
                found.append(part[begin:end])
            first += count
        if not found:
            file = self._files[0]
            return file.get_tensor(f"{kind}/{name}")[:0]
        return found[0] if len(found) == 1 else np.concatenate(found)


@contextlib.contextmanager
def opened(path: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Stored]:
    """Checks every byte and every shape, then opens it. Raises CheckpointError."""
    folder = Path(path)
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        files = _checked(folder, manifest)
        _check_shapes(files, shapes, manifest.steps)
        yield Stored(manifest.steps, files)
    except (OSError, msgspec.MsgspecError, SafetensorError, _Torn) as error:
        kept = describe_kept(folder.parent)
        raise CheckpointError(f"{folder} cannot be loaded: {error}. {kept}") from error


class _Torn(Exception):
    pass


def _checked(folder: Path, manifest: Manifest) -> list[safe_open]:
    if not manifest.files:
        raise _Torn(f"{MANIFEST} names no file")
    files: list[safe_open] = []
    for rank, stored in enumerate(manifest.files):
        file = folder / file_of(rank)
        size = file.stat().st_size
        if size != stored.bytes:
            raise _Torn(f"{file.name} has {size} bytes, its manifest says {stored.bytes}")
        if sha256_of(file) != stored.sha256:
            raise _Torn(f"{file.name} is not what was written: its SHA-256 differs")
        files.append(safe_open(file, framework="numpy"))
    return files


def _check_shapes(
    files: list[safe_open], shapes: Mapping[str, tuple[int, ...]], steps: int
) -> None:
    kinds = ("parameter", *MOMENTS) if steps > 0 else ("parameter",)
    wanted = {f"{kind}/{name}" for kind in kinds for name in shapes}
    for file in files:
        unlike = wanted ^ set(file.keys())
        if unlike:
            raise _Torn(f"it is of another model: {min(unlike)} is in one of them alone")
    for full in sorted(wanted):
        shape = shapes[full.partition("/")[2]]
        parts = [tuple(file.get_slice(full).get_shape()) for file in files]
        rows = sum(part[0] for part in parts)
        if (rows, *shape[1:]) != shape or any(part[1:] != shape[1:] for part in parts):
            raise _Torn(f"{full} has shapes {parts} there, and is {shape} here")


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
