"""Which replica answers a request. Pure: the views are given, the decision carries its reason."""

from collections.abc import Sequence

import msgspec


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as the gateway sees it when it must choose."""

    replica: str
    is_ready: bool  # False: suspect, used only when nothing better is left
    requests_in_flight: int
    slots: int | None  # requests it decodes together; None: unknown


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Send the request there."""

    replica: str
    reason: str


class NoRoute(msgspec.Struct, frozen=True, kw_only=True):
    """No replica may take it now."""

    reason: str
    retry_after_s: float


def least_loaded(
    replicas: Sequence[ReplicaView], *, tried: frozenset[str] = frozenset()
) -> Route | NoRoute:
    """Send the request where the fewest are in flight per slot; the name breaks ties.

    `tried` are the replicas that already failed this request: they come last, not never, for
    a replica that was restarted keeps its name.
    """
    if not replicas:
        return NoRoute(reason="0 replicas are ready", retry_after_s=1.0)

    def cost(view: ReplicaView) -> tuple[bool, bool, float, str]:
        load = view.requests_in_flight / (view.slots or 1)
        return not view.is_ready, view.replica in tried, load, view.replica

    best = min(replicas, key=cost)
    return Route(
        replica=best.replica,
        reason=f"{best.requests_in_flight} in flight, least loaded of {len(replicas)}",
    )
