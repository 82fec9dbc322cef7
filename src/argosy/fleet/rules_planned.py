"""Rules of what is planned rather than started: chips, dimensions of models, nodes, demand.

As `rules.py`: each rule may trust the types, and gives its findings as a path and the rest of the
sentence.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeAlias

from argosy.fleet.architectures import architectures
from argosy.fleet.catalogue import chips
from argosy.fleet.config import Deployment, Fleet, Pool
from argosy.fleet.demand import HOURS, Autoscale
from argosy.fleet.document import Path, did_you_mean
from argosy.fleet.launchers import EndpointLauncher, PlannedLauncher
from argosy.fleet.layout import Layout
from argosy.fleet.rules_launched import is_launched

_P95_OVER_MEAN_MAX = 3.86  # exp(z^2 / 2), z = 1.645

_Finding: TypeAlias = tuple[Path, str]


def is_planned(pool: Pool) -> bool:
    """Whether the pool is on paper: nothing is started on it."""
    return isinstance(pool.launcher, PlannedLauncher)


def _is_endpoint(fleet: Fleet, name: str) -> bool:
    """A pool of that name, which another rule may find missing, that is a URL."""
    launchers = [pool.launcher for pool in fleet.pools if pool.name == name]
    return any(isinstance(one, EndpointLauncher) for one in launchers)


def _near(asked: str, names: list[str]) -> str:
    near = difflib.get_close_matches(asked, names, n=1, cutoff=0.4)
    return f' Did you mean "{near[0]}"?' if near else ""


def _unknown_chips(fleet: Fleet) -> Iterator[_Finding]:
    for index, pool in enumerate(fleet.pools):
        if pool.chip is None:
            continue
        names = [chip.name for chip in chips()]
        if pool.chip not in names:
            told = f'= "{pool.chip}" is not in the catalogue ({len(names)} chips).'
            works = f"{_near(pool.chip, names)} List them: argosy catalogue"
            yield ("pools", index, "chip"), told + works


def _planned_pools_without_chips(fleet: Fleet) -> Iterator[_Finding]:
    for index, pool in enumerate(fleet.pools):
        if not is_planned(pool):
            continue
        if pool.chip is None:
            yield ("pools", index), "is planned and lacks a chip. Write chip: H100-SXM, say."
        if pool.region is None:
            told = "is planned and lacks a region. Write region: aws/us-east-1, say."
            yield ("pools", index), told
        if pool.nodes.min > pool.nodes.max:
            told = f"= {pool.nodes.min} is more than max = {pool.nodes.max}. Lower one of them."
            yield ("pools", index, "nodes", "min"), told


def _models_without_dimensions(fleet: Fleet) -> Iterator[_Finding]:
    planned = {deployment.model for deployment in _planned(fleet)}
    names = [known.name for known in architectures()] if planned else []
    for index, model in enumerate(fleet.models):
        if model.name not in planned:
            continue
        if model.architecture is None:
            told = "is deployed on a planned pool and lacks an architecture."
            yield ("models", index), f"{told} List them: argosy catalogue --models"
        elif model.architecture not in names:
            told = f'= "{model.architecture}" is not in the catalogue ({len(names)} models).'
            works = f"{_near(model.architecture, names)} List them: argosy catalogue --models"
            yield ("models", index, "architecture"), told + works


def _planned(fleet: Fleet) -> list[Deployment]:
    pools = {pool.name for pool in fleet.pools if is_planned(pool)}
    return [deployment for deployment in fleet.deployments if deployment.pool in pools]


def _on_chips(fleet: Fleet) -> list[Deployment]:
    """Deployments whose replicas take chips that the pool's nodes must have."""
    pools = {pool.name for pool in fleet.pools if is_planned(pool) or is_launched(pool)}
    return [deployment for deployment in fleet.deployments if deployment.pool in pools]


def _unused_layouts(fleet: Fleet) -> Iterator[_Finding]:
    chosen = {deployment.name for deployment in _on_chips(fleet)}
    for index, deployment in enumerate(fleet.deployments):
        if deployment.name not in chosen and deployment.layout != Layout():
            told = "has no effect: only replicas on planned, ray, kubernetes and skypilot pools are"
            told = f"{told} given a layout. Remove it."
            yield ("deployments", index, "layout"), told


def _full_pools(fleet: Fleet) -> Iterator[_Finding]:
    wanted: Counter[str] = Counter()
    pools = {pool.name: pool for pool in fleet.pools}
    for deployment in _on_chips(fleet):
        if pools[deployment.pool].chip is None:  # its replicas run on processors
            continue
        replicas = deployment.autoscale.max or deployment.replicas
        wanted[deployment.pool] += replicas * deployment.layout.chips
    for index, pool in enumerate(fleet.pools):
        there = pool.nodes.max * pool.nodes.chips_per_node
        if wanted[pool.name] > there:
            told = f"= {pool.nodes.max} holds {there} chips; its deployments want"
            works = f"{wanted[pool.name]}. Raise it, or deploy fewer replicas."
            yield ("pools", index, "nodes", "max"), f"{told} {works}"


def _odd_autoscale(fleet: Fleet) -> Iterator[_Finding]:
    for index, deployment in enumerate(fleet.deployments):
        bounds, at = deployment.autoscale, ("deployments", index, "autoscale")
        if bounds == Autoscale():
            continue
        if _is_endpoint(fleet, deployment.pool):
            told = "has no effect: what answers at an endpoint is not ours to start."
            yield at, f"{told} Remove it."
        if bounds.max is None:
            yield at, "lacks a max, so that it has no effect. Write max: the most replicas."
        elif bounds.min > bounds.max:
            told = f"= {bounds.min} is more than max = {bounds.max}. Lower one of them."
            yield (*at, "min"), told
        elif not bounds.min <= deployment.replicas <= bounds.max:
            told = f"= {deployment.replicas} is not within autoscale, {bounds.min} to {bounds.max}."
            yield ("deployments", index, "replicas"), f"{told} It is where scaling begins."


def _odd_demand(fleet: Fleet) -> Iterator[_Finding]:
    models = [model.name for model in fleet.models]
    tenants = {tenant.name: tenant for tenant in fleet.tenants}
    for index, demand in enumerate(fleet.demand):
        if demand.model not in models:
            told = f'= "{demand.model}" is not a model of this fleet.'
            yield ("demand", index, "model"), told + did_you_mean(demand.model, "model", models)
        if demand.hourly and len(demand.hourly) != HOURS:
            told = f"has {len(demand.hourly)} factors; a day has {HOURS} hours. Write {HOURS}."
            yield ("demand", index, "hourly"), told
        elif demand.hourly and not any(demand.hourly):
            told = "are all 0: no request ever comes. Remove the demand, or write factors."
            yield ("demand", index, "hourly"), told
        if demand.tenant is not None and demand.tenant not in tenants:
            told = f'= "{demand.tenant}" is not a tenant of this fleet.'
            works = did_you_mean(demand.tenant, "tenant", list(tenants))
            yield ("demand", index, "tenant"), told + works
        elif demand.tenant is not None and tenants[demand.tenant].tier != demand.tier:
            told = f"= {demand.tier}, but {demand.tenant} is of the {tenants[demand.tenant].tier}"
            yield ("demand", index, "tier"), f"{told} tier. Make them the same."
        for noun, lengths in (("prompt", demand.prompt_tokens), ("output", demand.output_tokens)):
            if lengths.p95 is not None and lengths.p95 < lengths.mean:
                told = f"= {lengths.p95:g} is less than the mean, {lengths.mean:g}. Raise it."
                yield ("demand", index, f"{noun}_tokens", "p95"), told
            elif lengths.p95 is not None and lengths.p95 > _P95_OVER_MEAN_MAX * lengths.mean:
                told = f"= {lengths.p95:g} is {lengths.p95 / lengths.mean:.1f} times the mean; no"
                works = f"log-normal has more than {_P95_OVER_MEAN_MAX}. Lower it, or split these."
                yield ("demand", index, f"{noun}_tokens", "p95"), f"{told} {works}"


def _odd_links(fleet: Fleet) -> Iterator[_Finding]:
    for index, link in enumerate(fleet.links):
        if len(link.between) != 2 or len(set(link.between)) != 2:
            told = f"names {len(set(link.between))} regions. Name two different ones."
            yield ("links", index, "between"), told


PLANNED_RULES: tuple[Callable[[Fleet], Iterator[_Finding]], ...] = (
    _unknown_chips,
    _planned_pools_without_chips,
    _models_without_dimensions,
    _unused_layouts,
    _full_pools,
    _odd_autoscale,
    _odd_demand,
    _odd_links,
)
