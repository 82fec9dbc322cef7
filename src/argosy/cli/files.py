"""The fleet or run file of a command: read, or the embedded one; problems on stderr and exit 1."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from argosy.fleet import load, load_runs
from argosy.fleet.config import BatchingEngine, Fleet
from argosy.fleet.launchers import PlannedLauncher, RayLauncher
from argosy.fleet.runs import Run

if TYPE_CHECKING:
    from argosy.training.data.recipe import Recipe

FleetFile = Annotated[
    Path | None,
    typer.Argument(metavar="FLEET.YAML", help="The fleet file; without one, the embedded fleet."),
]


class UnreadableFleetError(Exception):
    """There is no fleet in that file; the message says why, line by line."""


def read_fleet(file: Path | None) -> Fleet:
    """The checked fleet. Exits with 1 where there is none."""
    try:
        return load_fleet(file)
    except UnreadableFleetError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def load_fleet(file: Path | None) -> Fleet:
    """The checked fleet. Raises UnreadableFleetError."""
    if file is None:
        return load.parse(load.embedded(), source="embedded.yaml")
    return parse_fleet(_text(file), source=str(file))


def first_key(file: Path) -> str | None:
    """Of the file: `run`, `corpus` or a fleet's. Exits with 1 where it cannot be read."""
    try:
        return load_runs.first_key(_text(file))
    except UnreadableFleetError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def read_run(file: Path) -> Run:
    """The checked run. Exits with 1 where there is none."""
    try:
        return _parse_run(file)
    except (UnreadableFleetError, load_runs.RunFileError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def read_recipe(file: Path) -> "Recipe":
    """The checked recipe of a dataset. Exits with 1 where there is none."""
    from argosy.training.data.recipe import RecipeError, parse

    try:
        return parse(_text(file), source=str(file))
    except (UnreadableFleetError, RecipeError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _parse_run(file: Path) -> Run:
    text = _text(file)
    if load_runs.first_key(text) == "fleet":
        told = f"{file}  describes a fleet, not a run. Start it: argosy up {file}"
        raise UnreadableFleetError(told)
    return load_runs.parse(text, source=str(file))


def _text(file: Path) -> str:
    """Raises UnreadableFleetError."""
    try:
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        told = f"{file}  cannot be read: {error.strerror}. Name a file that you can open."
        raise UnreadableFleetError(told) from error
    except UnicodeDecodeError as error:
        told = f"{file}  is not UTF-8 text (byte {error.start:,}). Save it as UTF-8."
        raise UnreadableFleetError(told) from error


def parse_fleet(text: str, *, source: str) -> Fleet:
    """The checked fleet of that text. Raises UnreadableFleetError."""
    try:
        return load.parse(text, source=source)
    except load.FleetFileError as error:
        raise UnreadableFleetError(str(error)) from error


def check_startable(fleet: Fleet) -> None:
    """Raises UnreadableFleetError where a pool is on paper only."""
    planned = [pool.name for pool in fleet.pools if isinstance(pool.launcher, PlannedLauncher)]
    if planned:
        raise UnreadableFleetError(
            f"fleet {fleet.fleet} cannot be started: nothing is started on planned pools "
            f"({', '.join(planned)}). Try it on paper: argosy simulate. To run it, give these "
            "pools launcher: {kind: local}, {kind: endpoint, url: ...}, ray, kubernetes or "
            "skypilot; or try it with simulated replicas: argosy up --pretend"
        )
    for one in fleet.deployments:
        if isinstance(fleet.pool(one.pool).launcher, RayLauncher) and isinstance(
            one.engine, BatchingEngine
        ):
            kind = one.engine.__struct_config__.tag
            raise UnreadableFleetError(
                f"fleet {fleet.fleet} cannot be started: nothing here starts {kind} on a Ray pool "
                f"({one.name}). Run it on a kubernetes pool, or by hand as an endpoint pool"
            )


def at_port(fleet: Fleet, port: int | None) -> Fleet:
    """The fleet with what `--port` says, which goes before its file."""
    return fleet if port is None else replace(fleet, gateway=replace(fleet.gateway, port=port))
