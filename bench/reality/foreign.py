"""What else ran on the machine: cores that processes outside this one's tree kept busy.

From the system's counters, less those of this process and all that it started.
"""

import contextlib
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY_S = 1.0
_AHEAD = -15  # as `nice` counts: 30 times the share of another session


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Seconds of CPU since each began."""

    at_s: float
    all_s: float
    own_s: float
    replicas_s: float  # those that were named


def counted(replicas: Collection[int] = ()) -> Counted:
    """As it stands now; `replicas` are pids."""
    times = psutil.cpu_times()
    all_s = times.user + times.system + times.nice + getattr(times, "softirq", 0.0)
    me = psutil.Process()
    ended = me.cpu_times()  # of children that were waited for
    own_s = ended.children_user + ended.children_system
    replicas_s = 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            own_s += used.user + used.system
            if process.pid in replicas:
                replicas_s += used.user + used.system
    return Counted(at_s=time.monotonic(), all_s=all_s, own_s=own_s, replicas_s=replicas_s)


def foreign_cores(before: Counted, after: Counted) -> float:
    """Cores kept busy by others between the two, on average."""
    others_s = (after.all_s - before.all_s) - (after.own_s - before.own_s)
    return max(0.0, others_s / max(1e-9, after.at_s - before.at_s))


def cores_beside_replicas(before: Counted, after: Counted) -> float:
    """Cores kept busy by all but the replicas: others, the gateway and the client."""
    beside_s = (after.all_s - before.all_s) - (after.replicas_s - before.replicas_s)
    return max(0.0, beside_s / max(1e-9, after.at_s - before.at_s))


@contextlib.contextmanager
def watched(replicas: Collection[int]) -> Iterator[list[Counted]]:
    """The counters once a second while the block runs; complete when it has ended."""
    samples, ended = [counted(replicas)], threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            samples.append(counted(replicas))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
        samples.append(counted(replicas))


def cores_of_own(before: Counted, after: Counted) -> float:
    """Cores kept busy by the gateway and the client."""
    own_s = (after.own_s - before.own_s) - (after.replicas_s - before.replicas_s)
    return max(0.0, own_s / max(1e-9, after.at_s - before.at_s))


@contextlib.contextmanager
def ahead_of_others() -> Iterator[None]:
    """Put this process and those that it has started before all other programs meanwhile.

    Linux shares cores among sessions (autogroups), so it is these that are told. Needs root.
    """
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        _autogroup(process.pid).write_text(str(_AHEAD))
    try:
        yield
    finally:
        _autogroup(me.pid).write_text("0")


def _autogroup(pid: int) -> Path:
    return Path(f"/proc/{pid}/autogroup")


def wait_until_quiet(cores_max: float, *, seconds_max: float) -> float:
    """Sleep until others use less than that for two seconds, or the time is up; what they use."""
    until_s = time.monotonic() + seconds_max
    while True:
        before = counted()
        time.sleep(2.0)
        used = foreign_cores(before, counted())
        if used < cores_max or time.monotonic() >= until_s:
            return used
