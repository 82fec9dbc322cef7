"""`argosy reload`: a running fleet takes up its changed fleet file, and loses no request."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from argosy.cli.operator_socket import ReloadRequest, ask_reload
from argosy.cli.running import refuse, running_fleet
from argosy.cli.state import StateDir

_TIMEOUT_S = 600.0  # weights may have to be fetched


def reload(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FLEET.YAML", help="The fleet file; unset: the one it runs with."),
    ] = None,
    *,
    state: StateDir,
) -> None:
    """Read the fleet file again; replicas and gateway change over without a lost request.

    Examples:
        argosy reload

        argosy reload fleet.yaml

    """
    run = running_fleet(state, None)
    request = ReloadRequest(file=None if file is None else str(file.absolute()))
    try:
        reply = ask_reload(state, request, timeout_s=_TIMEOUT_S)
    except (OSError, msgspec.DecodeError) as error:
        refuse(f"the fleet on {state} (pid {run.pid}) does not answer: {error}")
    if not reply.done:
        refuse(f"nothing has changed: {reply.said}")
    typer.echo(reply.said)
