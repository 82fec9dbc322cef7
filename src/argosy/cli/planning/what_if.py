"""`argosy plan what-if`: its changes as words on the command line, its JSON, and its page."""

import math

import msgspec
import typer

from argosy.cli.planning.words import figure, number
from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import DomainKind
from argosy.planner.questions.changes import Change, Energy, Gone, Growth, Priced, Scarce, Users
from argosy.planner.questions.reliefs import Relief
from argosy.planner.questions.what_if import Moved, WhatIf

SCHEMA = "argosy.plan.what-if/1"
GRAMMAR = (
    "users=10, users:MODEL=10, growth=0.5 (more a year), price:CHIP_OR_POOL=1.2 (times), "
    "shortage:CHIP=0.5 (the share that is missing), energy=0.05 (USD/kWh more), "
    "gone:cloud:NAME (or maker, region, pool)"
)
_KINDS: dict[str, DomainKind] = {
    "cloud": "cloud",
    "maker": "maker",
    "region": "region",
    "pool": "pool",
}


class UnreadableChangeError(ValueError):
    """A --change that is none; the message says what is."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One change."""

    asked: str  # as it was written
    change: str
    usd_per_hour: float | None  # None: there is no plan then
    more_usd_per_hour: float | None
    gap: float | None
    first_bound: str | None  # the first constraint that binds and did not
    first_bound_at: str | None  # how much of the change that takes
    first_bound_extent: float | None  # the same: 0 none of the change, 1 all
    possible_until: str | None  # how far there is a plan
    possible_extent: float | None
    conflict: tuple[str, ...]
    reliefs: tuple[Relief, ...]  # the cheapest plan first
    moved: tuple[Moved, ...]  # by pool; where there is no plan, with the first of the reliefs
    remarks: tuple[str, ...]


class WhatIfReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, each alone."""

    schema: str = SCHEMA
    fleet: str
    currency: str = "USD"
    begin: str
    usd_per_hour_before: float
    gap_before: float
    outcomes: tuple[Outcome, ...]


def change_of(text: str) -> Change:
    """`users=10` and its like. Raises UnreadableChangeError."""
    what, _, value = text.partition("=")
    kind, _, name = what.partition(":")
    found = _gone(name, value) if kind == "gone" else _by_number(kind, name, value)
    if found is None:
        raise UnreadableChangeError(f'--change "{text}" is no change. Write one of: {GRAMMAR}')
    return found


def _gone(name: str, value: str) -> Gone | None:
    kind, _, domain = name.partition(":")
    if kind not in _KINDS or not domain or value:
        return None
    return Gone(kind=_KINDS[kind], name=domain)


def _by_number(kind: str, name: str, text: str) -> Change | None:
    value = _number(text)
    if value is None:
        return None
    match kind, bool(name):
        case "users", _ if value > 0:
            return Users(times=value, model=name or None)
        case "growth", False if value > -1:
            return Growth(share_per_year=value)
        case "energy", False:
            return Energy(usd_per_kwh=value)
        case "price", True if value > 0:
            return Priced(name=name, times=value)
        case "shortage", True if 0 < value <= 1:
            return Scarce(chip=name, share=value)
        case _:
            return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def outcome_of(asked: str, found: WhatIf) -> Outcome:
    """In names and numbers."""
    plan, first = found.answer, found.first_bound
    return Outcome(
        asked=asked,
        change=found.change,
        usd_per_hour=found.usd_per_hour,
        more_usd_per_hour=found.more_usd_per_hour,
        gap=plan.gap if isinstance(plan, Plan) else None,
        first_bound=None if first is None else first.constraint,
        first_bound_at=None if first is None else first.at,
        first_bound_extent=None if first is None else first.extent,
        possible_until=found.possible_until,
        possible_extent=found.possible_extent,
        conflict=plan.constraints if isinstance(plan, Conflict) else (),
        reliefs=found.reliefs,
        moved=found.moved,
        remarks=found.remarks,
    )


def print_what_if(report: WhatIfReport) -> None:
    """A paragraph for each change."""
    typer.echo(
        f"{report.fleet}, from {report.begin}: {report.usd_per_hour_before:,.0f} USD an hour"
    )
    for one in report.outcomes:
        typer.echo("")
        typer.echo(f"{one.change}: {cost_text(report, one)}")
        if one.conflict:
            typer.echo("  These cannot hold together, and any one less would do:")
            for line in one.conflict:
                typer.echo(f"    - {line}")
        for line in (*bound_lines(one), *relief_lines(one), *moved_lines(one), *one.remarks):
            typer.echo(f"  {line}")


def cost_text(report: WhatIfReport, one: Outcome) -> str:
    """What an hour then costs, and how much more that is."""
    if one.usd_per_hour is None or one.more_usd_per_hour is None:
        return "there is no plan"
    times = one.usd_per_hour / report.usd_per_hour_before if report.usd_per_hour_before else None
    word = "more" if one.more_usd_per_hour >= 0 else "less"
    told = "" if times is None else f", {figure(times)}x"
    return f"{one.usd_per_hour:,.0f} USD an hour, {abs(one.more_usd_per_hour):,.0f} {word}{told}"


def bound_lines(one: Outcome) -> list[str]:
    """What binds first, and how far there is a plan."""
    found: list[str] = []
    is_told = bool(one.conflict) and one.first_bound_at == one.change
    if one.first_bound is not None and not is_told:
        at = "" if one.first_bound_at == one.change else f", from {one.first_bound_at} on"
        found.append(f"What binds first{at}: {one.first_bound}")
    elif one.first_bound is None and one.usd_per_hour is not None:
        found.append("Nothing binds that did not before.")
    if one.possible_until is not None:
        found.append(f"There is a plan up to {one.possible_until}.")
    return found


def relief_lines(one: Outcome) -> list[str]:
    """The cheapest, and the others by what they cost."""
    return [
        f"{'Or' if place else 'Cheapest relief'}: {relief.text}, then {relief_text(relief)}"
        for place, relief in enumerate(one.reliefs)
    ]


def relief_text(relief: Relief) -> str:
    """What plans cost with it."""
    least = "at least " if relief.is_at_least else ""
    saved = relief.saves_usd_per_hour
    told = "" if saved is None else f", {saved:,.0f} saved"
    return f"{least}{relief.usd_per_hour:,.0f} USD an hour{told}"


def moved_lines(one: Outcome) -> list[str]:
    """Pools that are used more or less, the largest change first."""
    moves = [
        f"{row.pool} {number(row.chips_mean_before)} to {number(row.chips_mean_after)}"
        for row in moved_most(one)
        if number(row.chips_mean_before) != number(row.chips_mean_after)
    ]
    if not moves:
        return []
    by = "" if one.usd_per_hour is not None else ", with the cheapest relief"
    return [f"What moves{by}, in chips in use on average: {', '.join(moves)}."]


def moved_most(one: Outcome) -> list[Moved]:
    """The largest change of chips first."""
    return sorted(
        one.moved, key=lambda row: (-abs(row.chips_mean_after - row.chips_mean_before), row.pool)
    )
