"""How often to save: the formula of Young and Daly, and failure rates from few failures."""

import math

import pytest

from argosy.policies.checkpointing import NODE_MTTF_S, interval_s, lost_share, mttf_s


def test_the_interval_is_youngs_where_a_checkpoint_is_cheap():
    assert interval_s(1.0, 20_000.0) == pytest.approx(math.sqrt(2 * 20_000.0), rel=0.02)


def test_dearer_checkpoints_and_rarer_failures_make_it_longer():
    assert interval_s(1.0, 1000.0) < interval_s(4.0, 1000.0) < interval_s(4.0, 9000.0)


def test_no_other_interval_loses_notably_less():
    cost_s, failure_s = 3.0, 3600.0
    best = lost_share(interval_s(cost_s, failure_s), cost_s, failure_s)
    for other in range(10, 1000, 10):
        assert best <= lost_share(float(other), cost_s, failure_s) * 1.01


def test_it_stays_within_bounds():
    assert interval_s(1e-9, 10.0) == 5.0
    assert interval_s(1000.0, 10.0) == 10.0
    assert interval_s(60.0, 1e12) == 6 * 3600.0


def test_without_a_failure_nodes_fail_as_llama_3s_did():
    assert mttf_s(60.0, 0) == NODE_MTTF_S
    assert 263 < NODE_MTTF_S / 86_400 < 265


def test_failures_outweigh_what_was_assumed():
    assert mttf_s(300.0, 10) == pytest.approx(30.0, rel=0.02)
    assert 300.0 < mttf_s(300.0, 1) < 500.0
