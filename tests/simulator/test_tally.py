"""The tally: quantiles to a bin, buckets of time that double, and what counts as met."""

import numpy as np
import pytest

from argosy.simulator.engine.histogram import quantile_s
from argosy.simulator.outcomes import DONE, EXPIRED, RESULT, SHED
from argosy.simulator.tally import BUCKETS, Tally, bins_of, share_within

PROMISED_S = np.array([[1.0, 0.05], [np.inf, np.inf]])


def results_of(*rows: dict) -> np.ndarray:
    results = np.zeros(len(rows), RESULT)
    usual = {"output_tokens": 11, "prompt_tokens": 100, "ttft_s": 0.5, "tier": 1}
    for place, row in enumerate(rows):
        at_s = row.get("arrival_s", 0.0)
        for name, value in {**usual, "end_s": at_s + 0.9, **row}.items():
            results[place][name] = value
    return results


def tally_of(*rows: dict) -> Tally:
    tally = Tally(PROMISED_S)
    tally.absorb(results_of(*rows))
    return tally


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1.0])
def test_a_quantile_is_the_exact_one_to_a_bin(share):
    chance = np.random.default_rng(2)
    ttft_s = chance.lognormal(-1, 1.5, 5_000)
    tally = tally_of(*({"ttft_s": value, "end_s": value + 1} for value in ttft_s))
    exact_s = float(np.quantile(ttft_s, share, method="inverted_cdf"))
    found_s = quantile_s(tally.ttft[0, 1], share)
    assert exact_s <= found_s <= 1.0101 * exact_s
    coarse_s = tally.ttft_s_in(0, slice(0, 1), share)
    assert exact_s <= coarse_s <= 1.0101**9 * exact_s


def test_of_nothing_no_quantile_is_known():
    tally = tally_of({"outcome": SHED, "ttft_s": np.nan})
    assert quantile_s(tally.ttft[0, 1], 0.5) is None
    assert tally.ttft_s_in(0, slice(0, BUCKETS), 0.5) is None
    assert share_within(tally.ttft[0, 1], 1.0) is None
    tally.absorb(results_of()[:0])
    assert tally.outcomes.sum() == 1


def test_durations_beyond_the_bins_stand_in_the_outermost():
    assert bins_of(np.array([0.0, 1e-9])).tolist() == [0, 0]
    last = bins_of(np.array([1e9]))[0]
    assert last == bins_of(np.array([np.inf]))[0] == Tally(PROMISED_S).ttft.shape[2] - 1


def test_a_share_within_a_limit_counts_the_limit_s_own_bin():
    tally = tally_of({"ttft_s": 0.5}, {"ttft_s": 1.0}, {"ttft_s": 1.5}, {"ttft_s": 2.0})
    counts = tally.ttft[0, 1]
    assert share_within(counts, 1.0) == 0.5
    assert share_within(counts, 0.98) == 0.25
    assert share_within(counts, 9.0) == 1.0


def test_buckets_double_until_the_last_answer_fits_and_nothing_is_lost():
    rows = [{"arrival_s": float(second), "end_s": second + 0.75} for second in range(300)]
    tally = tally_of(*rows)
    assert tally.bucket_s == 1.0
    before = {name: counts.copy() for name, counts in tally.over_time.items()}
    tally.absorb(results_of({"arrival_s": 1_000.0, "end_s": 4 * BUCKETS + 1.0}))
    assert tally.bucket_s == 8.0
    for name, counts in tally.over_time.items():
        eights = before[name].reshape(-1, 8, 2).sum(axis=1)
        assert (counts[:37] == eights[:37]).all(), name
        assert counts.sum() == before[name].sum() + {"refused": 0, "met": 0, "tokens_out": 11}.get(
            name, 1
        )
    assert tally.over_time["arrived"][1_000 // 8, 0] == 1
    assert tally.over_time["done"][4 * BUCKETS // 8, 0] == 1
    assert tally.ttft_over_time.sum() == 301
    assert tally.ttft_over_time[0, 0].sum() == 8


def test_an_answer_at_the_very_edge_has_a_bucket():
    tally = tally_of({"arrival_s": BUCKETS - 1.0, "end_s": float(BUCKETS)})
    assert tally.bucket_s == 2.0
    assert tally.over_time["done"][BUCKETS // 2, 0] == 1


@pytest.mark.parametrize(
    ("row", "is_met"),
    [
        ({}, True),
        ({"ttft_s": 1.0, "end_s": 1.5}, True),  # exactly 0.05 s a token
        ({"ttft_s": 1.001, "end_s": 1.4}, False),
        ({"ttft_s": 0.5, "end_s": 1.1}, False),  # 0.06 s a token
        ({"output_tokens": 1, "end_s": 0.5}, True),  # there is no gap
        ({"outcome": EXPIRED}, False),
        ({"model": 1, "ttft_s": 99.0, "end_s": 999.0}, True),  # nothing is promised
        ({"model": 1, "outcome": SHED}, False),
    ],
)
def test_a_request_meets_its_slo_by_its_ttft_and_its_tpot(row, is_met):
    tally = tally_of(row)
    assert int(tally.met.sum()) == is_met
    assert int(tally.over_time["met"].sum()) == is_met


def test_what_was_not_answered_counts_as_refused_where_it_came():
    tally = tally_of({"arrival_s": 3.0, "outcome": SHED, "end_s": 40.0, "waited_s": 2.0}, {})
    assert tally.over_time["refused"][3, 0] == 1
    assert tally.over_time["arrived"][:, 0].sum() == 2
    assert tally.outcomes[0, 1, [DONE, SHED]].tolist() == [1, 1]
    assert tally.tokens_out[0, 1] == 11  # of those that are done
    assert tally.waited_s[0, 1] == 2.0
