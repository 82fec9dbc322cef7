"""`argosy fetch`: the weights of a fleet's models, before it is started."""

from pathlib import Path

import typer

from argosy.cli.files import FleetFile, read_fleet
from argosy.engines.registry import adapter
from argosy.engines.weights import WeightsError, default_cache
from argosy.engines.weights import fetch as fetch_weights
from argosy.fleet.config import Fleet


def fetch(file: FleetFile = None) -> None:
    """Fetch the weights that a fleet's models need; `argosy up` does it too.

    Examples:
        argosy fetch

        argosy fetch examples/embedded.yaml

    """
    for model, path in local_weights(read_fleet(file)).items():
        typer.echo(f"{model}  {path}")


def local_weights(fleet: Fleet) -> dict[str, Path | None]:
    """Each model's weights as a local file, where its engine wants one. Exits with 1 on failure."""
    try:
        return weights_of(fleet)
    except WeightsError as error:
        typer.echo(f"argosy: {error}", err=True)
        raise typer.Exit(1) from error


def weights_of(fleet: Fleet) -> dict[str, Path | None]:
    """The same; raises WeightsError. Takes as long as fetching does."""
    wanted = {
        deployment.model
        for deployment in fleet.deployments
        if adapter(deployment.engine).needs_weights()
    }
    return {
        model.name: fetch_weights(model, cache=default_cache(), say=_say)
        for model in fleet.models
        if model.name in wanted
    }


def _say(line: str) -> None:
    typer.echo(line, err=True)
