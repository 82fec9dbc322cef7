"""What might change: prices, stock, energy, a domain gone, users; each as a changed problem."""

from collections.abc import Collection
from datetime import date, timedelta

import msgspec
from msgspec.structs import replace

from argosy.planner.plan import Plan
from argosy.planner.problem import DomainKind, Problem, Supply, SupplyPool
from argosy.planner.questions.changed import (
    only_pools,
    signed_usd,
    with_prices,
    with_stock,
    with_users,
)

_DAYS_OF_YEAR = 365.25


class _Change(msgspec.Struct, frozen=True, kw_only=True, tag_field="change"):
    """The base of all changes."""


class Priced(_Change, frozen=True, kw_only=True, tag="price"):
    """All prices of a chip or a pool are so many times what they were; signed contracts hold."""

    name: str  # of a chip or a pool
    times: float


class Scarce(_Change, frozen=True, kw_only=True, tag="shortage"):
    """Of a chip, so much less can be had; what is held by contract stays."""

    chip: str
    share: float  # that is missing, 0 to 1


class Energy(_Change, frozen=True, kw_only=True, tag="energy"):
    """Electricity costs so much more; sites of one's own pay it, clouds' prices hold."""

    usd_per_kwh: float


class Gone(_Change, frozen=True, kw_only=True, tag="gone"):
    """A cloud, region, maker or pool is there no more, for the whole horizon."""

    kind: DomainKind
    name: str


class Users(_Change, frozen=True, kw_only=True, tag="users"):
    """So many times the users, of one model or of all."""

    times: float
    model: str | None = None


class Growth(_Change, frozen=True, kw_only=True, tag="growth"):
    """Demand grows by so much a year more than it is planned to, from the first period's begin."""

    share_per_year: float  # 0.5: half as much again


Change = Priced | Scarce | Energy | Gone | Users | Growth


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """The problem as it then is."""

    problem: Problem
    remarks: tuple[str, ...] = ()


class NoSuchNameError(ValueError):
    """The problem has nothing of that name; the message says what it has."""


def text_of(change: Change) -> str:
    """In a few words."""
    match change:
        case Priced(name=name, times=times):
            return f"{name} at {times:.3g} x its price"
        case Scarce(chip=chip, share=share):
            return f"{share:.0%} less {chip} to be had"
        case Energy(usd_per_kwh=usd):
            return f"electricity {usd:+.3g} USD/kWh"
        case Gone(kind=kind, name=name):
            return f"{kind} {name} is gone"
        case Users(times=times, model=model):
            return f"{times:.3g} x the users" + ("" if model is None else f" of {model}")
        case Growth(share_per_year=share):
            return f"demand grows {share:.0%} a year faster"


def changed(problem: Problem, change: Change, *, before: Plan) -> Changed:
    """The problem after the change; `before` is its plan. Raises NoSuchNameError."""
    match change:
        case Priced():
            return _priced(problem, change)
        case Scarce(chip=chip, share=share):
            pools = _pools(problem, chip, {"chip"})
            return Changed(problem=with_stock(problem, 1.0 - share, pools=pools))
        case Energy(usd_per_kwh=usd):
            return _energy(problem, usd, before)
        case Gone(kind=kind, name=name):
            return _gone(problem, kind, name)
        case Users(times=times, model=model):
            models = {need.model for need in problem.needs}
            if model is not None and model not in models:
                raise _no_such("model", model, models)
            return Changed(problem=with_users(problem, times, model=model))
        case Growth(share_per_year=share):
            return Changed(problem=with_users(problem, _growth(problem, share)))


def part_of(change: Change, extent: float) -> Change | None:
    """The same change, so far only (0: not at all, 1: whole); None of what is whole or nothing."""
    match change:
        case Priced(times=times):
            return replace(change, times=times**extent)
        case Scarce(share=share):
            return replace(change, share=share * extent)
        case Energy(usd_per_kwh=usd):
            return replace(change, usd_per_kwh=usd * extent)
        case Users(times=times):
            return replace(change, times=times**extent)
        case Growth(share_per_year=share):
            return replace(change, share_per_year=share * extent)
        case Gone():
            return None


def _pools(problem: Problem, name: str, kinds: Collection[str]) -> set[int]:
    """Places of the pools that are so named, or have that chip. Raises NoSuchNameError."""
    found = {
        place
        for place, pool in enumerate(problem.pools)
        if any(getattr(pool, "name" if kind == "pool" else kind) == name for kind in kinds)
    }
    if not found:
        names = {
            str(getattr(pool, "name" if kind == "pool" else kind))
            for pool in problem.pools
            for kind in kinds
        }
        raise _no_such(" or ".join(sorted(kinds)), name, names)
    return found


def _no_such(noun: str, name: str, names: Collection[str]) -> NoSuchNameError:
    return NoSuchNameError(f'no {noun} "{name}" is in the plan. It has: {", ".join(sorted(names))}')


def _priced(problem: Problem, change: Priced) -> Changed:
    pools = _pools(problem, change.name, {"chip", "pool"})

    def price_usd(supply: Supply, pool: SupplyPool) -> float:
        del pool
        is_changed = supply.pool in pools and not supply.is_signed
        return supply.price_usd_per_chip_hour * (change.times if is_changed else 1.0)

    signed = [one.name for one in problem.supplies if one.pool in pools and one.is_signed]
    remarks = (f"signed, so at its price: {', '.join(signed)}",) if signed else ()
    return Changed(problem=with_prices(problem, price_usd), remarks=remarks)


def _energy(problem: Problem, usd_per_kwh: float, before: Plan) -> Changed:
    """What a chip of one's own draws, with the site's PUE, as it was used before."""
    watts = watts_per_chip(before)
    own = {supply.pool for supply in problem.supplies if supply.kind == "own"}
    if not own:
        return Changed(problem=problem, remarks=("no pool pays for its own electricity",))

    def price_usd(supply: Supply, pool: SupplyPool) -> float:
        watts_known = watts[supply.pool]
        if supply.kind != "own" or watts_known is None:
            return supply.price_usd_per_chip_hour
        return max(0.0, supply.price_usd_per_chip_hour + watts_known * pool.pue * usd_per_kwh / 1e3)

    texts = (
        f"{problem.pools[place].name}: "
        + ("its power is not known" if one is None else f"{one:,.0f} W a chip as it was used")
        for place in sorted(own)
        for one in (watts[place],)
    )
    return Changed(problem=with_prices(problem, price_usd), remarks=tuple(texts))


def watts_per_chip(plan: Plan) -> list[float | None]:
    """Of each pool, on average over what was in use; of one that was not, at its highest."""
    problem = plan.problem
    found: list[float | None] = []
    used = _used_shares(plan)
    for place in range(len(problem.pools)):
        joules, chips = 0.0, 0.0
        for option, (replica_hours, busy_hours) in used.items():
            one = problem.options[option]
            if one.pool == place and one.power_w is not None:
                idle_w = one.power_w_idle or 0.0
                joules += idle_w * replica_hours + (one.power_w - idle_w) * busy_hours
                chips += one.chips * replica_hours
        most = [
            one.power_w / one.chips
            for one in problem.options
            if one.pool == place and one.power_w is not None
        ]
        found.append(joules / chips if chips > 0 else max(most, default=None))
    return found


def _used_shares(plan: Plan) -> dict[int, tuple[float, float]]:
    """By option: replica-hours, and those of them that are busy."""
    problem, hours = plan.problem, [slot.hours for slot in plan.problem.slots]
    busy: dict[int, float] = {}
    for route in plan.routes:
        rate = problem.options[route.option].requests_per_s[problem.needs[route.need].length_class]
        part = sum(x * hour for x, hour in zip(route.requests_per_s, hours, strict=True)) / rate
        busy[route.option] = busy.get(route.option, 0.0) + part
    return {
        run.option: (
            sum(count * hour for count, hour in zip(run.replicas, hours, strict=True)),
            busy.get(run.option, 0.0),
        )
        for run in plan.runs
    }


def _gone(problem: Problem, kind: DomainKind, name: str) -> Changed:
    lost = _pools(problem, name, {kind})
    left = only_pools(problem, set(range(len(problem.pools))) - lost)
    usd = signed_usd(problem) - signed_usd(left)
    remarks: tuple[str, ...] = ()
    if usd > 0:
        said = f"{usd / problem.hours:,.2f} USD/h are signed with it and no longer paid"
        remarks = (f"{said}; add them if they are",)
    return Changed(problem=left, remarks=remarks)


def _growth(problem: Problem, share_per_year: float) -> list[float]:
    """By slot: the factor in the middle of its period."""
    begin = date.fromisoformat(problem.periods[0].begin)
    factors: list[float] = []
    for period in problem.periods:
        middle = date.fromisoformat(period.begin) + timedelta(days=period.days / 2)
        factors.append((1.0 + share_per_year) ** ((middle - begin).days / _DAYS_OF_YEAR))
    return [factors[slot.period] for slot in problem.slots]
