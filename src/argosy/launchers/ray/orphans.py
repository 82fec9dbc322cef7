"""The replicas' processes on one machine that have lost their actor: found on record, and ended.

A record is written when a process starts and removed when it has ended. Who finds one whose actor
is gone, kills what is left of the session that it led. A stranger that got its pid is spared.
"""

import contextlib
import os
import signal
from pathlib import Path
from urllib.parse import quote

import msgspec
import psutil

# psutil adds the time since boot to a boot time that moves when the clock is set.
_CREATE_TIME_TOLERANCE_S = 2.0


class ChildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A replica's process, the leader of its session, and the actor that it belongs to."""

    name: str
    pid: int
    create_time_s: float  # Unix time: tells it from a stranger with its pid
    actor_pid: int
    actor_create_time_s: float


def put_on_record(folder: Path, name: str, pid: int) -> Path | None:
    """Record a process of ours; None when it has ended already."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        record = ChildRecord(
            name=name,
            pid=pid,
            create_time_s=psutil.Process(pid).create_time(),
            actor_pid=os.getpid(),
            actor_create_time_s=psutil.Process().create_time(),
        )
    except psutil.NoSuchProcess:
        return None
    path = folder / f"{quote(name, safe=':@')}.{pid}.json"
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(record))
    temporary.replace(path)
    return path


def reap(folder: Path) -> list[str]:
    """End what lost its actor; says which."""
    said = [_reap(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    return [line for line in said if line is not None]


def _reap(path: Path) -> str | None:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=ChildRecord)
    except FileNotFoundError:  # another actor was first
        return None
    except ValueError as error:
        path.unlink(missing_ok=True)
        return f"removed {path}: not a replica's record ({error})"
    if _lives(record.actor_pid, record.actor_create_time_s):
        return None
    members = _session_of(record)
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    path.unlink(missing_ok=True)
    if not members:
        return None
    return f"killed {record.name} (pid {record.pid}), left behind by an actor that is gone"


def _session_of(record: ChildRecord) -> list[int]:
    """Who is left of it. The kernel gives no new process the id of a session that lives."""
    born_s = _create_time_s(record.pid)
    if born_s is not None and abs(born_s - record.create_time_s) > _CREATE_TIME_TOLERANCE_S:
        return []  # the pid is a stranger's: the session had ended
    members: list[int] = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == record.pid:
                members.append(pid)
    return members


def _lives(pid: int, create_time_s: float) -> bool:
    born_s = _create_time_s(pid)
    if born_s is None or abs(born_s - create_time_s) > _CREATE_TIME_TOLERANCE_S:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _create_time_s(pid: int) -> float | None:
    """Of a zombie too; None when there is no such process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).create_time()
    return None
