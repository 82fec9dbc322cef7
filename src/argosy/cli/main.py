"""`argosy`: the verbs. Each is imported when it is called, so that `--help` answers at once."""

import typer

from argosy.cli.apply import apply, diff
from argosy.cli.calibrate import calibrate
from argosy.cli.catalogue import catalogue
from argosy.cli.chat import chat
from argosy.cli.check import check
from argosy.cli.control import control
from argosy.cli.data import data
from argosy.cli.drain import drain
from argosy.cli.events import events
from argosy.cli.explain import explain
from argosy.cli.fetch import fetch
from argosy.cli.gateway import gateway
from argosy.cli.goodput import goodput
from argosy.cli.keys import keys
from argosy.cli.plan import plan
from argosy.cli.pretend import pretend
from argosy.cli.render import render
from argosy.cli.runs import runs
from argosy.cli.scale import scale
from argosy.cli.schema import schema
from argosy.cli.simulate import simulate
from argosy.cli.status import status
from argosy.cli.train import train
from argosy.cli.up import up
from argosy.cli.usage import usage

app = typer.Typer(
    name="argosy",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One fleet out of many clouds and chips, for large language models.\n\n"
    "Try:\n\n"
    "  argosy up\n\n"
    "  argosy status --watch",
)
app.command()(up)
app.command()(control)
app.command()(gateway)
app.command()(diff)
app.command()(apply)
app.command()(scale)
app.command()(drain)
app.add_typer(pretend)
app.command()(events)
app.command()(status)
app.command()(chat)
app.command()(check)
app.command()(schema)
app.command()(render)
app.command()(simulate)
app.command()(goodput)
app.add_typer(plan)
app.command()(train)
app.add_typer(runs)
app.command()(usage)
app.command()(explain)
app.add_typer(keys)
app.command()(fetch)
app.command()(calibrate)
app.add_typer(data)
app.command()(catalogue)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
