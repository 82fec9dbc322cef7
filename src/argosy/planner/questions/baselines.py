"""Naive plans to compare with: each is the problem with less choice, given to the same solver.

One cloud alone; one chip alone; every hour as the peak, on demand; the least cost with nothing in
reserve. What such a plan cannot keep (a promise to survive losses, residency, the stock there is)
is given up step by step (`narrowed.py`), and `Baseline.gives_up` says so. Which step is possible,
and which cloud is the cheapest, is seen on relaxed programs; only what is shown is planned whole.
Contracts signed with others are not paid in it, so it looks cheaper than for who has signed.
"""

from collections.abc import Collection, Iterable
from math import ceil
from typing import Literal

import msgspec
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Need, Problem, Slot, Supply
from argosy.planner.questions.changed import (
    Solving,
    without_survivals,
)
from argosy.planner.questions.narrowed import (
    GivenUp,
    Narrowed,
    left_out,
    narrowed_to,
    survival_texts,
)
from argosy.planner.questions.spent import beyond_stock

BaselineKind = Literal["single cloud", "cheapest chip", "peak on demand", "cost-minimal"]


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """One naive plan, or why there is none."""

    kind: BaselineKind
    name: str  # "azure alone"
    answer: Plan | Conflict
    gives_up: tuple[GivenUp, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def usd_per_hour(self) -> float | None:
        """On average over the horizon; None where there is no such plan."""
        return self.answer.usd_per_hour if isinstance(self.answer, Plan) else None


def baselines(problem: Problem, solving: Solving) -> tuple[Baseline, ...]:
    """The best single cloud, the cheapest chips, peak on demand and the cost-minimal plan."""
    return (
        single_cloud(problem, solving),
        *cheapest_chips(problem, solving),
        peak_on_demand(problem, solving),
        cost_minimal(problem, solving),
    )


def single_cloud(problem: Problem, solving: Solving) -> Baseline:
    """The cloud that keeps most, the cheapest of those; the others are in its remarks."""
    found: list[Narrowed] = []
    for cloud in sorted({pool.cloud for pool in problem.pools}):
        solving.tell(f"baseline: {cloud} alone")
        kept = {place for place, pool in enumerate(problem.pools) if pool.cloud == cloud}
        found.append(narrowed_to(problem, kept, solving, name=f"{cloud} alone"))
    best, *others = sorted(found, key=lambda one: one.rank)
    one = _baseline(problem, best, solving, kind="single cloud")
    return replace(one, remarks=(*one.remarks, *(other.text for other in others)))


def cheapest_chips(problem: Problem, solving: Solving) -> tuple[Baseline, ...]:
    """Only the chip of the least USD per chip-hour, and of the least per request asked for.

    One baseline where both are the same chip. Chips on which some demand cannot be served at all
    are passed over, and named.
    """
    chips = sorted({pool.chip for pool in problem.pools})
    per_hour = {chip: usd for chip in chips if (usd := _usd_per_chip_hour(problem, chip))}
    per_request = {chip: usd for chip in chips if (usd := _usd_of_demand(problem, chip))}
    unable = sorted(set(per_hour) - set(per_request))
    able = [chip for chip in per_hour if chip in per_request]
    if not able:
        return (_no_chip(problem, sorted(per_hour)),)
    by_hour = min(able, key=lambda chip: (per_hour[chip], chip))
    by_request = min(able, key=lambda chip: (per_request[chip], chip))
    words: dict[str, list[str]] = {}
    words.setdefault(by_hour, []).append(f"cheapest per chip-hour, {per_hour[by_hour]:.2f} USD")
    words.setdefault(by_request, []).append("cheapest per request of this demand")
    remarks = (f"cannot serve all of it alone: {', '.join(unable)}",) if unable else ()
    found: list[Baseline] = []
    for chip, reasons in words.items():
        solving.tell(f"baseline: {chip} alone")
        kept = {place for place, pool in enumerate(problem.pools) if pool.chip == chip}
        name = f"{chip} alone ({'; '.join(reasons)})"
        narrowed = narrowed_to(problem, kept, solving, name=name)
        one = _baseline(problem, narrowed, solving, kind="cheapest chip")
        found.append(replace(one, remarks=(*one.remarks, *remarks)))
    return tuple(found)


def _no_chip(problem: Problem, chips: Iterable[str]) -> Baseline:
    """Each chip, and a model that cannot be served on it."""
    lacking: list[str] = []
    for chip in chips:
        able = {
            (option.model, length_class)
            for option in problem.options
            if problem.pools[option.pool].chip == chip
            for length_class, rate in enumerate(option.requests_per_s)
            if rate > 0
        }
        first = next(one for one in problem.needs if (one.model, one.length_class) not in able)
        lacking.append(f"{chip}: not {first.name}")
    return Baseline(
        kind="cheapest chip",
        name="one chip alone",
        answer=Conflict(
            constraints=("no chip serves all of it alone", *lacking),
            reliefs=("more than one chip, as the plan has",),
        ),
    )


def _usd_per_chip_hour(problem: Problem, chip: str) -> float | None:
    """Its least price; None where it has none above 0."""
    prices = [
        supply.price_usd_per_chip_hour
        for supply in problem.supplies
        if problem.pools[supply.pool].chip == chip and supply.price_usd_per_chip_hour > 0
    ]
    return min(prices, default=None)


def _usd_of_demand(problem: Problem, chip: str) -> float | None:
    """USD per hour if it served all of the mean demand; None where it cannot."""
    price = _usd_per_chip_hour(problem, chip)
    options = [one for one in problem.options if problem.pools[one.pool].chip == chip]
    total = 0.0
    for need in problem.needs:
        chips_per_rate = [
            option.chips / option.requests_per_s[need.length_class]
            for option in options
            if option.model == need.model and option.requests_per_s[need.length_class] > 0
        ]
        if not chips_per_rate or price is None:
            return None
        total += _mean(problem, need) * min(chips_per_rate) * price
    return total


def _mean(problem: Problem, need: Need) -> float:
    rates = zip(need.requests_per_s, problem.slots, strict=True)
    return sum(rate * slot.hours for rate, slot in rates) / problem.hours


def peak_on_demand(problem: Problem, solving: Solving) -> Baseline:
    """Each model's busiest hour of the period, all day long, and nothing committed.

    Where a pool has no price on demand (a site of one's own, say) its cheapest price is taken as if
    it were one, in the baseline's favour.
    """
    solving.tell("baseline: the peak, on demand")
    narrowed, priced = _on_demand_alone(_at_the_peak(problem))
    remarks = left_out(problem, narrowed)
    if priced:
        remarks = (*remarks, f"no price on demand, so the cheapest: {', '.join(priced)}")
    kept = set(range(len(problem.pools)))
    name = "every hour as the peak, on demand"
    eased = narrowed_to(narrowed, kept, solving, name=name)
    one = _baseline(narrowed, eased, solving, kind="peak on demand")
    return replace(one, remarks=(*one.remarks, *remarks))


def _at_the_peak(problem: Problem) -> Problem:
    """One slot a period, in which each model's demand is that of its busiest slot."""
    slots: list[Slot] = []
    rates: list[list[float]] = [[] for _ in problem.needs]
    for period in range(len(problem.periods)):
        places = [place for place, slot in enumerate(problem.slots) if slot.period == period]
        if not places:
            continue
        hours = sum(problem.slots[place].hours for place in places)
        slots.append(Slot(period=period, hour=0, hours=hours))
        busiest = {model: _busiest(problem, model, places) for model in _models(problem)}
        for row, need in zip(rates, problem.needs, strict=True):
            row.append(need.requests_per_s[busiest[need.model]])
    needs = tuple(
        replace(need, requests_per_s=tuple(row), may_wait=False)
        for need, row in zip(problem.needs, rates, strict=True)
    )
    return replace(problem, slots=tuple(slots), needs=needs)


def _models(problem: Problem) -> list[str]:
    return sorted({need.model for need in problem.needs})


def _busiest(problem: Problem, model: str, places: Collection[int]) -> int:
    def tokens(place: int) -> float:
        return sum(
            need.requests_per_s[place] * (need.tokens_in + need.tokens_out)
            for need in problem.needs
            if need.model == model
        )

    return max(places, key=lambda place: (tokens(place), -place))


def _on_demand_alone(problem: Problem) -> tuple[Problem, list[str]]:
    """Its supplies on demand alone, and the pools that had none."""
    supplies: list[Supply] = []
    priced: list[str] = []
    periods = tuple(range(len(problem.periods)))
    for place, pool in enumerate(problem.pools):
        own = [supply for supply in problem.supplies if supply.pool == place]
        on_demand = [supply for supply in own if supply.kind == "on_demand"]
        if not on_demand and own:
            priced.append(pool.name)
            best = min(own, key=lambda supply: (supply.price_usd_per_chip_hour, supply.name))
            on_demand = [best]
        supplies += [
            replace(
                supply,
                kind="on_demand",
                nodes_min=0,
                nodes_max=supply.nodes_max,
                periods=periods,
                contract=None,
                is_signed=False,
                availability=1.0,
                survives=True,
            )
            for supply in on_demand[:1]
        ]
    return replace(problem, supplies=tuple(supplies), credits=()), priced


def cost_minimal(problem: Problem, solving: Solving) -> Baseline:
    """The least cost if all comes as expected: no headroom, and no loss survived."""
    solving.tell("baseline: least cost, nothing in reserve")
    bare = replace(without_survivals(problem), headroom=0.0, headroom_lost=0.0)
    given = [GivenUp(promise="survive", text=text) for text in survival_texts(problem.survivals)]
    if problem.headroom > 0:
        text = f"headroom ({problem.headroom:.0%} is asked for)"
        given.insert(0, GivenUp(promise="headroom", text=text))
    return Baseline(
        kind="cost-minimal",
        name="least cost, nothing in reserve",
        answer=solving(bare),
        gives_up=tuple(given),
    )


def _baseline(
    problem: Problem, narrowed: Narrowed, solving: Solving, *, kind: BaselineKind
) -> Baseline:
    """Planned whole."""
    if narrowed.problem is None:
        answer: Plan | Conflict = narrowed.why_not or Conflict(constraints=(), reliefs=())
    else:
        answer = solving(narrowed.problem)
    beyond = _beyond_stock(problem, answer) if isinstance(answer, Plan) else []
    return Baseline(
        kind=kind,
        name=narrowed.name,
        answer=answer,
        gives_up=(*narrowed.gives_up, *beyond),
        remarks=narrowed.remarks,
    )


def _beyond_stock(problem: Problem, plan: Plan) -> list[GivenUp]:
    return [
        GivenUp(
            promise="stock",
            text=f"the stock of {one.pool} ({ceil(one.nodes - 1e-6):,} nodes, "
            f"{one.nodes_max:,} exist)",
        )
        for one in beyond_stock(problem, plan)
    ]
