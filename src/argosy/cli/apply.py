"""`argosy apply`, `argosy diff`: a running fleet takes up a fleet file, or says what it means."""

from pathlib import Path
from typing import Annotated

import typer

from argosy.cli.operator_socket import Apply
from argosy.cli.running import ask
from argosy.cli.state import StateDir

_TIMEOUT_S = 600.0  # weights may have to be fetched
NewFile = Annotated[
    Path | None,
    typer.Argument(metavar="FLEET.YAML", help="The fleet file; unset: the one it runs with."),
]


def apply(file: NewFile = None, *, state: StateDir) -> None:
    """Take up a fleet file; replicas and gateway change over without a lost request.

    Examples:
        argosy apply

        argosy apply fleet.yaml

    """
    typer.echo(ask(state, _request(file, is_dry=False), timeout_s=_TIMEOUT_S))


def diff(file: NewFile = None, *, state: StateDir) -> None:
    """Say what `argosy apply` would change, and change nothing.

    Examples:
        argosy diff

        argosy diff fleet.yaml

    """
    typer.echo(ask(state, _request(file, is_dry=True), timeout_s=_TIMEOUT_S))


def _request(file: Path | None, *, is_dry: bool) -> Apply:
    return Apply(file=None if file is None else str(file.absolute()), is_dry=is_dry)
