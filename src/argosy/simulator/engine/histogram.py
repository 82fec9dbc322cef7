"""Times in logarithmic bins, 1 % wide: quantiles of billions of gaps in 17 KB."""

import numpy as np

from argosy.simulator.engine.kernels import inlined, kernel

TIME_S_MIN = 1e-5
TIME_S_MAX = 1e4
BIN_WIDTH = 1.01
_BINS = int(np.ceil(np.log(TIME_S_MAX / TIME_S_MIN) / np.log(BIN_WIDTH)))
_LOG_WIDTH = float(np.log(BIN_WIDTH))


def bin_edges_s() -> np.ndarray:
    """Rising, float64 [bins + 1]. What is below the first or beyond the last counts at the end."""
    return TIME_S_MIN * BIN_WIDTH ** np.arange(_BINS + 1)


@inlined
def bin_of(edges_s: np.ndarray, time_s: float) -> int:
    """The bin that holds `time_s`; the edges decide, the logarithm only guesses."""
    last = edges_s.size - 2
    if time_s < edges_s[1]:
        return 0
    if time_s >= edges_s[last]:
        return last
    guess = min(int(np.log(time_s / TIME_S_MIN) / _LOG_WIDTH), last - 1)
    while time_s < edges_s[guess]:
        guess -= 1
    while time_s >= edges_s[guess + 1]:
        guess += 1
    return guess


@inlined
def count_series(
    counts: np.ndarray, edges_s: np.ndarray, series: tuple[float, float], steps: int, weight: int
) -> None:
    """Add `weight` for each of `steps` times first, first + growth, ...: series = first, growth."""
    first, growth = series
    last = edges_s.size - 2
    place = bin_of(edges_s, first)
    if first + growth * (steps - 1) < edges_s[place + 1] or place == last:  # mostly
        counts[place] += steps * weight
        return
    step = 0
    while step < steps:
        upto = steps if place == last else _first_not_below(edges_s[place + 1], series, step, steps)
        counts[place] += (upto - step) * weight
        step = upto
        place = min(place + 1, last)


@kernel
def _first_not_below(edge_s: float, series: tuple[float, float], step: int, steps: int) -> int:
    first, growth = series
    guess = max(step, int(min((edge_s - first) / growth, float(steps))))
    while guess > step and first + growth * (guess - 1) >= edge_s:
        guess -= 1
    while guess < steps and first + growth * guess < edge_s:
        guess += 1
    return guess


def quantile_s(counts: np.ndarray, share: float) -> float | None:
    """The upper edge of the bin in which `share` of the counted times is reached; None of none."""
    total = int(counts.sum())
    if total == 0:
        return None
    place = int(np.searchsorted(np.cumsum(counts), share * total))
    return float(bin_edges_s()[min(place, counts.size - 1) + 1])
