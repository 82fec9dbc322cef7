"""Whether a replica has room on a pool, and what its actor asks Ray for.

Ray lets an actor for which there is no room wait for ever, so room is looked for first: on open
nodes, less what our own records take (Ray's account of what is free is late by up to a second).
"""

from time import sleep
from typing import Any

from argosy.launchers.port import LaunchError, NoCapacityError
from argosy.launchers.ray import cluster
from argosy.launchers.ray.cluster import Book, Node
from argosy.launchers.ray.protocol import Launch, Resources

_CPUS = 0.01  # an actor's own; what its replica needs of the processor is the deployment's matter
_THREADS = 16  # of an actor: each control plane keeps one waiting for news
_FREE_WITHIN_S = 1.5  # after something has ended, for Ray to know
_STEP_S = 0.05


class FullError(NoCapacityError):
    """All is taken, or Ray has not noticed yet that it is not."""


def find_room(launch: Launch, book: Book) -> None:
    """Raises LaunchError or NoCapacityError where there is none."""
    tries = round(_FREE_WITHIN_S / _STEP_S)
    for attempt in range(tries + 1):
        refusal = _refusal(launch, book)
        if refusal is None:
            return
        if attempt == tries or not isinstance(refusal, FullError):
            raise refusal
        sleep(_STEP_S)


def _refusal(launch: Launch, book: Book) -> LaunchError | None:
    asked = launch.resources
    cordons = book.cordons()
    pool = [node for node in cluster.nodes() if node.bears(asked.labels)]
    able = [node for node in pool if node.state == "up" and node.name not in cordons]
    if not able:
        there = sum(node.state in ("up", "draining") for node in pool)
        return NoCapacityError(
            f"{launch.name}: none of the {there} nodes of pool {launch.pool} "
            f"(labels {asked.labels}) is up and open"
        )
    if not launch.chips:
        return None
    most = max(node.chips(asked) for node in able)
    if most < launch.chips:
        return NoCapacityError(
            f"{launch.name} takes {launch.chips} x {asked.name} on one node, and the largest "
            f"of pool {launch.pool} has {most}; Ray places no replica on two nodes"
        )
    return _full(launch, book, able)


def _full(launch: Launch, book: Book, able: list[Node]) -> LaunchError | None:
    actors = cluster.unfinished_actors()
    waiting = 0
    ours: dict[str, int] = {}
    for record in book.records():
        actor = actors.get(record.actor or "")
        if actor is not None and actor.node is not None:
            ours[actor.node] = ours.get(actor.node, 0) + record.chips
        elif actor is not None and record.chips and record.pool == launch.pool:
            waiting += 1
    chips = launch.chips
    # Two accounts, as Ray's leaves out one that waits until it has given it a node: by our records
    # and those that wait, and by what Ray says is free, which knows of other users of the cluster.
    left = [node.chips(launch.resources) - ours.get(node.id, 0) for node in able]
    free = list(free_chips(able, launch.resources).values())
    if sum(each // chips for each in left) > waiting and any(each >= chips for each in free):
        return None
    return FullError(
        f"{launch.name} takes {chips} x {launch.resources.name}; free on the {len(able)} open "
        f"nodes of pool {launch.pool}: {left} by our records, {free} by Ray's; {waiting} wait"
    )


def free_chips(nodes: list[Node], resources: Resources) -> dict[str, int]:
    """By a node's id, as Ray knows it."""
    free = cluster.free_by_node()
    return {
        node.id: int(free[node.id].get(resources.name or "", 0.0) / resources.per_chip)
        for node in nodes
        if node.id in free
    }


def actor_options(launch: Launch, book: Book, namespace: str) -> dict[str, Any]:
    """For Ray's `options`. Nodes that are closed are left out by their ids."""
    asked = launch.resources
    selector = dict(asked.labels)
    cordons = book.cordons()
    closed = sorted(node.id for node in cluster.nodes() if node.name in cordons)
    if closed:
        selector["ray.io/node-id"] = f"!in({','.join(closed)})"
    units = launch.chips * asked.per_chip
    options: dict[str, Any] = {
        "name": launch.name,
        "namespace": namespace,
        "lifetime": "detached",
        "max_restarts": 0,  # the control plane decides, elsewhere perhaps
        "max_concurrency": _THREADS,
        "num_cpus": _CPUS,
        "label_selector": selector or None,
    }
    if units and asked.name == "GPU":
        options["num_gpus"] = units
    elif units:
        options["resources"] = {asked.name: units}
    if launch.is_spread:
        options["scheduling_strategy"] = "SPREAD"
    if launch.python is not None:
        options["runtime_env"] = {"py_executable": launch.python}
    return options
