"""Processes under test: started on a core, measured with all their children, ended with the run.

Linux only: it pins, and reads `/proc`. A child is killed when this process dies, however it
dies; what it wrote is in its log.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
_STOP_S = 5.0  # then it is killed: there is nothing to save


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Who runs where: the gateway has its core for itself, as far as this benchmark goes."""

    gateway: int
    upstream: int
    load: int


def share_cores() -> Cores:
    """The last core for the gateway; the others for who asks and who answers."""
    able = sorted(os.sched_getaffinity(0))
    if len(able) < 2:
        raise SystemExit("bench.gateway: it needs 2 cores: one for the gateway, one for the load")
    return Cores(gateway=able[-1], upstream=able[1] if len(able) > 2 else able[0], load=able[0])


def start(
    command: list[str], *, core: int, log: Path, env: dict[str, str] | None = None, **pipes: int
) -> subprocess.Popen[bytes]:
    """Start on that core alone; its children inherit it."""
    libc = ctypes.CDLL(None)

    def before_exec() -> None:
        os.sched_setaffinity(0, {core})
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            env={**os.environ, "NO_PROXY": "127.0.0.1", **(env or {})},
            stdin=pipes.get("stdin", subprocess.DEVNULL),
            stdout=pipes.get("stdout", out),
            stderr=out,
            cwd=log.parent,
            start_new_session=True,
            preexec_fn=before_exec,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole group to end, then make it."""
    for number, wait_s in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # a child that outlived its parent


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Counters at one moment."""

    cpu_s: float  # of the gateway's processes, user and system
    core_s: float  # of its core, whoever used it
    rss_bytes: int


def read(pid: int | None, core: int) -> Reading:
    """The process and all its descendants, with what ended ones have used; None: nobody's."""
    cpu_s, rss_bytes = 0.0, 0
    root = psutil.Process(pid) if pid is not None else None
    for process in (root, *root.children(recursive=True)) if root else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            cpu_s += sum(process.cpu_times()[:4])  # user, system, and those of reaped children
            rss_bytes += process.memory_info().rss
    busy = psutil.cpu_times(percpu=True)[core]
    return Reading(
        cpu_s=cpu_s, core_s=sum(busy) - busy.idle - busy.iowait - busy.guest, rss_bytes=rss_bytes
    )
