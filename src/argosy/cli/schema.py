"""`argosy schema`: a fleet or run file's JSON Schema, for editors; `fleet/load*.py` make it."""

from typing import Annotated

import msgspec
import typer

from argosy.fleet import load, load_runs


def schema(
    *,
    is_run: Annotated[
        bool, typer.Option("--run", help="Of the run file, which argosy train takes.")
    ] = False,
) -> None:
    """Print the JSON Schema of the fleet file, which editors use to complete and to check.

    Try:

        argosy schema

        argosy schema --run > run.schema.json
    """
    encoded = msgspec.json.encode(load_runs.schema() if is_run else load.schema())
    typer.echo(msgspec.json.format(encoded, indent=2).decode("utf-8"))
