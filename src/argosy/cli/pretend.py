"""`argosy pretend`: lose a part of a pretended fleet, and have it again."""

from typing import Annotated

import typer

from argosy.cli.operator_socket import Back, Lose
from argosy.cli.running import ask
from argosy.cli.state import StateDir

_TIMEOUT_S = 30.0

pretend = typer.Typer(
    name="pretend",
    no_args_is_help=True,
    help="Lose a cloud, a region, a pool or a maker of a pretended fleet; have it again.\n\n"
    "Try:\n\n"
    "  argosy up examples/five-makers.yaml --pretend\n\n"
    "  argosy pretend lose azure\n\n"
    "  argosy pretend back azure",
)

_Domain = Annotated[
    str, typer.Argument(metavar="DOMAIN", help="A cloud, a region, a pool or a maker of chips.")
]


@pretend.command()
def lose(domain: _Domain, *, state: StateDir) -> None:
    """End all replicas there at once; nobody sees or starts any there until it is back.

    Examples:
        argosy pretend lose azure

        argosy pretend lose own/frankfurt

    """
    typer.echo(ask(state, Lose(domain=domain), timeout_s=_TIMEOUT_S))


@pretend.command()
def back(domain: _Domain, *, state: StateDir) -> None:
    """Have it again: empty at first, then as it is wanted.

    Examples:
        argosy pretend back azure

        argosy pretend back own/frankfurt

    """
    typer.echo(ask(state, Back(domain=domain), timeout_s=_TIMEOUT_S))
