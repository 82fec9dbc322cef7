"""The Ray launcher on a real cluster: a head and three raylets of three makers, on loopback."""

import asyncio
import importlib.util
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import httpx
import psutil
import pytest

from argosy.engines.port import NODE_HOST, Place
from argosy.engines.simulated import Simulated
from argosy.fleet.config import Model, SimulatedEngine
from argosy.fleet.launchers import RayLauncher
from argosy.fleet.messages import ObservedNode, ObservedReplica, ReplicaSpec
from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError
from argosy.launchers.ray.link import Link
from argosy.launchers.ray.pool import RayPool
from tests.launchers.conformance import LAWS, Bench, Law, name_of, replica, seen, until
from tests.launchers.ray_cluster import RayCluster, as_json, running_cluster, suspend

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]
FLEET = "bench"
Result = TypeVar("Result")
Run = Callable[[Awaitable[Result]], Result]


class RayBench(Bench):
    """One of the cluster's pools."""

    fleet = FLEET

    def __init__(self, cluster: RayCluster, link: Link, chip: str, maker: str, cloud: str) -> None:
        self._cluster = cluster
        self._of_chip = (chip, maker)
        self.cloud = cloud
        self.pool = f"{cloud}-{chip}".lower()
        self.link = link
        self._launcher = self._pool(link)
        self.chips_too_many = 99

    def launcher(self) -> RayPool:
        return self._launcher

    def another(self) -> RayPool:
        return self._pool(None)

    def served(self, name: str) -> ReplicaSpec:
        """One that answers real HTTP, by the simulated engine."""
        engine = SimulatedEngine()
        command = Simulated().command(
            engine, model=MODEL, weights=None, threads=1, place=Place(host=NODE_HOST)
        )
        return ReplicaSpec(
            fleet=FLEET,
            name=name,
            deployment="d",
            model=MODEL.name,
            pool=self.pool,
            engine=engine,
            command=command,
            health_path="/health",
            generation="g-served",
        )

    async def serve(self, name: str, *, chips: int = 0) -> ObservedReplica:
        """Start one that answers nothing, and wait until it says that it listens."""
        return await self.start(self.spec(name, "listens", chips=chips))

    async def start(self, spec: ReplicaSpec) -> ObservedReplica:
        """Start one, and wait until it listens."""
        name = spec.name
        await seen(self._launcher, self)
        await self._launcher.start(spec)
        found = await until(self._launcher, self, name, "listening")
        assert found is not None
        return found

    async def until_node(self, name: str, state: str) -> ObservedNode:
        """Wait until a node is in that state."""
        async with asyncio.timeout(self.settles_s):
            while True:
                nodes = {node.name: node for node in (await seen(self._launcher, self)).nodes}
                if name in nodes and nodes[name].state == state:
                    return nodes[name]
                await asyncio.sleep(0.05)

    def _pool(self, link: Link | None) -> RayPool:
        chip, maker = self._of_chip
        launcher = RayLauncher(address=self._cluster.address, labels={"cloud": self.cloud})
        return RayPool(launcher, fleet=FLEET, pool=self.pool, chip=chip, maker=maker, link=link)


def tell(what: str, since_s: float) -> None:
    """For docs/RAY.md: pytest --log-cli-level=INFO shows it."""
    LOG.info("%s %.2f s", what, time.monotonic() - since_s)


LOG = logging.getLogger(__name__)
MODEL = Model(name="m", weights=None)
NODES = {"gcp": "127.0.0.3", "aws": "127.0.0.4", "azure": "127.0.0.5"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with running_cluster() as cluster:
        start_node(cluster, "gcp")
        start_node(cluster, "aws")
        start_node(cluster, "azure")
        yield cluster


def start_node(cluster: RayCluster, cloud: str) -> None:
    resources = {
        "gcp": as_json(TPU=4),
        "aws": as_json(neuron_cores=16),
        "azure": "--num-gpus=2",
    }[cloud]
    labels = {"cloud": cloud, "region": {"gcp": "us-east5"}.get(cloud, "us-east-1")}
    if cloud == "azure":
        labels["ray.io/accelerator-type"] = "H100"  # Ray finds it out where there is a GPU
    cluster.start_node(cloud, NODES[cloud], resources=resources, labels=labels)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with asyncio.Runner() as loop:
        yield lambda doing: loop.run(asyncio.wait_for(doing, 100))


@pytest.fixture(scope="module")
def link(cluster: RayCluster, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    async def make() -> Link:
        return Link(cluster.address, fleet=FLEET, log=tmp_path_factory.mktemp("ray") / "log")

    link = run(make())
    yield link
    run(link.close())


@pytest.fixture(scope="module")
def gcp(cluster: RayCluster, link: Link, run: Run) -> RayBench:
    return ready(RayBench(cluster, link, "TPU-v6e", "Google", "gcp"), run)


@pytest.fixture(scope="module")
def aws(cluster: RayCluster, link: Link, run: Run) -> RayBench:
    return ready(RayBench(cluster, link, "Trainium2", "AWS", "aws"), run)


@pytest.fixture(scope="module")
def azure(cluster: RayCluster, link: Link, run: Run) -> RayBench:
    return ready(RayBench(cluster, link, "H100-SXM", "NVIDIA", "azure"), run)


def ready(bench: RayBench, run: Run) -> RayBench:
    bench.settles_s = 60
    run(bench.until_node(NODES[bench.cloud], "up"))
    bench.settles_s = Bench.settles_s
    return bench


@pytest.mark.parametrize("law", LAWS, ids=name_of)
def test_ray_conforms(law: Law, gcp: RayBench, run: Run) -> None:
    run(law(gcp))


def test_a_replica_gets_its_chips_of_each_maker(
    gcp: RayBench, aws: RayBench, azure: RayBench, run: Run
) -> None:
    async def test(bench: RayBench, variable: str, chips: int, units: int) -> None:
        name = f"{bench.pool}-1"
        found = await bench.serve(name, chips=chips)
        assert found.node == NODES[bench.cloud]
        assert found.pid is not None
        environment = psutil.Process(found.pid).environ()
        assert len(environment[variable].split(",")) == units
        assert not [key for key in environment if key.startswith("RAY_")]
        assert "OMP_NUM_THREADS" not in environment
        await bench.launcher().stop(name, grace_s=5)
        assert (await seen(bench.launcher(), bench)).replicas == ()

    async def tests() -> None:
        await asyncio.gather(
            test(gcp, "TPU_VISIBLE_CHIPS", 4, 4),
            test(aws, "NEURON_RT_VISIBLE_CORES", 2, 8),  # four cores a chip
            test(azure, "CUDA_VISIBLE_DEVICES", 1, 1),
        )

    run(tests())


def test_chips_that_are_taken_are_no_room_until_they_are_given_back(
    azure: RayBench, run: Run
) -> None:
    async def test() -> None:
        pool = azure.launcher()
        await asyncio.gather(*(azure.serve(f"full-{i}", chips=1) for i in range(2)))
        with pytest.raises(NoCapacityError, match="full-3 takes 1 x GPU"):
            await pool.start(azure.spec("full-3", "listens", chips=1))
        assert [each.name for each in (await pool.observe()).replicas] == ["full-0", "full-1"]
        await pool.stop("full-0", grace_s=5)
        await azure.serve("full-3", chips=1)  # at once, though Ray's own account is late
        await asyncio.gather(*(pool.stop(name, grace_s=5) for name in ("full-1", "full-3")))

    run(test())


def test_another_generation_is_refused_until_the_first_is_stopped(gcp: RayBench, run: Run) -> None:
    async def test() -> None:
        await seen(gcp.launcher(), gcp)
        await gcp.launcher().start(gcp.spec("roll-1", "listens"))
        with pytest.raises(LaunchError, match="roll-1 is there as generation g-listens"):
            await gcp.launcher().start(gcp.spec("roll-1", "tidy"))
        await gcp.launcher().stop("roll-1", grace_s=1)

    run(test())


def test_a_killed_actor_is_observed_and_takes_its_replica_along(gcp: RayBench, run: Run) -> None:
    async def test() -> None:
        found = await gcp.serve("shot-2", chips=4)
        assert found.pid is not None
        process = psutil.Process(found.pid)
        actor = process.parent()
        assert actor is not None
        at = time.monotonic()
        actor.kill()
        await gcp.launcher().changed()
        ended = await until(gcp.launcher(), gcp, "shot-2", "ended")
        tell("actor killed: observed after", at)
        assert ended is not None
        assert "worker process has died" in ended.detail
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        await gcp.launcher().stop("shot-2", grace_s=5)
        await gcp.serve("shot-2", chips=4)
        await gcp.launcher().stop("shot-2", grace_s=5)

    run(test())


def bridge_of(link: Link) -> psutil.Process:
    assert link._process is not None
    return psutil.Process(link._process.pid)


def test_a_killed_bridge_is_replaced_and_all_is_found_again(gcp: RayBench, run: Run) -> None:
    async def test() -> None:
        found = await gcp.serve("found-1")
        killed = bridge_of(gcp.link)
        killed.kill()
        at = time.monotonic()
        again = replica(await seen(gcp.launcher(), gcp), "found-1")
        tell("bridge killed: seen again after", at)
        assert again == found
        assert bridge_of(gcp.link).pid != killed.pid
        await gcp.launcher().stop("found-1", grace_s=5)

    run(test())


def test_a_bridge_that_hangs_is_replaced(gcp: RayBench, run: Run) -> None:
    async def test() -> None:
        found = await gcp.serve("hung-1")
        hung = bridge_of(gcp.link)
        suspend(hung)
        at = time.monotonic()
        with pytest.raises(PoolUnseenError, match=r"did not answer within 2\.0 s"):
            await gcp.launcher().observe()
        assert time.monotonic() - at < 4
        again = replica(await seen(gcp.launcher(), gcp), "hung-1")
        tell("bridge hung: seen again after", at)
        assert again == found
        assert not hung.is_running()
        await gcp.launcher().stop("hung-1", grace_s=5)

    run(test())


class Client:
    """Asks a replica again and again, from a thread."""

    def __init__(self, url: str) -> None:
        self.answers = 0
        self.failures: list[Exception] = []
        self._url = f"{url}/health"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=5) as http:
            while not self._stop.wait(0.05):
                try:
                    http.get(self._url).raise_for_status()
                    self.answers += 1
                except httpx.HTTPError as error:
                    self.failures.append(error)


def test_replicas_serve_on_without_a_head_and_are_adopted_when_it_returns(
    cluster: RayCluster, gcp: RayBench, aws: RayBench, run: Run
) -> None:
    async def test() -> None:
        found, ended = await asyncio.gather(
            gcp.start(gcp.served("head-1")), aws.serve("head-2", chips=1)
        )
        assert found.url is not None
        client = Client(found.url)
        try:
            cluster.kill("head")
            at = time.monotonic()
            with pytest.raises(PoolUnseenError):
                await gcp.launcher().observe()
            assert time.monotonic() - at < 4
            assert ended.pid is not None
            psutil.Process(ended.pid).kill()  # the cluster's end of it is told later
            await asyncio.sleep(6)
            with pytest.raises(PoolUnseenError):
                await gcp.launcher().start(gcp.spec("head-3", "listens"))
            cluster.start_head()
            back = time.monotonic()
            again = replica(await seen(gcp.launcher(), gcp), "head-1")
            tell("head back: seen again after", back)
            assert again == found
            late = await until(aws.launcher(), aws, "head-2", "ended")
            assert late is not None
            assert "SIGKILL" in late.detail
        finally:
            client.end()
        assert client.failures == []
        assert client.answers > 100
        await gcp.launcher().start(gcp.spec("head-3", "listens"))  # what was asked in vain
        await until(gcp.launcher(), gcp, "head-3", "listening")
        for name in ("head-1", "head-3"):
            await gcp.launcher().stop(name, grace_s=5)
        await aws.launcher().stop("head-2", grace_s=5)
        await gcp.until_node(NODES["gcp"], "up")

    run(test())


def test_a_killed_raylet_is_a_lost_node_and_its_replicas_have_ended(
    cluster: RayCluster, azure: RayBench, run: Run
) -> None:
    async def test() -> None:
        found = await azure.serve("node-3", chips=2)
        assert found.pid is not None
        process = psutil.Process(found.pid)
        at = time.monotonic()
        cluster.raylet("azure").kill()
        ended = await until(azure.launcher(), azure, "node-3", "ended")
        tell("raylet killed: observed after", at)
        assert ended is not None
        assert NODES["azure"] in ended.detail
        await azure.until_node(NODES["azure"], "lost")
        with pytest.raises(NoCapacityError, match="is up and open"):
            await azure.launcher().start(azure.spec("node-4", "listens", chips=2))
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.05)
        await azure.launcher().stop("node-3", grace_s=5)
        cluster.kill("azure")
        start_node(cluster, "azure")
        await azure.until_node(NODES["azure"], "up")
        await azure.serve("node-4", chips=2)
        await azure.launcher().stop("node-4", grace_s=5)

    run(test())


def test_a_node_that_hangs_is_lost_and_ends_its_replicas_when_it_wakes(
    cluster: RayCluster, aws: RayBench, run: Run
) -> None:
    async def test() -> None:
        found = await aws.serve("node-5", chips=4)
        assert found.pid is not None
        process, raylet = psutil.Process(found.pid), cluster.raylet("aws")
        suspend(raylet)
        at = time.monotonic()
        ended = await until(aws.launcher(), aws, "node-5", "ended")
        tell("node hangs: observed after", at)
        assert ended is not None
        assert NODES["aws"] in ended.detail
        await aws.until_node(NODES["aws"], "lost")
        raylet.resume()  # it learns that it was given up, and exits
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.05)
        tell("its replica has ended after", at)
        await aws.launcher().stop("node-5", grace_s=5)

    run(test())


def test_where_no_head_is_the_pool_is_unseen(run: Run) -> None:
    async def test() -> None:
        launcher = RayLauncher(address="127.0.0.1:1")
        pool = RayPool(launcher, fleet=FLEET, pool="p", chip=None, maker=None)
        with pytest.raises(PoolUnseenError, match=r"no Ray head answers at 127\.0\.0\.1:1"):
            await pool.observe()
        await pool.close(is_final=False)

    run(test())
