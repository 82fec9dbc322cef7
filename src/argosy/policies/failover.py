"""What to do when an attempt on a replica failed: again, another model, or give up. Pure."""

from typing import Literal

import msgspec

FailureKind = Literal["lost", "busy", "silent", "overflow", "refused"]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt failed.

    lost: died, broke off or said that it cannot (5xx). busy: told us to come later (429, 503).
    silent: a deadline passed. overflow: the prompt is longer than its context. refused: the
    request itself is at fault; nobody else would answer it otherwise.
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
    that has begun has nowhere else to go.
    """
    if failure.kind == "refused":
        return GiveUp(reason="the request itself is refused")
    again = _again(failure, view)
    if again is not None:
        return again
    if view.has_fallback:
        return FallBack(reason=f"{failure.kind} after {view.attempts} attempts")
    return GiveUp(reason=f"{failure.kind} after {view.attempts} attempts, and no fallback")


def _again(failure: Failure, view: FailoverView) -> Again | None:
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
