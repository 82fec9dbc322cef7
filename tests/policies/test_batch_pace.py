"""A batch speeds up while it is answered and slows down when it is pushed back."""

from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.batch_pace import (
    BACK_OFF_S,
    BACK_OFF_S_MAX,
    RETRY_AFTER_S_MAX,
    Pace,
    pushed_back,
    went_well,
)

MAX = 64


def pushed(pace, now_s, *, sent_at_s=None, retry_after_s=None, chance=0.0):
    return pushed_back(
        pace,
        sent_at_s=now_s if sent_at_s is None else sent_at_s,
        now_s=now_s,
        retry_after_s=retry_after_s,
        chance=chance,
    )


def test_it_begins_with_two_and_grows_by_one_an_answer():
    pace = Pace()
    for count in range(5):
        assert int(pace.limit) == 2 + count
        pace = went_well(pace, sent_at_s=0.0, limit_max=MAX)


def test_a_pushback_halves_it_and_then_it_grows_by_one_a_round():
    pace = pushed(Pace(limit=16.0), 10.0)
    assert pace.limit == 8.0
    for _ in range(8):
        pace = went_well(pace, sent_at_s=11.0, limit_max=MAX)
    assert 8.9 < pace.limit <= 9.0


def test_requests_that_were_under_way_together_halve_it_once():
    pace = Pace(limit=16.0)
    for _ in range(16):
        pace = pushed(pace, 10.0, sent_at_s=9.0)
    assert pace.limit == 8.0
    assert went_well(pace, sent_at_s=9.0, limit_max=MAX) == pace


def test_it_waits_as_long_as_it_is_asked_to_and_longer_each_time():
    assert pushed(Pace(), 10.0).not_before_s == 10.0 + BACK_OFF_S
    assert pushed(Pace(), 10.0, retry_after_s=7.0).not_before_s == 17.0
    pace = Pace()
    for count in range(20):
        now_s = 1000.0 * (count + 1)
        pace = pushed(pace, now_s)
        assert pace.not_before_s - now_s == min(BACK_OFF_S_MAX, BACK_OFF_S * 2**count)
    pace = went_well(pace, sent_at_s=pace.not_before_s, limit_max=MAX)
    assert pushed(pace, 1e6).not_before_s == 1e6 + BACK_OFF_S


events = st.lists(
    st.tuples(
        st.booleans(),
        st.floats(0, 100),
        st.floats(0, 50),
        st.one_of(st.none(), st.floats(0, 1e6)),
        st.floats(0, 1, exclude_max=True),
    ),
    max_size=60,
)


@given(events)
def test_there_is_always_room_for_one_and_never_for_more_than_the_most(events):
    pace, now_s = Pace(), 0.0
    for is_well, passed_s, took_s, retry_after_s, chance in events:
        now_s += passed_s
        sent_at_s = now_s - took_s
        before = pace
        if is_well:
            pace = went_well(pace, sent_at_s=sent_at_s, limit_max=MAX)
            assert pace.limit >= before.limit
        else:
            pace = pushed(
                pace, now_s, sent_at_s=sent_at_s, retry_after_s=retry_after_s, chance=chance
            )
            assert pace.limit <= before.limit
            asked_s = min(RETRY_AFTER_S_MAX, retry_after_s or 0.0)
            assert pace.not_before_s >= max(before.not_before_s, now_s + asked_s)
            assert pace.not_before_s <= max(before.not_before_s, now_s + RETRY_AFTER_S_MAX * 1.5)
        assert 1.0 <= pace.limit <= MAX
