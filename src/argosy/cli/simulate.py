"""`argosy simulate`: what would happen if, in virtual time.

Owns the options and the order: the fleet file, its groups of replicas, the trace, the runs. What
is printed is made in `simulate_pages.py`, what is drawn in `simulate_plot.py`.
"""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from argosy.cli.files import read_fleet
from argosy.cli.running import refuse
from argosy.cli.state import now_s

if TYPE_CHECKING:
    from argosy.cli.simulating import Answer, Question


def simulate(
    file: Annotated[Path, typer.Argument(metavar="FLEET.YAML", help="The fleet file.")],
    *,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Recorded demand: Azure CSV, Mooncake or OpenAI-style JSONL, ServeGen, Argosy's "
            "usage. Without it, the fleet file's demand.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Whose requests they are, where the trace does not say.")
    ] = None,
    origin: Annotated[
        str | None, typer.Option(help="Where they come from, cloud/region, where it does not say.")
    ] = None,
    sort: Annotated[
        bool, typer.Option("--sort", help="The trace is in no order: sort it, in memory.")
    ] = False,
    zero_as_one: Annotated[
        bool,
        typer.Option(
            "--zero-as-one", help="Answers of no token in the trace had one: prefill makes it."
        ),
    ] = False,
    scale: Annotated[float, typer.Option(help="Times as many users.")] = 1.0,
    lose: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:NAME[@FROM[-UNTIL]]",
            help="A region, cloud, maker, chip, pool or deployment that is gone, from a second on. "
            "Again for more.",
        ),
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(help="Seconds to simulate; 3600 of the fleet's demand, a trace whole."),
    ] = None,
    from_hour: Annotated[
        int | None,
        typer.Option(min=0, max=23, help="Hour (UTC) at which demand begins; the busiest."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Routing policy instead of the fleet file's.")
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="scale=1,2,5,...", help="One row for each; a table of answers."),
    ] = None,
    mode: Annotated[
        Literal["exact", "fluid"],
        typer.Option(
            help="exact: every request. fluid: for 10^9 and more, rates between loads that are "
            "measured exactly on a part of the fleet (docs/FLUID.md says how near it comes)."
        ),
    ] = "exact",
    interval: Annotated[
        bool, typer.Option(help="Run the 80 % interval of the step times as well.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same answer.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw demand, TTFT and load: .png or .html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Replay demand on a fleet that need not exist, with the live policies.

    Try:

      argosy simulate examples/five-makers.yaml --until 600

      argosy simulate examples/five-makers.yaml --lose cloud:azure@300 --until 600

      argosy simulate examples/five-makers.yaml --sweep scale=1,2,5,10,20,50,100
    """
    try:
        from argosy.cli import simulate_pages, simulating
    except ModuleNotFoundError as error:
        refuse(f"argosy simulate needs {error.name}: pip install 'argosy[simulate]'")
    fleet = read_fleet(file)
    asked = simulating.Asked(
        file=str(file),
        trace=trace,
        model=model,
        origin=origin,
        scale=scale,
        lose=tuple(lose or ()),
        until_s=until,
        from_hour=from_hour,
        policy=policy,
        seed=seed,
        is_sorted=not sort,
        zero_as_one=zero_as_one,
        is_fluid=mode == "fluid",
    )
    try:
        if plot is not None:
            _check_plot(plot)
        if sweep is not None:
            simulating.check_sweep(asked, has_plot=plot is not None)
        question = simulating.question_of(fleet, asked)
        if sweep is not None:
            scales = simulating.scales_of(sweep)
            rows = simulating.sweep(question, scales)
            _say_json(rows) if as_json else simulate_pages.print_sweep(question, rows)
            return
        answer = simulating.answer(question, with_interval=interval)
    except simulating.REFUSALS as error:
        said = str(error).replace("sort=True", "--sort")
        refuse(said.replace("zero_output_as_one=True", "--zero-as-one"))
    if plot is not None:  # before a pipe may be closed
        _draw(question, answer, plot)
    _say_json(answer) if as_json else simulate_pages.print_answer(answer, today=_today())


def _today() -> date:
    return datetime.fromtimestamp(now_s(), UTC).date()


def _check_plot(path: Path) -> None:
    """Before the runs, not after them."""
    from argosy.cli import simulate_plot

    try:
        simulate_plot.check(path)
    except ValueError as error:
        refuse(str(error))


def _draw(question: "Question", answer: "Answer", path: Path) -> None:
    from argosy.cli import simulate_plot

    try:
        simulate_plot.draw(question, answer, path)
    except OSError as error:
        refuse(f"--plot {path} cannot be written: {error.strerror}")
    typer.echo(f"drawn: {path}", err=True)


def _say_json(value: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())
