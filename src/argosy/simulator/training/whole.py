"""A run that goes as a whole: one fault stops all of it, and it goes on from its last checkpoint.

This is what synchronous data parallelism over unlike parts comes to where every part does its share
of each batch: the sum of their speeds, and the sum of their faults.
"""

import numpy as np

from argosy.policies.checkpointing import interval_s, mttf_s
from argosy.simulator.training.nodes import Nodes, outages_of
from argosy.simulator.training.scenario import Course, Training


def run_as_a_whole(training: Training) -> Course:
    """Its course; the same for the same seed."""
    return _Run(training).run()


class _Run:
    def __init__(self, training: Training) -> None:
        self._training = training
        chance = np.random.default_rng(training.seed)
        self._nodes = [Nodes(part, chance) for part in training.parts]
        self._outages = outages_of(training.outages, training.until_s, chance)
        self._chance = chance
        self._now_s = 0.0
        self._useful_s = self._lost_s = self._down_s = self._stall_s = 0.0
        self._faults = 0

    def run(self) -> Course:
        """Spans of training, each ended by a fault, an outage or the end."""
        until_s = self._training.until_s
        while self._now_s < until_s:
            end_s, failed = self._next_end()
            self._train(min(end_s, until_s), is_last=end_s >= until_s)
            if end_s >= until_s:
                break
            self._come_back(end_s, failed)
        total_s = until_s
        return Course(
            goodput=self._useful_s / total_s,
            lost_share=self._lost_s / total_s,
            down_share=self._down_s / total_s,
            stall_share=self._stall_s / total_s,
            faults=self._faults,
            rounds=0,
        )

    def _next_end(self) -> tuple[float, Nodes | None]:
        """When something next goes, and whose node; None: it is an outage."""
        faults = [(nodes.next_fault_s(self._now_s), k) for k, nodes in enumerate(self._nodes)]
        at_s, which = min(faults)
        while self._outages and self._outages[0][1] <= self._now_s:
            self._outages.pop(0)  # it came and went while all stood still
        if self._outages and self._outages[0][0] < at_s:
            return max(self._now_s, self._outages[0][0]), None
        return at_s, self._nodes[which]

    def _train(self, end_s: float, *, is_last: bool) -> None:
        """From now to `end_s`, with checkpoints; what comes after the last of them is lost."""
        cost_s = self._training.checkpoint_cost_s
        mean_s = mttf_s(self._now_s, self._faults, prior_s=self._training.mttf_s_believed)
        every_s = interval_s(cost_s, mean_s)
        span_s = end_s - self._now_s
        cycles = int(span_s // (every_s + cost_s))
        rest_s = span_s - cycles * (every_s + cost_s)
        kept_s = cycles * every_s
        tail_s = min(rest_s, every_s)
        self._stall_s += cycles * cost_s + (rest_s - tail_s)
        self._useful_s += kept_s + (tail_s if is_last else 0.0)
        self._lost_s += 0.0 if is_last else tail_s
        self._now_s = end_s

    def _come_back(self, at_s: float, failed: Nodes | None) -> None:
        """Until all nodes are there and the last checkpoint is loaded; that may fail too."""
        began_s = self._now_s
        if failed is None:
            ready_s = self._outages.pop(0)[1]
        else:
            self._faults += 1
            ready_s = failed.fail(at_s)
        while True:
            up_s = ready_s + self._training.restart_s
            faults = [(nodes.next_fault_s(ready_s), k) for k, nodes in enumerate(self._nodes)]
            again_s, which = min(faults)
            if again_s >= up_s:
                break
            self._faults += 1
            ready_s = self._nodes[which].fail(again_s)
        self._now_s = up_s
        self._down_s += min(up_s, self._training.until_s) - began_s
