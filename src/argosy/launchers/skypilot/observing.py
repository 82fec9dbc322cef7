"""What the API server's answers say of a pool's replicas: pure.

A replica is seen by its cluster; before there is one, and after, by the launch that asked for it:
the newest of its launches and downs that the server remembers. So what was launched and failed is
there until it is taken down, whoever asks.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from argosy.fleet.messages import ObservedReplica
from argosy.launchers.skypilot.api import Cluster, Request
from argosy.launchers.skypilot.task import Ours
from argosy.launchers.skypilot.tending import Facts

LAUNCH, DOWN = "sky.launch", "sky.down"
_DETAIL_LENGTH_MAX = 500
_State: TypeAlias = tuple[str, str]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one cluster name."""

    cluster: Cluster | None  # None: it has no machines
    newest: Request | None  # of its launches and downs
    failure: str | None = None  # of the newest, where it is a launch that failed
    ours: Ours  # whose it is

    @property
    def is_there(self) -> bool:
        """It takes chips, or is about to."""
        if self.cluster is not None:
            return True
        return self.newest is not None and self.newest.name == LAUNCH and self.newest.is_active


def newest(requests: Sequence[Request], prefix: str) -> dict[str, Request]:
    """The last launch or down of each cluster of the pool; `requests` are the newest first."""
    found: dict[str, Request] = {}
    for one in requests:
        name = one.cluster_name or ""
        if name.startswith(prefix) and one.name in (LAUNCH, DOWN):
            found.setdefault(name, one)
    return found


def replica(known: Known, facts: Mapping[str, Facts]) -> ObservedReplica | None:
    """As the port tells it; None: nothing is left of it."""
    cluster = known.cluster
    fact = None if cluster is None else facts.get(cluster.name)
    found = _without_cluster(known) if cluster is None else _state(known, cluster, fact)
    if found is None:
        return None
    state, detail = found
    is_reached = fact is not None and state in ("listening", "unreachable")
    return ObservedReplica(
        name=known.ours.replica,
        generation=known.ours.generation,
        state=state,  # type: ignore[arg-type]  # one of them, below
        url=fact.url if is_reached and fact is not None else None,
        detail=detail[:_DETAIL_LENGTH_MAX],
    )


def _without_cluster(known: Known) -> _State | None:
    request = known.newest
    if request is None or request.name == DOWN:
        return None
    if request.is_active:
        return "starting", "SkyPilot looks for a machine"
    if known.failure is not None:
        return "ended", known.failure
    return "ended", "its machine is gone: taken back by the cloud, or ended by others"


def _state(known: Known, cluster: Cluster, fact: Facts | None) -> _State:
    is_launching = known.newest is not None and known.newest.is_active
    if cluster.status == "UP" and fact is not None:
        if fact.ended is not None:
            return "ended", fact.ended
        if fact.listens:
            return "listening", ""
        if known.failure is not None:  # the machine is there, and what was to be installed is not
            return "ended", known.failure
        return "starting", "its machine is up, its engine does not listen yet"
    if cluster.status in ("STOPPED", "AUTOSTOPPING"):
        return "ended", f"its machine is {cluster.status}, which others have asked for"
    reason = cluster.init_status_reason or ""
    if known.failure is not None:
        return "ended", known.failure
    if cluster.init_kind == "unhealthy" and not is_launching:
        return "unreachable", reason
    return "starting", reason or "its machine is being made ready"
