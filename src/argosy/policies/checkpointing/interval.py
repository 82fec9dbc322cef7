"""The interval between two checkpoints from what one costs and how often something fails. Pure.

An island that comes back takes up the newest version whatever it saved, so a checkpoint saves only
what the optimizer knew (its moments), and what is lost without one is counted in seconds of
training like anything else.
"""

import math

# 419 unexpected interruptions of 2,048 nodes in 54 days: The Llama 3 Herd of Models (2024), table 5
NODE_MTTF_S = 54 * 86_400.0 * 2048 / 419
_INTERVAL_S_MIN, _INTERVAL_S_MAX = 5.0, 6 * 3600.0


def interval_s(cost_s: float, mttf_s: float) -> float:
    """Seconds of training between two checkpoints that each stop it for `cost_s`.

    Daly 2006, equation 37: sqrt(2 C M) (1 + sqrt(C / 2M) / 3 + C / 18M) - C, for C < 2M; else M.
    (Young 1974 is its first factor.) Within 5 s and 6 h.
    """
    if cost_s >= 2 * mttf_s:
        return _bounded(mttf_s)
    ratio = cost_s / (2 * mttf_s)
    young_s = math.sqrt(2 * cost_s * mttf_s)
    return _bounded(young_s * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost_s)


def mttf_s(lived_s: float, failures: int, *, prior_s: float = NODE_MTTF_S) -> float:
    """Seconds between failures of one island, after so many in `lived_s` of all islands' lives.

    The prior counts as one failure in `prior_s`, and gives way as failures come: a run's first
    minutes say nothing of its rate, ten kills in them say all.
    """
    if failures == 0:
        return max(prior_s, lived_s)
    weight = 1.0 / (1.0 + failures) ** 2
    rate = (1.0 - weight) * failures / max(lived_s, 1e-9) + weight / prior_s
    return 1.0 / rate


def lost_share(interval_s: float, cost_s: float, mttf_s: float) -> float:
    """Of the time: what checkpoints take, and half an interval for each failure; 1 at most."""
    return min(1.0, cost_s / (interval_s + cost_s) + interval_s / 2 / mttf_s)


def _bounded(seconds: float) -> float:
    return min(_INTERVAL_S_MAX, max(_INTERVAL_S_MIN, seconds))
