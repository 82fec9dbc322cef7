"""A replica as Kubernetes objects: pure, from its spec and its pool to plain dicts.

A replica that fits a node is a Deployment of one pod; one that spans nodes is a LeaderWorkerSet of
one group. With `devices: dra` a ResourceClaimTemplate goes before it. There is no Service: each
replica is one address of its own, its pod's, and the gateway balances. There is no liveness
probe either: whether a replica that hangs is to be ended, the control plane decides.
"""

from typing import Any

from argosy.fleet.messages import ReplicaSpec
from argosy.launchers.kubernetes import engines, names
from argosy.launchers.kubernetes.cell import Cell
from argosy.launchers.kubernetes.makers import (
    INSTANCE_LABEL,
    MAKERS,
    MakerNames,
    node_labels,
)
from argosy.launchers.port import LaunchError

Manifest = dict[str, Any]

# How long a pod may take to end where nobody says: a stop shortens it, nothing can lengthen it.
GRACE_S_MAX = 600
# Its address leaves the replica table before it stops listening, also when a node is drained by
# others: they wait for this, then send SIGTERM.
_PRESTOP_S = 5
_PROBE_S = 5
# Weights of hundreds of GB, and compilers that run for tens of minutes. The control plane gives up
# earlier; this only keeps the kubelet from restarting what still loads.
_START_S_MAX = 7200
_CLAIM = "chips"
_CONTAINER = "engine"


def manifests(spec: ReplicaSpec, cell: Cell) -> tuple[Manifest, ...]:
    """What makes up the replica, in the order in which it is to be applied. Raises LaunchError."""
    _check_place(spec, cell)
    nodes = _nodes(spec, cell)
    claim = _claim_template(spec, cell, chips=spec.chips // nodes)
    whole = _deployment(spec, cell) if nodes == 1 else _group(spec, cell, nodes=nodes)
    return (whole,) if claim is None else (claim, whole)


def pool_selector(cell: Cell) -> dict[str, str]:
    """Labels that all nodes of the pool bear; {}: they cannot be told from others."""
    maker = node_labels(
        cell.chip or "", chips_per_node=cell.chips_per_node, chips_of_slice=cell.chips_per_node
    )
    return {**_without_topology(maker), **cell.launcher.node_selector}


def _without_topology(labels: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if not key.endswith("-topology")}


def _check_place(spec: ReplicaSpec, cell: Cell) -> None:
    if not names.is_dns_label(cell.launcher.namespace):
        told = f'{spec.name}: "{cell.launcher.namespace}" is no name for a namespace.'
        raise LaunchError(f"{told} Use lower-case letters, digits and -, at most 63")
    if spec.chips and cell.maker not in MAKERS:
        told = f"{spec.name}: no device plugin and no driver of {cell.chip} for Kubernetes is known"
        works = f"Chips of {', '.join(MAKERS)} are; reach others as an endpoint pool"
        raise LaunchError(f"{told}. {works}")
    if cell.maker == "AWS" and INSTANCE_LABEL not in pool_selector(cell):
        told = f"{spec.name}: which instances have {cell.chips_per_node} x {cell.chip} is not known"
        works = f"Write launcher.node_selector of pool {cell.pool}, {INSTANCE_LABEL}, say"
        raise LaunchError(f"{told}. {works}")


def _nodes(spec: ReplicaSpec, cell: Cell) -> int:
    """Nodes of the replica. One that spans several takes them whole."""
    if spec.chips <= cell.chips_per_node:
        return 1
    nodes, rest = divmod(spec.chips, cell.chips_per_node)
    if rest:
        told = f"{spec.name}: takes {spec.chips} chips, not whole nodes of {cell.chips_per_node}."
        raise LaunchError(f"{told} Choose tp x pp x dp as a multiple, or at most one node's")
    return nodes


def _deployment(spec: ReplicaSpec, cell: Cell) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(spec, cell),
        "spec": {
            "replicas": 1,
            # The chips of the old pod are needed by the new one.
            "strategy": {"type": "Recreate"},
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": _own_labels(spec)},
            "template": _template(spec, cell, nodes=1, leads=True),
        },
    }


def _group(spec: ReplicaSpec, cell: Cell, *, nodes: int) -> Manifest:
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": _metadata(spec, cell),
        "spec": {
            "replicas": 1,
            "leaderWorkerTemplate": {
                "size": nodes,
                # Ranks that lost one of theirs cannot go on: all start again together.
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _template(spec, cell, nodes=nodes, leads=True),
                "workerTemplate": _template(spec, cell, nodes=nodes, leads=False),
            },
        },
    }


def _metadata(spec: ReplicaSpec, cell: Cell) -> Manifest:
    return {
        "name": names.object_name(spec.fleet, spec.name),
        "namespace": cell.launcher.namespace,
        "labels": _labels(spec),
        "annotations": _annotations(spec),
    }


def _labels(spec: ReplicaSpec) -> dict[str, str]:
    return {
        "app.kubernetes.io/managed-by": "argosy",  # Kubernetes, "Recommended labels"
        **_own_labels(spec),
        names.POOL: names.label_value(spec.pool),
    }


def _own_labels(spec: ReplicaSpec) -> dict[str, str]:
    """Labels that the pods of this replica alone bear."""
    return {
        names.FLEET: names.label_value(spec.fleet),
        names.REPLICA: names.label_value(spec.name),
    }


def _annotations(spec: ReplicaSpec) -> dict[str, str]:
    return {
        names.FLEET: spec.fleet,
        names.POOL: spec.pool,
        names.REPLICA: spec.name,
        names.DEPLOYMENT: spec.deployment,
        names.MODEL: spec.model,
        names.GENERATION: spec.generation,
    }


def _template(spec: ReplicaSpec, cell: Cell, *, nodes: int, leads: bool) -> Manifest:
    pod: Manifest = {
        "containers": [_container(spec, cell, nodes=nodes, leads=leads)],
        "terminationGracePeriodSeconds": GRACE_S_MAX,
        "enableServiceLinks": False,  # else every service's address becomes a variable
        "automountServiceAccountToken": False,  # engines have no business with the API
        "volumes": _volumes(spec, cell),
    }
    selector = _node_selector(spec, cell)
    if selector:
        pod["nodeSelector"] = selector
    tolerations = _tolerations(cell) if spec.chips else []
    if tolerations:
        pod["tolerations"] = tolerations
    if spec.chips and cell.launcher.devices == "dra":
        claim = _claim_name(spec, chips=spec.chips // nodes)
        pod["resourceClaims"] = [{"name": _CLAIM, "resourceClaimTemplateName": claim}]
    annotations = {names.REPLICA: spec.name, names.GENERATION: spec.generation}
    return {"metadata": {"labels": _labels(spec), "annotations": annotations}, "spec": pod}


def _container(spec: ReplicaSpec, cell: Cell, *, nodes: int, leads: bool) -> Manifest:
    container: Manifest = {
        "name": _CONTAINER,
        "image": engines.image(spec, cell),
        "command": engines.command(spec, cell, nodes=nodes, leads=leads),
        "volumeMounts": _mounts(spec, cell),
        # The last lines of its log say why it ended, where nothing else does.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": {"sleep": {"seconds": _PRESTOP_S}}},
    }
    if spec.command is not None:
        container["stdin"] = True  # a program of ours ends when its stdin does
        variables = sorted(spec.command.env.items())
        container["env"] = [{"name": name, "value": value} for name, value in variables]
    resources = _resources(cell, chips=spec.chips // nodes)
    if resources:
        container["resources"] = resources
    if leads:
        container["ports"] = [{"name": "http", "containerPort": cell.launcher.port}]
        container["startupProbe"] = _probe(spec, failures=_START_S_MAX // _PROBE_S)
        container["readinessProbe"] = _probe(spec, failures=3)
    return container


def _probe(spec: ReplicaSpec, *, failures: int) -> Manifest:
    return {
        "httpGet": {"path": spec.health_path, "port": "http"},
        "periodSeconds": _PROBE_S,
        "timeoutSeconds": _PROBE_S,
        "failureThreshold": failures,
    }


def _resources(cell: Cell, *, chips: int) -> Manifest:
    if not chips:
        return {}
    if cell.launcher.devices == "dra":
        return {"claims": [{"name": _CLAIM}]}
    # For extended resources the request is the limit.
    return {"limits": {_maker(cell).resource: str(chips)}}


def _claim_template(spec: ReplicaSpec, cell: Cell, *, chips: int) -> Manifest | None:
    if not chips or cell.launcher.devices != "dra":
        return None
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {**_metadata(spec, cell), "name": _claim_name(spec, chips=chips)},
        "spec": {
            "metadata": {"labels": _labels(spec)},
            "spec": {"devices": _devices(spec, cell, chips=chips)},
        },
    }


def _claim_name(spec: ReplicaSpec, *, chips: int) -> str:
    """One for each number of chips: a template cannot be changed once it is there."""
    return f"{names.object_name(spec.fleet, spec.name)}-{chips}"


def _devices(spec: ReplicaSpec, cell: Cell, *, chips: int) -> Manifest:
    maker = _maker(cell)
    exactly: Manifest = {"deviceClassName": maker.device_class, "allocationMode": maker.allocation}
    if maker.allocation == "ExactCount":
        exactly["count"] = chips
    elif chips != cell.chips_per_node:
        told = f"{spec.name}: {maker.device_class} gives out a node's {cell.chips_per_node} chips"
        works = f"together, not {chips}. Choose a layout of whole nodes, or devices: plugin"
        raise LaunchError(f"{told} {works}")
    devices: Manifest = {"requests": [{"name": _CLAIM, "exactly": exactly}]}
    if maker.group_attribute is not None:
        if chips not in maker.group_sizes:
            told = f"{spec.name}: {maker.device_class} joins {maker.group_sizes} chips, not {chips}"
            raise LaunchError(f"{told}. Choose a layout of that many chips")
        attribute = maker.group_attribute.format(chips=chips)
        devices["constraints"] = [{"requests": [_CLAIM], "matchAttribute": attribute}]
    return devices


def _maker(cell: Cell) -> MakerNames:
    assert cell.maker is not None  # _check_place has seen to it
    return MAKERS[cell.maker]


def _tolerations(cell: Cell) -> list[Manifest]:
    taints: list[Manifest] = [
        {"key": _maker(cell).resource, "operator": "Exists", "effect": "NoSchedule"}
    ]
    if (cell.region or "").startswith("azure/"):
        # AKS, "Best practices for advanced scheduler features": the taint of its GPU examples
        taints.append(
            {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
        )
    return taints


def _node_selector(spec: ReplicaSpec, cell: Cell) -> dict[str, str]:
    if not spec.chips:
        return dict(sorted(cell.launcher.node_selector.items()))
    maker = node_labels(
        cell.chip or "",
        chips_per_node=cell.chips_per_node,
        chips_of_slice=max(spec.chips, cell.chips_per_node),
    )
    return dict(sorted({**maker, **cell.launcher.node_selector}.items()))


def _volumes(spec: ReplicaSpec, cell: Cell) -> list[Manifest]:
    # Ranks of one node speak through shared memory, of which a container has 64 MiB otherwise.
    volumes: list[Manifest] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    path = cell.weights_path(spec.model)
    if path is not None:
        kind = "File" if path.endswith(".gguf") else "Directory"  # else it would be made, empty
        volumes.append({"name": "weights", "hostPath": {"path": path, "type": kind}})
    return volumes


def _mounts(spec: ReplicaSpec, cell: Cell) -> list[Manifest]:
    mounts: list[Manifest] = [{"name": "shm", "mountPath": "/dev/shm"}]
    path = cell.weights_path(spec.model)
    if path is not None:
        mounts.append({"name": "weights", "mountPath": path, "readOnly": True})
    return mounts
