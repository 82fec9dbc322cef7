"""`argosy drain`: empty a pool, a node or a replica without a lost request."""

from typing import Annotated

import typer

from argosy.cli.operator_socket import Drain
from argosy.cli.running import ControlOption, TlsOption, ask, far
from argosy.cli.state import StateDir

_TIMEOUT_S = 10.0


def drain(
    name: Annotated[
        str, typer.Argument(metavar="POOL|NODE|REPLICA", help="As argosy status names it.")
    ],
    *,
    state: StateDir,
    control: ControlOption = None,
    tls: TlsOption = None,
    undo: Annotated[bool, typer.Option("--undo", help="Use it again.")] = False,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Though a model has nowhere else to go.")
    ] = False,
) -> None:
    """Empty a pool, a node or a replica: others are ready before it goes, and its streams end.

    Examples:
        argosy drain smollm2-135m-2

        argosy drain azure-h100

        argosy drain azure-h100 --undo

    """
    request = Drain(name=name, undo=undo, is_forced=is_forced)
    typer.echo(ask(state, request, timeout_s=_TIMEOUT_S, control=far(control, tls)))
