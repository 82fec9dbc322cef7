"""The launcher of a Kubernetes pool: replicas asked for, ended and looked at through its API.

It remembers nothing: what it started is found again by its labels, so another control plane may
take over. When to start or end one is the caller's.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Sequence

from lightkube.config.kubeconfig import SingleConfig
from lightkube.generic_resource import GenericNamespacedResource
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Node, Pod
from lightkube.resources.resource_v1 import ResourceClaimTemplate

from argosy.fleet.messages import Observation, ReplicaSpec
from argosy.launchers.kubernetes import names
from argosy.launchers.kubernetes.api import Api, LeaderWorkerSet, meta
from argosy.launchers.kubernetes.cell import Cell
from argosy.launchers.kubernetes.manifests import GRACE_S_MAX, manifests, pool_selector
from argosy.launchers.kubernetes.observing import Seen, generation_of, observation
from argosy.launchers.kubernetes.watching import Watching
from argosy.launchers.port import NoCapacityError, PoolUnseenError

logger = logging.getLogger(__name__)

# The deadline of one look: four lists, each of which may be slow.
_OBSERVE_S = 10.0
_POLL_S_MIN = 0.2
_POLL_S_MAX = 2.0
_FINAL_GRACE_S = 10.0


class KubernetesPool:
    """Replicas of one fleet on one pool of a cluster; `config` goes before the kubeconfig."""

    def __init__(self, cell: Cell, *, config: SingleConfig | None = None) -> None:
        self._cell = cell
        self._api = Api(cell.launcher, config=config)
        self._fleet_labels = {names.FLEET: names.label_value(cell.fleet)}
        self._labels = {**self._fleet_labels, names.POOL: names.label_value(cell.pool)}
        self._nodes = pool_selector(cell)
        self._watching = Watching(self._api, self._labels, self._nodes)

    async def start(self, spec: ReplicaSpec) -> None:
        wanted = manifests(spec, self._cell)
        name, kind = names.object_name(spec.fleet, spec.name), wanted[-1]["kind"]
        for there in await self._workloads(name):
            if meta(there).deletionTimestamp is not None:
                told = f"{spec.name}: one of that name is still being ended"
                raise NoCapacityError(told, retry_after_s=1.0)
            if there.kind != kind:  # its layout has come to span nodes, or no longer does
                await self._api.delete(type(there), name, is_foreground=True)
            elif generation_of(there) == spec.generation:
                return
        for (
            manifest
        ) in wanted:  # of another generation: Kubernetes ends the pod and makes a new one
            await self._api.apply(manifest)

    async def stop(self, name: str, *, grace_s: float) -> None:
        obj = names.object_name(self._cell.fleet, name)
        labels = {**self._fleet_labels, names.REPLICA: names.label_value(name)}
        loop = asyncio.get_running_loop()
        killed_at = loop.time() + grace_s
        pause_s = _POLL_S_MIN
        for kind in (Deployment, LeaderWorkerSet):
            await self._api.delete(kind, obj, is_foreground=True)
        while True:
            pods = await self._api.list(Pod, labels)
            if not pods and not await self._workloads(obj):
                break
            await self._hasten(pods, grace_s=grace_s, is_late=loop.time() > killed_at)
            await asyncio.sleep(pause_s)
            pause_s = min(_POLL_S_MAX, pause_s * 1.5)
        for claim in await self._api.list(ResourceClaimTemplate, labels):
            await self._api.delete(ResourceClaimTemplate, meta(claim).name or "")

    async def observe(self) -> Observation:
        try:
            async with asyncio.timeout(_OBSERVE_S):
                deployments, groups, pods, nodes = await asyncio.gather(
                    self._api.list(Deployment, self._labels),
                    self._api.list(LeaderWorkerSet, self._labels),
                    self._api.list(Pod, self._labels),
                    self._pool_nodes(),
                )
        except TimeoutError as error:
            told = f"pool {self._cell.pool}: the API server took more than {_OBSERVE_S:g} s"
            raise PoolUnseenError(told) from error
        return observation(
            Seen(workloads=[*deployments, *groups], pods=pods, nodes=nodes), self._cell
        )

    async def changed(self) -> None:
        await self._watching.changed()

    async def cordon(self, node: str, *, reason: str) -> None:
        found = await self._own_node(node)
        if found is None or (found.spec is not None and found.spec.unschedulable):
            return  # by us before, or by others, who then say when it may be used again
        why = {names.CORDONED_BY: self._cell.fleet, names.CORDONED_WHY: reason}
        patch = {"metadata": {"annotations": why}, "spec": {"unschedulable": True}}
        await self._api.patch_node(node, patch)

    async def uncordon(self, node: str) -> None:
        found = await self._own_node(node)
        if found is None or found.spec is None or not found.spec.unschedulable:
            return
        by = (meta(found).annotations or {}).get(names.CORDONED_BY)
        if by != self._cell.fleet:
            told = "Node %s stays cordoned: %s did it, not fleet %s. It is theirs to undo"
            logger.warning(told, node, by or "somebody else", self._cell.fleet)
            return
        why = {names.CORDONED_BY: None, names.CORDONED_WHY: None}
        patch = {"metadata": {"annotations": why}, "spec": {"unschedulable": None}}
        await self._api.patch_node(node, patch)

    async def close(self, *, is_final: bool) -> None:
        await self._watching.close()
        if is_final:
            with contextlib.suppress(PoolUnseenError):  # what cannot be seen cannot be ended
                there = (await self.observe()).replicas
                ends = (self.stop(one.name, grace_s=_FINAL_GRACE_S) for one in there)
                await asyncio.gather(*ends)
        await self._api.close()

    async def _workloads(self, name: str) -> list[Deployment | GenericNamespacedResource]:
        found = await asyncio.gather(
            self._api.get(Deployment, name), self._api.get(LeaderWorkerSet, name)
        )
        return [one for one in found if one is not None]

    async def _hasten(self, pods: Sequence[Pod], *, grace_s: float, is_late: bool) -> None:
        """Have pods end within the grace: a Deployment's deletion gives them their own, longer.

        Not before it has reached them: one that is deleted earlier may be made anew. Grace 0 would
        forget a pod that may still run, so that is done only where its node is lost and nobody
        can tell: the kubelet ends it when the node comes back.
        """
        grace = min(GRACE_S_MAX, max(1, math.ceil(grace_s)))
        lost = await self._lost_nodes() if is_late else set[str]()
        for pod in pods:
            about, node = meta(pod), pod.spec.nodeName if pod.spec else None
            is_ending = about.deletionTimestamp is not None
            if node in lost:
                await self._api.delete(Pod, about.name or "", grace_s=0)
            elif (is_ending and (about.deletionGracePeriodSeconds or 0) > grace) or (
                is_late and not is_ending
            ):
                await self._api.delete(Pod, about.name or "", grace_s=grace)

    async def _lost_nodes(self) -> set[str]:
        nodes = observation(
            Seen(workloads=[], pods=[], nodes=await self._pool_nodes()), self._cell
        ).nodes
        return {node.name for node in nodes if node.state == "lost"}

    async def _pool_nodes(self) -> list[Node]:
        """[] where nothing tells them from others: then this pool knows no nodes."""
        return await self._api.list(Node, self._nodes) if self._nodes else []

    async def _own_node(self, name: str) -> Node | None:
        """None for one that is not the pool's: others may run there."""
        found = await self._api.get(Node, name)
        labels = {} if found is None else meta(found).labels or {}
        is_own = self._nodes and all(labels.get(key) == value for key, value in self._nodes.items())
        if found is None or not is_own:
            told = "Node %s is left alone: it is not of pool %s, whose nodes bear %s"
            bear = names.selector(self._nodes) or "no label of their own"
            logger.warning(told, name, self._cell.pool, bear)
            return None
        return found
