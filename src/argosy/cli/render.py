"""`argosy render`: what a fleet's Kubernetes pools would be asked for, as YAML; asks nothing.

Owns the choice of deployments and the print; what the objects are is decided in
`launchers/kubernetes/manifests.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from argosy.cli.files import read_fleet
from argosy.cli.running import refuse
from argosy.fleet.config import Deployment, Fleet
from argosy.fleet.launchers import KubernetesLauncher

if TYPE_CHECKING:
    from argosy.fleet.messages import ReplicaSpec
    from argosy.launchers.kubernetes.manifests import Manifest

_LINE_LENGTH_MAX = 100


def render(
    file: Annotated[Path, typer.Argument(metavar="FLEET.YAML", help="The fleet file.")],
    *,
    deployment: Annotated[
        str | None, typer.Option(metavar="MODEL@POOL", help="Only this deployment.")
    ] = None,
    pool: Annotated[str | None, typer.Option(metavar="NAME", help="Only this pool.")] = None,
) -> None:
    """Print the Kubernetes objects of a fleet's replicas as YAML; no cluster is asked.

    Try:

      argosy render examples/kubernetes.yaml --deployment small@gcp-v6e

      argosy render examples/kubernetes.yaml --pool azure-h100 | kubectl diff -f -
    """
    fleet = read_fleet(file)
    chosen = _chosen(fleet, deployment=deployment, pool=pool)
    from argosy.launchers.port import LaunchError

    try:
        found = [manifest for one in chosen for manifest in _manifests(fleet, one)]
    except LaunchError as error:
        refuse(str(error))
    typer.echo(_yaml(found), nl=False)


def _chosen(fleet: Fleet, *, deployment: str | None, pool: str | None) -> list[Deployment]:
    """Exits with 1 where there is none."""
    there = [
        one
        for one in fleet.deployments
        if isinstance(fleet.pool(one.pool).launcher, KubernetesLauncher)
    ]
    if not there:
        refuse(f"fleet {fleet.fleet} has no deployment on a kubernetes pool: nothing to render.")
    asked = [
        one
        for one in there
        if (deployment is None or one.name == deployment) and (pool is None or one.pool == pool)
    ]
    if not asked:
        names = ", ".join(one.name for one in there)
        wanted = " and ".join(filter(None, [deployment, pool and f"pool {pool}"]))
        refuse(f"{wanted} is no deployment on a kubernetes pool. There are: {names}")
    return asked


def _manifests(fleet: Fleet, deployment: Deployment) -> "Iterator[Manifest]":
    from argosy.launchers.kubernetes.cell import cell_of
    from argosy.launchers.kubernetes.manifests import manifests

    cell = cell_of(fleet, fleet.pool(deployment.pool))
    for spec in _specs(fleet, deployment):
        yield from manifests(spec, cell)


def _specs(fleet: Fleet, deployment: Deployment) -> "Iterator[ReplicaSpec]":
    """Of its replicas, as the control plane starts them."""
    from argosy.control.plan import plan_deployment

    plan = plan_deployment(fleet, deployment)
    for number in range(1, plan.replicas + 1):
        yield plan.named(f"{plan.names}-{number}")


def _yaml(found: "list[Manifest]") -> str:
    import yaml

    return yaml.safe_dump_all(
        found, sort_keys=False, explicit_start=True, width=_LINE_LENGTH_MAX, allow_unicode=True
    )
