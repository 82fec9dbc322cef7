"""The islands of a run on one pool of a fleet: who is told to leave, and who may not come yet.

Owns what is remembered from look to look; who leaves is `policies/elasticity/making_room.py`'s
decision. Times are a monotonic clock's.
"""

import math
from typing import Protocol

from argosy.fleet.messages import Observation
from argosy.fleet.runs import Island
from argosy.policies.elasticity import Guest, who_leaves

_SETTLES_S = 3.0  # after one has left, until the pool's account of free chips knows it


class Leaver(Protocol):
    """A life of an island on a node."""

    @property
    def node(self) -> str | None:
        """Where it is."""
        ...

    @property
    def left_for(self) -> str:
        """Why it was told to leave; "": it was not."""
        ...

    def leave(self, why: str) -> None:
        """Tell it."""
        ...


class Guests:
    """Of one pool. Every look at it, by whichever of its islands, is to be told."""

    def __init__(self) -> None:
        self._lives: dict[str, tuple[Island, int, Leaver]] = {}
        self._is_wanted = False  # at the last look replicas were without room
        self._wanted_s = -math.inf  # when they last were
        self._settles_s = 0.0

    def came(self, island: Island, chips: int, life: Leaver) -> None:
        """It was started there, or found."""
        self._lives[island.name] = (island, chips, life)

    def gone(self, island: str, now_s: float) -> None:
        """It has ended."""
        _, _, life = self._lives.pop(island)
        if life.left_for:
            self._settles_s = now_s + _SETTLES_S

    def hear(self, seen: Observation, now_s: float) -> None:
        """Tell those to leave that should."""
        self._is_wanted = bool(seen.wanted)
        if seen.wanted:
            self._wanted_s = now_s
        if now_s < self._settles_s:
            return
        guests = [
            Guest(
                island=island.name,
                node=life.node,
                chips=chips,
                gives_way=island.gives_way_s is not None,
                is_leaving=bool(life.left_for),
            )
            for island, chips, life in self._lives.values()
            if life.node is not None
        ]
        told = who_leaves(
            guests,
            wanted=seen.wanted,
            free={one.name: one.chips_free or 0 for one in seen.nodes if one.state == "up"},
            closing=frozenset(one.name for one in seen.nodes if one.state == "draining"),
        )
        for name, why in told.items():
            self._lives[name][2].leave(why)

    def refusal(self, island: Island, now_s: float) -> str:
        """Why it is not to be started there now; "": it may be."""
        if island.gives_way_s is None:
            return ""
        if not self._is_wanted and now_s >= self._wanted_s + island.gives_way_s:
            return ""
        return (
            f"it gives way to replicas without room on pool {island.pool}, and comes "
            f"{island.gives_way_s:g} s after the last of them"
        )
