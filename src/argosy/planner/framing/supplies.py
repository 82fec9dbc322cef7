"""Nodes by price term: a fleet's pools and contracts as the planner's supplies and credits.

Nodes that a pool keeps (`nodes.min`), and all of one's own cloud, are `own`: paid for in any case.
Up to `nodes.max` the rest is on demand, at the fleet file's price or the cheapest list price of the
region, or of a contract. A committed spend's prices are list prices less its discount.
"""

from collections.abc import Iterator, Sequence
from datetime import date

import msgspec

from argosy.fleet.catalogue import NotInCatalogue, offers
from argosy.fleet.config import Fleet, Pool
from argosy.fleet.contracts import OWN, CommittedSpend, Contract, Reserved, Spot
from argosy.planner.framing.horizon import DAYS_OF_YEAR, periods_between
from argosy.planner.problem import Credit, Period, Supply


class Supplied(msgspec.Struct, frozen=True, kw_only=True):
    """What can be had, and what is to be said of it."""

    supplies: tuple[Supply, ...]
    credits: tuple[Credit, ...]
    assumed: tuple[str, ...]
    left_out: tuple[str, ...]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """USD per chip and hour, and where it is from."""

    usd_per_chip_hour: float
    source: str
    is_list: bool


def supplied(fleet: Fleet, pools: Sequence[Pool], periods: Sequence[Period]) -> Supplied:
    """Of these pools, in their order, over these periods."""
    supplies: list[Supply] = []
    credits: list[Credit] = []
    assumed: list[str] = []
    left_out: list[str] = []
    for place, pool in enumerate(pools):
        supplies += _of_pool(fleet, pool, place, len(periods))
        price = price_of(pool)
        if price is None:
            left_out.append(
                f"{pool.name} by the hour: no price of {pool.chip} in {pool.region} is known. "
                "Write its price_usd_per_chip_hour"
            )
        elif price.is_list:
            assumed.append(
                f"{pool.name} costs {price.usd_per_chip_hour:.4g} USD per chip and hour: "
                f"{price.source}"
            )
    for contract in fleet.contracts:
        if not _periods(contract, periods):
            left_out.append(f"contract {contract.name}: not in force within the plan's time")
            continue
        found = list(_of_contract(contract, pools, periods))
        if isinstance(contract, CommittedSpend) and found:
            at = range(len(supplies), len(supplies) + len(found))
            credits.append(_credit(contract, tuple(at), periods))
        elif isinstance(contract, CommittedSpend):
            left_out.append(f"contract {contract.name}: no price in {contract.cloud} is known")
        supplies += found
    return Supplied(
        supplies=tuple(supplies),
        credits=tuple(credits),
        assumed=tuple(assumed),
        left_out=tuple(left_out),
    )


def price_of(pool: Pool) -> Price | None:
    """The fleet file's, else the cheapest that is listed on demand in its region."""
    if pool.price_usd_per_chip_hour is not None:
        return Price(
            usd_per_chip_hour=pool.price_usd_per_chip_hour, source="fleet file", is_list=False
        )
    return list_price_of(pool)


def list_price_of(pool: Pool) -> Price | None:
    """The cheapest that is listed on demand in its region."""
    try:
        found = [one for one in offers(pool.chip, pool.region) if one.term == "on_demand"]
    except NotInCatalogue:
        return None
    if not found:
        return None
    best = min(found, key=lambda one: (one.price_usd_per_chip_hour, one.node))
    source = f"list price of {best.node}, {best.price_date or 'of no known date'}"
    return Price(usd_per_chip_hour=best.price_usd_per_chip_hour, source=source, is_list=True)


def _of_pool(fleet: Fleet, pool: Pool, place: int, periods: int) -> Iterator[Supply]:
    price = price_of(pool)
    if price is None:
        return
    always = tuple(range(periods))
    usd = price.usd_per_chip_hour
    if str(pool.region).split("/")[0] == OWN:
        yield Supply(
            name=f"{pool.name} own",
            pool=place,
            kind="own",
            price_usd_per_chip_hour=usd,
            nodes_min=pool.nodes.min,
            nodes_max=pool.nodes.max,
            periods=always,
            is_signed=pool.nodes.min == pool.nodes.max,
        )
        return
    if pool.nodes.min:
        yield Supply(
            name=f"{pool.name} kept",
            pool=place,
            kind="own",
            price_usd_per_chip_hour=usd,
            nodes_min=pool.nodes.min,
            nodes_max=pool.nodes.min,
            periods=always,
            is_signed=True,
        )
    if fleet.plan.on_demand and pool.nodes.max > pool.nodes.min:
        yield Supply(
            name=f"{pool.name} on demand",
            pool=place,
            kind="on_demand",
            price_usd_per_chip_hour=usd,
            nodes_max=pool.nodes.max - pool.nodes.min,
            periods=always,
        )


def _of_contract(
    contract: Contract, pools: Sequence[Pool], periods: Sequence[Period]
) -> Iterator[Supply]:
    within = _periods(contract, periods)
    for place, pool in enumerate(pools):
        match contract:
            case Reserved() if pool.name in contract.pools:
                yield Supply(
                    name=f"{pool.name} {contract.name}",
                    pool=place,
                    kind="reserved",
                    price_usd_per_chip_hour=contract.price_usd_per_chip_hour,
                    nodes_min=contract.nodes.min,
                    nodes_max=contract.nodes.max,
                    periods=within,
                    contract=contract.name,
                    is_signed=contract.is_signed,
                )
            case Spot() if pool.name in contract.pools:
                yield Supply(
                    name=f"{pool.name} {contract.name}",
                    pool=place,
                    kind="spot",
                    price_usd_per_chip_hour=contract.price_usd_per_chip_hour,
                    nodes_max=min(contract.nodes_max, pool.nodes.max),
                    periods=within,
                    contract=contract.name,
                    availability=contract.availability,
                    survives=False,
                )
            case CommittedSpend() if str(pool.region).split("/")[0] == contract.cloud:
                price = list_price_of(pool) or price_of(pool)
                if price is not None:
                    yield _drawing(contract, pool, place, within, price)
            case _:
                pass


def _drawing(
    contract: CommittedSpend, pool: Pool, place: int, within: tuple[int, ...], price: Price
) -> Supply:
    return Supply(
        name=f"{pool.name} {contract.name}",
        pool=place,
        kind="committed_spend",
        price_usd_per_chip_hour=price.usd_per_chip_hour * (1.0 - contract.discount),
        nodes_max=pool.nodes.max,
        periods=within,
        contract=contract.name,
        is_signed=contract.is_signed,
    )


def _credit(
    contract: CommittedSpend, supplies: tuple[int, ...], periods: Sequence[Period]
) -> Credit:
    """What falls into the plan's time of it: by days."""
    within = _periods(contract, periods)
    days = sum(periods[place].days for place in within)
    return Credit(
        contract=contract.name,
        supplies=supplies,
        usd_per_unit=contract.usd_per_year * days / DAYS_OF_YEAR,
        units_min=contract.units.min,
        units_max=contract.units.max,
        periods=within,
        is_signed=contract.is_signed,
    )


def _periods(contract: Contract, periods: Sequence[Period]) -> tuple[int, ...]:
    if isinstance(contract, Spot):
        return tuple(range(len(periods)))
    return periods_between(periods, contract.begin, contract.until)


def cuts_of(fleet: Fleet) -> Iterator[date]:
    """Days on which what holds changes: contracts begin and end, runs must be done."""
    for contract in fleet.contracts:
        if not isinstance(contract, Spot):
            yield contract.begin
            yield contract.until
    for run in fleet.plan.runs:
        yield run.by
