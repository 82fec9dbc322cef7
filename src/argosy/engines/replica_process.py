"""The manners of a program that runs inside a replica: `Command` promises them, this keeps them.

Owns the replica's standard streams, its signals and its death. What it serves is its program's.
"""

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def begin() -> Callable[[str], None]:
    """Become a replica, before anything slow is imported; returns `announce(url)`.

    From here on stdout is stderr, also for C++ code that writes to file descriptor 1; Ctrl-C is
    the parent's business; SIGTERM ends the process at once; so does the end of stdin.
    """
    url_fd = os.dup(1)
    os.dup2(2, 1)
    take_signals()
    _die_with_parent()
    threading.Thread(target=_exit_when_stdin_ends, name="lifeline", daemon=True).start()

    def announce(url: str) -> None:
        os.write(url_fd, json.dumps({"url": url}).encode() + b"\n")
        os.close(url_fd)

    return announce


def url_of(host: str, port: int) -> str:
    """For `announce`."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def take_signals() -> None:
    """Ignore SIGINT, die of SIGTERM; to be called again after a library took them."""
    # The kernel's own action, not a handler: Python runs no handler while llama.cpp, loading a
    # model, holds the GIL.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit_when_stdin_ends() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # no atexit, no destructors: a parent that is gone waits for nothing


def _die_with_parent() -> None:
    """On Linux the kernel kills the replica when the thread that started it ends.

    The lifeline thread alone would do it late: llama.cpp holds the GIL for the whole time that
    it loads a model (measured: a thread that ticks every 5 ms is silent for all of the 0.5 s),
    and a stopped process reads no stdin at all.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
