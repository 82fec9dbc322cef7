"""A run's folder in the state folder: what it was started with, its logs, who keeps it alive.

Owns the names in `runs/NAME`; what is true of the run (tokens, rounds, islands) is in the store.
"""

import fcntl
import os
import shutil
import socket
from pathlib import Path
from typing import Literal

import msgspec

from argosy.fleet.runs import PretrainedModel, Run
from argosy.training.pools import PlacedPool

RUNS_FOLDER = "runs"  # in the state folder
_KEPT = "run.json"
_LOCK = "supervisor.lock"
_RunInner = Literal["torch", "reference"]


class KeptRun(msgspec.Struct, frozen=True, kw_only=True):
    """With what a run is gone on: its file as it is now, and what the command line said."""

    run: Run  # its paths are absolute
    spec: str  # as the store has it: the run when it was made
    inner: _RunInner = "torch"  # reference: numpy's, to try a run without torch or data
    step_s: float = 0.0  # of a reference island: each step takes at least so long
    syncer_port: int  # the same in all its lives: islands come back to it
    syncer_host: str = "127.0.0.1"  # the same in all its lives, too
    elsewhere: tuple[str, ...] = ()  # islands that are started by hand, on other hosts
    pools: tuple[PlacedPool, ...] = ()  # that its other islands are on


class RunFolderError(Exception):
    """The folder is of no use for what was asked; the message says why, and what would work."""


class RunFolder:
    """`runs/NAME` of a state folder."""

    def __init__(self, state: Path, name: str) -> None:
        self.state = state
        self.name = name
        self.path = state / RUNS_FOLDER / name
        self.credentials = self.path / "credentials"
        self.syncer = self.path / "syncer"
        self._lock: int | None = None

    def island(self, name: str) -> Path:
        """Where that island keeps what is its own."""
        return self.path / "islands" / name

    def log(self, name: str) -> Path:
        """What the process of that name says."""
        return self.path / "logs" / f"{name}.log"

    def write(self, kept: KeptRun) -> None:
        """Raises RunFolderError."""
        fresh = self.path / f"{_KEPT}.new"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
                f.write(msgspec.json.encode(kept))
                f.flush()
                os.fsync(f.fileno())
            fresh.replace(self.path / _KEPT)
        except OSError as error:
            told = f"{self.path} cannot be written: {error.strerror}. Free some space, or name"
            raise RunFolderError(f"{told} another folder: --state DIR") from error

    def read(self) -> KeptRun:
        """Raises RunFolderError."""
        try:
            return msgspec.json.decode((self.path / _KEPT).read_bytes(), type=KeptRun)
        except FileNotFoundError:
            raise RunFolderError(
                f"there is no run {self.name} in {self.state}. List them: argosy runs list"
            ) from None
        except (OSError, msgspec.DecodeError) as error:
            raise RunFolderError(f"{self.path / _KEPT} cannot be read: {error}") from error

    def lock(self) -> None:
        """Be the one that keeps the run, until `unlock` or death. Raises RunFolderError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            pid = self.keeper_pid()
            raise RunFolderError(
                f"run {self.name} is trained already, by pid {pid or 'unknown'}. "
                f"Look at it: argosy runs show {self.name}"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._lock = fd

    def unlock(self) -> None:
        """Give it up. May be called again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def keeper_pid(self) -> int | None:
        """Who holds the lock; None: nobody does."""
        try:
            fd = os.open(self.path / _LOCK, os.O_RDWR)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = os.pread(fd, 20, 0)
            return int(told) if told.isdigit() else None
        finally:
            os.close(fd)
        return None

    def is_kept(self) -> bool:
        """Whether a supervisor lives."""
        return self.keeper_pid() is not None

    def remove(self) -> None:
        """All of it."""
        shutil.rmtree(self.path, ignore_errors=True)


def names_in(state: Path) -> list[str]:
    """The runs that have a folder."""
    folder = state / RUNS_FOLDER
    return sorted(path.parent.name for path in folder.glob(f"*/{_KEPT}"))


def absolute(run: Run) -> Run:
    """The run with paths that hold wherever its processes run; URLs stay as they are."""
    data = msgspec.structs.replace(run.data, path=_absolute(run.data.path))
    model = run.model
    if isinstance(model, PretrainedModel):
        model = msgspec.structs.replace(model, path=_absolute(model.path))
    return msgspec.structs.replace(run, data=data, model=model)


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())


def free_port(host: str = "127.0.0.1") -> int:
    """A port of that address of ours that is free now. Raises OSError where it is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        return int(listener.getsockname()[1])
