"""A training run in virtual time: what faults leave of it.

Belongs here: nodes that fail and return, runs that restart from a checkpoint as a whole, and runs
of islands that lose one island's last lease at most; both with the live policies
(`policies/checkpointing`, `policies/elasticity`). Does not: how fast a step is (`perf`), gradients
(`training`). Read `scenario.py`, then `whole.py` and `islands.py`; `ettr.py` is the formula that
both are checked against.
"""

from argosy.simulator.training.ettr import ettr
from argosy.simulator.training.islands import run_of_islands
from argosy.simulator.training.scenario import Course, Outages, Part, Training
from argosy.simulator.training.whole import run_as_a_whole

__all__ = [
    "Course",
    "Outages",
    "Part",
    "Training",
    "ettr",
    "run_as_a_whole",
    "run_of_islands",
]
