"""The checkpoint interval: the best there is, within its bounds, and told why."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.checkpointing import CheckpointSettings, CheckpointView, interval

WIDE = CheckpointSettings(interval_s_min=1e-6, interval_s_max=1e12, mttf_s_believed=1.0)


def lost_share(interval_s: float, cost_s: float, mttf_s: float) -> float:
    """Daly 2006, equation 20: wall time over useful time for exponential failures, restart 0."""
    return mttf_s / interval_s * math.expm1((interval_s + cost_s) / mttf_s)


@given(
    cost_s=st.floats(0.01, 100),
    mttf_s=st.floats(1e3, 1e6),
    times=st.sampled_from([0.5, 0.8, 1.25, 2]),
)
def test_no_other_interval_loses_less(cost_s: float, mttf_s: float, times: float) -> None:
    view = CheckpointView(cost_s=cost_s, observed_s=mttf_s * 10 - 1, failures=9)
    best_s = interval(view, WIDE).interval_s
    assert lost_share(best_s, cost_s, mttf_s) <= lost_share(best_s * times, cost_s, mttf_s) + 1e-9


def test_it_is_young_s_where_a_checkpoint_costs_little() -> None:
    view = CheckpointView(cost_s=1.0, observed_s=1e6 - 1, failures=0)
    assert interval(view, WIDE).interval_s == pytest.approx(math.sqrt(2 * 1.0 * 1e6), rel=2e-3)


def test_the_first_one_comes_soon_to_learn_its_cost() -> None:
    view = CheckpointView(cost_s=None, observed_s=0.0, failures=0)
    assert interval(view).interval_s == CheckpointSettings().interval_s_min


def test_more_failures_never_lengthen_it() -> None:
    found = [
        interval(CheckpointView(cost_s=2.0, observed_s=86_400, failures=n)).interval_s
        for n in range(50)
    ]
    assert found == sorted(found, reverse=True)


def test_the_bound_is_told() -> None:
    view = CheckpointView(cost_s=1e-9, observed_s=1.0, failures=100)
    told = interval(view)
    assert told.interval_s == CheckpointSettings().interval_s_min
    assert "bounded to 10 s" in told.reason
