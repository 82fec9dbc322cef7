"""Judges one scenario from what the client and the two upstreams have seen. Pure.

    fail     a hang, an answer that is cut, false or lost without an error, an upstream hammered,
             or a promise of the scenario broken
    safe     not served, but a clean error and nothing false
    partial  served, with a flaw
    pass     served, without one

In that order: the first that holds is the grade, and what held is the reason.
"""

from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Literal

import msgspec

from tests.system.failover.answer import ANSWER, TOKENS
from tests.system.failover.seen import PREFILL_REFUSED, Attempt, Error, Reply, Seen

Grade = Literal["pass", "partial", "safe", "fail"]
GRADES: tuple[Grade, ...] = ("pass", "partial", "safe", "fail")
_EARLY = 0.9  # of a Retry-After: clocks tick


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """The primary is down for a while and well again."""

    down_s: float
    return_within_s: float  # from its end to the primary's first answer


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a scenario asks for, beyond a right answer."""

    # Broken, these fail.
    attempts_primary_max: int = 6
    attempts_backup_max: int = 3
    burst_attempts_max: int = 4  # on the primary, within `burst_s` of its first
    burst_s: float = 3.0
    names_backup: bool = False  # as the model that answered
    outage: Outage | None = None

    # Broken, these are flaws.
    refusal: Error | None = None  # this error is the right answer
    answered_within_s: float | None = None
    attempts_primary_min: int = 1
    attempts_primary_wanted: int | None = None  # more are too many
    waits_s: float | None = None  # between the first two attempts on the primary


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A grade and why."""

    grade: Grade
    reason: str


def grade(seen: Seen, rules: Rules) -> Verdict:
    """The verdict on one scenario."""
    if wrong := _first(chain(_false_replies(seen), _hammering(seen, rules), _broken(seen, rules))):
        return Verdict(grade="fail", reason=wrong)
    if rules.refusal is None and (error := _first(_errors(seen))):
        return Verdict(grade="safe", reason=error)
    flaws = _refusal_flaws(seen, rules) if rules.refusal else _answer_flaws(seen, rules)
    if flaw := _first(chain(flaws, _conduct_flaws(seen, rules))):
        return Verdict(grade="partial", reason=flaw)
    return Verdict(grade="pass", reason=_served(seen, rules))


def _first(reasons: Iterator[str]) -> str | None:
    return next(reasons, None)


# What fails.


def _false_replies(seen: Seen) -> Iterator[str]:
    for reply in seen.replies:
        if reply.end == "hung":
            yield f"hung: {_tokens(reply.text)}, then nothing until {reply.seconds:.1f} s"
        elif reply.end == "lost":
            yield f"lost after {_tokens(reply.text)} without an error: {reply.detail}"
        else:
            yield from _false_texts(reply)


def _false_texts(reply: Reply) -> Iterator[str]:
    for text in (reply.text, reply.wire.text):
        if not ANSWER.startswith(text):
            yield f"text lost or doubled: after {_tokens(_common(text))} came {_odd(text)}"
        elif reply.end == "whole" and text != ANSWER:
            yield f"a cut answer as a success: {_tokens(text)} of {len(TOKENS)}"


def _hammering(seen: Seen, rules: Rules) -> Iterator[str]:
    for name, attempts, most in (
        ("primary", seen.primary, rules.attempts_primary_max),
        ("backup", seen.backup, rules.attempts_backup_max),
    ):
        if len(attempts) > most:
            yield f"{len(attempts)} attempts on the {name}, {most} allowed"
    if seen.primary:
        until_s = seen.primary[0].at_s + rules.burst_s
        burst = sum(attempt.at_s < until_s for attempt in seen.primary)
        if burst > rules.burst_attempts_max:
            yield f"hammered: {burst} attempts on the primary in {rules.burst_s:g} s"


def _broken(seen: Seen, rules: Rules) -> Iterator[str]:
    if not seen.is_alive_after:
        yield "a healthy request right after it was not answered"
    refused = any(reply.end == "refused" for reply in seen.replies)
    if refused and any(attempt.code == PREFILL_REFUSED for attempt in seen.backup):
        yield "the backup's refusal of a prefill became the client's error"
    for reply in seen.replies:
        billed = sum(reply.wire.tokens_out)
        if billed > len(TOKENS) or len(reply.wire.tokens_out) > 1:
            yield f"billed {len(reply.wire.tokens_out)} times, {billed} tokens in all"
        if rules.names_backup and reply.end == "whole" and reply.wire.models != ("backup",):
            yield f"the backup answered and the client is told {_listed(reply.wire.models)}"
    if rules.outage and not any(reply.end == "refused" for reply in seen.replies):
        yield from _not_returned(seen.primary, rules.outage)


def _not_returned(primary: tuple[Attempt, ...], outage: Outage) -> Iterator[str]:
    answered = [one.at_s for one in primary if one.ending == "answered"]
    if not answered:
        yield "the primary was never used again after its outage"
    elif (late_s := answered[0] - outage.down_s) > outage.return_within_s:
        yield f"the primary was used again only {late_s:.1f} s after its outage"


# What is safe.


def _errors(seen: Seen) -> Iterator[str]:
    errors = [reply.error for reply in seen.replies if reply.error is not None]
    if errors:
        of = "" if len(seen.replies) == 1 else f"{len(errors)} of {len(seen.replies)} requests: "
        yield f"{of}a clean error: {_said(errors[0])}"


# What is a flaw.


def _refusal_flaws(seen: Seen, rules: Rules) -> Iterator[str]:
    right = rules.refusal
    assert right is not None
    if seen.backup:
        yield "the refusal was routed around: the backup was asked"
    for reply in seen.replies:
        error = reply.error
        if error is None:
            yield "answered, though the upstream refused"
        elif error.status != right.status or right.message not in error.message:
            yield f"another error than the upstream's: {_said(error)}"
        elif error.code != right.code:
            yield f"the upstream's code {right.code} became {error.code}"


def _answer_flaws(seen: Seen, rules: Rules) -> Iterator[str]:
    for reply in seen.replies:
        wire = reply.wire
        if wire.events_unreadable:
            yield f"{wire.events_unreadable} events that no client can read"
        if wire.finishes != ("stop",) or wire.dones != 1:
            yield f"ends with finish_reason {_listed(wire.finishes)} and [DONE] {wire.dones} times"
        if wire.tokens_out != (len(TOKENS),):
            yield f"usage says {_listed(wire.tokens_out)} of {len(TOKENS)} tokens"
        limit_s = rules.answered_within_s
        if limit_s is not None and reply.seconds > limit_s:
            yield f"answered after {reply.seconds:.1f} s, wanted within {limit_s:g} s"


def _conduct_flaws(seen: Seen, rules: Rules) -> Iterator[str]:
    primary = seen.primary
    if len(primary) < rules.attempts_primary_min:
        yield f"the primary was tried {len(primary)} times, then given up too early"
    wanted = rules.attempts_primary_wanted
    if wanted is not None and len(primary) > wanted:
        yield f"{len(primary)} attempts on the primary, {wanted} wanted"
    if rules.waits_s is not None:
        gap_s = next((later.at_s - first.at_s for first, later in pairwise(primary)), 0.0)
        if gap_s < rules.waits_s * _EARLY:
            yield f"tried again after {gap_s:.1f} s, asked to wait {rules.waits_s:g} s"
    if rules.outage is not None:
        yield from _unprotected(seen, rules.outage)
    for name, attempts in (("primary", primary), ("backup", seen.backup)):
        if any(attempt.ending == "open" for attempt in attempts):
            yield f"an attempt on the {name} was given up and left open"


def _unprotected(seen: Seen, outage: Outage) -> Iterator[str]:
    attempts = sum(attempt.at_s < outage.down_s for attempt in seen.primary)
    requests = sum(reply.at_s < outage.down_s for reply in seen.replies)
    if attempts > requests:
        yield f"{attempts} attempts on the dead primary for {requests} requests"


# In words.


def _served(seen: Seen, rules: Rules) -> str:
    if rules.refusal is not None:
        return "the upstream's own refusal"
    if rules.outage is not None:
        return f"{len(seen.replies)} of {len(seen.replies)} served, and back on the primary"
    return "the whole answer"


def _said(error: Error) -> str:
    where = "in the stream" if error.status is None else str(error.status)
    return f"{where}, {error.message}"


def _tokens(text: str) -> str:
    count = len(text.split())
    return f"{count} token" if count == 1 else f"{count} tokens"


def _common(text: str) -> str:
    """How much of it is how the answer begins, in whole tokens."""
    end = 0
    for token in TOKENS:
        if not text.startswith(token, end):
            break
        end += len(token)
    return text[:end]


def _odd(text: str) -> str:
    return repr(text[len(_common(text)) :][:12])


def _listed(items: tuple[object, ...]) -> str:
    return ", ".join(map(str, items)) or "nothing"
