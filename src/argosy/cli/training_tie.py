"""Ties a process of a run to the supervisor that started it: it ends soon after that one dies.

The end of stdin says that the supervisor wants it to end, or is gone. In order, it also sends
SIGTERM and waits; gone, nobody waits, and a process that does not end by itself is ended here. One
that is held up (SIGSTOP) is found on record by the next supervisor.
"""

import os
import signal
import threading
import time

_LOOK_S = 0.5
_GRACE_S = 8.0  # for an end in order, without a supervisor


def tie_to_parent() -> None:
    """From now on; our stdin must be the pipe that the supervisor holds open."""
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent,), name="tie", daemon=True).start()


def _watch(parent: int) -> None:
    while os.read(0, 4096):
        pass
    while os.getppid() == parent:  # it closed the pipe, and sees to the rest itself
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)
