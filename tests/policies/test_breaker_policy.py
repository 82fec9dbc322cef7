"""A breaker opens on failures in a row, lets one request try, and forgets at the first answer."""

from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.breaker import (
    FAILURES_TO_OPEN,
    OPEN_S,
    OPEN_S_MAX,
    Breaker,
    failed,
    succeeded,
    tried,
)


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker = failed(breaker, now_s=now_s)
    return breaker


def test_it_opens_on_the_third_failure_in_a_row():
    breaker = Breaker()
    for count in range(1, FAILURES_TO_OPEN + 1):
        breaker = failed(breaker, now_s=0.0)
        assert breaker.is_open(0.0) == (count == FAILURES_TO_OPEN)


def test_when_its_time_is_over_one_request_alone_may_try():
    breaker = opened()
    assert not breaker.is_open(OPEN_S)
    breaker = tried(breaker, now_s=OPEN_S)
    assert breaker.is_open(OPEN_S)


def test_a_failed_try_opens_it_for_twice_as_long():
    breaker = failed(tried(opened(), now_s=OPEN_S), now_s=OPEN_S)
    assert breaker.is_open(OPEN_S + 2 * OPEN_S - 0.01)
    assert not breaker.is_open(OPEN_S + 2 * OPEN_S)


@given(st.lists(st.sampled_from(["fail", "try", "wait"]), max_size=40))
def test_it_never_stays_open_longer_than_its_bound(steps):
    breaker, now_s = Breaker(), 0.0
    for step in steps:
        match step:
            case "fail":
                breaker = failed(breaker, now_s=now_s)
            case "try":
                breaker = tried(breaker, now_s=now_s)
            case _:
                now_s += 1.0
        assert breaker.open_until_s <= now_s + OPEN_S_MAX


def test_an_answer_closes_it():
    assert opened().is_open(0.0)
    assert not succeeded().is_open(0.0)


def test_trying_a_closed_one_changes_nothing():
    assert tried(Breaker(), now_s=5.0) == Breaker()
