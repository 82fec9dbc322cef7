"""The benchmark's own Mélange: the repository's toy case by hand, and ours beside it."""

import numpy as np
import pytest

from bench.planner.melange import Table, melange_usd, ours_usd

TOY = Table(
    usd_per_hour=np.array([1.01, 3.67]),
    rates=np.array([[5.0, 1.0, 10.0, 5.0], [20.0, 2.0, 50.0, 20.0]]),
    names=("A10G", "A100"),
)


def test_the_toy_case_costs_five_small_gpus_in_both_programs():
    # 16/s x (0.25/5 + 0.125/1 + 0.375/10 + 0.25/5) = 4.2 A10G, so five: 5.05 USD an hour.
    asked = 16.0 * np.array([0.25, 0.125, 0.375, 0.25])
    assert melange_usd(TOY, asked, slices=1)[0] == pytest.approx(5.05)
    assert ours_usd(TOY, asked)[0] == pytest.approx(5.05)


def test_ours_is_never_dearer_than_slices_on_random_tables():
    chance = np.random.default_rng(0)
    for _ in range(10):
        table = Table(
            usd_per_hour=chance.uniform(0.5, 8.0, 3),
            rates=chance.uniform(0.2, 20.0, (3, 5)) * (chance.random((3, 5)) < 0.8),
            names=("one", "two", "three"),
        )
        table.rates[2] = np.maximum(table.rates[2], 0.5)  # every bucket fits somewhere
        asked = chance.uniform(0.1, 6.0, 5)
        theirs = melange_usd(table, asked, slices=int(chance.integers(1, 5)))[0]
        assert ours_usd(table, asked)[0] <= theirs * (1 + 1e-6)
