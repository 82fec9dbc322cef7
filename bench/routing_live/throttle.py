"""Slow a process down: `python -m bench.routing_live.throttle PID SHARE`, until terminated.

SIGSTOP and SIGCONT by turns, with a period of 9 ms: the process computes for SHARE of the time.
No cgroup and no root is needed, the core is idle meanwhile instead of busy with a rival, and the
rate does not depend on what else the machine does. Each turn costs the parent a SIGCHLD.
"""

import contextlib
import os
import signal
import sys
import time

PERIOD_S = 0.009


def main() -> None:
    pid, share = int(sys.argv[1]), float(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    begun = time.monotonic()
    try:
        while True:
            os.kill(pid, signal.SIGCONT)
            # What stopped it late is no credit: each turn begins where the clock is.
            time.sleep(PERIOD_S * share)
            os.kill(pid, signal.SIGSTOP)
            late = (time.monotonic() - begun) % PERIOD_S
            time.sleep(max(0.0005, PERIOD_S - late))
    except ProcessLookupError:
        return
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    main()
