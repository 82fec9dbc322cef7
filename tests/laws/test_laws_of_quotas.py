"""Laws of a quota's bucket: no minute gets more than the quota, and none is wasted for ever."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.quota import bucket

_GAPS = st.lists(st.floats(0.0, 20.0), max_size=40)


@given(st.integers(1, 300), _GAPS)
def test_in_any_minute_no_more_is_taken_than_the_quota(per_min, gaps):
    one = bucket(per_min)
    left, now_s, taken = one.size, 0.0, []
    for gap in gaps:
        now_s += gap
        left = one.filled(left, gap)
        while one.wait_s(left, 1.0) == 0.0:
            left -= 1.0
            taken.append(now_s)
    for first, begins_s in enumerate(taken):
        assert bisect_left(taken, begins_s + 60.0) - first <= per_min


@given(st.integers(1, 10_000), st.floats(-5e4, 1e4), st.floats(0.0, 1e6))
def test_whoever_waits_as_long_as_it_is_told_is_served(per_min, left, asked):
    one = bucket(per_min)
    left = min(left, one.size)
    wait_s = one.wait_s(left, asked)
    assert one.wait_s(one.filled(left, wait_s * (1 + 1e-9) + 1e-6), asked) == 0.0


@given(st.integers(10, 10_000))
def test_most_of_a_quota_can_be_used(per_min):
    one = bucket(per_min)
    assert 0.85 * per_min <= one.size + 60.0 * one.per_s <= per_min + 1e-6
