"""Failover decides in the client's interest, within bounds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.failover import (
    RETRIES_AT_ONCE,
    RETRIES_PER_REQUEST,
    RETRY_AFTER_S_MAX,
    Again,
    FailoverView,
    Failure,
    FallBack,
    GiveUp,
    RetryBudget,
    after_failure,
)

KINDS = ["lost", "busy", "silent", "overflow", "refused"]
failures = st.builds(
    Failure,
    kind=st.sampled_from(KINDS),
    retry_after_s=st.none() | st.floats(0, 1000),
)
views = st.builds(
    FailoverView,
    attempts=st.integers(1, 20),
    attempts_max=st.integers(1, 10),
    has_untried=st.booleans(),
    has_fallback=st.booleans(),
)


def view(attempts: int = 1, *, untried: bool = False, fallback: bool = False) -> FailoverView:
    return FailoverView(
        attempts=attempts, attempts_max=3, has_untried=untried, has_fallback=fallback
    )


@given(failures, views)
def test_attempts_on_one_model_are_bounded(failure, view):
    if view.attempts >= view.attempts_max:
        assert not isinstance(after_failure(failure, view), Again)


@given(failures, views)
def test_nobody_waits_longer_than_the_bound(failure, view):
    match after_failure(failure, view):
        case Again(delay_s=delay_s):
            assert 0 <= delay_s <= RETRY_AFTER_S_MAX
        case _:
            pass


@given(failures, views)
def test_a_fallback_is_used_only_where_there_is_one_and_never_for_a_wrong_request(failure, view):
    decision = after_failure(failure, view)
    if isinstance(decision, FallBack):
        assert view.has_fallback
        assert failure.kind != "refused"
    if failure.kind == "refused":
        assert isinstance(decision, GiveUp)


@given(failures, views)
def test_a_request_is_given_up_only_when_nothing_is_left_to_try(failure, view):
    decision = after_failure(failure, view)
    if isinstance(decision, GiveUp) and failure.kind != "refused":
        assert not view.has_fallback


def test_a_replica_that_asks_for_time_gets_it():
    decision = after_failure(Failure(kind="busy", retry_after_s=2.0), view(fallback=True))
    assert isinstance(decision, Again)
    assert decision.delay_s == 2.0


def test_a_prompt_that_is_too_long_goes_to_the_next_model_at_once():
    decision = after_failure(Failure(kind="overflow"), view(untried=True, fallback=True))
    assert isinstance(decision, FallBack)


@pytest.mark.parametrize(("untried", "expected"), [(True, Again), (False, FallBack)])
def test_a_silent_replica_is_not_waited_for_twice(untried, expected):
    assert isinstance(
        after_failure(Failure(kind="silent"), view(untried=untried, fallback=True)), expected
    )


def test_delays_grow_from_attempt_to_attempt():
    delays = [after_failure(Failure(kind="lost"), view(n)).delay_s for n in (1, 2)]
    assert 0 < delays[0] < delays[1]


def test_retries_of_a_model_are_bounded_by_its_requests():
    budget = RetryBudget()
    tried = 0
    for _ in range(10_000):
        budget.add_request()
        while budget.has_some:
            budget.take()
            tried += 1
    assert abs(tried - (RETRIES_AT_ONCE + 10_000 * RETRIES_PER_REQUEST)) <= 1


def test_a_busy_replica_s_death_may_be_retried_in_full():
    budget = RetryBudget()
    assert all(budget.has_some and budget.take() is None for _ in range(RETRIES_AT_ONCE))
    assert not budget.has_some


def test_without_a_retry_left_the_fallback_or_the_client_is_next():
    spent = msgspec.structs.replace(view(untried=True), may_retry=False)
    assert isinstance(after_failure(Failure(kind="lost"), spent), GiveUp)
    spent = msgspec.structs.replace(view(untried=True, fallback=True), may_retry=False)
    assert isinstance(after_failure(Failure(kind="lost"), spent), FallBack)


def test_an_answer_that_has_begun_is_gone_on_with_whatever_is_left():
    begun = msgspec.structs.replace(view(untried=True), may_retry=False, has_begun=True)
    assert isinstance(after_failure(Failure(kind="lost"), begun), Again)


def test_who_cannot_be_reached_is_asked_again_as_long_as_a_request_waits_for_a_replica():
    one = msgspec.structs.replace(view(attempts=9), wait_s_max=30.0)
    unreached = Failure(kind="unreached")
    assert isinstance(after_failure(unreached, msgspec.structs.replace(one, waited_s=29.0)), Again)
    assert isinstance(after_failure(unreached, msgspec.structs.replace(one, waited_s=30.0)), GiveUp)
    assert isinstance(after_failure(Failure(kind="lost"), one), GiveUp)
    elsewhere = msgspec.structs.replace(one, has_fallback=True)
    assert isinstance(after_failure(unreached, elsewhere), FallBack)
