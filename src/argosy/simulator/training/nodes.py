"""Nodes that fail, are repaired, and have spares; regions that go as one. In virtual time."""

import heapq

import numpy as np

from argosy.simulator.training.scenario import Outages, Part

DAY_S = 86_400.0


class Nodes:
    """Of one part: which second the next one fails, and from when on enough of them are there."""

    def __init__(self, part: Part, chance: np.random.Generator) -> None:
        self._part = part
        self._chance = chance
        self._repairs: list[float] = []  # when nodes in repair come back
        per_s = part.nodes * part.faults_per_node_day / DAY_S
        self._gap_s = 1 / per_s if per_s else float("inf")

    def next_fault_s(self, now_s: float) -> float:
        """Of a part that is complete from `now_s` on."""
        if self._gap_s == float("inf"):
            return self._gap_s
        return now_s + float(self._chance.exponential(self._gap_s))

    def fail(self, now_s: float) -> float:
        """One fails now; from when on the part is complete again."""
        while self._repairs and self._repairs[0] <= now_s:
            heapq.heappop(self._repairs)
        away_s = float(self._chance.exponential(self._part.repair_s)) if self._part.repair_s else 0
        heapq.heappush(self._repairs, now_s + away_s)
        lacking = len(self._repairs) - self._part.spares
        return now_s if lacking <= 0 else heapq.nsmallest(lacking, self._repairs)[-1]


def outages_of(
    outages: tuple[Outages, ...], until_s: float, chance: np.random.Generator
) -> list[tuple[float, float, tuple[str, ...]]]:
    """All of them, by begin: (from, until, parts)."""
    found: list[tuple[float, float, tuple[str, ...]]] = []
    for one in outages:
        now_s = float(chance.exponential(one.every_s))
        while now_s < until_s:
            back_s = now_s + float(chance.exponential(one.for_s))
            found.append((now_s, back_s, one.parts))
            now_s = back_s + float(chance.exponential(one.every_s))
    return sorted(found)
