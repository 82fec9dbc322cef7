"""The learning rate as a function of the share of the run's tokens; pure, loads no torch.

By tokens and not by steps: islands of any number and speed, and an island that returns, take the
same rate at the same place of the run.
"""

import math

from argosy.fleet.runs import Optimizer


def lr_at(optimizer: Optimizer, share: float) -> float:
    """The rate of the step that ends at `share` of the run's tokens, 0 to 1.

    Linear from nothing over `warmup_share`, then as `schedule` says down to lr x lr_end_share.
    """
    share = min(1.0, max(0.0, share))
    if share < optimizer.warmup_share:
        return optimizer.lr * share / optimizer.warmup_share
    return optimizer.lr * _after_warmup(optimizer, share)


def _after_warmup(optimizer: Optimizer, share: float) -> float:
    end = optimizer.lr_end_share
    match optimizer.schedule:
        case "constant":
            return 1.0
        case "cosine":
            progress = (share - optimizer.warmup_share) / (1.0 - optimizer.warmup_share)
            return end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * progress))
        case "wsd":
            begin = max(optimizer.warmup_share, 1.0 - optimizer.decay_share)
            if share <= begin or begin == 1.0:
                return 1.0
            return 1.0 - (1.0 - end) * (share - begin) / (1.0 - begin)
