"""Replicas as processes of this machine, and the end of those that a crashed run left behind.

Owns each child's streams, its log (`logs/<replica>.log` in the state folder) and its record
(`replicas/<replica>.json`, there while it runs). When to start or stop one is the caller's.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import msgspec
import psutil

from argosy.fleet.messages import Command
from argosy.launchers.port import ReplicaEndedError

_LOG_BYTES_MAX = 5 * 2**20  # a longer log is put aside at the next start
_TAIL_BYTES = 2048
_TAIL_LINES = 5
_END_OF_STDOUT_S = 2.0  # from the end of stdout to the end of the process that closed it
_REAP_S = 5.0
# psutil adds the time since boot to a boot time that moves when the clock is set.
_CREATE_TIME_TOLERANCE_S = 2.0


class ChildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A running replica, for the next run should this one crash."""

    name: str
    pid: int
    create_time_s: float  # Unix time: tells it from a stranger with its pid


class LocalProcesses:
    """The launcher of this machine; `state` is the folder for logs and records."""

    def __init__(self, state: Path) -> None:
        self._state = state

    async def start(self, name: str, command: Command | None) -> "LocalProcess":
        """Start the replica. Raises `ReplicaEndedError` when its program cannot be run."""
        assert command is not None, "an engine that starts nothing belongs to an endpoint pool"
        log = _log_path(self._state, name)
        with _open_log(log) as stderr:
            log_start = stderr.tell()
            process = await _spawn(name, command, stderr)
        record = _write_record(self._state, name, process.pid)
        return LocalProcess(name, process, record=record, log=log, log_start=log_start)


class LocalProcess:
    """One child process. Its stdin stays open: when we die, it reads the end of it and exits."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        *,
        record: Path,
        log: Path,
        log_start: int,
    ) -> None:
        self._name = name
        self._process = process
        self._log = log
        self._log_start = log_start  # in bytes: what an earlier process wrote is not its words
        self._url = asyncio.create_task(_read_url(process))
        self._ended = asyncio.create_task(_watch(process, record))

    @property
    def pid(self) -> int | None:
        return self._process.pid

    async def listening(self) -> str:
        url = await asyncio.shield(self._url)
        if url is not None:
            return url
        with contextlib.suppress(TimeoutError):  # it usually closed stdout by exiting
            await asyncio.wait_for(asyncio.shield(self._ended), _END_OF_STDOUT_S)
        if not self._ended.done():
            await self.stop(grace_s=0)
        how = await self.ended()
        tail = _tail(self._log, self._log_start)
        raise ReplicaEndedError(f"{self._name} {how} before it listened{tail} (log: {self._log})")

    async def ended(self) -> str:
        return await asyncio.shield(self._ended)

    async def stop(self, *, grace_s: float) -> None:
        if self._ended.done():
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.ended(), grace_s)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.ended()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            self._process.send_signal(number)


def reap_stale(state: Path) -> list[str]:
    """Kill the replicas that a crashed run left in `state`, stopped ones too; says which.

    Only while holding the run's lock: a record of a running fleet looks the same.
    """
    folder = state / "replicas"
    records = sorted(folder.glob("*.json")) if folder.is_dir() else []
    said = [_reap(record) for record in records]
    return [line for line in said if line is not None]


def _reap(path: Path) -> str | None:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=ChildRecord)
    except ValueError as error:
        path.unlink()
        return f"removed {path}: not a replica's record ({error}); nothing was killed for it"
    killed = _kill(record)
    path.unlink()
    if not killed:
        return None
    return f"killed replica {record.name} (pid {record.pid}), left behind by a run that crashed"


def _kill(record: ChildRecord) -> bool:
    """False when the process is gone, or its pid is a stranger's."""
    try:
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.create_time_s) > _CREATE_TIME_TOLERANCE_S:
            return False
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.kill()  # SIGKILL also ends a process that SIGSTOP holds
    except psutil.NoSuchProcess:
        return False
    with contextlib.suppress(psutil.TimeoutExpired):  # where process 1 reaps no orphans
        process.wait(_REAP_S)
    return True


async def _spawn(name: str, command: Command, stderr: BinaryIO) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command.argv,
            env={**os.environ, **command.env},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C in the terminal reaches us alone
        )
    except OSError as error:
        raise ReplicaEndedError(f"{name}: {command.argv[0]} cannot be run: {error}") from error


class _Listening(msgspec.Struct, frozen=True, kw_only=True):
    url: str


async def _read_url(process: asyncio.subprocess.Process) -> str | None:
    """The URL in the first line of stdout; None when the line is something else or missing."""
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        return msgspec.json.decode(line, type=_Listening).url
    except ValueError:  # not that JSON (msgspec's errors are ValueErrors), or no end of line
        return None


async def _watch(process: asyncio.subprocess.Process, record: Path) -> str:
    status = await process.wait()
    _remove_record(record, process.pid)
    assert process.stdin is not None
    process.stdin.close()
    return _how_it_ended(status)


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"


def _file_name(replica: str) -> str:
    return quote(replica, safe=":@")  # a name may hold a slash; two names stay two files


def _log_path(state: Path, name: str) -> Path:
    return state / "logs" / f"{_file_name(name)}.log"


def _open_log(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_BYTES_MAX:
        path.replace(path.with_name(path.name + ".1"))
    file = path.open("ab")
    file.seek(0, os.SEEK_END)
    return file


def _tail(path: Path, start: int) -> str:
    """The last lines that this process wrote, ready to be put behind a message."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    words = "\n".join(lines[-_TAIL_LINES:]).strip()
    return f", saying:\n{words}\n" if words else ", saying nothing"


def _write_record(state: Path, name: str, pid: int) -> Path:
    path = state / "replicas" / f"{_file_name(name)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(psutil.NoSuchProcess):  # ended already: nothing to reap
        create_time_s = psutil.Process(pid).create_time()
        record = ChildRecord(name=name, pid=pid, create_time_s=create_time_s)
        temporary = path.with_name(path.name + ".new")
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(path)
    return path


def _remove_record(path: Path, pid: int) -> None:
    """Unless the name's next process has already put its own there."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        if msgspec.json.decode(path.read_bytes(), type=ChildRecord).pid == pid:
            path.unlink()
