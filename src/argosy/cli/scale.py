"""`argosy scale`: so many replicas of a deployment, whatever file and autoscaling say."""

from typing import Annotated

import typer

from argosy.cli.operator_socket import Hold
from argosy.cli.running import ControlOption, TlsOption, ask, far, refuse
from argosy.cli.state import StateDir

_TIMEOUT_S = 10.0


def scale(
    deployment: Annotated[
        str, typer.Argument(metavar="MODEL@POOL", help="The deployment, as argosy status names it.")
    ],
    replicas: Annotated[
        str,
        typer.Argument(metavar="N|auto", help="Replicas; auto: as its file and demand say again."),
    ],
    *,
    state: StateDir,
    control: ControlOption = None,
    tls: TlsOption = None,
) -> None:
    """Hold a deployment at so many replicas, until it is told otherwise or the fleet stops.

    Examples:
        argosy scale smollm2-135m@this-machine 3

        argosy scale smollm2-135m@this-machine auto

    """
    if replicas != "auto" and not (replicas.isascii() and replicas.isdecimal()):
        refuse(f"{replicas} is no number of replicas. Write 0, 1, 2 ..., or auto")
    count = None if replicas == "auto" else int(replicas)
    request = Hold(deployment=deployment, replicas=count)
    typer.echo(ask(state, request, timeout_s=_TIMEOUT_S, control=far(control, tls)))
