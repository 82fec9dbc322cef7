"""Which mixes of kinds a model is measured at, and how the others lie between them.

A mix is the share of each kind in a model's requests: by the hour it moves. Few mixes are measured:
those farthest apart, and more until each mix lies near a line between two.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NEAR = 0.06  # half the sum of the differences of shares: so much of the requests is of another kind
WIDE = 0.3  # between two mixes that are measured; a third one halves what is wider
MIXES_MAX = 8

Floats = NDArray[np.float64]


class Mixed(NamedTuple):
    """For each stretch of time, the two measured mixes it lies between."""

    mixes: Floats  # [mix, kind]
    one: NDArray[np.int64]  # [stretch]
    other: NDArray[np.int64]
    share: Floats  # of the other


def mixed(requests: Floats) -> Mixed:
    """Of requests [stretch, kind]."""
    shares = _shares(requests)
    chosen = _ends(shares)
    while True:
        found = _between(shares, chosen)
        off = _distance(shares, _made(found))
        if float(off.max()) <= NEAR or len(chosen) >= MIXES_MAX:
            return found
        chosen = np.concatenate([chosen, shares[[int(off.argmax())]]])


def _shares(requests: Floats) -> Floats:
    """A stretch without a request is as the whole."""
    totals = requests.sum(axis=1, keepdims=True)
    whole = requests.sum(axis=0) / max(float(requests.sum()), 1e-300)
    return np.where(totals > 0, requests / np.maximum(totals, 1e-300), whole)


def _ends(shares: Floats) -> Floats:
    """Two far apart, and one between where they are very far; one where all are near."""
    first = shares[int(_distance(shares, shares.mean(axis=0)).argmax())]
    away = _distance(shares, first)
    if float(away.max()) <= NEAR:
        return shares.mean(axis=0)[None]
    last = shares[int(away.argmax())]
    if float(away.max()) <= WIDE:
        return np.stack([first, last])
    return np.stack([first, last, (first + last) / 2])


def _distance(shares: Floats, other: Floats) -> Floats:
    return np.abs(shares - other).sum(axis=1) / 2


def _made(found: Mixed) -> Floats:
    share = found.share[:, None]
    return found.mixes[found.one] * (1.0 - share) + found.mixes[found.other] * share


def _between(shares: Floats, mixes: Floats) -> Mixed:
    """The nearest point on any line between two mixes; of equals on the shortest line."""
    rows = len(shares)
    best = np.full(rows, np.inf)
    one, other, share = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows)
    pairs = list(combinations(range(len(mixes)), 2)) or [(0, 0)]
    pairs.sort(key=lambda pair: float(np.abs(mixes[pair[0]] - mixes[pair[1]]).sum()))
    for low, high in pairs:
        way = mixes[high] - mixes[low]
        length = float(way @ way)
        along = (shares - mixes[low]) @ way / length if length else np.zeros(rows)
        along = np.clip(along, 0.0, 1.0)
        off = _distance(shares, mixes[low] + along[:, None] * way)
        is_better = off < best - 1e-9
        best[is_better], share[is_better] = off[is_better], along[is_better]
        one[is_better], other[is_better] = low, high
    return Mixed(mixes, one, other, share)
