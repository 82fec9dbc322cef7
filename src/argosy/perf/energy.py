"""Watts of chips at work, and joules of a token.

    watts = power_w_max x (0.531 + 0.841 sqrt(compute) + 0.115 memory), at most power_w_max

`compute` and `memory` are the shares of peak FLOPs and of bandwidth that the roofline says a step
needs of its time. The three numbers were fitted by non-negative least squares on 76 measured powers
of 23 models on H100 and B200 (ML.ENERGY leaderboard v3, 38 rows, at the best batch and at 8). Error
on models left out of the fit: median 9 %, one in ten above 29 %. On A100 and H100 under older
software (Splitwise, 195 rows) it is 22 %: there chips drew less. Other makers: not measured.
"""

import math

from argosy.fleet.catalogue import Chip
from argosy.fleet.layout import Layout
from argosy.perf.roofline import Peaks
from argosy.perf.work import Work

IDLE_SHARE = 0.12  # of power_w_max, loaded without a request: 70-90 W of an H100's 700
BASE_SHARE = 0.531  # while any request runs
COMPUTE_SHARE = 0.841
MEMORY_SHARE = 0.115
ERROR_MEDIAN = 0.09  # of power_w_at, on models that were left out
ERROR_P90 = 0.29


def power_w_idle(chip: Chip, layout: Layout) -> float | None:
    """Of all chips of a replica without a request. None where the chip's power is not known."""
    return None if chip.power_w_max is None else IDLE_SHARE * chip.power_w_max * layout.chips


def power_w_at(
    chip: Chip, layout: Layout, *, compute_share: float, memory_share: float
) -> float | None:
    """Of all chips of a replica while it steps. None where the chip's power is not known."""
    if chip.power_w_max is None:
        return None
    share = BASE_SHARE + COMPUTE_SHARE * math.sqrt(compute_share) + MEMORY_SHARE * memory_share
    return min(1.0, share) * chip.power_w_max * layout.chips


def used_shares(
    asked: Work, peaks: Peaks, *, requests: float, context_tokens: float, step_s: float
) -> tuple[float, float]:
    """Of a decode step's time: what arithmetic and memory would need of it at their peaks."""
    touched = 1.0 - asked.experts_idle_share ** (requests * asked.stage_tokens)
    contexts = requests * context_tokens
    compute_s = (
        asked.linear_flops * requests / peaks.flops
        + asked.expert_flops * requests / peaks.expert_flops
        + asked.context_flops * contexts / peaks.attention_flops
    )
    read = (
        asked.linear_bytes
        + asked.expert_bytes * touched
        + asked.token_bytes * requests
        + asked.context_bytes * contexts
    )
    memory_s = read / peaks.memory_bytes_per_s
    return min(1.0, float(compute_s) / step_s), min(1.0, float(memory_s) / step_s)
