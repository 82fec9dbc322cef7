"""The arithmetic of the routing benchmark."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.routing_live.figures import SmoothWeighted, percentile, rotated, spread

SHARES = st.floats(min_value=0, max_value=1)


def test_turns_of_three_to_one_are_spread_out():
    turns = SmoothWeighted({"fast": 3, "slow": 1})
    assert [turns.next() for _ in range(8)] == ["fast", "fast", "slow", "fast"] * 2


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_each_has_its_weight_of_a_whole_cycle_of_turns(weights: list[int]):
    turns = SmoothWeighted({str(place): weight for place, weight in enumerate(weights)})
    cycle = [turns.next() for _ in range(sum(weights))]
    assert [cycle.count(str(place)) for place in range(len(weights))] == weights


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), SHARES)
def test_a_percentile_is_one_of_the_values_and_enough_are_not_above_it(
    values: list[float], share: float
):
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


def test_the_p95_of_twenty_is_the_second_largest():
    assert percentile(range(1, 21), 0.95) == 19


def test_nothing_has_no_percentile_and_no_spread():
    assert math.isnan(percentile([], 0.5))
    assert spread([math.nan]) == "-"


@pytest.mark.parametrize(
    ("values", "said"), [([2.0], "2.00"), ([3.0, 1.0, 2.0], "2.00 (1.00-3.00)")]
)
def test_a_spread_is_the_median_and_the_range(values: list[float], said: str):
    assert spread(values) == said


def test_each_round_begins_with_another_policy():
    assert [rotated(["a", "b", "c"], turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
