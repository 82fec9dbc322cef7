"""Where a plan's money goes and what it uses, pool by pool.

Sums of `spent` over all pools, with `unused_credit_usd`, are the plan's total.
"""

import msgspec

from argosy.planner.plan import Plan
from argosy.planner.problem import Problem
from argosy.planner.questions.changed import hours_of

_LEAST = 1e-6  # chips, or USD an hour: less is the solver's dust


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Of one pool, over the horizon."""

    pool: str
    chip: str
    usd: float  # credit as far as it was drawn on
    usd_per_hour: float  # on average over the horizon
    chips_mean: float  # in use, on average over the horizon; paid but idle ones are not


def spent(plan: Plan) -> tuple[Spent, ...]:
    """By pool, in the problem's order; pools that cost and do nothing too."""
    problem = plan.problem
    usd = [0.0] * len(problem.pools)
    chip_hours = [0.0] * len(problem.pools)
    for held in plan.held:
        supply = problem.supplies[held.supply]
        chips = held.nodes * problem.pools[supply.pool].chips_per_node
        usd[supply.pool] += (
            chips * supply.price_usd_per_chip_hour * hours_of(problem, supply.periods)
        )
    for drawn in plan.drawn:
        supply = problem.supplies[drawn.supply]
        used = sum(
            chips * slot.hours for chips, slot in zip(drawn.chips, problem.slots, strict=True)
        )
        chip_hours[supply.pool] += used
        if supply.kind not in ("own", "reserved"):
            usd[supply.pool] += used * supply.price_usd_per_chip_hour
    return tuple(
        Spent(pool=pool.name, chip=pool.chip, usd=usd[place],
              usd_per_hour=usd[place] / problem.hours,
              chips_mean=chip_hours[place] / problem.hours)
        for place, pool in enumerate(problem.pools)
    )  # fmt: skip


def changes_of(before: Plan, after: Plan) -> tuple[tuple[Spent, Spent], ...]:
    """The pools on which anything changes, before and after; both plans have the same pools."""
    pairs = zip(spent(before), spent(after), strict=True)
    return tuple(
        (one, other)
        for one, other in pairs
        if abs(other.chips_mean - one.chips_mean) > _LEAST
        or abs(other.usd_per_hour - one.usd_per_hour) > _LEAST
    )


def unused_credit_usd(plan: Plan) -> float:
    """Paid under take-or-pay and drawn on by nothing."""
    return sum(one.usd - one.used_usd for one in plan.bought)


class Beyond(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of which a plan uses more nodes than a problem has."""

    pool: str
    nodes: float  # used at most, in any slot
    nodes_max: int

    @property
    def more(self) -> float:
        """Nodes that are missing."""
        return self.nodes - self.nodes_max


def beyond_stock(problem: Problem, plan: Plan) -> tuple[Beyond, ...]:
    """What a plan of more stock uses beyond the problem's; both have the same pools."""
    slots = range(len(plan.problem.slots))
    used = [[0.0 for _ in slots] for _ in problem.pools]
    for drawn in plan.drawn:
        row = used[plan.problem.supplies[drawn.supply].pool]
        for slot, chips in enumerate(drawn.chips):
            row[slot] += chips
    supplied = [0] * len(problem.pools)
    for supply in problem.supplies:
        supplied[supply.pool] += supply.nodes_max
    found = (
        Beyond(
            pool=pool.name,
            nodes=max(used[place], default=0.0) / pool.chips_per_node,
            nodes_max=min(pool.nodes_max, supplied[place]),
        )
        for place, pool in enumerate(problem.pools)
    )
    return tuple(one for one in found if one.more > 1e-6)
