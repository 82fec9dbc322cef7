"""What is in quarantine, and whom that concerns. Pure data.

Who goes in and comes out is decided by `policies/health/peers.py` and asked of by `peers.py`; what
is done about it, by `reconcile.py`: who is in quarantine takes fewer requests, and goes as soon as
another is ready in its place.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from argosy.control.records import Record

Kind = Literal["replica", "node", "pool"]


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, node or pool. Times are Unix seconds."""

    kind: Kind
    name: str
    pool: str
    since_s: float
    reason: str

    def has(self, record: Record) -> bool:
        """Whether it is about this replica."""
        return self.is_at(pool=record.spec.pool, node=record.row.node, replica=record.name)

    def is_at(self, *, pool: str, node: str | None, replica: str) -> bool:
        """Whether it is about a replica there, of that name."""
        match self.kind:
            case "replica":
                return self.name == replica
            case "node":
                return (self.pool, self.name) == (pool, node)
            case "pool":
                return self.name == pool


class Quarantines(msgspec.Struct, frozen=True, kw_only=True):
    """All that is in quarantine, and the nodes and pools that came out of it lately."""

    out: tuple[Quarantined, ...] = ()
    on_trial: tuple[Quarantined, ...] = ()  # who starts there is on probation; since it came out

    def of(self, record: Record) -> Quarantined | None:
        """The widest that it is in."""
        found = [one for one in self.out if one.has(record)]
        return max(found, key=lambda one: _WIDTH[one.kind], default=None)

    def is_on_trial(self, record: Record) -> bool:
        """Where it is, others were unlike their peers not long ago."""
        return any(one.has(record) for one in self.on_trial)

    def nodes(self) -> dict[tuple[str, str], str]:
        """By pool and node: why nothing is to start there."""
        return {(one.pool, one.name): one.reason for one in self.out if one.kind == "node"}

    def pools(self) -> frozenset[str]:
        """Where nothing is to start at all."""
        return frozenset(one.name for one in self.out if one.kind == "pool")

    def but(self, replicas: Iterable[str]) -> "Quarantines":
        """Without these: their names are free again."""
        gone = set(replicas)
        kept = [one for one in self.out if one.kind != "replica" or one.name not in gone]
        return self if len(kept) == len(self.out) else msgspec.structs.replace(self, out=(*kept,))


_WIDTH: dict[Kind, int] = {"replica": 0, "node": 1, "pool": 2}
