"""The decision: what models ask for comes in, replicas of each deployment and their reasons go out.

A model of one deployment gets what the autoscaling's own `spread` says, as ever. All others are
placed together, those that share pools in one tick of the placement policy. Then two things that
it does not know: a ready replica goes only where enough others of its model are ready (make before
break), and where nothing else has room, a pool that had none is asked again.
"""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from argosy.policies import placement
from argosy.policies.autoscaling import Ask, Decision, answered, spread_over
from argosy.policies.capacity.ticks import Place, changes_by, chips_of, places_of, taken_of, tick_of
from argosy.policies.capacity.views import LIVE_TUNING, Taken, World
from argosy.policies.capacity.words import Outcome, why
from argosy.policies.placement import Tuning

_EPS = 1e-6
_Placed = dict[str, tuple[Ask, tuple[Place, ...]]]  # by model
_Counts = dict[str, list[int]]  # by model, in the order of its deployments


def decided(
    asks: Sequence[Ask], world: World, *, tuning: Tuning = LIVE_TUNING
) -> tuple[Decision, ...]:
    """One decision for each ask, in their order; the order changes nothing in them."""
    found: dict[str, Decision] = {}
    taken = list(world.taken)
    placed: _Placed = {}
    for ask in asks:
        places = places_of(ask, world)
        if has_choice(ask):
            placed[ask.model] = ask, places
            continue
        found[ask.model] = decision = spread_over(ask)
        pairs = zip(places, decision.targets, strict=True)
        taken += (_taken(one, max(told.replicas, one.part.replicas)) for one, told in pairs)
    world = replace(world, taken=tuple(taken))
    for group in _groups(placed):
        found |= _placed(group, world, tuning)
    return tuple(found[ask.model] for ask in asks)


def has_choice(ask: Ask) -> bool:
    """Whether there is anything to be placed."""
    return len(ask.parts) > 1


def _taken(one: Place, replicas: int) -> Taken:
    return Taken(pool=one.site.pool, chips=replicas * one.site.chips)


def _groups(placed: _Placed) -> Iterator[_Placed]:
    """Models that share pools, with each other's; by name."""
    left = dict(sorted(placed.items()))
    while left:
        group, pools = dict[str, tuple[Ask, tuple[Place, ...]]](), set[str]()
        fresh = [next(iter(left))]
        while fresh:
            for model in fresh:
                group[model] = left.pop(model)
                pools |= {one.site.pool for one in group[model][1]}
            fresh = [
                model
                for model, (_, places) in left.items()
                if any(one.site.pool in pools for one in places)
            ]
        yield dict(sorted(group.items()))


def _placed(group: _Placed, world: World, tuning: Tuning) -> dict[str, Decision]:
    wanted = placement.place(tick_of(group, world), tuning=tuning)
    counts = {(one.model, one.pool): one.replicas for one in wanted.replicas}
    best = {
        model: [counts.get((model, one.site.pool), 0) for one in places]
        for model, (_, places) in group.items()
    }
    held = {model: counts.copy() for model, counts in best.items()}
    for model, (ask, places) in group.items():
        _keep_until_others_are_ready(ask, places, held[model])
    _put_off_starts_without_chips(group, held, world)
    for ask, places in group.values():
        _ask_full_pools_again(ask, places, held, group, world)
    changes = changes_by(wanted.changes)
    found: dict[str, Decision] = {}
    for model, (ask, places) in group.items():
        outcome = Outcome(ask, places, best[model], held[model], world.residency.get(model))
        pools = [one.site.pool for one in places]
        whys = [why(outcome, at, changes.get((model, pool))) for at, pool in enumerate(pools)]
        found[model] = answered(ask, held[model], whys)
    return found


def _keep_until_others_are_ready(ask: Ask, places: Sequence[Place], counts: list[int]) -> None:
    """In place: ready replicas stay while those that are to do their work are still starting."""
    able = [(at, one) for at, one in enumerate(places) if one.high > 0]
    ready = sum(one.part.ready * one.part.capacity for _, one in able)
    needed = min(ask.whole, ready) - _EPS
    kept = sum(min(one.part.ready, counts[at]) * one.part.capacity for at, one in able)
    for at, one in sorted(able, key=lambda pair: (pair[1].usd_per_capacity, pair[0])):
        while kept < needed and counts[at] < min(one.part.ready, one.high):
            counts[at] += 1
            kept += one.part.capacity


def _put_off_starts_without_chips(group: _Placed, counts: _Counts, world: World) -> None:
    """In place: what is kept for now has the chips that others were to start on."""
    for pool, members in _by_pool(group).items():
        there = chips_of([one for _, _, one in members], taken_of(world, pool))
        used = sum(counts[model][at] * one.site.chips for model, at, one in members)
        for model, at, one in reversed(members):
            while used > there and counts[model][at] > max(one.up, one.low):
                counts[model][at] -= 1
                used -= one.site.chips


def _ask_full_pools_again(
    ask: Ask, places: Sequence[Place], counts: _Counts, group: _Placed, world: World
) -> None:
    """In place, where the others together cannot do what is needed: the cheapest first."""
    own = counts[ask.model]
    pairs = list(zip(places, own, strict=True))
    missing = ask.whole - sum(count * one.part.capacity for one, count in pairs)
    again = [
        (at, one)
        for at, one in enumerate(places)
        if one.closed is not None and not one.closed.is_left and one.site.may_serve
    ]
    for at, one in sorted(again, key=lambda pair: (pair[1].usd_per_capacity, pair[0])):
        free = _free(one, group, counts, world)
        while missing > _EPS and own[at] < one.part.max and free >= one.site.chips:
            own[at] += 1
            free -= one.site.chips
            missing -= one.part.capacity


def _free(one: Place, group: _Placed, counts: _Counts, world: World) -> int:
    """Chips of its pool by the file."""
    if one.stock.chips is None:
        return (one.part.max + 1) * one.site.chips
    pool = one.site.pool
    members = _by_pool(group)[pool]
    used = sum(counts[model][at] * other.site.chips for model, at, other in members)
    return one.stock.chips - taken_of(world, pool) - used


def _by_pool(group: _Placed) -> dict[str, list[tuple[str, int, Place]]]:
    """Models, the places of their deployments, and these."""
    found: dict[str, list[tuple[str, int, Place]]] = {}
    for model, (_, places) in group.items():
        for at, one in enumerate(places):
            found.setdefault(one.site.pool, []).append((model, at, one))
    return found
