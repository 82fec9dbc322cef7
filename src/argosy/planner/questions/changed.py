"""The same problem with something changed: fewer pools, other prices, more users, less promised.

What baselines, offers and what-ifs have in common. Pools keep their places; options and supplies of
pools that are gone are left out, and credits and training runs no longer know them.
"""

from collections.abc import Callable, Collection
from math import floor
from typing import Protocol

import msgspec
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Problem, Supply, SupplyPool, Survival

Progress = Callable[[str, float], None]  # is told what is done, and the share done so far


class Solver(Protocol):
    """`solve.solve`, or what stands in for it."""

    def __call__(
        self,
        problem: Problem,
        *,
        progress: Progress | None = None,
        gap: float = 0.005,
        seconds_max: float = 60.0,
    ) -> Plan | Conflict:
        """The cheapest plan to within `gap`, or why there is none."""
        ...


class Solving(msgspec.Struct, frozen=True, kw_only=True):
    """How the changed problems are solved."""

    solve: Solver
    gap: float = 0.005
    seconds_max: float = 60.0  # of one solve
    progress: Progress | None = None

    def __call__(self, problem: Problem) -> Plan | Conflict:
        """The plan."""
        return self.solve(
            problem, progress=self.progress, gap=self.gap, seconds_max=self.seconds_max
        )

    def tell(self, what: str) -> None:
        """Say what comes next."""
        if self.progress is not None:
            self.progress(what, 0.0)


def only_pools(problem: Problem, kept: Collection[int]) -> Problem:
    """As if nothing could be had in the other pools; contracts signed there are not paid."""
    return only_supplies(
        replace(
            problem,
            options=tuple(one for one in problem.options if one.pool in kept),
            trainings=tuple(
                replace(
                    run,
                    tokens_per_chip_s={
                        pool: rate for pool, rate in run.tokens_per_chip_s.items() if pool in kept
                    },
                )
                for run in problem.trainings
            ),
        ),
        [place for place, supply in enumerate(problem.supplies) if supply.pool in kept],
    )


def only_supplies(problem: Problem, kept: Collection[int]) -> Problem:
    """As if the other supplies were not offered; a credit that none draws on is not bought."""
    places = sorted(kept)
    moved = {old: new for new, old in enumerate(places)}
    credits_ = (
        replace(credit, supplies=tuple(moved[one] for one in credit.supplies if one in moved))
        for credit in problem.credits
    )
    return replace(
        problem,
        supplies=tuple(problem.supplies[place] for place in places),
        credits=tuple(credit for credit in credits_ if credit.supplies),
    )


def unsupplied(problem: Problem, pool: int) -> Problem:
    """As if nothing were offered of that pool; what may run there stays known."""
    return only_supplies(
        problem, [place for place, one in enumerate(problem.supplies) if one.pool != pool]
    )


def with_users(
    problem: Problem, times: float | Collection[float], *, model: str | None = None
) -> Problem:
    """So many times the requests, of one model or of all; one factor, or one by slot."""
    factors = [times] * len(problem.slots) if isinstance(times, int | float) else list(times)
    needs = tuple(
        replace(
            need,
            requests_per_s=tuple(
                rate * factor for rate, factor in zip(need.requests_per_s, factors, strict=True)
            ),
        )
        if model in (None, need.model)
        else need
        for need in problem.needs
    )
    return replace(problem, needs=needs)


def with_prices(problem: Problem, price_of: Callable[[Supply, SupplyPool], float]) -> Problem:
    """Each supply at the price that `price_of` says."""
    return replace(
        problem,
        supplies=tuple(
            replace(supply, price_usd_per_chip_hour=price_of(supply, problem.pools[supply.pool]))
            for supply in problem.supplies
        ),
    )


def with_stock(problem: Problem, times: float, *, pools: Collection[int]) -> Problem:
    """So many times the nodes of these pools, rounded down; what is held by contract stays."""
    held = [0] * len(problem.pools)
    for supply in problem.supplies:
        held[supply.pool] += supply.nodes_min
    most = [
        max(held[place], floor(pool.nodes_max * times + 1e-9)) if place in pools else pool.nodes_max
        for place, pool in enumerate(problem.pools)
    ]
    return replace(
        problem,
        pools=tuple(
            replace(pool, nodes_max=nodes) for pool, nodes in zip(problem.pools, most, strict=True)
        ),
        supplies=tuple(
            replace(
                supply,
                nodes_max=max(
                    supply.nodes_min,
                    min(floor(supply.nodes_max * times + 1e-9), most[supply.pool]),
                ),
            )
            if supply.pool in pools and not supply.is_signed
            else supply
            for supply in problem.supplies
        ),
    )


def with_more_nodes(problem: Problem, supply: int, nodes: int) -> Problem:
    """So many more of what may be held of that supply, and as many in its pool."""
    own = problem.supplies[supply]
    supplies, pools = list(problem.supplies), list(problem.pools)
    supplies[supply] = replace(own, nodes_max=own.nodes_max + nodes)
    pools[own.pool] = replace(pools[own.pool], nodes_max=pools[own.pool].nodes_max + nodes)
    return replace(problem, supplies=tuple(supplies), pools=tuple(pools))


def with_rates(problem: Problem, times: float, *, options: Collection[int]) -> Problem:
    """Replicas of these options sustain so many times the requests that was believed."""
    return replace(
        problem,
        options=tuple(
            replace(
                option,
                requests_per_s=tuple(rate * times for rate in option.requests_per_s),
                requests_per_s_low=tuple(rate * times for rate in option.requests_per_s_low),
                requests_per_s_high=tuple(rate * times for rate in option.requests_per_s_high),
            )
            if place in options
            else option
            for place, option in enumerate(problem.options)
        ),
    )


def without_survivals(
    problem: Problem, dropped: Callable[[Survival], bool] | None = None
) -> Problem:
    """No losses need be survived, or not those that `dropped` says."""
    kept = tuple(one for one in problem.survivals if dropped is not None and not dropped(one))
    return replace(problem, survivals=kept)


def hours_of(problem: Problem, periods: Collection[int]) -> float:
    """Of these periods together."""
    return sum(slot.hours for slot in problem.slots if slot.period in periods)


def signed_usd(problem: Problem) -> float:
    """What is signed already and is paid whatever is decided: nodes, and credit."""
    usd = sum(
        supply.nodes_min
        * problem.pools[supply.pool].chips_per_node
        * supply.price_usd_per_chip_hour
        * hours_of(problem, supply.periods)
        for supply in problem.supplies
        if supply.is_signed and supply.kind in ("own", "reserved")
    )
    return usd + sum(
        credit.units_min * credit.usd_per_unit for credit in problem.credits if credit.is_signed
    )
