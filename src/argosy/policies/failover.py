"""What to do when an attempt on a replica failed: again, another model, or give up. Pure."""

from typing import Literal

import msgspec

from argosy.fleet.messages import RefusalKind

FailureKind = Literal["unreached", "lost", "busy", "silent", "overflow", "refused"]
FAULTS: frozenset[FailureKind] = frozenset({"unreached", "lost", "busy", "silent"})  # its own
UNREACHED = "unreached"  # the code of a refusal
_KINDS: dict[RefusalKind, FailureKind] = {
    "upstream_failed": "lost",
    "no_replica": "busy",
    "rate_limited": "busy",
    "upstream_timeout": "silent",
    "context_overflow": "overflow",
}


def failure_of(refusal: RefusalKind, code: str | None = None) -> FailureKind:
    """What an attempt's refusal means; all else is the request's own fault, or the gateway's."""
    return "unreached" if code == UNREACHED else _KINDS.get(refusal, "refused")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt failed.

    unreached: nobody took the connection, nothing was sent. lost: died, broke off or said that it
    cannot (5xx). busy: told us to come later (429, 503). silent: a deadline passed. overflow: the
    prompt is longer than its context. refused: the request itself is at fault; nobody else would
    answer it otherwise.
    """

    kind: FailureKind
    retry_after_s: float | None = None  # as the replica asked


class FailoverView(msgspec.Struct, frozen=True, kw_only=True):
    """Where the request stands."""

    attempts: int  # failed ones on the model that is being tried
    attempts_max: int
    has_untried: bool  # another replica of this model is ready and has not failed this request
    has_fallback: bool  # another model may answer instead
    has_begun: bool = False  # the client has a part of the answer: only this model can go on
    may_retry: bool = True  # the model's `RetryBudget` has something left
    waited_s: float = 0.0  # since the first failed attempt on this model
    wait_s_max: float = 0.0  # that a request waits for a ready replica


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """Try this model again, `delay_s` from now (before jitter)."""

    delay_s: float
    reason: str


class FallBack(msgspec.Struct, frozen=True, kw_only=True):
    """Try the next model."""

    reason: str


class GiveUp(msgspec.Struct, frozen=True, kw_only=True):
    """Tell the client."""

    reason: str


RETRY_S, RETRY_S_MAX = 0.05, 1.0
RETRY_AFTER_S_MAX = 5.0  # a longer wait that a replica asks for is somebody else's turn


def after_failure(failure: Failure, view: FailoverView) -> Again | FallBack | GiveUp:
    """Again while attempts are left and it may help, then the fallback, then give up.

    A request that is wrong is wrong everywhere; one that is too long needs a larger model; a
    silent replica has had its time, so only another replica is worth a second wait; but a stream
    that has begun has nowhere else to go. Who cannot be reached costs nothing to ask again: a
    request with nowhere else to go waits as it would with no replica ready, for one comes.
    """
    if failure.kind == "refused":
        return GiveUp(reason="the request itself is refused")
    again = _again(failure, view)
    if again is not None:
        return again
    if view.has_fallback:
        return FallBack(reason=f"{failure.kind} after {view.attempts} attempts")
    return GiveUp(reason=f"{failure.kind} after {view.attempts} attempts, and no fallback")


RETRIES_PER_REQUEST = 0.5
RETRIES_AT_ONCE = 256  # a replica that dies with this many requests on it: all go elsewhere


class RetryBudget(msgspec.Struct):
    """What keeps the retries of one model from storming it; changed in place.

    Each request adds half a retry, up to a reserve for the death of a busy replica. So where
    everything fails for long, replicas are asked one and a half times as often as clients ask,
    not `attempts_max` times. Going on with an answer that has begun takes from the budget too but
    is never denied: giving up there would waste what was done and break a stream.
    """

    left: float = RETRIES_AT_ONCE

    def add_request(self) -> None:
        """A request came."""
        self.left = min(RETRIES_AT_ONCE, self.left + RETRIES_PER_REQUEST)

    def take(self) -> None:
        """It is tried again."""
        self.left = max(0.0, self.left - 1.0)

    @property
    def has_some(self) -> bool:
        """True while one more may be tried again."""
        return self.left >= 1.0


def _again(failure: Failure, view: FailoverView) -> Again | None:
    is_alone = not view.has_untried and not view.has_fallback
    if failure.kind == "unreached" and is_alone and view.waited_s < view.wait_s_max:
        delay_s = min(RETRY_S_MAX, RETRY_S * 2**view.attempts)
        return Again(delay_s=delay_s, reason="waits for a replica that can be reached")
    if not view.may_retry and not view.has_begun:
        return None
    if view.attempts >= view.attempts_max or failure.kind == "overflow":
        return None
    if failure.kind == "silent" and not view.has_begun:
        return Again(delay_s=0.0, reason="another replica is ready") if view.has_untried else None
    if view.has_untried:
        return Again(delay_s=0.0, reason="another replica is ready")
    asked_s = failure.retry_after_s
    if asked_s is not None and asked_s > RETRY_AFTER_S_MAX:
        return None  # the client is told how long, and can do better than wait here
    delay_s = min(RETRY_S_MAX, RETRY_S * 2**view.attempts)
    if asked_s is not None:
        return Again(delay_s=max(delay_s, asked_s), reason=f"asked to wait {asked_s:g} s")
    return Again(delay_s=delay_s, reason=f"attempt {view.attempts + 1} of {view.attempts_max}")
