"""The effective training time ratio of a run that restarts from checkpoints, as a formula.

Kokolis et al. 2024, "Revisiting Reliability in Large-Scale Machine Learning Research Clusters"
(arXiv 2410.21680), for long runs whose nodes fail independently and are replaced at once.
"""

import math


def ettr(
    *,
    nodes: int,
    faults_per_node_day: float,
    restart_s: float,
    checkpoint_cost_s: float,
    interval_s: float | None = None,
) -> float:
    """Useful time over wall time, 0 to 1.

    `restart_s` is from the fault to the first new step; `interval_s` None: Young's.
    """
    faults_per_s = nodes * faults_per_node_day / 86_400
    if interval_s is None:
        interval_s = math.sqrt(2 * checkpoint_cost_s / faults_per_s)
    kept = 1 - faults_per_s * (restart_s + interval_s / 2)
    return max(0.0, kept / (1 + checkpoint_cost_s / interval_s))
