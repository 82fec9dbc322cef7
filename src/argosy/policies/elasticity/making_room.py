"""Which islands leave a fleet's pool: for replicas without room, or nodes that close. Pure.

Replicas have people who wait; an island that leaves in order loses no step, and its tokens are
trained on elsewhere. So those that are told to give way do, as few chips of them as make room.
"""

from collections.abc import Mapping, Sequence

import msgspec


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """An island on a node of the fleet's."""

    island: str
    node: str
    chips: int
    gives_way: bool  # to replicas; from a node that closes all leave
    is_leaving: bool = False  # it was told so


def who_leaves(
    guests: Sequence[Guest],
    *,
    wanted: Sequence[int],
    free: Mapping[str, int],
    closing: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """Those that are to be told now, and why.

    `wanted`: chips of each replica that found no room, all on one node; `free`: by open node;
    `closing`: nodes to be emptied. For the largest want first, the node that gives up fewest chips.
    """
    told = {
        guest.island: f"node {guest.node} is to be emptied"
        for guest in guests
        if guest.node in closing and not guest.is_leaving
    }
    left = dict(free)
    stay: dict[str, list[Guest]] = {node: [] for node in free}
    for guest in guests:
        if guest.node not in left:
            continue
        if guest.is_leaving:
            left[guest.node] += guest.chips
        elif guest.gives_way and guest.chips:
            stay[guest.node].append(guest)
    for chips in sorted(wanted, reverse=True):
        ways = {node: _fewest(stay[node], chips - left[node]) for node in left}
        able = {node: way for node, way in ways.items() if way is not None}
        if not able:
            continue
        node = min(able, key=lambda name: (sum(one.chips for one in able[name]), name))
        for guest in able[node]:
            stay[node].remove(guest)
            left[node] += guest.chips
            told[guest.island] = f"a replica that takes {chips} chips finds no room on the pool"
        left[node] -= chips
    return told


def _fewest(guests: Sequence[Guest], missing: int) -> tuple[Guest, ...] | None:
    """Guests of one node that have so many chips together, none of them in vain."""
    if missing <= 0:
        return ()
    taken: list[Guest] = []
    for guest in sorted(guests, key=lambda one: (one.chips, one.island)):
        taken.append(guest)
        missing -= guest.chips
        if missing <= 0:
            break
    else:
        return None
    for guest in reversed(taken[:-1]):  # what the last one made needless
        if missing + guest.chips <= 0:
            taken.remove(guest)
            missing += guest.chips
    return tuple(taken)
