"""One run per state folder: a lock that the kernel drops when its holder dies, however it dies."""

import fcntl
import os
from pathlib import Path

import msgspec

from argosy.fleet.messages import RunFile


class AlreadyRunningError(Exception):
    """Another process runs a fleet on this state folder; the message says which."""


class RunLock:
    """`argosy.lock` in the state folder, held from `acquire` until `release` or death."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises `AlreadyRunningError` when another process holds it."""
        self._state.mkdir(parents=True, exist_ok=True)
        # Python opens files so that exec closes them: no replica keeps the lock of a dead run.
        fd = os.open(self._state / "argosy.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise AlreadyRunningError(_held(self._state)) from None
        self._fd = fd

    def release(self) -> None:
        """Give it up. May be called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _held(state: Path) -> str:
    try:
        run = msgspec.json.decode((state / "run.json").read_bytes(), type=RunFile)
        holder = f"pid {run.pid}, gateway {run.gateway_url}"
    except (OSError, ValueError):  # it may be starting, and has not written it yet
        holder = "its run.json is not there yet"
    return (
        f"a fleet already runs on {state} ({holder}). "
        "Stop it with Ctrl-C there, or run a second one with --state DIR."
    )
