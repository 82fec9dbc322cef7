"""Counts of what became of requests, by model, tier and time; bounded, however many they are.

Reads windows of `outcomes.RESULT` records. Durations go into logarithmic bins (1 % for the whole,
8 % over time); time into at most `BUCKETS` buckets, whose width doubles when they run out.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from argosy.policies.admission.work import TIERS
from argosy.simulator.engine.histogram import bin_edges_s
from argosy.simulator.outcomes import DONE, OUTCOMES

BUCKETS = 512  # of time; even
_EDGES_S = bin_edges_s()
_BINS = _EDGES_S.size - 1
COARSE = 8  # fine bins in one coarse bin
_COARSE_BINS = -(-_BINS // COARSE)

Counts = NDArray[np.int64]
_Integer = TypeVar("_Integer", bound=np.integer)


def bins_of(durations_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """The fine bin of each duration."""
    return np.clip(np.searchsorted(_EDGES_S, durations_s, side="right") - 1, 0, _BINS - 1)


def share_within(counts: Counts, limit_s: float) -> float | None:
    """The share that is at most `limit_s`, to a bin; None of nothing."""
    total = int(counts.sum())
    if not total:
        return None
    place = int(bins_of(np.array([limit_s]))[0])
    return int(counts[: place + 1].sum()) / total


class Tally:
    """Of one simulation. `slos_s`: TTFT and ITL promised of each model, inf where nothing is."""

    def __init__(self, slos_s: NDArray[np.float64], *, bucket_s: float = 1.0) -> None:
        models, tiers = slos_s.shape[0], len(TIERS)
        self.models, self.bucket_s = models, bucket_s
        self.slos_s = slos_s
        self.outcomes = np.zeros((models, tiers, len(OUTCOMES)), np.int64)
        self.met = np.zeros((models, tiers), np.int64)
        self.tokens_in = np.zeros((models, tiers), np.int64)
        self.tokens_out = np.zeros((models, tiers), np.int64)
        self.ttft = np.zeros((models, tiers, _BINS), np.int64)
        self.tpot = np.zeros((models, tiers, _BINS), np.int64)
        self.waited_s = np.zeros((models, tiers))
        self.over_time = {
            name: np.zeros((BUCKETS, models), np.int64)
            for name in ("arrived", "done", "met", "refused", "tokens_out")
        }
        self.ttft_over_time = np.zeros((BUCKETS, models, _COARSE_BINS), np.int32)

    def absorb(self, results: NDArray[np.void]) -> None:
        """Add these results, in any order."""
        if not results.size:
            return
        self._reach(float(results["end_s"].max()))
        model, tier = results["model"].astype(np.int64), results["tier"].astype(np.int64)
        np.add.at(self.outcomes, (model, tier, results["outcome"].astype(np.int64)), 1)
        np.add.at(self.waited_s, (model, tier), results["waited_s"])
        arrived = (results["arrival_s"] / self.bucket_s).astype(np.int64)
        np.add.at(self.over_time["arrived"], (arrived, model), 1)
        is_done = results["outcome"] == DONE
        refused = ~is_done
        np.add.at(self.over_time["refused"], (arrived[refused], model[refused]), 1)
        self._absorb_done(results[is_done], model[is_done], tier[is_done], arrived[is_done])

    def _absorb_done(
        self, done: NDArray[np.void], model: Counts, tier: Counts, arrived: Counts
    ) -> None:
        ttft_s, tokens = done["ttft_s"], done["output_tokens"].astype(np.int64)
        gaps = np.maximum(tokens - 1, 1)
        tpot_s = (done["end_s"] - done["arrival_s"] - ttft_s) / gaps
        has_gap = tokens > 1
        bins = bins_of(ttft_s)
        np.add.at(self.ttft, (model, tier, bins), 1)
        np.add.at(self.tpot, (model[has_gap], tier[has_gap], bins_of(tpot_s[has_gap])), 1)
        np.add.at(self.tokens_in, (model, tier), done["prompt_tokens"].astype(np.int64))
        np.add.at(self.tokens_out, (model, tier), tokens)
        is_met = (ttft_s <= self.slos_s[model, 0]) & (~has_gap | (tpot_s <= self.slos_s[model, 1]))
        np.add.at(self.met, (model[is_met], tier[is_met]), 1)
        ended = (done["end_s"] / self.bucket_s).astype(np.int64)
        np.add.at(self.over_time["done"], (ended, model), 1)
        np.add.at(self.over_time["tokens_out"], (ended, model), tokens)
        np.add.at(self.over_time["met"], (arrived[is_met], model[is_met]), 1)
        np.add.at(self.ttft_over_time, (arrived, model, bins // COARSE), 1)

    def _reach(self, end_s: float) -> None:
        """Make the buckets wide enough for `end_s`."""
        while end_s >= self.bucket_s * BUCKETS:
            self.bucket_s *= 2
            for name, counts in self.over_time.items():
                self.over_time[name] = _in_pairs(counts)
            self.ttft_over_time = _in_pairs(self.ttft_over_time)

    def ttft_s_in(self, model: int, buckets: slice, share: float) -> float | None:
        """A quantile of TTFT of those that arrived in these buckets, to 8 %."""
        counts = self.ttft_over_time[buckets, model].sum(axis=0, dtype=np.int64)
        total = int(counts.sum())
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(counts), share * total))
        return float(_EDGES_S[min((place + 1) * COARSE, _BINS)])


def _in_pairs(counts: NDArray[_Integer]) -> NDArray[_Integer]:
    """Each two rows together, and as many empty rows behind them."""
    pairs = counts.reshape(counts.shape[0] // 2, 2, *counts.shape[1:])
    joined = pairs.sum(axis=1, dtype=counts.dtype)
    return np.concatenate([joined, np.zeros_like(joined)])
