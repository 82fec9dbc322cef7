"""`argosy apply`, `argosy diff`: a running fleet takes up a fleet file, or says what it means."""

from pathlib import Path
from typing import Annotated

import typer

from argosy.cli.operator_socket import Apply
from argosy.cli.running import ControlOption, TlsOption, ask, far, refuse
from argosy.cli.state import StateDir

_TIMEOUT_S = 600.0  # weights may have to be fetched
NewFile = Annotated[
    Path | None,
    typer.Argument(metavar="FLEET.YAML", help="The fleet file; unset: the one it runs with."),
]


def apply(
    file: NewFile = None, *, state: StateDir, control: ControlOption = None, tls: TlsOption = None
) -> None:
    """Take up a fleet file; replicas and gateway change over without a lost request.

    Examples:
        argosy apply

        argosy apply fleet.yaml

        argosy apply fleet.yaml --control http://c1:8470,http://c2:8470

    """
    request = _request(file, is_dry=False, is_far=control is not None)
    typer.echo(ask(state, request, timeout_s=_TIMEOUT_S, control=far(control, tls)))


def diff(
    file: NewFile = None, *, state: StateDir, control: ControlOption = None, tls: TlsOption = None
) -> None:
    """Say what `argosy apply` would change, and change nothing.

    Examples:
        argosy diff

        argosy diff fleet.yaml

    """
    request = _request(file, is_dry=True, is_far=control is not None)
    typer.echo(ask(state, request, timeout_s=_TIMEOUT_S, control=far(control, tls)))


def _request(file: Path | None, *, is_dry: bool, is_far: bool) -> Apply:
    path = None if file is None else str(file.absolute())
    if not is_far:
        return Apply(file=path, is_dry=is_dry)
    if file is None:
        refuse("name the fleet file, which other hosts may not have: argosy apply FLEET.YAML ...")
    try:
        return Apply(file=path, text=file.read_text("utf-8"), is_dry=is_dry)
    except (OSError, UnicodeDecodeError) as error:
        return refuse(f"{file} cannot be read: {error}")
