"""Pools of the Kubernetes launcher on an emulated cluster, and what is started on them."""

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable

from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User

from argosy.fleet.config import VllmEngine
from argosy.fleet.launchers import KubernetesLauncher
from argosy.fleet.layout import Layout
from argosy.fleet.messages import Observation, ObservedReplica, ReplicaSpec
from argosy.launchers.kubernetes.cell import Cell
from argosy.launchers.kubernetes.launch import KubernetesPool
from tests.launchers.kubernetes_emulator import Emulator, emulated

PRODUCT = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
Test = Callable[[Emulator], Awaitable[None]]


def go(test: Test, loop: Callable[[], AbstractEventLoop] = asyncio.new_event_loop) -> None:
    async def whole() -> None:
        async with emulated() as emulator:
            emulator.node("n1", **PRODUCT)
            emulator.node("n2", **PRODUCT)
            await test(emulator)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(whole(), 20))


def config(emulator: Emulator) -> SingleConfig:
    url = f"http://127.0.0.1:{emulator.port}"
    found = KubeConfig.from_one(cluster=Cluster(server=url, insecure=True), user=User()).get()
    assert found is not None
    return found


def pool(emulator: Emulator, *, fleet: str = "f", name: str = "p", **kw) -> KubernetesPool:
    launcher = KubernetesLauncher(node_selector=PRODUCT, **kw)
    cell = Cell(
        fleet=fleet, pool=name, launcher=launcher, chip="H100-SXM", maker="NVIDIA",
        chips_per_node=8, region="own/here",
    )  # fmt: skip
    return KubernetesPool(cell, config=config(emulator))


def spec(name: str = "large-1", *, fleet: str = "f", generation: str = "g1", **kw) -> ReplicaSpec:
    layout = kw.pop("layout", Layout(tp=4))
    return ReplicaSpec(
        fleet=fleet, name=name, deployment="large@p", model="large", pool=kw.pop("pool", "p"),
        engine=VllmEngine(), layout=layout, chips=layout.chips, command=None,
        health_path="/health", generation=generation,
    )  # fmt: skip


async def until(pool: KubernetesPool, is_so: Callable[[Observation], bool]) -> Observation:
    while not is_so(seen := await pool.observe()):
        await asyncio.sleep(0.02)
    return seen


async def replica(pool: KubernetesPool, state: str, detail: str = "") -> ObservedReplica:
    def is_so(seen: Observation) -> bool:
        return bool(seen.replicas) and (
            seen.replicas[0].state == state and detail in seen.replicas[0].detail
        )

    return (await until(pool, is_so)).replicas[0]
