"""The policies that look at no prompt: in turn, the least loaded, the less loaded of two. Pure.

They need nothing learned, so they are what the default policy is measured against. Every policy
has the same signature; these leave `tuning` unread.
"""

from collections.abc import Sequence

from argosy.policies.routing.views import (
    ANY_REQUEST,
    DEFAULT_TUNING,
    NO_REPLICA,
    NONE_TRIED,
    NoRoute,
    ReplicaView,
    RequestShape,
    Route,
    Tuning,
    best_kind,
    load_of,
    take_turns,
)


def round_robin(
    replicas: Sequence[ReplicaView],
    *,
    request: RequestShape = ANY_REQUEST,
    tried: frozenset[str] = NONE_TRIED,
    tuning: Tuning = DEFAULT_TUNING,
) -> Route | NoRoute:
    """One after the other, by name, whatever they do."""
    able = best_kind(replicas, tried)
    if not able:
        return NO_REPLICA
    ranked = sorted(able, key=_name)
    return _route(ranked[request.turn % len(ranked)], "round_robin", len(able))


def least_loaded(
    replicas: Sequence[ReplicaView],
    *,
    request: RequestShape = ANY_REQUEST,
    tried: frozenset[str] = NONE_TRIED,
    tuning: Tuning = DEFAULT_TUNING,
) -> Route | NoRoute:
    """Where the fewest are in flight per slot; equals take turns."""
    able = best_kind(replicas, tried)
    if not able:
        return NO_REPLICA
    loads = [load_of(view) for view in able]
    least = min(loads)
    equals = [view for view, load in zip(able, loads, strict=True) if load == least]
    best = equals[0] if len(equals) == 1 else take_turns(equals, request.turn)
    return _route(best, "least_loaded", len(able))


def power_of_two(
    replicas: Sequence[ReplicaView],
    *,
    request: RequestShape = ANY_REQUEST,
    tried: frozenset[str] = NONE_TRIED,
    tuning: Tuning = DEFAULT_TUNING,
) -> Route | NoRoute:
    """The less loaded of two drawn by `request.chance`, the first drawn where they are equal.

    Almost as even as the least loaded, and where several gateways know each other's load late
    they do not all choose the same replica.
    """
    able = best_kind(replicas, tried)
    if not able:
        return NO_REPLICA
    count = len(able)
    if count == 1:
        return _route(able[0], "power_of_two", 1)
    ranked = sorted(able, key=_name)
    first, second = divmod(int(request.chance * count * (count - 1)), count - 1)
    one, other = ranked[first], ranked[second + (second >= first)]
    best = other if load_of(other) < load_of(one) else one
    return _route(best, "power_of_two", count)


def _route(view: ReplicaView, policy: str, candidates: int) -> Route:
    return Route(
        replica=view.replica,
        policy=policy,
        candidates=candidates,
        requests_in_flight=view.requests_in_flight,
    )


def _name(view: ReplicaView) -> str:
    return view.replica
