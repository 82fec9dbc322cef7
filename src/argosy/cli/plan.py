"""`argosy plan`: what to run where and what to buy; what an offer is worth; what if.

Owns the options and the order. In `planning` the work is done by `asking.py`, what is printed by
`pages.py`, `offer.py` and `what_if.py`, what is drawn by `html.py`, `offer_html.py` and
`what_if_html.py`.
"""

from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer
from typer.core import TyperGroup

from argosy.cli.files import read_fleet
from argosy.cli.running import refuse
from argosy.cli.state import now_s

if TYPE_CHECKING:
    from argosy.cli.planning.report import ConflictReport

_WHOLE = "whole"  # the command that stands for `argosy plan FLEET` itself


class PlanGroup(TyperGroup):
    """`argosy plan FLEET` and `argosy plan offer FLEET`: what names no command is the whole plan.

    A fleet file that is called offer is written ./offer.
    """

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Any = None,  # noqa: ANN401  typer's context has no public type
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Of the named command's group, or of the whole plan itself."""
        named = set(self.commands) - {_WHOLE}
        if args and args[0] in named:
            return super().make_context(info_name, args, parent=parent, **extra)
        whole = self.commands[_WHOLE]
        return whole.make_context(info_name, args, parent=parent, **extra)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """The command that the context is of."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


plan = typer.Typer(
    name="plan",
    cls=PlanGroup,
    help="What to run where, and what to buy: at least cost, with a proven bound.",
)

File = Annotated[Path, typer.Argument(metavar="FLEET.YAML", help="The fleet file.")]
DemandFile = Annotated[
    Path | None,
    typer.Option(
        "--demand",
        metavar="FILE",
        help="Recorded demand to plan for, as argosy simulate --trace reads it. Without it, the "
        "fleet file's demand.",
    ),
]
Model = Annotated[
    str | None, typer.Option(help="Whose requests they are, where the recording does not say.")
]
Origin = Annotated[
    str | None, typer.Option(help="Where they come from, cloud/region, where it does not say.")
]
Growth = Annotated[
    float | None,
    typer.Option(help="Times as much demand each year; the fleet file's plan.growth_per_year."),
]
Scale = Annotated[float, typer.Option(help="Times as many users.")]
Gap = Annotated[
    float, typer.Option(help="Stop when the plan is proven to be within this share of the best.")
]
Seconds = Annotated[float, typer.Option(help="Seconds that the solver may take, for each plan.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines (docs/PLAN.md).")]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", help="Write a page with pictures that needs no network."
    ),
]


@plan.command(_WHOLE, hidden=True)
def whole(
    file: File,
    *,
    demand: DemandFile = None,
    model: Model = None,
    origin: Origin = None,
    growth: Growth = None,
    scale: Scale = 1.0,
    gap: Gap = 0.005,
    seconds: Seconds = 60.0,
    replay: Annotated[
        bool, typer.Option(help="Simulate the plan; rates that prove too high are cut.")
    ] = True,
    baselines: Annotated[
        bool, typer.Option(help="Compare with naive ways: one cloud, one chip, peak on demand.")
    ] = True,
    as_json: AsJson = False,
    html: Html = None,
) -> None:
    """Plan what to hold, what to buy, what runs where in each hour: at least cost, and proven.

    Also: argosy plan offer (what is an offer of chips worth?), argosy plan what-if.

    Try:

      argosy plan examples/five-makers.yaml --html report.html

      argosy plan examples/five-makers.yaml --scale 10 --no-replay
    """
    _check_installed()
    from argosy.cli.planning import asking

    fleet = read_fleet(file)
    asked = asking.Asked(
        today=_today(), demand=demand, model=model, origin=origin, growth=growth, scale=scale,
        gap=gap, seconds=seconds,
    )  # fmt: skip
    _check_html(html)
    try:
        with asking.Bar() as bar:
            report = asking.plan(fleet, asked, bar, with_replay=replay, with_baselines=baselines)
    except asking.REFUSALS as error:
        refuse(str(error))
    from argosy.cli.planning.report import ConflictReport

    if isinstance(report, ConflictReport):
        _say_conflict(report, as_json=as_json)
    if html is not None:  # before a pipe may be closed
        from argosy.cli.planning.html import plan_html

        _write(html, plan_html(report))
    if as_json:
        _say_json(report)
        return
    from argosy.cli.planning.pages import print_plan

    print_plan(report)


@plan.command()
def offer(
    file: File,
    *,
    chip: Annotated[str, typer.Option(help="The chip, as argosy catalogue names it.")],
    region: Annotated[str, typer.Option(help="Where they stand, cloud/region.")],
    count: Annotated[int, typer.Option(min=1, help="Chips.")],
    term: Annotated[str, typer.Option(help="For how long: 1y, 3y.")],
    price: Annotated[
        float | None,
        typer.Option(min=0, help="USD per chip and hour that is asked for: is it worth it?"),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="POOL", help="A pool to leave aside. Again for more."),
    ] = None,
    demand: DemandFile = None,
    model: Model = None,
    origin: Origin = None,
    growth: Growth = None,
    scale: Scale = 1.0,
    gap: Gap = 0.005,
    seconds: Seconds = 60.0,
    as_json: AsJson = False,
    html: Html = None,
) -> None:
    r"""Say what an offer of chips is worth: the price at which having them changes nothing.

    Try:

      argosy plan offer examples/five-makers.yaml --chip Maia-200 \
        --region azure/westus3 --count 2000 --term 3y

      argosy plan offer examples/five-makers.yaml --chip H100-SXM \
        --region azure/westus3 --count 64 --term 1y --price 4.5
    """
    _check_installed()
    from argosy.cli.planning import asking

    fleet = read_fleet(file)
    asked = asking.Asked(
        today=_today(), demand=demand, model=model, origin=origin, growth=growth, scale=scale,
        gap=gap, seconds=seconds,
    )  # fmt: skip
    wanted = asking.OfferWanted(
        chip=chip, region=region, chips=count, term=term, price_usd=price,
        without=tuple(without or ()),
    )  # fmt: skip
    _check_html(html)
    try:
        with asking.Bar() as bar:
            report = asking.offer(fleet, wanted, asked, bar)
    except asking.REFUSALS as error:
        refuse(str(error))
    _answer_offer(report, html=html, as_json=as_json)


def _answer_offer(report: object, *, html: Path | None, as_json: bool) -> None:
    from argosy.cli.planning.offer import NeededReport, OfferReport, print_needed, print_offer
    from argosy.cli.planning.report import ConflictReport

    if isinstance(report, ConflictReport):
        _say_conflict(report, as_json=as_json)
    if isinstance(report, OfferReport) and html is not None:
        from argosy.cli.planning.offer_html import offer_html

        _write(html, offer_html(report))
    if as_json:
        _say_json(report)
    elif isinstance(report, NeededReport):
        print_needed(report)
    elif isinstance(report, OfferReport):
        print_offer(report)


@plan.command("what-if")
def what_if(
    file: File,
    *,
    change: Annotated[
        list[str],
        typer.Option(
            metavar="CHANGE",
            help="users=10, users:MODEL=3, growth=0.5, price:H100-SXM=1.2, shortage:H100-SXM=0.5, "
            "energy=0.05, gone:cloud:azure. Again for more, each alone.",
        ),
    ],
    demand: DemandFile = None,
    model: Model = None,
    origin: Origin = None,
    growth: Growth = None,
    scale: Scale = 1.0,
    gap: Gap = 0.005,
    seconds: Seconds = 60.0,
    as_json: AsJson = False,
    html: Html = None,
) -> None:
    """Plan again after a change: what it costs, what binds first, and the cheapest relief.

    Try:

      argosy plan what-if examples/five-makers.yaml --change users=10

      argosy plan what-if examples/five-makers.yaml --change gone:cloud:azure --html what-if.html
    """
    _check_installed()
    from argosy.cli.planning import asking
    from argosy.cli.planning.report import ConflictReport
    from argosy.cli.planning.what_if import UnreadableChangeError, print_what_if

    fleet = read_fleet(file)
    asked = asking.Asked(
        today=_today(), demand=demand, model=model, origin=origin, growth=growth, scale=scale,
        gap=gap, seconds=seconds,
    )  # fmt: skip
    _check_html(html)
    try:
        with asking.Bar() as bar:
            report = asking.what_ifs(fleet, change, asked, bar)
    except (*asking.REFUSALS, UnreadableChangeError) as error:
        refuse(str(error))
    if isinstance(report, ConflictReport):
        _say_conflict(report, as_json=as_json)
    if html is not None:
        from argosy.cli.planning.what_if_html import what_if_html

        _write(html, what_if_html(report))
    if as_json:
        _say_json(report)
    else:
        print_what_if(report)


def _check_installed() -> None:
    try:
        import_module("argosy.cli.planning.asking")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("argosy"):  # that would be a mistake of ours
            raise
        refuse(f"argosy plan needs {error.name}: pip install 'argosy[simulate]'")


def _today() -> date:
    return datetime.fromtimestamp(now_s(), UTC).date()


def _check_html(path: Path | None) -> None:
    """Before the work, not after it."""
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        refuse(f"--html {path} is no page. Name a file that ends in .html.")
    if path.is_dir() or not path.parent.is_dir():
        told = "is a folder" if path.is_dir() else f"cannot be written: no folder {path.parent}"
        refuse(f"--html {path} {told}. Name a file in a folder that is there.")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        refuse(f"--html {path} cannot be written: {error.strerror}")
    typer.echo(f"written: {path}", err=True)


def _say_conflict(report: "ConflictReport", *, as_json: bool) -> NoReturn:
    """In words, or for machines; there is no plan, so the exit code is 1."""
    from argosy.cli.planning.pages import print_conflict

    if as_json:
        _say_json(report)
    else:
        print_conflict(report)
    raise typer.Exit(1)


def _say_json(value: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())
