"""Ray nodes on machines of their own, as far as addresses go: see `machines.py`."""

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from argosy.engines.port import NODE_HOST, Place
from argosy.engines.simulated import Simulated
from argosy.fleet.config import Model, SimulatedEngine
from argosy.fleet.launchers import RayLauncher
from argosy.fleet.messages import ReplicaSpec
from argosy.launchers.ray.pool import RayPool
from tests.launchers.conformance import Bench, seen, until
from tests.launchers.machines import Machines, can_be_had
from tests.launchers.ray_cluster import RayCluster, as_json, running_cluster

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.skipif(not can_be_had(), reason="no network namespaces: root and iproute2"),
]
NODES = ("one", "two")


class MachineBench(Bench):
    """A pool of two machines."""

    settles_s = 60.0


@pytest.fixture
def machines() -> Iterator[Machines]:
    machines = Machines(NODES)
    yield machines
    machines.close()


@pytest.fixture
def cluster(machines: Machines) -> Iterator[RayCluster]:
    with running_cluster(host=machines.address) as cluster:
        for name in NODES:
            cluster.start_node(
                name,
                machines.address_of(name),
                resources=as_json(TPU=1),
                labels={"pool": "p"},
                on=machines.on(name),
            )
        yield cluster


def spec(name: str) -> ReplicaSpec:
    engine = SimulatedEngine()
    command = Simulated().command(
        engine, model=Model(name="m"), weights=None, threads=1, place=Place(host=NODE_HOST)
    )
    return ReplicaSpec(
        fleet="machines", name=name, deployment="m@p", model="m", pool="p", engine=engine,
        chips=1, command=command, health_path="/health", generation="g",
    )  # fmt: skip


def listens(on: tuple[str, ...], host: str, port: str) -> bool:
    """Whether something does there, asked on that machine."""
    program = f"import socket; socket.create_connection(({host!r}, {port}), 2)"
    asked = (*on, sys.executable, "-I", "-S", "-c", program)
    return subprocess.run(asked, stderr=subprocess.DEVNULL, check=False).returncode == 0


def test_replicas_of_two_machines_are_reached_and_one_that_is_cut_off_is_lost(
    machines: Machines, cluster: RayCluster
):
    bench = MachineBench()

    async def test() -> None:
        launcher = RayLauncher(address=cluster.address, labels={"pool": "p"})
        pool = RayPool(launcher, fleet="machines", pool="p", chip="TPU-v6e", maker="Google")
        async with asyncio.timeout(bench.settles_s):
            while len((await seen(pool, bench)).nodes) < len(NODES):
                await asyncio.sleep(0.2)
        for name in ("r-1", "r-2"):
            await pool.start(spec(name))
        found = [await until(pool, bench, name, "listening") for name in ("r-1", "r-2")]
        at = {machines.address_of(name): name for name in NODES}
        assert {one.node for one in found if one is not None} == set(at)
        for one in found:
            assert one is not None
            assert one.node is not None
            assert one.url is not None
            assert one.url.startswith(f"http://{one.node}:")
            assert httpx.get(f"{one.url}/health", trust_env=False).status_code == 200
            port = one.url.rpartition(":")[2]
            assert listens(machines.on(at[one.node]), one.node, port)
            assert not listens(machines.on(at[one.node]), "127.0.0.1", port)
        first, second = found
        assert first is not None
        assert first.node is not None
        assert second is not None
        machines.cut(at[first.node])
        ended = await until(pool, bench, "r-1", "ended")
        assert ended is not None
        assert first.node in ended.detail
        left = {node.name: node.state for node in (await seen(pool, bench)).nodes}
        assert left == {first.node: "lost", second.node: "up"}
        assert httpx.get(f"{second.url}/health", trust_env=False).status_code == 200
        await pool.stop("r-1", grace_s=5)
        await pool.stop("r-2", grace_s=5)
        await pool.close(is_final=False)

    asyncio.run(asyncio.wait_for(test(), 110))
