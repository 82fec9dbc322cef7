"""Which replicas are left alone because they keep failing, and for how long. Pure.

closed -> (three failures in a row) -> open -> (its time is over) -> one request tries -> closed,
or open for twice as long. Probes are the control plane's; this sees what probes do not: a replica
whose health page is fine and whose answers are not.
"""

import msgspec

FAILURES_TO_OPEN = 3
OPEN_S, OPEN_S_MAX = 2.0, 10.0


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one replica."""

    failures: int = 0  # in a row
    open_s: float = 0.0  # how long it was opened last
    open_until_s: float = float("-inf")

    def is_open(self, now_s: float) -> bool:
        """True while nobody should try."""
        return now_s < self.open_until_s


def failed(breaker: Breaker, *, now_s: float) -> Breaker:
    """One more failure: opens it from the third in a row on, longer each time."""
    failures = breaker.failures + 1
    if failures < FAILURES_TO_OPEN:
        return msgspec.structs.replace(breaker, failures=failures)
    open_s = min(OPEN_S_MAX, max(OPEN_S, breaker.open_s * 2))
    return Breaker(failures=failures, open_s=open_s, open_until_s=now_s + open_s)


def tried(breaker: Breaker, *, now_s: float) -> Breaker:
    """A request goes there: where it tries a breaker whose time is over, it is the only one."""
    if breaker.failures < FAILURES_TO_OPEN:
        return breaker
    return msgspec.structs.replace(breaker, open_until_s=now_s + breaker.open_s)


def succeeded() -> Breaker:
    """An answer came: all is forgotten."""
    return Breaker()
