"""Finds the fleet that runs on a state folder, for the commands that talk to it."""

from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from argosy.fleet.messages import RunFile

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
        return run
    head = run.gateway_url.rpartition(":")[0]
    return msgspec.structs.replace(run, gateway_url=f"{head}:{port}")


def refuse(message: str) -> NoReturn:
    """Say why on stderr; exit with 1."""
    typer.echo(f"argosy: {message}", err=True)
    raise typer.Exit(1)
