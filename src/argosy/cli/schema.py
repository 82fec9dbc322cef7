"""`argosy schema`: the fleet file's JSON Schema, for editors; it is made in `fleet/load.py`."""

import msgspec
import typer

from argosy.fleet import load


def schema() -> None:
    """Print the JSON Schema of the fleet file, which editors use to complete and to check.

    Try:

        argosy schema

        argosy schema > fleet.schema.json
    """
    encoded = msgspec.json.encode(load.schema())
    typer.echo(msgspec.json.format(encoded, indent=2).decode("utf-8"))
