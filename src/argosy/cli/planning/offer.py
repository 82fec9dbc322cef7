"""What `argosy plan offer` answers: its JSON, and the tables made of it."""

import msgspec
import typer

from argosy.cli.planning.words import figure, number, percent
from argosy.cli.tables import print_table
from argosy.planner.plan import Plan
from argosy.planner.questions.losses_told import LossTold
from argosy.planner.questions.offer import Displaced, Needed, Offer, Worth

SCHEMA = "argosy.plan.offer/1"
_TIERS = ("enterprise", "consumer", "batch")
_SOMETHING = 0.01  # of what the best block is worth, for each chip
_CERTAIN = 0.9995  # a share served that is shown as all of it


class OfferAsked(msgspec.Struct, frozen=True, kw_only=True):
    """What is offered."""

    fleet: str
    chip: str
    region: str
    chips: int
    nodes: int
    years: int
    price_usd: float | None  # per chip-hour, where one was named


class LossRow(msgspec.Struct, frozen=True, kw_only=True):
    """The loss of one domain: shares of each tier's requests that are still served, at worst."""

    kind: str
    domain: str
    served_without: dict[str, float] | None  # None: nothing runs there
    served_with: dict[str, float] | None


class BidRow(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the solver takes all of it at a price near the break-even."""

    price_usd: float
    is_taken: bool


class OfferReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; prices are USD per chip and hour of the term."""

    schema: str = SCHEMA
    fleet: str
    currency: str = "USD"
    pool: str  # what the offer is called in `displaced`
    chip: str
    region: str
    chips: int
    nodes: int
    years: int
    begin: str
    hours_of_term: float
    price_usd: float | None  # asked for
    is_worth_it: bool | None  # at that price, all of them
    chips_worth: int | None  # at that price, of the counts looked at

    break_even_usd: float
    break_even_usd_low: float | None  # with the chip's rates at the lower end of their interval
    break_even_usd_high: float | None
    tolerance_usd: float  # the proven gaps leave so much open, either way
    is_uncalibrated: bool
    is_whole: bool  # all these in whole nodes and replicas; else in fractions of them
    curve: tuple[Worth, ...]
    bids: tuple[BidRow, ...]
    displaced: tuple[Displaced, ...]  # with the chips at `displaced_at_usd`
    displaced_at_usd: float  # per chip-hour: the price asked for, else the break-even
    usd_per_hour_without: float  # the plan's cost
    usd_per_hour_with: float  # with the chips at price 0
    survival_usd_per_hour_without: float | None  # what the promise to survive losses costs
    survival_usd_per_hour_with: float | None
    losses: tuple[LossRow, ...]
    gap_without: float
    gap_with: float
    assumed: tuple[str, ...]
    refused: tuple[str, ...]


class NeededReport(msgspec.Struct, frozen=True, kw_only=True):
    """There is no plan without the chips: no price is too high."""

    schema: str = SCHEMA
    fleet: str
    chip: str
    region: str
    chips: int
    without: tuple[str, ...]  # what cannot hold together
    usd_per_hour_with: float


def offer_report(
    offer: Offer, asked: OfferAsked, *, assumed: tuple[str, ...], refused: tuple[str, ...]
) -> OfferReport:
    """The answer in names."""
    price_usd = asked.price_usd
    per_node = asked.chips // asked.nodes
    at_usd = offer.asked.break_even_usd if price_usd is None else price_usd
    return OfferReport(
        fleet=asked.fleet,
        pool=offer.pool,
        chip=offer.chip,
        region=offer.region,
        chips=asked.chips,
        nodes=asked.nodes,
        years=asked.years,
        begin=offer.plan_without.problem.periods[0].begin,
        hours_of_term=offer.hours_of_term,
        price_usd=price_usd,
        is_worth_it=None if price_usd is None else offer.asked.break_even_usd >= price_usd,
        chips_worth=None if price_usd is None else offer.nodes_worth(price_usd) * per_node,
        break_even_usd=offer.asked.break_even_usd,
        break_even_usd_low=offer.asked.break_even_usd_low,
        break_even_usd_high=offer.asked.break_even_usd_high,
        tolerance_usd=offer.asked.tolerance_usd,
        is_uncalibrated=offer.is_uncalibrated,
        is_whole=offer.is_whole,
        curve=offer.curve,
        bids=tuple(BidRow(price_usd=one.price_usd, is_taken=one.is_taken) for one in offer.bids),
        displaced=offer.displaced_at(at_usd),
        displaced_at_usd=at_usd,
        usd_per_hour_without=offer.usd_per_hour_without,
        usd_per_hour_with=offer.usd_per_hour_with,
        survival_usd_per_hour_without=offer.resilience.usd_per_hour_without,
        survival_usd_per_hour_with=offer.resilience.usd_per_hour_with,
        losses=_losses(offer.resilience.losses_without, offer.resilience.losses_with),
        gap_without=offer.plan_without.gap,
        gap_with=offer.plan_with.gap,
        assumed=assumed,
        refused=refused,
    )


def needed_report(needed: Needed, asked: OfferAsked) -> NeededReport:
    """Where nothing works without it."""
    plan: Plan = needed.plan_with
    return NeededReport(
        fleet=asked.fleet,
        chip=asked.chip,
        region=asked.region,
        chips=asked.chips,
        without=needed.without.constraints,
        usd_per_hour_with=plan.usd_per_hour,
    )


def _losses(without: tuple[LossTold, ...], with_it: tuple[LossTold, ...]) -> tuple[LossRow, ...]:
    before = {(one.kind, one.domain): _shares(one) for one in without}
    after = {(one.kind, one.domain): _shares(one) for one in with_it}
    return tuple(
        LossRow(
            kind=kind,
            domain=domain,
            served_without=before.get((kind, domain)),
            served_with=after.get((kind, domain)),
        )
        for kind, domain in dict.fromkeys([*before, *after])
    )


def _shares(told: LossTold) -> dict[str, float]:
    return {str(tier): share for tier, share in told.served.items()}


def print_offer(report: OfferReport) -> None:
    """Tables on stdout."""
    for line in headline(report):
        typer.echo(line)
    typer.echo("")
    typer.echo("What so many are worth, all or none; the last of them is worth LAST:")
    print_table(CURVE_HEADS, curve_rows(report))
    if said := bids_text(report):
        typer.echo(said)
    _print_displaced(report)
    _print_losses(report)
    typer.echo("")
    for line in notes(report):
        typer.echo(line)


def headline(report: OfferReport) -> tuple[str, ...]:
    """The break-even price, how sure it is, and the verdict on a price."""
    years = f"{report.years} {'year' if report.years == 1 else 'years'}"
    lines = [
        f"{report.fleet}: {report.chips:,} {report.chip} in {report.region} for {years} from "
        f"{report.begin} are worth at most {break_even(report)} USD per chip-hour."
    ]
    if report.is_uncalibrated:
        lines.append(
            f"UNCALIBRATED: nobody has measured {report.chip}; its rates are from data sheets, so "
            "the range counts, not the number."
        )
    if report.price_usd is not None:
        lines.append(verdict(report, report.price_usd))
    if (enough := chips_enough(report)) is not None:
        lines.append(f"More than {enough:,} of them add nothing to this fleet.")
    return tuple(lines)


def chips_enough(report: OfferReport) -> int | None:
    """The largest count looked at whose last block is worth something; None: all are."""
    if not report.curve:
        return None
    least = _SOMETHING * max(one.marginal_usd for one in report.curve)
    useful = [one.chips for one in report.curve if one.marginal_usd > least]
    return None if not useful or useful[-1] == report.curve[-1].chips else useful[-1]


def break_even(report: OfferReport) -> str:
    """1.84 (1.10-2.60)."""
    return ranged(report.break_even_usd, report.break_even_usd_low, report.break_even_usd_high)


def ranged(value: float, low: float | None, high: float | None) -> str:
    """A number and the ends of its 80 % interval."""
    if low is None or high is None or figure(low) == figure(high):
        return figure(value)
    return f"{figure(value)} ({figure(low)}-{figure(high)})"


def verdict(report: OfferReport, price_usd: float) -> str:
    """At a price that was named."""
    asked = f"At {price_usd:,.2f} USD ({price_usd * report.chips:,.0f} USD an hour)"
    if report.is_worth_it:
        gain = (report.break_even_usd - price_usd) * report.chips
        return f"{asked}: worth it; all of them save {gain:,.0f} USD an hour."
    loss = (price_usd - report.break_even_usd) * report.chips
    some = (
        f" {report.chips_worth:,} of them would be worth it."
        if report.chips_worth
        else " Fewer would not be worth it either."
    )
    return f"{asked}: not worth it; all of them lose {loss:,.0f} USD an hour.{some}"


CURVE_HEADS = ("CHIPS", "NODES", "BREAK-EVEN USD/chip-h", "LAST", "WORTH USD/h", "OPEN +-")


def curve_rows(report: OfferReport) -> list[tuple[object, ...]]:
    """By rising count."""
    return [
        (
            f"{one.chips:,}", f"{one.nodes:,}",
            ranged(one.break_even_usd, one.break_even_usd_low, one.break_even_usd_high),
            figure(one.marginal_usd), f"{one.value_usd_per_hour:,.0f}", figure(one.tolerance_usd),
        )
        for one in report.curve
    ]  # fmt: skip


def bids_text(report: OfferReport) -> str:
    """That the plan is indifferent there was checked by solving again."""
    told = [
        f"at {figure(bid.price_usd)} it {'takes them' if bid.is_taken else 'leaves them'}"
        for bid in report.bids
    ]
    return f"Solved again with the price in the plan: {', '.join(told)}." if told else ""


DISPLACED_HEADS = ("POOL", "CHIP", "CHIPS IN USE", "WITH IT", "USD/h", "WITH IT")


def displaced_rows(report: OfferReport) -> list[tuple[object, ...]]:
    """Pools on which anything changes."""
    return [
        (
            one.pool, one.chip, number(one.chips_mean_without), number(one.chips_mean_with),
            f"{one.usd_per_hour_without:,.0f}", f"{one.usd_per_hour_with:,.0f}",
        )
        for one in report.displaced
    ]  # fmt: skip


def _print_displaced(report: OfferReport) -> None:
    typer.echo("")
    if not report.displaced:
        typer.echo("It displaces nothing: no plan would use it.")
        return
    typer.echo(f"What it displaces, all of it paid {paid_text(report)}:")
    print_table(DISPLACED_HEADS, displaced_rows(report))


def paid_text(report: OfferReport) -> str:
    """At which price the offer stands among what it displaces."""
    what = "its break-even" if report.price_usd is None else "the price asked for"
    return f"at {what}, {figure(report.displaced_at_usd)} USD"


LOSSES_HEADS = ("LOST", "", "STILL SERVED WITHOUT IT", "WITH IT")


def losses_rows(report: OfferReport) -> list[tuple[object, ...]]:
    """Each domain, and what is served while it is gone."""
    return [
        (one.kind, one.domain, _served(one.served_without), _served(one.served_with))
        for one in report.losses
    ]


def _served(shares: dict[str, float] | None) -> str:
    if shares is None:
        return "nothing runs there"
    lacking = [
        f"{tier} {percent(shares[tier])}"
        for tier in _TIERS
        if tier in shares and shares[tier] < _CERTAIN
    ]
    return ", ".join(lacking) if lacking else "all"


def _print_losses(report: OfferReport) -> None:
    typer.echo("")
    if said := survival_text(report):
        typer.echo(said)
    if report.losses:
        print_table(LOSSES_HEADS, losses_rows(report))


def survival_text(report: OfferReport) -> str:
    """What the promise to survive losses costs."""
    before, after = report.survival_usd_per_hour_without, report.survival_usd_per_hour_with
    if before is None or after is None:
        return "What it costs to survive losses is not known: a plan is missing."
    if not before and not after:
        return ""
    return (
        f"To survive the losses that are promised costs {before:,.0f} USD an hour without it, "
        f"{after:,.0f} with it."
    )


def notes(report: OfferReport) -> list[str]:
    """How it was found, and what was assumed."""
    return [
        f"Break-even: {_found_text(report)} In brackets: with their rates at the ends of the 80 % "
        "interval. OPEN: what the proven gaps leave open.",
        "Displaced: chips in use on average; those of the offer that serve nothing are paid and "
        "not counted.",
        *(f"Assumed: {one}" for one in report.assumed),
        *(f"Left out: {one}" for one in report.refused),
    ]


def _found_text(report: OfferReport) -> str:
    """In whole numbers or in fractions."""
    costs = (
        "what the cheapest plan costs without the chips less what it costs with them at price 0, "
        f"over their {report.hours_of_term:,.0f} hours, in"
    )
    whole = f"{report.usd_per_hour_without:,.0f} and {report.usd_per_hour_with:,.0f} USD/h"
    if report.is_whole:
        return f"{costs} whole nodes and replicas: {whole}."
    return f"{costs} fractions of nodes and replicas; the whole plans cost {whole}."


def print_needed(report: NeededReport) -> None:
    """There is no break-even."""
    typer.echo(
        f"{report.fleet}: without {report.chips:,} {report.chip} in {report.region} there is no "
        f"plan, so no price is too high. With them at price 0 it costs "
        f"{report.usd_per_hour_with:,.0f} USD an hour."
    )
    typer.echo("Without them these cannot hold together, and any one less would do:")
    for line in report.without:
        typer.echo(f"  - {line}")
