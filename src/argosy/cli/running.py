"""Finds the fleet that runs on a state folder, for the commands that talk to it."""

from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from argosy.cli.operator_socket import Asked, ask_operator
from argosy.fleet.messages import RunFile

# psutil adds the time since boot to a boot time that moves when the clock is set.
_CREATE_TIME_TOLERANCE_S = 2.0

PortOption = Annotated[
    int | None,
    typer.Option(
        "--port", min=1, max=65535, help="The gateway's port, where it is not the state folder's."
    ),
]


def running_fleet(state: Path, port: int | None) -> RunFile:
    """The run on that state folder; `port` overrides the gateway's. Exits with 1 without one."""
    try:
        run = msgspec.json.decode((state / "run.json").read_bytes(), type=RunFile)
    except FileNotFoundError:
        refuse(f"no fleet runs on {state}. Start one: argosy up, or name its folder: --state DIR")
    except (OSError, msgspec.DecodeError) as error:
        refuse(f"{state / 'run.json'} cannot be read: {error}")
    if port is None:
        _check_alive(run, state)
        return run
    head = run.gateway_url.rpartition(":")[0]
    return msgspec.structs.replace(run, gateway_url=f"{head}:{port}")


def _check_alive(run: RunFile, state: Path) -> None:
    """A run that was killed leaves its file behind, and its pid to strangers."""
    import psutil

    try:
        created_at_s = psutil.Process(run.pid).create_time()
        if abs(created_at_s - run.started_at_s) <= _CREATE_TIME_TOLERANCE_S:
            return
    except psutil.NoSuchProcess:
        pass
    refuse(
        f"no fleet runs on {state}: its last one (pid {run.pid}) was killed. "
        "Start one: argosy up, or name its folder: --state DIR"
    )


def ask(state: Path, request: Asked, *, timeout_s: float) -> str:
    """What the run on that folder says to it. Exits with 1 where it does not, or refuses."""
    run = running_fleet(state, None)
    try:
        reply = ask_operator(state, request, timeout_s=timeout_s)
    except (OSError, msgspec.DecodeError) as error:
        refuse(f"the fleet on {state} (pid {run.pid}) does not answer: {error}")
    if not reply.done:
        refuse(f"nothing has changed: {reply.said}")
    return reply.said


def refuse(message: str) -> NoReturn:
    """Say why on stderr; exit with 1."""
    typer.echo(f"argosy: {message}", err=True)
    raise typer.Exit(1)
