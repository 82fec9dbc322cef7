"""The fleet file of a command: read, or the embedded one; problems on stderr and exit 1."""

from pathlib import Path
from typing import Annotated

import typer

from argosy.fleet import load
from argosy.fleet.config import Fleet

FleetFile = Annotated[
    Path | None,
    typer.Argument(metavar="FLEET.YAML", help="The fleet file; without one, the embedded fleet."),
]


def read_fleet(file: Path | None) -> Fleet:
    """The checked fleet. Exits with 1 where there is none."""
    if file is None:
        return load.parse(load.embedded(), source="embedded.yaml")
    try:
        return load.parse(file.read_bytes().decode("utf-8"), source=str(file))
    except load.FleetFileError as error:
        refusal = str(error)
    except OSError as error:
        refusal = f"{file}  cannot be read: {error.strerror}. Name a file that you can open."
    except UnicodeDecodeError as error:
        refusal = f"{file}  is not UTF-8 text (byte {error.start:,}). Save it as UTF-8."
    typer.echo(refusal, err=True)
    raise typer.Exit(1)
