"""How each replica stands and since when, from the tables; and how long launches took.

A cold start is from the table in which a replica was first asked for to that in which it is ready.
Of each deployment (a model on a pool) the late ones are kept; until there are some, what the fleet
file says is believed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from argosy.fleet.messages import Replica, ReplicaState, ReplicaTable

Kind = Literal["ready", "pending", "draining", "lost"]
_KINDS: dict[ReplicaState, Kind] = {
    "starting": "pending",
    "dead": "pending",  # its restart is due
    "ready": "ready",
    "suspect": "ready",  # a probe may have been slow
    "unreachable": "lost",
    "stopping": "draining",
}
_KEPT = 64  # launches of a deployment
_ENOUGH = 3  # launches: fewer only make what is assumed longer
_QUANTILE = 0.95
_MOVED = 0.1  # of what was said: a horizon that wavers would have all forecasts made anew


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One replica."""

    deployment: str
    kind: Kind
    since_s: float  # that it is of this kind
    asked_s: float | None  # of the launch under way; None: it is over, or was not seen to begin
    restarts: int


class Launched(msgspec.Struct, kw_only=True):
    """All that is remembered, to be stored."""

    standing: dict[str, Standing] = {}  # by replica
    seconds: dict[str, list[float]] = {}  # by deployment: cold starts, the oldest first
    said: dict[str, float] = {}  # by deployment: the p95 that was told


class Launches:
    """Of all deployments."""

    def __init__(self, kept: Launched | None = None) -> None:
        self.kept = kept or Launched()
        self._by_deployment: dict[str, list[tuple[str, Standing]]] = {}

    def observe(
        self, now_s: float, table: ReplicaTable, asked_s: Mapping[str, float] | None = None
    ) -> None:
        """The table as it is now; times never go back. `asked_s` by replica, where it is known."""
        before, self.kept.standing = self.kept.standing, {}
        self._by_deployment = {}
        for row in table.replicas:
            old, told_s = before.get(row.name), (asked_s or {}).get(row.name)
            one = _now(row, old, now_s, told_s)
            if old is not None and old.asked_s is not None and one.kind == "ready":
                self._launched(one.deployment, now_s - max(old.asked_s, told_s or old.asked_s))
            self.kept.standing[row.name] = one
            self._by_deployment.setdefault(row.deployment, []).append((row.name, one))

    def _launched(self, deployment: str, seconds: float) -> None:
        late = self.kept.seconds.setdefault(deployment, [])
        late.append(seconds)
        del late[:-_KEPT]

    def replicas(self, deployment: str) -> Sequence[str]:
        """The names of all of its replicas."""
        return [name for name, _ in self._by_deployment.get(deployment, ())]

    def ready_names(self, deployment: str) -> Sequence[str]:
        """The names of those that are."""
        known = self._by_deployment.get(deployment, ())
        return [name for name, one in known if one.kind == "ready"]

    def ready(self, deployment: str) -> int:
        """How many are."""
        return len(self.ready_names(deployment))

    def since_s(self, deployment: str, kind: Kind) -> tuple[float, ...]:
        """Since when each of that kind is of it, the first first."""
        known = self._by_deployment.get(deployment, ())
        return tuple(sorted(one.since_s for _, one in known if one.kind == kind))

    def start_s_p95(self, deployment: str, assumed_s: float) -> float:
        """Of its late launches; what is assumed, and no less, until there are a few."""
        late = self.kept.seconds.get(deployment)
        if not late:
            return assumed_s
        if len(late) < _ENOUGH:
            found_s = max(assumed_s, *late)
        else:
            found_s = sorted(late)[math.ceil(_QUANTILE * len(late)) - 1]
        said_s = self.kept.said.get(deployment, assumed_s)
        if abs(found_s - said_s) > _MOVED * said_s:
            said_s = self.kept.said[deployment] = found_s
        return said_s


def _now(row: Replica, old: Standing | None, now_s: float, told_s: float | None) -> Standing:
    """How it stands; of one that is pending, since when its launch is under way."""
    kind = _KINDS[row.state]
    first_s = now_s
    if old is None and kind == "pending" and told_s is not None:
        first_s = min(now_s, told_s)  # another control plane asked for it
    is_same = old is not None and old.kind == kind
    asked_s = None
    if kind == "pending":
        is_same_launch = old is not None and is_same and old.restarts == row.restarts
        asked_s = old.asked_s if old is not None and is_same_launch else first_s
    return Standing(
        deployment=row.deployment,
        kind=kind,
        since_s=old.since_s if old is not None and is_same else first_s,
        asked_s=asked_s,
        restarts=row.restarts,
    )
