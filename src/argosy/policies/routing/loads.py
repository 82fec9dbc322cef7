"""The policies that look at no prompt: in turn, the least loaded, the less loaded of two. Pure.

What they take is computed in `places.py`. They need nothing learned, so they are what the default
policy is measured against. Every policy has the same signature; these leave `tuning` unread.
"""

from collections.abc import Sequence

from argosy.policies.routing.places import drawn_place, least_loaded_place, turn_by_name
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
    loads = [0.0] * len(able)
    choice = least_loaded_place(able, loads)
    place = choice[0]
    if choice[1] > 1:
        place = turn_by_name(able, loads, loads, choice, request.turn)
    return _route(able[place], "least_loaded", len(able))


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
    return _route(ranked[drawn_place(ranked, request.chance)], "power_of_two", count)


def _route(view: ReplicaView, policy: str, candidates: int) -> Route:
    return Route(
        replica=view.replica,
        policy=policy,
        candidates=candidates,
        requests_in_flight=view.requests_in_flight,
    )


def _name(view: ReplicaView) -> str:
    return view.replica
