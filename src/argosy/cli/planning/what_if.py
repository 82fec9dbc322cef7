"""`argosy plan what-if`: its changes as words on the command line, its JSON, and its page."""

import math

import msgspec
import typer

from argosy.cli.planning.words import figure
from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import DomainKind
from argosy.planner.questions.changes import Change, Energy, Gone, Growth, Priced, Scarce, Users
from argosy.planner.questions.what_if import Relief, WhatIf

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
    possible_until: str | None  # how far there is a plan
    conflict: tuple[str, ...]
    reliefs: tuple[Relief, ...]
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
    plan = found.answer
    return Outcome(
        asked=asked,
        change=found.change,
        usd_per_hour=found.usd_per_hour,
        more_usd_per_hour=found.more_usd_per_hour,
        gap=plan.gap if isinstance(plan, Plan) else None,
        first_bound=None if found.first_bound is None else found.first_bound.constraint,
        first_bound_at=None if found.first_bound is None else found.first_bound.at,
        possible_until=found.possible_until,
        conflict=plan.constraints if isinstance(plan, Conflict) else (),
        reliefs=found.reliefs,
        remarks=found.remarks,
    )


def print_what_if(report: WhatIfReport) -> None:
    """A paragraph for each change."""
    typer.echo(
        f"{report.fleet}, from {report.begin}: {report.usd_per_hour_before:,.0f} USD an hour"
    )
    for one in report.outcomes:
        typer.echo("")
        typer.echo(f"{one.change}: {_cost(report, one)}")
        if one.conflict:
            typer.echo("  These cannot hold together, and any one less would do:")
            for line in one.conflict:
                typer.echo(f"    - {line}")
        is_told = bool(one.conflict) and one.first_bound_at == one.change
        if one.first_bound is not None and not is_told:
            at = "" if one.first_bound_at == one.change else f", from {one.first_bound_at} on"
            typer.echo(f"  What binds first{at}: {one.first_bound}")
        elif one.first_bound is None and one.usd_per_hour is not None:
            typer.echo("  Nothing binds that did not before.")
        if one.possible_until is not None:
            typer.echo(f"  There is a plan up to {one.possible_until}.")
        for place, relief in enumerate(one.reliefs):
            before = "Cheapest relief" if place == 0 else "Or"
            typer.echo(f"  {before}: {relief.text}, {_relieved(relief)}")
        for line in one.remarks:
            typer.echo(f"  {line}")


def _cost(report: WhatIfReport, one: Outcome) -> str:
    if one.usd_per_hour is None or one.more_usd_per_hour is None:
        return "there is no plan"
    times = one.usd_per_hour / report.usd_per_hour_before if report.usd_per_hour_before else None
    word = "more" if one.more_usd_per_hour >= 0 else "less"
    told = "" if times is None else f", {figure(times)}x"
    return f"{one.usd_per_hour:,.0f} USD an hour, {abs(one.more_usd_per_hour):,.0f} {word}{told}"


def _relieved(relief: Relief) -> str:
    cost = f"{relief.usd_per_hour:,.0f} USD an hour"
    if relief.saves_usd_per_hour is None:
        return f"then {cost}"
    return f"then {cost}, {relief.saves_usd_per_hour:,.0f} saved"
