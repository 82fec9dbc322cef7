"""A run of islands: a fault stops one island, which loses its lease; the others go on.

Rounds are closed by the live policy, from what the syncer would see; leases are as long as the live
policy makes them. A delta that the syncer cannot take yet is sent again.
"""

import heapq
from collections import deque
from typing import Literal

import numpy as np

from argosy.policies.checkpointing import interval_s, mttf_s
from argosy.policies.elasticity import Close, IslandSeen, RoundView, closing, rations
from argosy.simulator.training.nodes import DAY_S, Nodes, outages_of
from argosy.simulator.training.scenario import Course, Part, Training

_Kind = Literal["snapshot", "delta", "fault", "up", "outage", "look", "syncer"]
_OF_A_LIFE = ("snapshot", "delta", "fault")


def run_of_islands(training: Training) -> Course:
    """Its course; the same for the same seed."""
    return _Run(training).run()


class _Island:
    """One island: what it trains on, what it has sent, and where its seconds went."""

    def __init__(self, part: Part, nodes: Nodes, mttf_s_believed: float) -> None:
        self.part = part
        self.nodes = nodes
        self.mttf_s_believed = mttf_s_believed
        self.faults = 0
        self.life = 0  # events of earlier lives are void
        self.died_s: float | None = None  # None: it is up
        self.up_s = 0.0  # from when on, where it is down
        self.leased_s = 0.0  # when it got its last lease
        self.trains = False  # on that; else it waits or is down
        self.waits_since_s: float | None = None
        self.unsent_s: deque[float] = deque()  # trained, not in the ledger
        self.waiting_s: list[float] = []  # in the ledger, in no version yet
        self.kept_s = self.lost_s = self.down_s = self.stall_s = 0.0


def _mttf_s_believed(part: Part, training: Training) -> float:
    """What is believed of the whole run, for this share of its faults."""
    rates = {one.name: one.nodes * one.faults_per_node_day for one in training.parts}
    rarer = sum(rates.values()) / rates[part.name] if rates[part.name] else 1.0
    return training.mttf_s_believed * rarer


class _Run:
    def __init__(self, training: Training) -> None:
        self._training = training
        chance = np.random.default_rng(training.seed)
        self._chance = chance
        self._islands = [
            _Island(part, Nodes(part, chance), _mttf_s_believed(part, training))
            for part in training.parts
        ]
        self._events: list[tuple[float, int, _Kind, int, int, float]] = []
        self._count = 0
        self._now_s = 0.0
        self._quorum_s: float | None = None
        self._syncer_up_s = 0.0
        self._rounds = 0
        speeds = [part.tokens_per_s for part in training.parts]
        self._step_tokens = training.step_s * sum(speeds) / len(speeds)
        self._steps = self._rations()

    def run(self) -> Course:
        """Events in order; what is under way at the end counts as trained."""
        until_s = self._training.until_s
        self._begin()
        while self._events and self._events[0][0] < until_s:
            self._now_s, _, kind, island, life, value = heapq.heappop(self._events)
            if kind in _OF_A_LIFE and self._islands[island].life != life:
                continue
            self._take(kind, island, value)
        self._now_s = until_s
        return self._course()

    def _begin(self) -> None:
        for k in range(len(self._islands)):
            self._start(k)
        for from_s, to_s, names in outages_of(
            self._training.outages, self._training.until_s, self._chance
        ):
            for k, island in enumerate(self._islands):
                if island.part.name in names:
                    self._put(from_s, "outage", k, to_s)
        if self._training.syncer_faults_per_day:
            self._put(self._syncer_gap_s(), "syncer", 0)

    def _take(self, kind: _Kind, k: int, value: float) -> None:
        match kind:
            case "snapshot":
                self._snapshot(k)
            case "delta":
                self._delta(k)
            case "fault":
                self._islands[k].faults += 1
                self._goes(k, self._islands[k].nodes.fail(self._now_s))
            case "outage":
                self._goes(k, value)
            case "up":
                self._start(k)
            case "look":
                self._maybe_close()
            case "syncer":
                self._syncer_up_s = self._now_s + self._training.syncer_restart_s
                self._put(self._now_s + self._syncer_gap_s(), "syncer", 0)

    def _put(self, at_s: float, kind: _Kind, island: int, value: float = 0.0) -> None:
        self._count += 1
        life = self._islands[island].life
        heapq.heappush(self._events, (at_s, self._count, kind, island, life, value))

    # An island.

    def _start(self, k: int) -> None:
        """Training from here on."""
        island = self._islands[k]
        if self._now_s < island.up_s or island.trains:
            return  # something else took it down meanwhile
        island.died_s = None
        self._put(island.nodes.next_fault_s(self._now_s), "fault", k)
        self._lease(k)

    def _lease(self, k: int) -> None:
        island = self._islands[k]
        island.trains, island.leased_s = True, self._now_s
        self._put(self._now_s + self._lease_of_s(island) * (1 + self._stall(island)), "snapshot", k)

    def _snapshot(self, k: int) -> None:
        """A lease is done; its delta is on its way, and the next one begins if it may."""
        island, trained_s = self._islands[k], self._lease_of_s(self._islands[k])
        island.unsent_s.append(trained_s)
        island.stall_s += trained_s * self._stall(island)
        self._put(max(self._now_s + self._training.send_s, self._syncer_up_s), "delta", k)
        pending = len(island.unsent_s) + len(island.waiting_s)
        if pending > self._training.elasticity.staleness_max:
            island.trains, island.waits_since_s = False, self._now_s
        else:
            self._lease(k)

    def _goes(self, k: int, back_s: float) -> None:
        """Down until its nodes are back and it has started; what it had not sent is lost."""
        island = self._islands[k]
        up_s = back_s + self._training.restart_s
        if island.died_s is None:
            if island.trains:
                island.lost_s += self._now_s - island.leased_s
            island.lost_s += sum(island.unsent_s)
            island.unsent_s.clear()
            self._waits_no_more(island)
            island.life += 1
            island.trains, island.died_s, island.up_s = False, self._now_s, self._now_s
            self._put(self._now_s + self._training.lease_s, "look", k)
        if up_s > island.up_s:
            end_s = self._training.until_s
            island.down_s += min(up_s, end_s) - min(island.up_s, end_s)
            island.up_s = up_s
            self._put(up_s, "up", k)

    def _waits_no_more(self, island: _Island) -> None:
        if island.waits_since_s is not None:
            island.stall_s += self._now_s - island.waits_since_s
            island.waits_since_s = None

    # The syncer.

    def _delta(self, k: int) -> None:
        """It comes; where the syncer is away, it is sent again when that is back."""
        if self._now_s < self._syncer_up_s:
            self._put(self._syncer_up_s, "delta", k)
            return
        island = self._islands[k]
        island.waiting_s.append(island.unsent_s.popleft())
        if self._quorum_s is None and self._contributed() >= self._training.elasticity.quorum:
            self._quorum_s = self._now_s
        self._maybe_close()

    def _maybe_close(self) -> None:
        if self._now_s < self._syncer_up_s:
            return
        answer = closing(self._view(), self._training.elasticity, self._now_s)
        if isinstance(answer, Close):
            self._close()
        elif answer.until_s is not None:
            self._put(max(answer.until_s, self._now_s + 1e-6), "look", 0)

    def _contributed(self) -> int:
        return sum(bool(island.waiting_s) for island in self._islands)

    def _view(self) -> RoundView:
        return RoundView(
            islands=tuple(self._seen(one) for one in self._islands if self._seems_alive(one)),
            contributed=self._contributed(),
            quorum_s=self._quorum_s,
        )

    def _seems_alive(self, island: _Island) -> bool:
        return island.died_s is None or self._now_s < island.died_s + self._training.lease_s

    def _seen(self, island: _Island) -> IslandSeen:
        return IslandSeen(
            island=island.part.name,
            steps_per_s=island.part.tokens_per_s / self._step_tokens,
            has_contributed=bool(island.waiting_s),
            steps_leased=None
            if island.waits_since_s is not None
            else self._steps[island.part.name],
            leased_s=island.leased_s,
        )

    def _close(self) -> None:
        self._rounds += 1
        self._quorum_s = None
        for k, island in enumerate(self._islands):
            island.kept_s += sum(island.waiting_s)
            island.waiting_s.clear()
            if island.waits_since_s is not None and not island.unsent_s:
                self._waits_no_more(island)
                self._lease(k)

    # What is counted.

    def _stall(self, island: _Island) -> float:
        """Seconds of its own checkpoints for each of training."""
        cost_s = self._training.checkpoint_cost_s
        mean_s = mttf_s(self._now_s, island.faults, prior_s=island.mttf_s_believed)
        return cost_s / interval_s(cost_s, mean_s)

    def _lease_of_s(self, island: _Island) -> float:
        return self._steps[island.part.name] * self._step_tokens / island.part.tokens_per_s

    def _rations(self) -> dict[str, int]:
        seen = [
            IslandSeen(island=part.name, steps_per_s=part.tokens_per_s / self._step_tokens)
            for part in self._training.parts
        ]
        return rations(seen, self._training.elasticity)

    def _syncer_gap_s(self) -> float:
        return float(self._chance.exponential(DAY_S / self._training.syncer_faults_per_day))

    def _course(self) -> Course:
        """Seconds of each island by its speed; what is under way was not lost."""
        useful = lost = down = stall = 0.0
        for island in self._islands:
            self._waits_no_more(island)
            speed = island.part.tokens_per_s
            under_way_s = self._now_s - island.leased_s if island.trains else 0.0
            useful += speed * (
                island.kept_s + sum(island.waiting_s) + sum(island.unsent_s) + under_way_s
            )
            lost += speed * island.lost_s
            down += speed * island.down_s
            stall += speed * island.stall_s
        total = sum(part.tokens_per_s for part in self._training.parts) * self._training.until_s
        return Course(
            goodput=useful / total,
            lost_share=lost / total,
            down_share=down / total,
            stall_share=stall / total,
            faults=sum(island.faults for island in self._islands),
            rounds=self._rounds,
        )
