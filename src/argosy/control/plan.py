"""What a fleet file asks for: its deployments, each with how one of its replicas is started.

All of it is worked out before anything starts; starting is left to the controller.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from argosy.engines import registry
from argosy.engines.port import NODE_HOST, THIS_MACHINE, Place
from argosy.fleet.catalogue import chip
from argosy.fleet.config import Deployment, Fleet, Pool
from argosy.fleet.launchers import EndpointLauncher, RayLauncher
from argosy.fleet.messages import ReplicaSpec

_GENERATION_DIGITS = 12


class DeploymentPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment as it is wanted."""

    spec: ReplicaSpec  # of each of its replicas, but for the name
    replicas: int
    names: str  # they are called so, with a number: "smollm2-135m" for "smollm2-135m-1"

    @property
    def name(self) -> str:
        """Of the deployment, `model@pool`."""
        return self.spec.deployment

    def named(self, name: str) -> ReplicaSpec:
        """The spec of its replica of that name."""
        return msgspec.structs.replace(self.spec, name=name)


def plan_deployments(
    fleet: Fleet,
    *,
    weights: Mapping[str, Path | None],
    threads: Mapping[str, int],
) -> tuple[DeploymentPlan, ...]:
    """All deployments of a checked fleet.

    `weights` go by model, `threads` by deployment; an endpoint needs neither.
    """
    return tuple(
        plan_deployment(
            fleet,
            deployment,
            weights=weights.get(deployment.model),
            threads=threads.get(deployment.name, 1),
        )
        for deployment in fleet.deployments
    )


def plan_deployment(
    fleet: Fleet, deployment: Deployment, *, weights: Path | None = None, threads: int = 1
) -> DeploymentPlan:
    """One deployment of a checked fleet."""
    is_only = sum(one.model == deployment.model for one in fleet.deployments) == 1
    return DeploymentPlan(
        spec=_spec(fleet, deployment, weights=weights, threads=threads),
        replicas=deployment.replicas,
        names=deployment.model if is_only else deployment.name,
    )


def _spec(
    fleet: Fleet, deployment: Deployment, *, weights: Path | None, threads: int
) -> ReplicaSpec:
    pool = fleet.pool(deployment.pool)
    engine = registry.adapter(deployment.engine)
    spec = ReplicaSpec(
        fleet=fleet.fleet,
        name="",
        deployment=deployment.name,
        model=deployment.model,
        pool=deployment.pool,
        engine=deployment.engine,
        layout=deployment.layout,
        chips=0 if pool.chip is None else deployment.layout.chips,
        command=engine.command(
            deployment.engine,
            model=fleet.model(deployment.model),
            weights=weights,
            threads=threads,
            place=_place(pool, deployment),
        ),
        url=pool.launcher.url if isinstance(pool.launcher, EndpointLauncher) else None,
        health_path=engine.health_path,
        generation="",
    )
    return msgspec.structs.replace(spec, generation=generation_of(spec))


def _place(pool: Pool, deployment: Deployment) -> Place:
    """On other machines a replica binds the address of its node, which is known there."""
    if not isinstance(pool.launcher, RayLauncher):
        return THIS_MACHINE
    maker = None if pool.chip is None else chip(pool.chip).maker
    return Place(host=NODE_HOST, chip=pool.chip, maker=maker, layout=deployment.layout)


def generation_of(spec: ReplicaSpec) -> str:
    """A hash of all that makes a replica what it is."""
    alike = msgspec.structs.replace(spec, name="", generation="")
    told = msgspec.json.encode(alike, order="deterministic")
    return hashlib.sha256(told).hexdigest()[:_GENERATION_DIGITS]
