"""Every grade, from observations made by hand."""

from itertools import accumulate

import pytest

from tests.system.failover.answer import ANSWER, TOKENS, rest_after
from tests.system.failover.grade import GRADES, Outage, Rules, grade
from tests.system.failover.published import PUBLISHED
from tests.system.failover.scenarios import SHORT, TRUE, scenarios
from tests.system.failover.seen import PREFILL_REFUSED, Attempt, Error, Reply, Seen, Wire

CUT = "".join(TOKENS[:40])
OVERLOADED = Error(status=503, code=None, message="the fleet is overloaded")
FILTERED = Error(status=400, code="content_policy_violation", message="not allowed")
REFUSAL = Rules(refusal=FILTERED)
OUTAGE = Rules(
    outage=Outage(down_s=60.0, return_within_s=30.0),
    attempts_primary_max=60,
    attempts_backup_max=40,
)


def whole(text: str = ANSWER, *, at_s: float = 0.0, seconds: float = 0.5, **wire: object) -> Reply:
    said = {"text": text, "models": ("primary",), "tokens_out": (60,), **wire}
    return Reply(at_s=at_s, seconds=seconds, end="whole", text=text, wire=Wire(**said))


def refused(error: Error = OVERLOADED, *, text: str = "", at_s: float = 0.0) -> Reply:
    wire = Wire(text=text, finishes=(), dones=0)
    return Reply(at_s=at_s, seconds=0.5, end="refused", text=text, error=error, wire=wire)


def ended(end: str, text: str = CUT) -> Reply:
    wire = Wire(text=text, finishes=(), dones=0)
    return Reply(at_s=0.0, seconds=45.0, end=end, text=text, wire=wire)


def attempts(*at_s: float, ending: str = "answered", **fields: object) -> tuple[Attempt, ...]:
    return tuple(Attempt(at_s=at, ending=ending, **fields) for at in at_s)


def seen(*replies: Reply, **fields: object) -> Seen:
    return Seen(replies=replies, **{"primary": attempts(0.0), **fields})


def graded(observed: Seen, rules: Rules | None = None) -> tuple[str, str]:
    verdict = grade(observed, rules or Rules())
    return verdict.grade, verdict.reason


def outage(*, primary: tuple[Attempt, ...], reply: Reply | None = None) -> Seen:
    replies = [whole(at_s=4.0 * number) for number in range(20)]
    return seen(*replies[:-1], reply or replies[-1], primary=primary)


# What passes.


def test_a_whole_answer_passes():
    assert graded(seen(whole())) == ("pass", "the whole answer")


def test_the_upstreams_own_refusal_passes_where_it_is_the_right_answer():
    assert graded(seen(refused(FILTERED)), REFUSAL)[0] == "pass"


def test_a_refusal_in_more_words_passes():
    error = Error(status=400, code=FILTERED.code, message="the replica answered: not allowed")
    assert graded(seen(refused(error)), REFUSAL)[0] == "pass"


def test_an_outage_with_a_return_passes():
    primary = attempts(0.0, 10.0, ending="refused") + attempts(64.0)
    reason = "20 of 20 served, and back on the primary"
    assert graded(outage(primary=primary), OUTAGE) == ("pass", reason)


def test_a_rejected_prefill_passes_where_the_client_never_hears_of_it():
    backup = attempts(0.4, ending="refused", code=PREFILL_REFUSED) + attempts(0.5)
    assert graded(seen(whole(), backup=backup))[0] == "pass"


# What is a flaw.

FLAWS = {
    "too late": (
        seen(whole(seconds=20.5)),
        Rules(answered_within_s=12.5),
        "answered after 20.5 s, wanted within 12.5 s",
    ),
    "no second attempt": (
        seen(whole()),
        Rules(attempts_primary_min=2),
        "the primary was tried 1 times, then given up too early",
    ),
    "too many attempts": (
        seen(whole(), primary=attempts(0.0, 10.0, ending="left")),
        Rules(attempts_primary_wanted=1),
        "2 attempts on the primary, 1 wanted",
    ),
    "Retry-After not honoured": (
        seen(whole(), primary=attempts(0.0, 0.6)),
        Rules(waits_s=2.0),
        "tried again after 0.6 s, asked to wait 2 s",
    ),
    "unreadable event passed on": (
        seen(whole(events_unreadable=1)),
        Rules(),
        "1 events that no client can read",
    ),
    "no [DONE]": (
        seen(whole(dones=0)),
        Rules(),
        "ends with finish_reason stop and [DONE] 0 times",
    ),
    "two ends": (
        seen(whole(finishes=("stop", "stop"))),
        Rules(),
        "ends with finish_reason stop, stop and [DONE] 1 times",
    ),
    "no usage": (seen(whole(tokens_out=())), Rules(), "usage says nothing of 60 tokens"),
    "a part's usage": (seen(whole(tokens_out=(20,))), Rules(), "usage says 20 of 60 tokens"),
    "attempt left open": (
        seen(whole(), primary=attempts(0.0, ending="open")),
        Rules(),
        "an attempt on the primary was given up and left open",
    ),
    "refusal routed around": (
        seen(whole(), backup=attempts(0.1)),
        REFUSAL,
        "the refusal was routed around: the backup was asked",
    ),
    "refusal ignored": (seen(whole()), REFUSAL, "answered, though the upstream refused"),
    "refusal without its code": (
        seen(refused(Error(status=400, code=None, message="not allowed"))),
        REFUSAL,
        "the upstream's code content_policy_violation became None",
    ),
    "another error": (
        seen(refused(OVERLOADED)),
        REFUSAL,
        "another error than the upstream's: 503, the fleet is overloaded",
    ),
    "no circuit": (
        outage(primary=attempts(*range(45), ending="refused") + attempts(60.0)),
        Rules(outage=OUTAGE.outage, attempts_primary_max=60, burst_attempts_max=60),
        "45 attempts on the dead primary for 15 requests",
    ),
}


@pytest.mark.parametrize("case", FLAWS)
def test_a_flaw_is_partial_and_said(case: str):
    observed, rules, reason = FLAWS[case]
    assert graded(observed, rules) == ("partial", reason)


# What is safe.


def test_a_clean_error_is_safe():
    assert graded(seen(refused())) == ("safe", "a clean error: 503, the fleet is overloaded")


def test_an_error_event_after_a_part_of_the_answer_is_safe():
    error = Error(status=None, code=None, message="the replica failed")
    reason = "a clean error: in the stream, the replica failed"
    assert graded(seen(refused(error, text=CUT))) == ("safe", reason)


def test_an_outage_with_errors_is_safe_and_counts_them():
    observed = outage(primary=attempts(0.0, ending="refused"), reply=refused(at_s=76.0))
    reason = "1 of 20 requests: a clean error: 503, the fleet is overloaded"
    assert graded(observed, OUTAGE) == ("safe", reason)


# What fails.

FAILURES = {
    "hang": (seen(ended("hung")), Rules(), "hung: 40 tokens, then nothing until 45.0 s"),
    "connection lost": (seen(ended("lost")), Rules(), "lost after 40 tokens without an error: "),
    "cut answer as a success": (
        seen(whole(CUT)),
        Rules(),
        "a cut answer as a success: 40 tokens of 60",
    ),
    "nothing as a success": (
        seen(whole("")),
        Rules(),
        "a cut answer as a success: 0 tokens of 60",
    ),
    "doubled text": (
        seen(whole(CUT + ANSWER)),
        Rules(),
        "text lost or doubled: after 40 tokens came 't01 t02 t03 '",
    ),
    "lost text": (
        seen(whole(CUT + "".join(TOKENS[41:]))),
        Rules(),
        "text lost or doubled: after 40 tokens came ' t42 t43 t44'",
    ),
    "false text before an error": (
        seen(refused(text="t01 t01")),
        Rules(),
        "text lost or doubled: after 1 token came ' t01'",
    ),
    "bytes that the client reads otherwise": (
        seen(
            Reply(
                at_s=0.0,
                seconds=0.5,
                end="whole",
                text=ANSWER,
                wire=Wire(text=CUT, tokens_out=(60,)),
            )
        ),
        Rules(),
        "a cut answer as a success: 40 tokens of 60",
    ),
    "too many attempts in all": (
        seen(whole(), primary=attempts(*range(0, 70, 10), ending="refused")),
        Rules(),
        "7 attempts on the primary, 6 allowed",
    ),
    "backup hammered": (
        seen(whole(), backup=attempts(1.0, 2.0, 3.0, 4.0)),
        Rules(),
        "4 attempts on the backup, 3 allowed",
    ),
    "primary hammered": (
        seen(whole(), primary=attempts(0.0, 0.1, 0.2, 0.3, 0.4, ending="refused")),
        Rules(),
        "hammered: 5 attempts on the primary in 3 s",
    ),
    "dead after it": (
        seen(whole(), is_alive_after=False),
        Rules(),
        "a healthy request right after it was not answered",
    ),
    "the prefill's refusal as the error": (
        seen(refused(text=CUT), backup=attempts(0.5, ending="refused", code=PREFILL_REFUSED)),
        Rules(),
        "the backup's refusal of a prefill became the client's error",
    ),
    "billed twice": (
        seen(whole(tokens_out=(40, 60))),
        Rules(),
        "billed 2 times, 100 tokens in all",
    ),
    "wrong model named": (
        seen(whole(models=("primary",)), backup=attempts(1.0)),
        Rules(names_backup=True),
        "the backup answered and the client is told primary",
    ),
    "never back on the primary": (
        outage(primary=attempts(0.0, 4.0, ending="refused")),
        OUTAGE,
        "the primary was never used again after its outage",
    ),
    "back too late": (
        outage(primary=attempts(0.0, ending="refused") + attempts(95.0)),
        OUTAGE,
        "the primary was used again only 35.0 s after its outage",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_fails_and_is_said(case: str):
    observed, rules, reason = FAILURES[case]
    assert graded(observed, rules) == ("fail", reason)


def test_a_failure_outweighs_a_clean_error():
    observed = seen(refused(), primary=attempts(*range(0, 70, 10), ending="refused"))
    assert graded(observed)[0] == "fail"


# The answer and the table.


@pytest.mark.parametrize("end", list(accumulate(map(len, TOKENS), initial=0)))
def test_a_continuation_is_exactly_the_rest(end: int):
    rest = rest_after(ANSWER[:end])
    assert ANSWER[:end] + "".join(rest) == ANSWER
    assert rest == TOKENS[len(TOKENS) - len(rest) :]


def test_a_prefill_inside_a_token_is_gone_on_from():
    assert rest_after(ANSWER[:-2]) == ("60",)


def test_a_prefill_that_is_not_the_answers_start_is_answered_from_the_start():
    assert rest_after("Sure, here is the list:") == TOKENS


@pytest.mark.parametrize("times", [SHORT, TRUE], ids=["short", "true"])
def test_the_table_holds_sixteen_faults_and_limits_shorter_than_them(times):
    table = scenarios(times)
    assert [scenario.id for scenario in table] == [f"S{number:02}" for number in range(1, 17)]
    by_id = {scenario.id: scenario.rules.answered_within_s for scenario in table}
    assert by_id["S06"] < times.silence_s
    assert by_id["S07"] < times.first_token_s
    assert by_id["S09"] < times.stall_s


def test_the_published_grades_add_up_to_the_published_sums():
    sums = {
        system: [list(grades.values()).count(grade) for grade in GRADES]
        for system, grades in PUBLISHED.items()
    }
    assert sums == {
        "reference client": [16, 0, 0, 0],
        "DeepSeek Harness": [12, 3, 1, 0],
        "Portkey": [11, 2, 0, 3],
        "Bifrost 2.1.1": [9, 3, 3, 1],
        "LiteLLM proxy": [9, 3, 4, 0],
        "LangChain": [9, 3, 4, 0],
        "openai-python": [6, 0, 10, 0],
        "no gateway": [4, 0, 12, 0],
    }
