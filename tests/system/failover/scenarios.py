"""The sixteen faults, as a table: what each upstream does, and what is expected of the fleet.

The catalogue of faults is Failover Bench's (methodology v0.1). What is asked for here is at least
what it asks for, so that a pass here would be one there. Behaviours are `upstream.py`'s, rules
`grade.py`'s.
"""

import msgspec

from tests.system.failover.grade import Outage, Rules
from tests.system.failover.seen import Error
from tests.system.failover.upstream import (
    Behaviour,
    answers,
    cuts_after,
    down_for,
    first_token_after,
    garbles_after,
    leaves_out_done,
    once,
    refuses,
    rejects_prefill,
    resets,
    says_nothing_for,
)

_ANSWER_S = 2.5  # generous: sixty tokens and a switch to the backup, on a busy machine


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How long things take; the defaults are the true durations."""

    token_gap_s: float = 0.01
    retry_after_s: int = 2
    silence_s: float = 120.0
    first_token_s: float = 20.0
    stall_s: float = 30.0
    down_s: float = 60.0
    return_within_s: float = 30.0
    interval_s: float = 4.0  # between the twenty requests
    deadline_s: float = 45.0  # after it a request has hung
    ttft_timeout_s: float = 10.0  # of the fleet
    stall_timeout_s: float = 10.0  # of the fleet


TRUE = Times()
SHORT = Times(
    token_gap_s=0.005,
    retry_after_s=1,  # the header holds whole seconds
    silence_s=15.0,
    first_token_s=7.0,
    stall_s=7.0,
    down_s=4.0,
    return_within_s=5.0,
    interval_s=0.5,
    deadline_s=12.0,
    ttft_timeout_s=1.5,
    stall_timeout_s=1.5,
)


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One fault and what is expected."""

    id: str
    name: str
    fault: str
    expected: str
    primary: Behaviour
    backup: Behaviour = answers
    requests: int = 1
    interval_s: float = 0.0
    deadline_s: float
    rules: Rules = Rules()


_RATE_LIMITED = (429, "rate_limit_exceeded", "Too many requests for this key.")
_OVERLOADED = (503, "overloaded", "The upstream has more work than it can take.")
_BROKEN = (500, "internal_error", "Something broke inside.")
_TOO_LONG = (400, "context_length_exceeded", "9000 tokens do not fit the context of 8192.")
_FILTERED = (400, "content_policy_violation", "The safety system does not allow this.")


def scenarios(times: Times) -> tuple[Scenario, ...]:
    """The table, with these durations."""
    return (*_refused(times), *_silent(times), *_torn(times), *_lasting(times))


def _refused(times: Times) -> tuple[Scenario, ...]:
    return (
        Scenario(
            id="S01",
            name="429 with Retry-After",
            fault=f"429 and Retry-After: {times.retry_after_s} once, then well",
            expected="the same model again, when it asked to be",
            primary=once(refuses(*_RATE_LIMITED, retry_after_s=times.retry_after_s)),
            deadline_s=times.deadline_s,
            rules=Rules(
                attempts_primary_min=2,
                waits_s=times.retry_after_s,
                burst_attempts_max=2,
                burst_s=0.75 * times.retry_after_s,
            ),
        ),
        Scenario(
            id="S02",
            name="429 for good",
            fault="429 without Retry-After, every time",
            expected="a few attempts with a back-off, then the backup answers",
            primary=refuses(*_RATE_LIMITED),
            deadline_s=times.deadline_s,
        ),
        Scenario(
            id="S03",
            name="500 once",
            fault="500 once, then well",
            expected="the same model again",
            primary=once(refuses(*_BROKEN)),
            deadline_s=times.deadline_s,
            rules=Rules(attempts_primary_min=2),
        ),
        Scenario(
            id="S04",
            name="503 for good",
            fault="503 every time",
            expected="a few attempts, then the backup answers",
            primary=refuses(*_OVERLOADED),
            deadline_s=times.deadline_s,
        ),
    )


def _silent(times: Times) -> tuple[Scenario, ...]:
    in_time_s = times.ttft_timeout_s + _ANSWER_S
    return (
        Scenario(
            id="S05",
            name="reset before headers",
            fault="the connection is reset once before a byte, then well",
            expected="an answer, from whichever model",
            primary=once(resets),
            deadline_s=times.deadline_s,
        ),
        Scenario(
            id="S06",
            name="no answer at all",
            fault=f"takes the request and says nothing for {times.silence_s:g} s",
            expected="given up at the TTFT limit and not tried again; the backup answers",
            primary=says_nothing_for(times.silence_s),
            deadline_s=min(times.deadline_s, 30.0),
            rules=Rules(attempts_primary_wanted=1, answered_within_s=in_time_s),
        ),
        Scenario(
            id="S07",
            name="slow first token",
            fault=f"headers at once, the first token after {times.first_token_s:g} s",
            expected="the TTFT limit passes and the backup answers",
            primary=first_token_after(times.first_token_s),
            deadline_s=times.deadline_s,
            rules=Rules(answered_within_s=in_time_s),
        ),
    )


def _torn(times: Times) -> tuple[Scenario, ...]:
    return (
        Scenario(
            id="S08",
            name="stream cut",
            fault="the stream is cut after 40 of 60 tokens",
            expected="the whole answer, without a seam",
            primary=cuts_after(40),
            deadline_s=times.deadline_s,
        ),
        Scenario(
            id="S09",
            name="stream stalls",
            fault=f"20 tokens, silence for {times.stall_s:g} s, then a cut",
            expected="noticed at the stall timeout; the whole answer, without a seam",
            primary=cuts_after(20, silent_s=times.stall_s),
            deadline_s=times.deadline_s,
            rules=Rules(answered_within_s=2 * times.stall_timeout_s + _ANSWER_S),
        ),
        Scenario(
            id="S10",
            name="malformed chunk",
            fault="an event that is no JSON after 10 tokens; the stream goes on",
            expected="the whole answer, and nothing unreadable passed on",
            primary=garbles_after(10),
            deadline_s=times.deadline_s,
        ),
        Scenario(
            id="S11",
            name="no [DONE]",
            fault="a whole stream, properly ended, without [DONE]",
            expected="the whole answer at once, with its usage",
            primary=leaves_out_done,
            deadline_s=min(times.deadline_s, 8.0),
        ),
    )


def _lasting(times: Times) -> tuple[Scenario, ...]:
    return (
        Scenario(
            id="S12",
            name="context length exceeded",
            fault="400 context_length_exceeded every time",
            expected="one attempt; the larger backup answers",
            primary=refuses(*_TOO_LONG),
            deadline_s=times.deadline_s,
            rules=Rules(attempts_primary_max=1),
        ),
        Scenario(
            id="S13",
            name="content filter",
            fault="400 content_policy_violation every time",
            expected="one attempt; the refusal reaches the client as it was said",
            primary=refuses(*_FILTERED),
            deadline_s=times.deadline_s,
            rules=Rules(
                attempts_primary_max=1,
                refusal=Error(status=_FILTERED[0], code=_FILTERED[1], message=_FILTERED[2]),
            ),
        ),
        Scenario(
            id="S14",
            name="backup rejects prefill",
            fault="as S08, and the backup refuses to go on from a prefill",
            expected="the whole answer, without a seam; never the prefill's 400",
            primary=cuts_after(40),
            backup=rejects_prefill,
            deadline_s=times.deadline_s,
        ),
        Scenario(
            id="S15",
            name="down, then healthy",
            fault=f"503 for {times.down_s:g} s, then well; twenty requests",
            expected="all served; the dead primary probed, not hammered, and used again",
            primary=down_for(times.down_s, refuses(*_OVERLOADED)),
            requests=20,
            interval_s=times.interval_s,
            deadline_s=times.deadline_s,
            rules=Rules(
                attempts_primary_max=60,
                attempts_backup_max=40,
                burst_s=min(3.0, times.interval_s),
                outage=Outage(down_s=times.down_s, return_within_s=times.return_within_s),
            ),
        ),
        Scenario(
            id="S16",
            name="accounting",
            fault="503 every time; the backup answers",
            expected="the backup is named, and its tokens alone are billed, once",
            primary=refuses(*_OVERLOADED),
            deadline_s=times.deadline_s,
            rules=Rules(names_backup=True),
        ),
    )
