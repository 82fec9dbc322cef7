"""A fleet as a problem: demand, what may be had, what it can do, and what must be kept, in numbers.

Owns the joining of what the other files know, and the words for what was left out and what was
assumed on the way: a reader of a plan has to see both.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date

import msgspec

from argosy.fleet.architectures import architecture
from argosy.fleet.catalogue import NotInCatalogue, chip, region
from argosy.fleet.config import Fleet, Pool
from argosy.fleet.contracts import TrainingRun
from argosy.fleet.demand import HOURS, Demand
from argosy.fleet.software import why_no_training
from argosy.planner.capacity.table import Capacity, Sustained, planned_pools
from argosy.planner.framing.horizon import growth_of, periods_between, periods_of, slots_of
from argosy.planner.framing.reach import reach_of
from argosy.planner.framing.supplies import cuts_of, supplied
from argosy.planner.problem import (
    Caps,
    DomainKind,
    Need,
    Option,
    Period,
    Problem,
    Slot,
    Spread,
    SupplyPool,
    Survival,
    Training,
)
from argosy.simulator.scenario import PUE_ASSUMED, ROUND_TRIP_S_ASSUMED

_FLOPS_PER_PARAMETER = 6.0  # of a trained token: forward 2, backward 4 (Kaplan et al. 2020)
_REPLICAS_MANY = 20  # of a larger replica, at the peak: rounding to whole ones costs 5 % at most


class FramingError(ValueError):
    """No problem can be made of the fleet; says what was asked and what would work."""


class Framed(msgspec.Struct, frozen=True, kw_only=True):
    """The problem, and what a reader of its plan has to know."""

    problem: Problem
    assumed: tuple[str, ...]
    left_out: tuple[str, ...]  # pools, contracts and needs, and why


def frame(
    fleet: Fleet,
    *,
    rates: Capacity,
    begin: date | None = None,
    growth_per_year: float | None = None,
) -> Framed:
    """Of a checked fleet and what `capacity_of` found of it, for the demand that this was asked.

    `begin` is the first day where the fleet file names none. Raises FramingError.
    """
    first = fleet.plan.begin or begin
    if first is None:
        raise FramingError(
            f"fleet {fleet.fleet}: plan.from is not set. Write from: 2027-01-01, say"
        )
    if not rates.demand:
        raise FramingError(f"fleet {fleet.fleet} has no demand, so there is nothing to plan for")
    growth = fleet.plan.growth_per_year if growth_per_year is None else growth_per_year
    periods = periods_of(first, fleet.plan.years, cuts_of(fleet))
    slots = slots_of(periods)
    pools = planned_pools(fleet)
    places = {pool.name: place for place, pool in enumerate(pools)}
    found = supplied(fleet, pools, periods)
    needs = tuple(_needs(fleet, rates, pools, slots, growth_of(periods, growth)))
    options = tuple(_options(rates, places, needs))
    supply_pools = tuple(_supply_pool(pool) for pool in pools)
    problem = Problem(
        periods=periods,
        slots=slots,
        pools=supply_pools,
        supplies=found.supplies,
        credits=found.credits,
        options=options,
        needs=needs,
        survivals=tuple(_survivals(fleet)),
        spreads=tuple(_spreads(fleet)),
        trainings=tuple(_training(run, pools, periods) for run in fleet.plan.runs),
        caps=_caps(fleet),
        headroom=fleet.plan.headroom,
        headroom_lost=fleet.plan.headroom_lost,
    )
    return Framed(
        problem=problem,
        assumed=(*found.assumed, *_assumed(fleet, problem, rates, growth)),
        left_out=(*found.left_out, *_left_out(fleet, rates, pools)),
    )


def _supply_pool(pool: Pool) -> SupplyPool:
    assert pool.chip is not None, "a checked planned pool has a chip"
    assert pool.region is not None, "and a region"
    carbon, pue = _electricity(pool.region)
    return SupplyPool(
        name=pool.name,
        region=pool.region,
        cloud=pool.region.split("/")[0],
        maker=chip(pool.chip).maker,
        chip=pool.chip,
        chips_per_node=pool.nodes.chips_per_node,
        nodes_max=pool.nodes.max,
        pue=PUE_ASSUMED if pue is None else pue,
        carbon_g_per_kwh=carbon,
    )


def _electricity(name: str) -> tuple[float | None, float | None]:
    """Grams of CO2 for a kWh, and PUE, where the catalogue knows them."""
    try:
        found = region(name)
    except NotInCatalogue:
        return None, None
    return found.carbon_g_per_kwh, found.pue


def _needs(
    fleet: Fleet,
    rates: Capacity,
    pools: Sequence[Pool],
    slots: Sequence[Slot],
    growth: Sequence[float],
) -> Iterator[Need]:
    kinds, names = Counter(map(_kind, rates.demand)), Counter[str]()
    for place, asked in enumerate(rates.demand):
        model = fleet.model(asked.model)
        if model.architecture is None:
            continue
        name = _kind(asked) if kinds[_kind(asked)] == 1 else f"{_kind(asked)}{_hours_text(asked)}"
        names[name] += 1
        of = next(
            number for number, one in enumerate(rates.classes[asked.model]) if place in one.members
        )
        known = rates.classes[asked.model][of]
        yield Need(
            name=name if names[name] == 1 else f"{name} ({names[name]})",
            model=asked.model,
            tier=asked.tier,
            origin=asked.origin,
            length_class=of,
            tokens_in=known.tokens_in,
            tokens_out=known.tokens_out,
            requests_per_s=tuple(_rate(asked, slot.hour) * growth[slot.period] for slot in slots),
            regions=reach_of(fleet, model, asked.origin, pools).regions,
            may_wait=asked.tier == "batch",
        )


def _kind(asked: Demand) -> str:
    return f"{asked.model} {asked.tier} from {asked.origin}"


def _hours_text(asked: Demand) -> str:
    """In which something is asked, where that is not all day: " at 0-8, 22-24 h"."""
    hours = [hour for hour, factor in enumerate(asked.hourly) if factor > 0]
    if len(hours) in (0, HOURS):
        return ""
    begins = [hour for hour in hours if hour - 1 not in hours]
    ends = [hour + 1 for hour in hours if hour + 1 not in hours]
    spans = ", ".join(f"{begin}-{end}" for begin, end in zip(begins, ends, strict=True))
    return f" at {spans} h"


def _rate(asked: Demand, hour: int) -> float:
    return asked.requests_per_s * (asked.hourly[hour % HOURS] if asked.hourly else 1.0)


def _options(rates: Capacity, places: dict[str, int], needs: Sequence[Need]) -> Iterator[Option]:
    """Those that a plan could want."""
    for one in rates.options:
        others = [
            other
            for other in rates.options
            if (other.model, other.pool) == (one.model, one.pool) and other is not one
        ]
        if any(_is_better(other, one, needs) for other in others):
            continue
        yield Option(
            model=one.model,
            pool=places[one.pool],
            engine=one.settings.name,
            layout=one.layout,
            prefill_tokens_max=one.settings.prefill_tokens_max,
            chips=one.chips,
            requests_per_s=one.requests_per_s,
            requests_per_s_low=tuple(rate.low for rate in one.rates),
            requests_per_s_high=tuple(rate.high for rate in one.rates),
            power_w=one.power_w,
            power_w_idle=one.power_w_idle,
            uncalibrated=one.uncalibrated,
        )


def _is_better(one: Sustained, other: Sustained, needs: Sequence[Need]) -> bool:
    """Each of its chips does more of every class, and its replicas are small enough to round."""
    mine = [rate / one.chips for rate in one.requests_per_s]
    its = [rate / other.chips for rate in other.requests_per_s]
    if any(a < b for a, b in zip(mine, its, strict=True)) or mine == its:
        return mine == its and one.chips < other.chips
    return one.chips <= other.chips or _replicas(one, needs) >= _REPLICAS_MANY


def _replicas(one: Sustained, needs: Sequence[Need]) -> float:
    """That all of the model's requests would take in a mean hour."""
    total = 0.0
    for need in needs:
        rate = one.requests_per_s[need.length_class] if need.model == one.model else 0.0
        if rate > 0:
            total += sum(need.requests_per_s) / len(need.requests_per_s) / rate
    return total


def _survivals(fleet: Fleet) -> Iterator[Survival]:
    kinds: dict[str, DomainKind] = {
        "any_one_cloud": "cloud",
        "any_one_maker": "maker",
        "any_one_region": "region",
        "any_one_pool": "pool",
    }
    for model in fleet.models:
        for wish in model.survive:
            yield Survival(model=model.name, kind=kinds[wish])


def _spreads(fleet: Fleet) -> Iterator[Spread]:
    kinds: tuple[DomainKind, ...] = ("cloud", "maker", "region", "pool")
    for model in fleet.models:
        for kind in kinds:
            share: float | None = getattr(model.spread, kind)
            if share is not None:
                yield Spread(model=model.name, kind=kind, share_max=share)


def _training(run: TrainingRun, pools: Sequence[Pool], periods: Sequence[Period]) -> Training:
    flops = _FLOPS_PER_PARAMETER * architecture(run.architecture).parameters_active
    each: dict[int, float] = {}
    for place, pool in enumerate(pools):
        if pool.name not in run.pools:
            continue
        of = chip(str(pool.chip))
        why = why_no_training(of)
        if why is not None:
            raise FramingError(f"run {run.name}: {pool.name} cannot train, {of.name}: {why}")
        assert of.bf16_flops is not None, "a chip that trains has a bf16 peak"
        each[place] = of.bf16_flops * run.mfu / flops
    within = periods_between(periods, None, run.by)
    if not within:
        raise FramingError(
            f"run {run.name}: it must be done by {run.by}, but the plan begins on "
            f"{periods[0].begin}. Write a later day"
        )
    return Training(name=run.name, tokens=run.tokens, tokens_per_chip_s=each, periods=within)


def _caps(fleet: Fleet) -> Caps:
    plan = fleet.plan
    return Caps(
        power_w_of_region={name: kw * 1000.0 for name, kw in plan.power_kw_max.items()},
        energy_kwh_per_day=plan.energy_kwh_per_day_max,
        carbon_kg_per_day=plan.carbon_kg_per_day_max,
        usd_per_hour=plan.usd_per_hour_max,
    )


def _assumed(fleet: Fleet, problem: Problem, rates: Capacity, growth: float) -> Iterator[str]:
    if growth != 1.0:
        last = problem.periods[-1]
        beyond = growth ** (last.days / 2 / 365.25)
        yield (
            f"demand grows {growth:g} times a year, and each period is planned as in its middle: "
            f"at the end of {last.name} it is {beyond:.2f} times that"
        )
    pools = planned_pools(fleet)
    far = {
        f"{need.origin} - {place}"
        for need in problem.needs
        for place in reach_of(fleet, fleet.model(need.model), need.origin, pools).assumed
    }
    if far:
        yield f"round trips of {ROUND_TRIP_S_ASSUMED:g} s: {', '.join(sorted(far))}"
    strangers = sorted(pool.name for pool in problem.pools if _electricity(pool.region)[1] is None)
    if strangers:
        yield f"a PUE of {PUE_ASSUMED:g}: {', '.join(strangers)}"
    dark = {one.pool for one in problem.options if one.power_w is None}
    if dark:
        names = ", ".join(problem.pools[place].name for place in sorted(dark))
        yield f"power, energy and carbon without {names}: the chips' power is not known"
    grey = [pool.name for pool in problem.pools if pool.carbon_g_per_kwh is None]
    if grey:
        yield f"carbon without {', '.join(grey)}: not known of the region"
    yield from _steps(problem, rates)
    yield from rates.hints
    for model in fleet.models:
        if model.slo.ttft_s_p95 is None and rates.classes.get(model.name):
            most_s = fleet.gateway.queue_timeout_s.consumer
            yield f"{model.name} promises no TTFT: planned for the {most_s:g} s that one may wait"
    guesses = {one.pool for one in problem.options if one.uncalibrated}
    if guesses:
        names = ", ".join(problem.pools[place].name for place in sorted(guesses))
        yield f"rates from data sheets alone, of chips that were never measured: {names}"


def _steps(problem: Problem, rates: Capacity) -> Iterator[str]:
    models = sorted({one.model for one in rates.options if one.is_step_chosen})
    tokens = [one.prefill_tokens_max or 0 for one in problem.options if one.model in models]
    if tokens:
        span = " to ".join(f"{size:,}" for size in sorted({min(tokens), max(tokens)}))
        yield (
            f"engine.prefill_tokens_max is not set, so that it was chosen for each pool and "
            f"layout, {span} tokens: {', '.join(models)}; it is what does the most where every "
            f"step takes {1.0 + problem.headroom:g} times as long"
        )


def _left_out(fleet: Fleet, rates: Capacity, pools: Sequence[Pool]) -> Iterator[str]:
    for model in fleet.models:
        if not rates.classes.get(model.name):
            yield f"model {model.name}: nobody asks for it"
            continue
        if model.architecture is None:
            yield f"model {model.name} and its requests: it has no architecture"
            continue
        for pool in pools:
            if any((one.model, one.pool) == (model.name, pool.name) for one in rates.options):
                continue
            why = [
                one.reason
                for one in rates.refused
                if (one.model, one.pool) == (model.name, pool.name)
            ]
            yield f"{model.name} on {pool.name}: {why[-1] if why else 'nothing was tried'}"
    for place, asked in enumerate(rates.demand):
        reach = reach_of(fleet, fleet.model(asked.model), asked.origin, pools)
        if reach.too_far:
            yield (
                f"{asked.model} {asked.tier} from {asked.origin} (demand[{place}]) in "
                f"{'; '.join(reach.too_far)}: more than plan.network_share_max of its TTFT"
            )
