"""Replicas as processes of this machine, and the end of those that a crashed run left behind.

Owns each child and its record (`replicas/<replica>.json` in the state folder, there while it
runs); its streams are in `streams.py`. When to start or stop one is the caller's.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import msgspec
import psutil

from argosy.fleet.messages import Command, Observation, ObservedReplica, ReplicaSpec
from argosy.launchers.port import LaunchError
from argosy.launchers.streams import FirstLine, Lifeline, Log

_REAP_S = 5.0
# psutil adds the time since boot to a boot time that moves when the clock is set.
_CREATE_TIME_TOLERANCE_S = 2.0


class ChildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A running replica, for the next run should this one crash."""

    name: str
    pid: int
    create_time_s: float  # Unix time: tells it from a stranger with its pid
    kind: str = "replica"


class LocalPool:
    """The launcher of this machine; `state` is the folder for logs and records.

    Its replicas live as long as we do: their stdin ends with us.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._children: dict[str, _Child] = {}
        self._news = asyncio.Event()

    async def start(self, spec: ReplicaSpec) -> None:
        assert spec.command is not None, "an engine that starts nothing belongs to an endpoint pool"
        there = self._children.get(spec.name)
        if there is not None and there.generation == spec.generation and not there.has_ended:
            return
        if there is not None:
            await self.stop(spec.name, grace_s=0.0)
        process = await start_process(self._state, spec.name, spec.command)
        self._children[spec.name] = _Child(spec.generation, process, self._news.set)
        self._news.set()

    async def stop(self, name: str, *, grace_s: float) -> None:
        child = self._children.get(name)
        if child is None:
            return
        await child.process.stop(grace_s=grace_s)
        if self._children.get(name) is child:
            del self._children[name]
        self._news.set()

    async def observe(self) -> Observation:
        return Observation(
            replicas=tuple(child.observed(name) for name, child in self._children.items())
        )

    async def changed(self) -> None:
        await self._news.wait()
        self._news.clear()

    async def cordon(self, node: str, *, reason: str) -> None:
        """It has no nodes."""

    async def uncordon(self, node: str) -> None:
        """It has no nodes."""

    async def close(self, *, is_final: bool) -> None:
        """Ends all in any case: none outlives us."""
        await asyncio.gather(*(self.stop(name, grace_s=0.0) for name in list(self._children)))


class _Child:
    """A process and what became of it so far; `tell` is called when that changes."""

    def __init__(self, generation: str, process: "LocalProcess", tell: Callable[[], None]) -> None:
        self.generation = generation
        self.process = process
        self._url: str | None = None
        self._ended: str | None = None
        self._tell = tell
        self._following = asyncio.create_task(self._follow())

    @property
    def has_ended(self) -> bool:
        return self._ended is not None

    def observed(self, name: str) -> ObservedReplica:
        if self._ended is not None:
            state, detail = "ended", self._ended
        else:
            state, detail = ("starting", "") if self._url is None else ("listening", "")
        return ObservedReplica(
            name=name,
            generation=self.generation,
            state=state,
            url=self._url if self._ended is None else None,
            pid=self.process.pid,
            detail=detail,
        )

    async def _follow(self) -> None:
        try:
            self._url = await self.process.listening()
            self._tell()
            self._ended = await self.process.ended()
        except ReplicaEndedError as error:
            self._ended = str(error)
        self._tell()


class ReplicaEndedError(Exception):
    """The replica ended before it listened; the message says how."""


async def start_process(state: Path, name: str, command: Command) -> "LocalProcess":
    """Raises LaunchError when its program cannot be run."""
    log = Log(state / "logs" / f"{_file_name(name)}.log")
    with log.open() as stderr:
        process, stdin, stdout = await _spawn(name, command, stderr)
    record = write_record(state, name, process.pid)
    ended = asyncio.create_task(_watch(process, record, stdin, stdout))
    return LocalProcess(name, process, stdin=stdin, stdout=stdout, ended=ended, log=log)


class LocalProcess:
    """One child process. Its stdin stays open: when we die, it reads the end of it and exits."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        *,
        stdin: Lifeline,
        stdout: FirstLine,
        ended: asyncio.Task[str],
        log: Log,
    ) -> None:
        self._name = name
        self._process = process
        self._stdin = stdin
        self._stdout = stdout
        self._ended = ended
        self._log = log

    @property
    def pid(self) -> int | None:
        return self._process.pid

    async def listening(self) -> str:
        line = await asyncio.shield(self._stdout.line)
        url = _read_url(line)
        if url is not None:
            return url
        if line:
            await self.stop(grace_s=0)
            what = f"printed {line[:80]!r} where its URL was expected, and was killed"
        else:
            what = await self.ended()
        raise ReplicaEndedError(f"{self._name} {what} before it listened, {self._log.tail()}")

    async def ended(self) -> str:
        return await asyncio.shield(self._ended)

    async def stop(self, *, grace_s: float) -> None:
        if self._ended.done():
            return
        self._stdin.close()
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
    return (
        f"killed {record.kind} {record.name} (pid {record.pid}), left behind by a run that crashed"
    )


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


async def _spawn(
    name: str, command: Command, stderr: BinaryIO
) -> tuple[asyncio.subprocess.Process, Lifeline, FirstLine]:
    stdin_theirs, stdin_ours = os.pipe()  # closed by exec in every other child
    stdout_ours, stdout_theirs = os.pipe()
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        theirs.callback(os.close, stdin_theirs)
        theirs.callback(os.close, stdout_theirs)
        ours.callback(os.close, stdin_ours)  # unless all goes well: an abandoned child ends
        ours.callback(os.close, stdout_ours)
        try:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                env={**os.environ, **command.env},
                stdin=stdin_theirs,
                stdout=stdout_theirs,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C in the terminal reaches us alone
            )
        except OSError as error:
            raise LaunchError(f"{name}: {command.argv[0]} cannot be run: {error}") from error
        ours.pop_all()
    return process, Lifeline(stdin_ours), FirstLine(stdout_ours)


class _Listening(msgspec.Struct, frozen=True, kw_only=True):
    url: str


def _read_url(line: bytes) -> str | None:
    try:
        return msgspec.json.decode(line, type=_Listening).url
    except ValueError:  # msgspec's errors are ValueErrors
        return None


async def _watch(
    process: asyncio.subprocess.Process, record: Path, stdin: Lifeline, stdout: FirstLine
) -> str:
    status = await process.wait()
    stdin.close()
    stdout.close()
    remove_record(record, process.pid)
    return how_it_ended(status)


def how_it_ended(status: int) -> str:
    """In words, of what `wait` gives."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"


def _file_name(replica: str) -> str:
    return quote(replica, safe=":@")  # a name may hold a slash; two names stay two files


def write_record(state: Path, name: str, pid: int, *, kind: str = "replica") -> Path:
    """Put a child on record, so that the next run ends it should this one crash."""
    path = state / "replicas" / f"{_file_name(name)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(psutil.NoSuchProcess):  # ended already: nothing to reap
        create_time_s = psutil.Process(pid).create_time()
        record = ChildRecord(name=name, pid=pid, create_time_s=create_time_s, kind=kind)
        temporary = path.with_name(path.name + ".new")
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(path)
    return path


def remove_record(path: Path, pid: int) -> None:
    """Unless the name's next process has already put its own there."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        if msgspec.json.decode(path.read_bytes(), type=ChildRecord).pid == pid:
            path.unlink()
