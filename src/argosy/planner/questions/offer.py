"""What an offer of chips is worth to a fleet: the price at which having them changes nothing.

The value of n nodes is the cost of the cheapest plan without them less that with them held at price
0. Spread over the chip-hours of the term it is the break-even price: the fleet gains below it and
loses above. Both costs are of whole nodes and replicas where the problem is small enough to solve
it so, else in fractions (`costs.py`); `tolerance_usd` says how far that leaves the price open.

What is displaced, and what is served when a domain is lost, is read off whole plans that have the
chips for next to nothing: they are paid in any case, and those that serve nothing stay unused.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import DomainKind, Option, Problem, Supply
from argosy.planner.questions.changed import Solving, hours_of, without_survivals
from argosy.planner.questions.costs import WHOLE_GAP, Costs, Least, is_small
from argosy.planner.questions.losses_told import LossTold, served_when_lost
from argosy.planner.questions.spent import changes_of

SHARES = (0.25, 0.5, 1.0, 2.0)  # of the count asked about, on the demand curve
AROUND = (0.98, 1.02)  # of the break-even price: there the solver is asked
OFFER = "offer"
USE_SHARE = 1e-3  # of the lowest price, that a chip of the offer costs while it is used
OPEN_SHARE = 0.01  # of a worth may be unproven, else it is told in fractions
NOTHING_SHARE = 1e-5  # of the cost: less is no worth at all


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of a pool that is in the problem, with options, and of which nothing is supplied."""

    pool: int
    nodes: int
    periods: tuple[int, ...]  # the term


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """Of so many nodes, all or none. Prices are USD per chip and hour of the term."""

    nodes: int
    chips: int
    value_usd_per_hour: float  # on average over the horizon
    break_even_usd: float
    break_even_usd_low: float | None  # at the lower end of the chip's rates; None: not asked
    break_even_usd_high: float | None
    marginal_usd: float  # of the nodes beyond the count before
    tolerance_usd: float  # whole nodes and replicas leave so much open, either way


class Bid(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the relaxed plan takes all the nodes, or none, at a price near the break-even."""

    price_usd: float
    is_taken: bool
    gain_usd_per_hour: float  # against the plan without them


class Displaced(msgspec.Struct, frozen=True, kw_only=True):
    """How one pool is used without the offer and with it."""

    pool: str
    chip: str
    chips_mean_without: float
    chips_mean_with: float
    usd_per_hour_without: float
    usd_per_hour_with: float


class Resilience(msgspec.Struct, frozen=True, kw_only=True):
    """What it costs to survive the losses that are to be survived, and what is served in each."""

    usd_per_hour_without: float | None  # None: without the promise or with it, there is no plan
    usd_per_hour_with: float | None
    losses_without: tuple[LossTold, ...]
    losses_with: tuple[LossTold, ...]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    pool: str
    chip: str
    region: str
    hours_of_term: float
    is_uncalibrated: bool  # no measurement of the chip was ever seen
    is_whole: bool  # in whole nodes and replicas; else in fractions of them
    asked: Worth
    curve: tuple[Worth, ...]  # by rising count
    bids: tuple[Bid, ...]
    displaced: tuple[Displaced, ...]  # pools on which anything changes; the offer's own at 0 USD
    resilience: Resilience
    usd_per_hour_without: float  # what the whole plans cost
    usd_per_hour_with: float  # with the chips at price 0
    plan_without: Plan
    plan_with: Plan  # all nodes asked about, at next to nothing while they are used

    def nodes_worth(self, price_usd_per_chip_hour: float) -> int:
        """The one of the counts looked at that gains most at that price; 0: none gains."""
        hours = self.hours_of_term / self.plan_without.problem.hours
        gains = [(0.0, 0)]
        for one in self.curve:
            paid = price_usd_per_chip_hour * one.chips * hours
            gains.append((one.value_usd_per_hour - paid, one.nodes))
        return max(gains)[1]

    def displaced_at(self, price_usd_per_chip_hour: float) -> tuple[Displaced, ...]:
        """The same with all the chips asked about paid at that price, used or not."""
        hours = self.hours_of_term / self.plan_without.problem.hours
        paid = price_usd_per_chip_hour * self.asked.chips * hours
        return tuple(
            replace(one, usd_per_hour_with=paid) if one.pool == self.pool else one
            for one in self.displaced
        )


class Needed(msgspec.Struct, frozen=True, kw_only=True):
    """There is no plan without the offer: no price is too high."""

    without: Conflict
    plan_with: Plan


class _Asked:
    """The question, and how it is answered."""

    def __init__(self, problem: Problem, offered: Offered, costs: Costs) -> None:
        self.problem, self.offered, self.costs = problem, offered, costs

    @property
    def without(self) -> Least | None:
        """What it costs at least without the offer."""
        return self.costs.least(self.problem)

    def held(self, nodes: int, *, of: Problem | None = None) -> Least | None:
        """With so many of its nodes at price 0."""
        return self.costs.least(_held(self.problem if of is None else of, self.offered, nodes))

    def chip_hours(self, nodes: int) -> float:
        """Of so many nodes, over the term."""
        chips = nodes * self.problem.pools[self.offered.pool].chips_per_node
        return chips * hours_of(self.problem, self.offered.periods)


def worth(
    problem: Problem,
    offered: Offered,
    *,
    solving: Solving,
    counts: Sequence[int] = (),
    without: Plan | None = None,
    whole: bool | None = None,
) -> Offer | Needed | Conflict:
    """What the nodes are worth; `counts`: of nodes, for the demand curve.

    `without`: the problem's plan, where it is known; `whole`: in whole nodes and replicas, None:
    where the problem is small. Conflict: no plan even with the nodes. Raises ValueError where the
    pool is supplied already: what the offer adds could not be told apart.
    """
    if any(supply.pool == offered.pool for supply in problem.supplies):
        raise ValueError(
            f"pool {problem.pools[offered.pool].name} is supplied already; an offer is about a "
            "pool of its own (changed.unsupplied makes it one)"
        )
    lent = _lent(problem, offered)
    is_known = whole is not None
    costs = Costs(solving, is_whole=whole) if is_known else _costs_for(problem, offered, solving)
    asked = _Asked(problem, offered, costs)
    solving.tell("offer: the plan with it")
    with_it = asked.costs.plan(lent)
    if isinstance(with_it, Conflict):
        return with_it
    solving.tell("offer: the plan without it")
    before = without
    if before is None or asked.costs.is_whole:
        found = asked.costs.plan(problem)
        if isinstance(found, Conflict):
            return Needed(without=found, plan_with=with_it)
        before = found
    return _answer(asked, before, with_it, counts)


def _costs_for(problem: Problem, offered: Offered, solving: Solving) -> Costs:
    """Whole where that is proven well enough to tell the worth, else in fractions."""
    in_fractions = Costs(solving, is_whole=False)
    held = _held(problem, offered, offered.nodes)
    if not is_small(held):
        return in_fractions
    without, with_it = in_fractions.least(problem), in_fractions.least(held)
    if without is None or with_it is None or without.usd <= 0:
        return in_fractions
    solving.tell("offer: in whole nodes and replicas")
    share = OPEN_SHARE * (without.usd - with_it.usd) / without.usd
    costs = Costs(solving, is_whole=True, gap=max(WHOLE_GAP, share / 4))
    return costs if _is_proven(costs, problem, held) else in_fractions


def _is_proven(costs: Costs, problem: Problem, held: Problem) -> bool:
    without = costs.least(problem)
    if without is None or without.open_usd > OPEN_SHARE * without.usd:  # a worth is no larger
        return False
    with_it = costs.least(held)
    if with_it is None:
        return False
    left = without.open_usd + with_it.open_usd
    return left <= max(OPEN_SHARE * (without.usd - with_it.usd), NOTHING_SHARE * without.usd)


def _answer(asked: _Asked, before: Plan, with_it: Plan, counts: Sequence[int]) -> Offer:
    problem, offered = asked.problem, asked.offered
    curve = _curve(asked, counts, _slack_usd(asked, before, with_it))
    all_of_it = next(one for one in curve if one.nodes == offered.nodes)
    pool = problem.pools[offered.pool]
    displaced = _displaced(before, with_it, pool.name)
    return Offer(
        pool=pool.name,
        chip=pool.chip,
        region=pool.region,
        hours_of_term=hours_of(problem, offered.periods),
        is_uncalibrated=any(one.uncalibrated for one in _options(problem, offered)),
        is_whole=asked.costs.is_whole,
        asked=all_of_it,
        curve=curve,
        bids=_bids(asked, all_of_it),
        displaced=displaced,
        resilience=_resilience(asked, before, with_it),
        usd_per_hour_without=before.usd_per_hour,
        usd_per_hour_with=with_it.usd_per_hour - _use_usd(with_it) / problem.hours,
        plan_without=before,
        plan_with=with_it,
    )


def _use_usd(plan: Plan) -> float:
    """What the lent chips cost while they are used, which nobody pays."""
    supply = len(plan.problem.supplies) - 1
    chip_hours = sum(
        chips * slot.hours
        for drawn in plan.drawn
        if drawn.supply == supply
        for chips, slot in zip(drawn.chips, plan.problem.slots, strict=True)
    )
    return chip_hours * plan.problem.supplies[supply].price_usd_per_chip_hour


def _slack_usd(asked: _Asked, without: Plan, with_it: Plan) -> float:
    """USD over the horizon that whole nodes and replicas cost at most, in either plan."""
    if asked.costs.is_whole:
        return 0.0
    pairs = ((without, asked.without), (with_it, asked.costs.least(with_it.problem)))
    return max(
        plan.money.total - (plan.bound_usd if least is None else least.usd) for plan, least in pairs
    )


def _options(problem: Problem, offered: Offered) -> list[Option]:
    return [option for option in problem.options if option.pool == offered.pool]


def _held(problem: Problem, offered: Offered, nodes: int) -> Problem:
    """With so many of its nodes, all of them, at price 0."""
    return _with_supply(problem, offered, nodes, least=nodes, price_usd=0.0)


def _lent(problem: Problem, offered: Offered) -> Problem:
    """With all its nodes for next to nothing while they are used, so that no idle one counts."""
    prices = (one.price_usd_per_chip_hour for one in problem.supplies)
    price_usd = USE_SHARE * min((price for price in prices if price > 0), default=1.0)
    larger = _with_supply(problem, offered, offered.nodes, least=0, price_usd=price_usd)
    *others, own = larger.supplies
    return replace(larger, supplies=(*others, replace(own, kind="on_demand")))


def _with_supply(
    problem: Problem, offered: Offered, nodes: int, *, least: int, price_usd: float
) -> Problem:
    pool = problem.pools[offered.pool]
    supply = Supply(
        name=f"{OFFER} {pool.name}",
        pool=offered.pool,
        kind="reserved",
        price_usd_per_chip_hour=price_usd,
        nodes_min=least,
        nodes_max=nodes,
        periods=offered.periods,
        contract=OFFER,
    )
    pools = list(problem.pools)
    pools[offered.pool] = replace(pool, nodes_max=nodes)
    return replace(problem, pools=tuple(pools), supplies=(*problem.supplies, supply))


def as_one_lot(problem: Problem, offered: Offered, price_usd: float) -> Problem:
    """All its nodes or none: as one node of as many chips."""
    pool = problem.pools[offered.pool]
    pools = list(problem.pools)
    pools[offered.pool] = replace(pool, chips_per_node=pool.chips_per_node * offered.nodes)
    lot = replace(problem, pools=tuple(pools))
    return _with_supply(lot, offered, 1, least=0, price_usd=price_usd)


def _at_rates(problem: Problem, offered: Offered, *, low: bool) -> Problem:
    """The offered chip at an end of its rates' interval; the other chips as believed."""
    options = tuple(
        replace(
            option,
            requests_per_s=option.requests_per_s_low if low else option.requests_per_s_high,
        )
        if option.pool == offered.pool
        else option
        for option in problem.options
    )
    return replace(problem, options=options)


def _curve(asked: _Asked, counts: Sequence[int], slack_usd: float) -> tuple[Worth, ...]:
    nodes_all = asked.offered.nodes
    wanted = counts or [max(1, round(nodes_all * share)) for share in SHARES]
    found: list[Worth] = []
    nodes_before, usd_before = 0, 0.0
    for nodes in sorted({*wanted, nodes_all}):
        one, usd = _worth(asked, nodes, slack_usd)
        more = asked.chip_hours(nodes) - asked.chip_hours(nodes_before)
        found.append(replace(one, marginal_usd=(usd - usd_before) / more))
        nodes_before, usd_before = nodes, usd
    return tuple(found)


def _worth(asked: _Asked, nodes: int, slack_usd: float) -> tuple[Worth, float]:
    """Of so many nodes, and what they save over the horizon."""
    problem, offered = asked.problem, asked.offered
    asked.costs.tell(f"offer: the worth of {nodes} nodes")
    chip_hours = asked.chip_hours(nodes)
    usd, open_usd = _saved(asked, problem, nodes) or (0.0, 0.0)
    ends = (_saved(asked, _at_rates(problem, offered, low=low), nodes) for low in (True, False))
    low, high = (None if end is None else end[0] / chip_hours for end in ends)
    one = Worth(
        nodes=nodes,
        chips=nodes * problem.pools[offered.pool].chips_per_node,
        value_usd_per_hour=usd / problem.hours,
        break_even_usd=usd / chip_hours,
        break_even_usd_low=low,
        break_even_usd_high=high,
        marginal_usd=0.0,
        tolerance_usd=(slack_usd + open_usd) / chip_hours,
    )
    return one, usd


def _saved(asked: _Asked, problem: Problem, nodes: int) -> tuple[float, float] | None:
    """USD over the horizon, and how much of it is open; never below 0, for they may idle."""
    with_it, without = asked.held(nodes, of=problem), asked.without
    if with_it is None or without is None:
        return None
    return max(0.0, without.usd - with_it.usd), without.open_usd + with_it.open_usd


def _bids(asked: _Asked, all_of_it: Worth) -> tuple[Bid, ...]:
    """It may take all or none, a little below the break-even and a little above."""
    without = asked.without
    if all_of_it.break_even_usd <= 0 or without is None:
        return ()
    found: list[Bid] = []
    for factor in AROUND:
        price = all_of_it.break_even_usd * factor
        asked.costs.tell(f"offer: taken at {price:.4g} USD per chip-hour?")
        lot = as_one_lot(asked.problem, asked.offered, price)
        supply = len(lot.supplies) - 1
        answer = asked.costs.least(lot, whole=(supply,))
        if answer is not None:
            found.append(
                Bid(
                    price_usd=price,
                    is_taken=answer.nodes.get(supply, 0.0) > 0.5,
                    gain_usd_per_hour=(without.usd - answer.usd) / asked.problem.hours,
                )
            )
    return tuple(found)


def _displaced(without: Plan, with_it: Plan, offer: str) -> tuple[Displaced, ...]:
    return tuple(
        Displaced(
            pool=before.pool,
            chip=before.chip,
            chips_mean_without=before.chips_mean,
            chips_mean_with=after.chips_mean,
            usd_per_hour_without=before.usd_per_hour,
            usd_per_hour_with=0.0 if after.pool == offer else after.usd_per_hour,
        )
        for before, after in changes_of(without, with_it)
    )


def _resilience(asked: _Asked, without: Plan, with_it: Plan) -> Resilience:
    kinds: tuple[DomainKind, ...] = ("cloud", "maker", "region")
    asked.costs.tell("offer: what surviving losses costs, without it and with it")
    held = _held(asked.problem, asked.offered, asked.offered.nodes)
    return Resilience(
        usd_per_hour_without=_survival_usd_per_hour(asked.problem, asked.costs),
        usd_per_hour_with=_survival_usd_per_hour(held, asked.costs),
        losses_without=served_when_lost(without, kinds),
        losses_with=served_when_lost(with_it, kinds),
    )


def _survival_usd_per_hour(problem: Problem, costs: Costs) -> float | None:
    if not problem.survivals:
        return 0.0
    bound, free = costs.least(problem), costs.least(without_survivals(problem))
    if bound is None or free is None:
        return None
    return max(0.0, bound.usd - free.usd) / problem.hours
