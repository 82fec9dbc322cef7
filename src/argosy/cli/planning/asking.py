"""The work behind `argosy plan`: from a fleet file to a problem, from a problem to answers.

Owns the order of things, the progress on stderr and what is kept between calls: rates that the
simulator found, in the user's cache folder. What is printed and drawn is made elsewhere.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import msgspec
import platformdirs
import typer
from msgspec.structs import replace

from argosy.cli.planning.checks import baseline_row, replay_of
from argosy.cli.planning.offer import (
    NeededReport,
    OfferAsked,
    OfferReport,
    needed_report,
    offer_report,
)
from argosy.cli.planning.report import ConflictReport, PlanReport
from argosy.cli.planning.sums import report_of
from argosy.cli.planning.what_if import Outcome, WhatIfReport, change_of, outcome_of
from argosy.fleet.catalogue import NotInCatalogue, chip, offers
from argosy.fleet.config import Fleet, Pool
from argosy.fleet.contracts import CommittedSpend, Reserved
from argosy.fleet.demand import Demand, Nodes
from argosy.fleet.launchers import PlannedLauncher
from argosy.planner.capacity.rates import Rates
from argosy.planner.capacity.table import Capacity, capacity_of
from argosy.planner.framing.forecast import Names, demand_of_file
from argosy.planner.framing.frame import Framed, FramingError, frame
from argosy.planner.framing.horizon import periods_between, years_after
from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Problem
from argosy.planner.questions import offer as offers_of
from argosy.planner.questions.baselines import baselines
from argosy.planner.questions.changed import Progress, Solving, only_supplies
from argosy.planner.questions.changes import NoSuchNameError
from argosy.planner.questions.what_if import what_if
from argosy.planner.replay.cells import Ground
from argosy.planner.replay.replay import Verified, plan_until_kept
from argosy.planner.solving.solve import solve
from argosy.simulator.scenario import ScenarioError
from argosy.simulator.serving import is_compiled
from argosy.simulator.traces import TraceError

SCALE_MAX = 1e6
CHIPS_PER_NODE_ASSUMED = 8
YEARS_MAX = 10
OFFER_POOL = "offered"
OFFER_SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the count, on the demand curve
RATES_FILE = "rates.json"
RATES_KEPT_MAX = 50_000  # some 300 bytes each


class PlanError(ValueError):
    """What was asked cannot be planned; the message says why and what would work."""


REFUSALS = (PlanError, FramingError, TraceError, ScenarioError, NotInCatalogue, NoSuchNameError)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The options that all of the commands have."""

    today: date
    demand: Path | None = None  # a trace
    model: str | None = None
    origin: str | None = None
    growth: float | None = None  # a year
    scale: float = 1.0
    gap: float
    seconds: float  # of one solve


class Bar:
    """What is being done, on stderr: a bar on a terminal, a line for each stage in a log."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(file=sys.stderr)
        self._is_log = not console.is_terminal
        self._bar = Progress(
            BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)
        self._stage = ""

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stage(self, what: str, done: float = 0.0) -> None:
        """A new piece of work of unknown length."""
        if self._is_log and what != self._stage:
            typer.echo(what, err=True)
        self._stage = what
        self._bar.update(self._task, description=what, total=None, completed=0)

    def share(self, what: str, done: float) -> None:
        """How far the solver is with it."""
        said = f"{self._stage}: {what}" if self._stage else what
        self._bar.update(self._task, description=said, total=1.0, completed=done)

    def solving(self, asked: Asked, *, gap: float | None = None) -> Solving:
        """The solver, telling this bar."""

        def solved(
            problem: Problem,
            *,
            progress: Progress | None = None,
            gap: float = 0.005,
            seconds_max: float = 60.0,
        ) -> Plan | Conflict:
            return solve(problem, progress=self.share, gap=gap, seconds_max=seconds_max)

        return Solving(
            solve=solved,
            gap=asked.gap if gap is None else gap,
            seconds_max=asked.seconds,
            progress=self.stage,
        )


class Grounded(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet as a problem, with what it was made of."""

    fleet: Fleet
    capacity: Capacity
    framed: Framed
    demand: str  # in words

    @property
    def problem(self) -> Problem:
        """What is solved."""
        return self.framed.problem


def grounded(fleet: Fleet, asked: Asked, bar: Bar) -> Grounded:
    """Measure what replicas do, and put the fleet in numbers. Raises one of REFUSALS."""
    check(asked, fleet)
    demand, words = _demand(fleet, asked, bar)
    if not is_compiled(with_losses=False):
        typer.echo("compiling the simulator: about a minute, the first time only", err=True)
    with kept_rates() as known:
        capacity = capacity_of(fleet, demand=demand, known=known, told=bar.stage)
    begin = fleet.plan.begin or first_of_next_month(asked.today)
    framed = frame(fleet, rates=capacity, begin=begin, growth_per_year=asked.growth)
    return Grounded(fleet=fleet, capacity=capacity, framed=framed, demand=words)


def check(asked: Asked, fleet: Fleet) -> None:
    """Raises PlanError for numbers and names that cannot be."""
    _check_names(asked, fleet)
    if not 0 < asked.scale < SCALE_MAX:
        raise PlanError(
            f"--scale {asked.scale:g} is not possible. Write a number above 0 and below "
            f"{SCALE_MAX:,.0f}."
        )
    if asked.growth is not None and not 0 < asked.growth < SCALE_MAX:
        raise PlanError(
            f"--growth {asked.growth:g} is not possible. Write the factor of a year: 1.5 is half "
            "as much again."
        )
    if not 0 < asked.gap < 1:
        raise PlanError(f"--gap {asked.gap:g} is no share. Write one between 0 and 1: 0.005")
    if not asked.seconds > 0:
        raise PlanError(f"--seconds {asked.seconds:g} is no time. Write seconds above 0.")


def _check_names(asked: Asked, fleet: Fleet) -> None:
    for name, value in (("--model", asked.model), ("--origin", asked.origin)):
        if asked.demand is None and value is not None:
            raise PlanError(
                f"{name} says whose requests a recording's are; the fleet file's demand says it "
                "itself. Name a recording (--demand FILE), or remove it."
            )
    known = [model.name for model in fleet.models]
    if asked.model is not None and asked.model not in known:
        raise PlanError(
            f'--model "{asked.model}" is not a model of this fleet, which has {", ".join(known)}.'
        )
    if asked.origin is not None:
        check_region("--origin", asked.origin)


def check_region(option: str, name: str) -> None:
    """Raises PlanError."""
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", name):
        raise PlanError(f'{option} "{name}" is no region. Write cloud/region, azure/westus3 say.')


def first_of_next_month(today: date) -> date:
    """When a plan begins whose file does not say."""
    if today.month == 12:
        return date(today.year + 1, 1, 1)
    return date(today.year, today.month + 1, 1)


def _demand(fleet: Fleet, asked: Asked, bar: Bar) -> tuple[tuple[Demand, ...], str]:
    """Whose it is, and in words."""
    if asked.demand is None:
        if not fleet.demand:
            raise PlanError(
                f"fleet {fleet.fleet} has no demand section, so there is nothing to plan for. Name "
                "a trace (--demand FILE), or write what clients ask for under demand:"
            )
        found, words = fleet.demand, "the fleet file's"
    else:
        bar.stage(f"reading {asked.demand}")
        names = Names(model=asked.model, origin=asked.origin)
        found, words = demand_of_file(asked.demand, fleet, names=names), f"of {asked.demand.name}"
    if asked.scale != 1.0:
        found = tuple(
            replace(one, requests_per_s=one.requests_per_s * asked.scale) for one in found
        )
        words = f"{words}, {asked.scale:g} times as many users"
    growth = fleet.plan.growth_per_year if asked.growth is None else asked.growth
    return found, words if growth == 1.0 else f"{words}, growing {growth:g} times a year"


@contextmanager
def kept_rates() -> Iterator[dict[str, Rates]]:
    """What the simulator found before; kept even where the block is left early."""
    path = platformdirs.user_cache_path("argosy") / RATES_FILE
    known = _read_rates(path)
    before = len(known)
    try:
        yield known
    finally:
        if len(known) > before:
            _write_rates(path, known)


def _read_rates(path: Path) -> dict[str, Rates]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Rates])
    except (OSError, msgspec.MsgspecError):  # none, or of another version: measured anew
        return {}


def _write_rates(path: Path, known: dict[str, Rates]) -> None:
    newest = dict(list(known.items())[-RATES_KEPT_MAX:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(newest))
        fresh.replace(path)
    except OSError as error:
        typer.echo(f"rates are not kept for next time: {path}: {error.strerror}", err=True)


def plan(
    fleet: Fleet, asked: Asked, bar: Bar, *, with_replay: bool, with_baselines: bool
) -> PlanReport | ConflictReport:
    """The plan, replayed and compared. Raises one of REFUSALS."""
    ground = grounded(fleet, asked, bar)
    solving = bar.solving(asked)
    bar.stage("the plan")
    answer, verified = _planned(ground, solving, with_replay=with_replay)
    if isinstance(answer, Conflict):
        return conflict_report(fleet, answer)
    rows = []
    if with_baselines:
        found = baselines(answer.problem, bar.solving(asked, gap=max(asked.gap, 0.01)))
        rows = [baseline_row(one, answer) for one in found]
    return report_of(
        answer,
        fleet=fleet.fleet,
        demand=ground.demand,
        baselines=rows,
        replay=None if verified is None else replay_of(verified),
        assumed=ground.framed.assumed,
        refused=ground.framed.left_out,
        ends={
            one.name: one.until.isoformat()
            for one in fleet.contracts
            if isinstance(one, Reserved | CommittedSpend)
        },
    )


def _planned(
    ground: Grounded, solving: Solving, *, with_replay: bool
) -> tuple[Plan | Conflict, Verified | None]:
    if not with_replay:
        return solving(ground.problem), None
    played = Ground(fleet=ground.fleet, classes=ground.capacity.classes)
    verified = plan_until_kept(ground.problem, played, solving=solving)
    return verified.answer, verified


def conflict_report(fleet: Fleet, conflict: Conflict) -> ConflictReport:
    """In the schema."""
    return ConflictReport(
        fleet=fleet.fleet, conflict=conflict.constraints, reliefs=conflict.reliefs
    )


class OfferWanted(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `argosy plan offer`."""

    chip: str
    region: str
    chips: int
    term: str  # "3y"
    price_usd: float | None = None
    without: tuple[str, ...] = ()  # pools that are left aside


def offer(
    fleet: Fleet, wanted: OfferWanted, asked: Asked, bar: Bar
) -> OfferReport | NeededReport | ConflictReport:
    """What the chips are worth to the fleet. Raises one of REFUSALS."""
    years, of = years_of(wanted.term), chip(wanted.chip)
    check_region("--region", wanted.region)
    fleet = without_pools(fleet, wanted.without)
    per_node, said = _chips_per_node(fleet, of.name, wanted.region)
    nodes = -(-wanted.chips // per_node)
    if nodes * per_node != wanted.chips:
        more = f"{wanted.chips:,} chips are {nodes:,} nodes of {per_node}: {nodes * per_node:,}"
        said = (*said, more)
    name = _free_name(fleet)
    pool = Pool(
        name=name,
        launcher=PlannedLauncher(),
        region=wanted.region,
        chip=of.name,
        nodes=Nodes(max=nodes, chips_per_node=per_node),
    )
    plan_years = max(fleet.plan.years, years)
    larger = replace(fleet, pools=(*fleet.pools, pool), plan=replace(fleet.plan, years=plan_years))
    ground = grounded(larger, asked, bar)
    problem = ground.problem
    place = next(at for at, one in enumerate(problem.pools) if one.name == name)
    bare = only_supplies(
        problem, [at for at, one in enumerate(problem.supplies) if one.pool != place]
    )
    begin = date.fromisoformat(problem.periods[0].begin)
    offered = offers_of.Offered(
        pool=place,
        nodes=nodes,
        periods=periods_between(problem.periods, begin, years_after(begin, years)),
    )
    counts = sorted({max(1, round(nodes * share)) for share in OFFER_SHARES})
    answer = offers_of.worth(bare, offered, solving=bar.solving(asked), counts=counts)
    of_it = OfferAsked(
        fleet=fleet.fleet,
        chip=of.name,
        region=wanted.region,
        chips=nodes * per_node,
        nodes=nodes,
        years=years,
        price_usd=wanted.price_usd,
    )
    match answer:
        case Conflict():
            return conflict_report(fleet, answer)
        case offers_of.Needed():
            return needed_report(answer, of_it)
        case _:
            notes = (*said, *_rivals(fleet, of.name, wanted.region))
            return offer_report(
                answer,
                of_it,
                assumed=(*notes, *_but_its_price(ground.framed.assumed, name)),
                refused=_but_its_price(ground.framed.left_out, name),
            )


def _free_name(fleet: Fleet) -> str:
    """Of the pool that the offer is, beside those of the fleet file."""
    known = {pool.name for pool in fleet.pools}
    name = OFFER_POOL
    while name in known:
        name += "-too"
    return name


def _but_its_price(told: Sequence[str], name: str) -> tuple[str, ...]:
    """The offered chips have no price yet, whatever lists say."""
    about = (f"{name} by the hour", f"{name} costs")
    return tuple(one for one in told if not one.startswith(about))


def years_of(term: str) -> int:
    """Of `3y`. Raises PlanError."""
    number = term.removesuffix("y")
    if term.endswith("y") and number.isdecimal() and 1 <= int(number) <= YEARS_MAX:
        return int(number)
    raise PlanError(f'--term "{term}" is no term. Write whole years, 1y to {YEARS_MAX}y.')


def without_pools(fleet: Fleet, names: Sequence[str]) -> Fleet:
    """The fleet as if these pools were not in its file. Raises PlanError."""
    if not names:
        return fleet
    known = {pool.name for pool in fleet.pools}
    for name in names:
        if name not in known:
            raise PlanError(
                f'--without "{name}" is no pool of fleet {fleet.fleet}, which has '
                f"{', '.join(sorted(known))}."
            )
    return replace(
        fleet,
        pools=tuple(pool for pool in fleet.pools if pool.name not in names),
        deployments=tuple(one for one in fleet.deployments if one.pool not in names),
    )


def _chips_per_node(fleet: Fleet, name: str, region: str) -> tuple[int, tuple[str, ...]]:
    """As the fleet has them, else as the catalogue's nearest offer, else assumed."""
    for pool in fleet.pools:
        if pool.chip == name:
            return pool.nodes.chips_per_node, ()
    known = offers(name)
    near = [one for one in known if one.region == region] or list(known)
    if near:
        return max(one.chips_per_node for one in near), ()
    return CHIPS_PER_NODE_ASSUMED, (f"{CHIPS_PER_NODE_ASSUMED} chips of {name} in a node",)


def _rivals(fleet: Fleet, name: str, region: str) -> tuple[str, ...]:
    """Pools of the same chips in the same place, which the plan may use instead."""
    return tuple(
        f"{pool.name} stays as the fleet file has it, {name} in {region} too; to leave it aside: "
        f"--without {pool.name}"
        for pool in fleet.pools
        if (pool.chip, pool.region) == (name, region)
    )


def what_ifs(
    fleet: Fleet, texts: Sequence[str], asked: Asked, bar: Bar
) -> WhatIfReport | ConflictReport:
    """Each change alone. Raises one of REFUSALS, and UnreadableChangeError."""
    changes = [change_of(text) for text in texts]
    ground = grounded(fleet, asked, bar)
    solving = bar.solving(asked)
    bar.stage("the plan as it is")
    before = solving(ground.problem)
    if isinstance(before, Conflict):
        return conflict_report(fleet, before)
    outcomes: list[Outcome] = []
    for text, change in zip(texts, changes, strict=True):
        found = what_if(ground.problem, change, before=before, solving=solving)
        outcomes.append(outcome_of(text, found))
    return WhatIfReport(
        fleet=fleet.fleet,
        begin=ground.problem.periods[0].begin,
        usd_per_hour_before=before.usd_per_hour,
        gap_before=before.gap,
        outcomes=tuple(outcomes),
    )
