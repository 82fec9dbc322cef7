"""What an offer of chips is worth to a fleet: the price at which having them changes nothing.

The value of n nodes is the cost of the cheapest plan without them less that with them held at price
0. Spread over the chip-hours of the term it is the break-even price: the fleet gains below it and
loses above. Both costs are those of `relaxed.py`, exact to 1e-5, in which no rounding of replicas
hides a small difference; `tolerance_usd` says how far the plans of whole nodes and replicas leave
it open. What is displaced, and what is served when a domain is lost, is read off whole plans.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import DomainKind, Option, Problem, Supply
from argosy.planner.questions.changed import Solving, hours_of, without_survivals
from argosy.planner.questions.losses_told import LossTold, served_when_lost
from argosy.planner.questions.spent import spent
from argosy.planner.solving.relaxed import Relaxed, relaxed

SHARES = (0.25, 0.5, 1.0, 2.0)  # of the count asked about, on the demand curve
AROUND = (0.98, 1.02)  # of the break-even price: there the solver is asked
OFFER = "offer"


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
    asked: Worth
    curve: tuple[Worth, ...]  # by rising count
    bids: tuple[Bid, ...]
    displaced: tuple[Displaced, ...]  # pools on which anything changes
    resilience: Resilience
    plan_without: Plan
    plan_with: Plan  # all nodes asked about, at price 0

    def nodes_worth(self, price_usd_per_chip_hour: float) -> int:
        """The most of the counts looked at whose last block is worth that price."""
        worth_it = (one.nodes for one in self.curve if one.marginal_usd >= price_usd_per_chip_hour)
        return max(worth_it, default=0)


class Needed(msgspec.Struct, frozen=True, kw_only=True):
    """There is no plan without the offer: no price is too high."""

    without: Conflict
    plan_with: Plan


def worth(
    problem: Problem,
    offered: Offered,
    *,
    solving: Solving,
    counts: Sequence[int] = (),
    without: Plan | None = None,
) -> Offer | Needed | Conflict:
    """What the nodes are worth; `counts`: of nodes, for the demand curve.

    `without`: the problem's plan, where it is known. Conflict: no plan even with the nodes. Raises
    ValueError where the pool is supplied already: what the offer adds could not be told apart.
    """
    if any(supply.pool == offered.pool for supply in problem.supplies):
        raise ValueError(
            f"pool {problem.pools[offered.pool].name} is supplied already; an offer is about a "
            "pool of its own (changed.unsupplied makes it one)"
        )
    solving.tell("offer: the plan with it")
    with_it = solving(_held(problem, offered, offered.nodes))
    if isinstance(with_it, Conflict):
        return with_it
    solving.tell("offer: the plan without it")
    before = solving(problem) if without is None else without
    if isinstance(before, Conflict):
        return Needed(without=before, plan_with=with_it)
    cost = _Costs(problem, offered, solving)
    curve = _curve(problem, offered, cost, counts, _slack(before, with_it, cost))
    asked = next(one for one in curve if one.nodes == offered.nodes)
    pool = problem.pools[offered.pool]
    return Offer(
        pool=pool.name,
        chip=pool.chip,
        region=pool.region,
        hours_of_term=hours_of(problem, offered.periods),
        is_uncalibrated=any(one.uncalibrated for one in _options(problem, offered)),
        asked=asked,
        curve=curve,
        bids=_bids(problem, offered, asked, cost),
        displaced=_displaced(before, with_it),
        resilience=_resilience(problem, before, with_it, cost),
        plan_without=before,
        plan_with=with_it,
    )


def _slack(without: Plan, with_it: Plan, cost: "_Costs") -> float:
    """USD over the horizon that whole nodes and replicas cost at most, in either plan."""
    pairs = ((without, cost.without), (with_it, cost.held(with_it.problem)))
    return max(
        plan.money.total - (plan.bound_usd if least is None else least.usd) for plan, least in pairs
    )


def _options(problem: Problem, offered: Offered) -> list[Option]:
    return [option for option in problem.options if option.pool == offered.pool]


def _held(problem: Problem, offered: Offered, nodes: int, price_usd: float = 0.0) -> Problem:
    """With so many of its nodes, all of them, paid at that price per chip and hour."""
    return _with_supply(problem, offered, nodes, least=nodes, price_usd=price_usd)


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


def _curve(
    problem: Problem, offered: Offered, cost: "_Costs", counts: Sequence[int], slack_usd: float
) -> tuple[Worth, ...]:
    wanted = counts or [max(1, round(offered.nodes * share)) for share in SHARES]
    found: list[Worth] = []
    nodes_before, value_before = 0, 0.0
    for nodes in sorted({*wanted, offered.nodes}):
        cost.tell(f"offer: the worth of {nodes} nodes")
        chip_hours = _chip_hours(problem, offered, nodes)
        value = cost.value(problem, nodes) or 0.0
        ends = (cost.value(_at_rates(problem, offered, low=low), nodes) for low in (True, False))
        low, high = (None if end is None else end / chip_hours for end in ends)
        more = chip_hours - _chip_hours(problem, offered, nodes_before)
        found.append(
            Worth(
                nodes=nodes,
                chips=nodes * problem.pools[offered.pool].chips_per_node,
                value_usd_per_hour=value / problem.hours,
                break_even_usd=value / chip_hours,
                break_even_usd_low=low,
                break_even_usd_high=high,
                marginal_usd=(value - value_before) / more,
                tolerance_usd=(slack_usd + cost.open_usd) / chip_hours,
            )
        )
        nodes_before, value_before = nodes, value
    return tuple(found)


class _Costs:
    """What relaxed plans cost; the one without the offer, and each problem, is solved once."""

    def __init__(self, problem: Problem, offered: Offered, solving: Solving) -> None:
        self._offered, self.seconds_max = offered, solving.seconds_max
        self._known: list[tuple[Problem, Relaxed | None]] = []
        self.tell = solving.tell
        self.without = relaxed(problem, seconds_max=self.seconds_max)
        self.open_usd = 0.0 if self.without is None else self.without.open_usd

    def held(self, problem: Problem) -> Relaxed | None:
        """Of a problem in which the nodes are held."""
        for known, found in self._known:
            if known == problem:
                return found
        found = relaxed(problem, seconds_max=self.seconds_max)
        if found is not None:
            self.open_usd = max(self.open_usd, found.open_usd)
        self._known.append((problem, found))
        return found

    def value(self, problem: Problem, nodes: int) -> float | None:
        """USD over the horizon, never below 0, for they may idle; None: there is no plan."""
        with_it = self.held(_held(problem, self._offered, nodes))
        if with_it is None or self.without is None:
            return None
        return max(0.0, self.without.usd - with_it.usd)


def _chip_hours(problem: Problem, offered: Offered, nodes: int) -> float:
    chips = nodes * problem.pools[offered.pool].chips_per_node
    return chips * hours_of(problem, offered.periods)


def _bids(problem: Problem, offered: Offered, asked: Worth, cost: _Costs) -> tuple[Bid, ...]:
    """It may take all or none, a little below the break-even and a little above."""
    if asked.break_even_usd <= 0 or cost.without is None:
        return ()
    found: list[Bid] = []
    for factor in AROUND:
        price = asked.break_even_usd * factor
        cost.tell(f"offer: taken at {price:.4g} USD per chip-hour?")
        lot = as_one_lot(problem, offered, price)
        supply = len(lot.supplies) - 1
        answer = relaxed(lot, whole={supply}, seconds_max=cost.seconds_max)
        if answer is not None:
            found.append(
                Bid(
                    price_usd=price,
                    is_taken=answer.nodes.get(supply, 0.0) > 0.5,
                    gain_usd_per_hour=(cost.without.usd - answer.usd) / problem.hours,
                )
            )
    return tuple(found)


def _displaced(without: Plan, with_it: Plan) -> tuple[Displaced, ...]:
    hours = without.problem.hours
    rows = zip(spent(without), spent(with_it), strict=True)
    found = (
        Displaced(
            pool=before.pool,
            chip=before.chip,
            chips_mean_without=before.chips_mean,
            chips_mean_with=after.chips_mean,
            usd_per_hour_without=before.usd / hours,
            usd_per_hour_with=after.usd / hours,
        )
        for before, after in rows
    )
    return tuple(
        one
        for one in found
        if abs(one.chips_mean_with - one.chips_mean_without) > 1e-6
        or abs(one.usd_per_hour_with - one.usd_per_hour_without) > 1e-6
    )


def _resilience(problem: Problem, without: Plan, with_it: Plan, cost: _Costs) -> Resilience:
    kinds: tuple[DomainKind, ...] = ("cloud", "maker", "region")
    cost.tell("offer: what surviving losses costs, without it and with it")
    held = with_it.problem
    return Resilience(
        usd_per_hour_without=_survival_usd_per_hour(problem, cost.without, cost),
        usd_per_hour_with=_survival_usd_per_hour(held, cost.held(held), cost),
        losses_without=served_when_lost(without, kinds),
        losses_with=served_when_lost(with_it, kinds),
    )


def _survival_usd_per_hour(problem: Problem, bound: Relaxed | None, cost: _Costs) -> float | None:
    if not problem.survivals:
        return 0.0
    free = relaxed(without_survivals(problem), seconds_max=cost.seconds_max)
    if bound is None or free is None:
        return None
    return max(0.0, bound.usd - free.usd) / problem.hours
