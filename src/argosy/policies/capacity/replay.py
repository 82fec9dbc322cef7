"""What a decision was made from, so that it can be logged, and made again from there."""

from collections.abc import Sequence

import msgspec

from argosy.policies import autoscaling
from argosy.policies.autoscaling import Ask, Decision, Given, asked_again
from argosy.policies.capacity.decide import decided, has_choice
from argosy.policies.capacity.views import World


class Placing(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of the pools, and what other models asked for that share some of them."""

    world: World
    others: tuple[Ask, ...] = ()


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """A decision as it is logged, in JSON."""

    decision: Decision
    given: Given | None = None  # None: the rule was not asked, or it is too large
    placing: Placing | None = None  # None: it has one deployment, so that nothing was placed


def placing_of(ask: Ask, asks: Sequence[Ask], world: World) -> Placing | None:
    """Of one of the asks: the least from which `decided` says the same of it again."""
    if not has_choice(ask):
        return None
    pools_of = {one.deployment: one.pool for one in world.sites}
    near, pools = [ask], set[str]()
    left = [one for one in asks if one.model != ask.model]
    fresh = [ask]
    while fresh:
        pools |= {pools_of[part.name] for one in fresh for part in one.parts}
        fresh = [one for one in left if any(pools_of[part.name] in pools for part in one.parts)]
        left = [one for one in left if one not in fresh]
        near += fresh
    names = {part.name for one in near for part in one.parts}
    models = {one.model for one in near}
    return Placing(
        world=World(
            stocks=tuple(one for one in world.stocks if one.pool in pools),
            sites=tuple(one for one in world.sites if one.deployment in names),
            limits=tuple(one for one in world.limits if one.model in models),
            residency={key: said for key, said in world.residency.items() if key in models},
            closed=tuple(one for one in world.closed if one.pool in pools),
            taken=tuple(one for one in world.taken if one.pool in pools and one.chips),
            planned={key: count for key, count in world.planned.items() if key in names},
        ),
        others=tuple(one for one in near if one is not ask),
    )


def replayed(logged: Logged) -> Decision | None:
    """What is decided from this, now; None: nothing is there to decide it from."""
    if logged.given is None:
        return None
    if logged.placing is None:
        return autoscaling.replayed(logged.given)
    asks = (asked_again(logged.given), *logged.placing.others)
    return decided(asks, logged.placing.world)[0]
