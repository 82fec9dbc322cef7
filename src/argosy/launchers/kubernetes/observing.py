"""What the API server's objects say of replicas and nodes: pure.

A replica is seen by its object, Deployment or LeaderWorkerSet, and by the state of its pods; by the
node where a pod is lost. What a pod says best is told first: a replica moves when a node is
drained by others, and then has two pods for a while.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec
from lightkube.generic_resource import GenericNamespacedResource
from lightkube.models.core_v1 import (
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    PodStatus,
)
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Node, Pod

from argosy.fleet.messages import Observation, ObservedNode, ObservedReplica
from argosy.launchers.kubernetes import names
from argosy.launchers.kubernetes.api import meta
from argosy.launchers.kubernetes.cell import Cell
from argosy.launchers.kubernetes.makers import MAKERS

Workload: TypeAlias = Deployment | GenericNamespacedResource
_State: TypeAlias = Literal["starting", "listening", "ended", "unreachable"]
_DETAIL_LENGTH_MAX = 500


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """All that was listed, at about one moment."""

    workloads: Sequence[Workload]
    pods: Sequence[Pod]
    nodes: Sequence[Node]


def observation(seen: Seen, cell: Cell) -> Observation:
    """What the port asks for."""
    lost = {meta(node).name or "" for node in seen.nodes if _is_lost(node)}
    of_replica: dict[str | None, list[Pod]] = defaultdict(list)
    on_node: dict[str | None, list[Pod]] = defaultdict(list)
    for pod in seen.pods:
        of_replica[_annotation(pod, names.REPLICA)].append(pod)
        on_node[pod.spec.nodeName if pod.spec else None].append(pod)
    replicas = [
        _replica(workload, of_replica[_annotation(workload, names.REPLICA)], lost=lost, cell=cell)
        for workload in seen.workloads
        if _annotation(workload, names.FLEET) == cell.fleet
        and _annotation(workload, names.POOL) == cell.pool
    ]
    nodes = [_node(node, on_node[meta(node).name], cell) for node in seen.nodes]
    return Observation(
        replicas=tuple(sorted(replicas, key=lambda replica: replica.name)),
        nodes=tuple(sorted(nodes, key=lambda node: node.name)),
    )


def generation_of(found: Workload | Pod) -> str:
    """The generation that it was made for; "" where it does not say."""
    return _annotation(found, names.GENERATION) or ""


def _replica(
    workload: Workload, pods: Iterable[Pod], *, lost: set[str], cell: Cell
) -> ObservedReplica:
    name, generation = _annotation(workload, names.REPLICA) or "", generation_of(workload)
    current = _current([pod for pod in pods if generation_of(pod) == generation])
    if not current:
        return ObservedReplica(
            name=name, generation=generation, state="starting", detail=_without_pods(workload)
        )
    leader = min(current, key=_rank)
    states = [_pod_state(pod, lost) for pod in sorted(current, key=_rank)]
    state, detail = _together(states)
    return ObservedReplica(
        name=name,
        generation=generation,
        state=state,
        url=_url(leader, cell) if state in ("listening", "unreachable") else None,
        node=leader.spec.nodeName if leader.spec else None,
        detail=detail[:_DETAIL_LENGTH_MAX],
    )


def _current(pods: Sequence[Pod]) -> list[Pod]:
    """One pod for each rank: of several the one that stays, then the youngest."""
    best: dict[int, Pod] = {}
    for pod in sorted(pods, key=_staying):
        best[_rank(pod)] = pod
    return list(best.values())


def _staying(pod: Pod) -> tuple[bool, bool, str]:
    has_failed = pod.status is not None and pod.status.phase in ("Failed", "Succeeded")
    made = meta(pod).creationTimestamp
    return not has_failed, meta(pod).deletionTimestamp is None, str(made or "")


def _rank(pod: Pod) -> int:
    """0 for the pod that is spoken to."""
    return int((meta(pod).labels or {}).get(names.WORKER_INDEX, "0"))


def _together(states: Sequence[tuple[_State, str]]) -> tuple[_State, str]:
    """All pods of one replica: it is as well as the worst of them, its leader first."""
    for worst in ("unreachable", "ended", "starting"):
        for state, detail in states:
            if state == worst:
                return state, detail
    return states[0]


def _pod_state(pod: Pod, lost: set[str]) -> tuple[_State, str]:
    status = pod.status or PodStatus()
    node = pod.spec.nodeName if pod.spec else None
    if node is not None and node in lost:
        return "unreachable", f"node {node} is not ready"
    if status.phase in ("Failed", "Succeeded"):
        return "ended", _words("pod", status.phase, status.reason, status.message) + _exit(status)
    for container in status.containerStatuses or []:
        ended = _ending(container)
        if ended is not None:
            return "ended", ended
    if _is_started(pod, status):
        return "listening", _listening_detail(pod, status)
    return "starting", _waits_for(status)


def _ending(container: ContainerStatus) -> str | None:
    """How the engine ended, where the kubelet pauses before it starts it again."""
    state = container.state or ContainerState()
    if state.waiting is not None and state.waiting.reason == "CrashLoopBackOff":
        told = f"CrashLoopBackOff after {container.restartCount} restarts"
        last = (container.lastState or ContainerState()).terminated
        return told if last is None else f"{told}: {_terminated(last)}"
    return None if state.terminated is None else _terminated(state.terminated)


def _terminated(state: ContainerStateTerminated) -> str:
    """How, why, and the last that it wrote (the manifests' terminationMessagePolicy)."""
    reason = None if state.reason in ("Error", "Completed") else state.reason
    return _words(f"exited with status {state.exitCode}", reason, state.message)


def _is_started(pod: Pod, status: PodStatus) -> bool:
    """Whether the engine has answered its start-up probe; a helper rank: whether it runs.

    Not whether it is ready now: one that has answered is the control plane's to judge.
    """
    containers = status.containerStatuses or []
    if status.phase != "Running" or not containers or status.podIP is None:
        return False
    return all(container.started for container in containers)


def _listening_detail(pod: Pod, status: PodStatus) -> str:
    if meta(pod).deletionTimestamp is not None:
        return "its pod is being ended"
    ready = next((one for one in status.conditions or [] if one.type == "Ready"), None)
    if ready is not None and ready.status != "True":
        return f"not ready: {_words(ready.reason, ready.message)}"
    restarts = sum(container.restartCount for container in status.containerStatuses or [])
    return f"restarted {restarts} times" if restarts else ""


def _waits_for(status: PodStatus) -> str:
    """Unschedulable, ImagePullBackOff, …: the first thing that is in its way."""
    for condition in status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return _words(condition.reason, condition.message)
    for container in [*(status.initContainerStatuses or []), *(status.containerStatuses or [])]:
        waiting = (container.state or ContainerState()).waiting
        if waiting is not None:
            return _words(waiting.reason, waiting.message)
    if status.phase == "Running":
        return "its engine loads"
    return "its pod is not yet placed on a node" if status.conditions is None else "its pod starts"


def _without_pods(workload: Workload) -> str:
    """Why there is no pod, in words of the controller: a quota, say."""
    if meta(workload).deletionTimestamp is not None:
        return "is being deleted"
    conditions = (
        workload.status.conditions if isinstance(workload, Deployment) and workload.status else []
    )
    for condition in conditions or []:
        if condition.type == "ReplicaFailure" and condition.status == "True":
            return _words(condition.reason, condition.message)[:_DETAIL_LENGTH_MAX]
    return "its pod is not yet made"


def _url(pod: Pod, cell: Cell) -> str | None:
    address = pod.status.podIP if pod.status else None
    if address is None:
        return None
    host = f"[{address}]" if ":" in address else address  # IPv6
    return f"http://{host}:{cell.launcher.port}"


def _exit(status: PodStatus) -> str:
    for container in status.containerStatuses or []:
        terminated = (container.state or ContainerState()).terminated
        if terminated is not None:
            return f", {_terminated(terminated)}"
    return ""


def _node(node: Node, pods: Iterable[Pod], cell: Cell) -> ObservedNode:
    name = meta(node).name or ""
    is_cordoned = bool(node.spec and node.spec.unschedulable)
    chips = _chips(node, cell)
    state = "lost" if _is_lost(node) else "draining" if is_cordoned else "up"
    return ObservedNode(
        name=name, state=state, chips=chips, chips_free=_chips_free(chips, pods, cell)
    )


def _chips(node: Node, cell: Cell) -> int:
    """That the device plugin offers; with DRA no node says, so what the fleet file says."""
    if cell.maker not in MAKERS:
        return 0
    if cell.launcher.devices == "dra":
        return cell.chips_per_node
    allocatable = node.status.allocatable if node.status else None
    return int((allocatable or {}).get(MAKERS[cell.maker].resource, "0"))


def _chips_free(chips: int, pods: Iterable[Pod], cell: Cell) -> int | None:
    """Less what this pool's own pods on the node take: pods of others are not looked at."""
    if cell.maker not in MAKERS or cell.launcher.devices == "dra":
        return None
    taken = 0
    for pod in pods:
        if pod.spec is None or _has_ended(pod):
            continue
        for container in pod.spec.containers:
            limits = container.resources.limits if container.resources else None
            taken += int((limits or {}).get(MAKERS[cell.maker].resource, "0"))
    return max(0, chips - taken)


def _has_ended(pod: Pod) -> bool:
    return pod.status is not None and pod.status.phase in ("Failed", "Succeeded")


def _is_lost(node: Node) -> bool:
    """Not ready for as long as Kubernetes waits before it says so: 40 to 50 s by default."""
    conditions = (node.status.conditions if node.status else None) or []
    return not any(one.type == "Ready" and one.status == "True" for one in conditions)


def _annotation(found: Workload | Pod, key: str) -> str | None:
    return (meta(found).annotations or {}).get(key)


def _words(*words: str | None) -> str:
    return ": ".join(word.strip() for word in words if word)
