"""The Kubernetes launcher against an API over real sockets; see kubernetes_emulator.py."""

import asyncio
import contextlib
import time
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable

import pytest
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User

from argosy.fleet.config import VllmEngine
from argosy.fleet.launchers import KubernetesLauncher
from argosy.fleet.layout import Layout
from argosy.fleet.messages import Observation, ObservedReplica, ReplicaSpec
from argosy.launchers.kubernetes.cell import Cell
from argosy.launchers.kubernetes.launch import KubernetesPool
from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError
from tests.launchers.kubernetes_emulator import Emulator, emulated, running, waiting

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


def test_a_replica_is_started_listens_and_is_stopped():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        await here.start(spec())
        found = await replica(here, "listening")
        assert found.name == "large-1"
        assert found.generation == "g1"
        assert found.node in ("n1", "n2")
        assert found.url is not None
        assert found.url.endswith(":8000")
        await here.stop("large-1", grace_s=5)
        assert (await here.observe()).replicas == ()
        assert emulator.pods() == []
        assert emulator.named("deployments") == []
        await here.close(is_final=False)

    go(test)


def test_a_replica_that_spans_nodes_is_spoken_to_at_its_leader():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        await here.start(spec(layout=Layout(tp=8, pp=2)))
        found = await replica(here, "listening")
        assert len(emulator.pods()) == 2
        leader = next(pod for pod in emulator.pods() if pod["metadata"]["rank"] == 0)
        assert found.url == f"http://{leader['status']['podIP']}:8000"
        assert found.node == leader["spec"]["nodeName"]
        await here.stop("large-1", grace_s=5)
        assert emulator.named("leaderworkersets") == []
        await here.close(is_final=False)

    go(test)


def test_what_is_there_is_left_alone_and_adopted_by_another_launcher():
    async def test(emulator: Emulator) -> None:
        first = pool(emulator)
        await first.start(spec())
        await replica(first, "listening")
        await first.close(is_final=False)
        second = pool(emulator)
        version = emulator.version
        await second.start(spec())
        assert emulator.version == version
        assert (await second.observe()).replicas[0].name == "large-1"
        await second.stop("large-1", grace_s=5)
        assert (await second.observe()).replicas == ()
        await second.close(is_final=False)

    go(test)


def test_another_generation_takes_the_place_of_the_one_before():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        await here.start(spec())
        before = await replica(here, "listening")
        await here.start(spec(generation="g2", layout=Layout(tp=2)))
        assert (await here.observe()).replicas[0].state == "starting"
        after = await replica(here, "listening")
        assert after.generation == "g2"
        assert after.url != before.url
        await here.start(spec(generation="g3", layout=Layout(tp=8, pp=2)))  # another kind
        await until(here, lambda seen: [one.generation for one in seen.replicas] == ["g3"])
        assert emulator.named("deployments") == []
        await here.close(is_final=False)

    go(test)


def test_stopping_what_is_not_there_is_fine():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        await here.stop("never-1", grace_s=30)
        emulator.has_groups = False  # no LeaderWorkerSet on this cluster
        await here.stop("never-1", grace_s=30)
        assert (await here.observe()).replicas == ()
        await here.close(is_final=False)

    go(test)


def test_a_stop_waits_for_the_engine_and_a_second_with_less_grace_hastens_it():
    async def test(emulator: Emulator) -> None:
        emulator.end_s = 60.0  # it ignores SIGTERM
        here = pool(emulator)
        await here.start(spec())
        await replica(here, "listening")
        patient = asyncio.create_task(here.stop("large-1", grace_s=30))
        await asyncio.sleep(0.3)
        assert not patient.done()
        assert emulator.pods()[0]["metadata"]["deletionGracePeriodSeconds"] == 30
        began = time.monotonic()
        await here.stop("large-1", grace_s=0.0)
        await patient
        assert 0.5 < time.monotonic() - began < 4.0  # a kubelet's least grace is a second
        assert emulator.pods() == []
        await here.close(is_final=False)

    go(test)


def test_a_replica_whose_node_is_lost_is_unreachable_and_can_be_forgotten():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        await here.start(spec())
        found = await replica(here, "listening")
        assert found.node is not None
        emulator.node(found.node, ready="Unknown")
        lost = await replica(here, "unreachable", found.node)
        assert lost.url == found.url
        nodes = {node.name: node for node in (await here.observe()).nodes}
        assert nodes[found.node].state == "lost"
        await here.stop("large-1", grace_s=0.1)
        assert (await here.observe()).replicas == ()
        await here.close(is_final=False)

    go(test)


@pytest.mark.parametrize(
    ("status", "state", "detail"),
    [
        ({"containerStatuses": [waiting("ImagePullBackOff", "no such tag")]}, "starting",
         "ImagePullBackOff: no such tag"),
        ({"containerStatuses": [waiting("CrashLoopBackOff", restarts=3,
          last={"exitCode": 137, "reason": "OOMKilled"})]}, "ended",
         "CrashLoopBackOff after 3 restarts: exited with status 137: OOMKilled"),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk", "containerStatuses": []},
         "ended", "pod: Failed: Evicted: disk"),
        ({"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
          "containerStatuses": [running(started=True)]}, "listening",
         "not ready: ContainersNotReady"),
        ({"containerStatuses": [running(started=True, restarts=2)],
          "conditions": [{"type": "Ready", "status": "True"}]}, "listening", "restarted 2 times"),
    ],
)  # fmt: skip
def test_what_a_pod_says_of_itself_is_told(status, state, detail):
    async def test(emulator: Emulator) -> None:
        emulator.pods_listen = False
        here = pool(emulator)
        await here.start(spec())
        await replica(here, "starting", "its engine loads")
        emulator.pods_quota = "no second pod"
        emulator.set_status(emulator.pods()[0], **status)
        found = (await here.observe()).replicas[0]
        assert (found.state, found.detail) == (state, detail)
        await here.close(is_final=False)

    go(test)


def test_a_pool_without_room_says_so_and_stays_starting():
    async def test(emulator: Emulator) -> None:
        for node in ("n1", "n2"):
            emulator.objects["nodes", "", node]["spec"]["unschedulable"] = True
        here = pool(emulator)
        await here.start(spec())
        found = await replica(here, "starting", "Unschedulable")
        assert "Insufficient nvidia.com/gpu" in found.detail
        assert found.url is None
        await here.close(is_final=False)

    go(test)


def test_quotas_are_told_at_once_or_when_the_pod_is_refused():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        words = 'deployments "x" is forbidden: exceeded quota: chips, requested: 1, limited: 0'
        emulator.refusals.append(("PATCH", "deployments", 403, words))
        with pytest.raises(NoCapacityError, match="exceeded quota") as refused:
            await here.start(spec())
        assert refused.value.retry_after_s is not None
        emulator.pods_quota = "exceeded quota: chips"
        await here.start(spec())
        await replica(here, "starting", "FailedCreate: exceeded quota: chips")
        emulator.pods_quota = None
        await replica(here, "listening")
        await here.close(is_final=False)

    go(test)


@pytest.mark.parametrize(
    ("status", "words", "error", "told"),
    [
        (403, "forbidden: User cannot patch", LaunchError, "docs/KUBERNETES.md"),
        (404, 'namespaces "argosy" not found', LaunchError, "Create namespace argosy"),
        (422, "spec.template: Invalid value", LaunchError, "Invalid value"),
        (429, "too many requests", PoolUnseenError, "too many requests"),
        (503, "etcd is not there", PoolUnseenError, "etcd"),
    ],
)
def test_a_refused_start_says_what_would_help(status, words, error, told):
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        emulator.refusals.append(("PATCH", "deployments", status, words))
        with pytest.raises(error, match=told):
            await here.start(spec())
        await here.start(spec())
        await replica(here, "listening")
        await here.close(is_final=False)

    go(test)


def test_a_conflict_is_tried_again():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        conflict = ("PATCH", "deployments", 409, "the object has been modified")
        emulator.refusals.extend([conflict, conflict])
        await here.start(spec())
        await replica(here, "listening")
        emulator.refusals.extend([conflict] * 3)
        with pytest.raises(NoCapacityError, match="changed by others"):
            await here.start(spec("large-2"))
        await here.close(is_final=False)

    go(test)


def test_a_start_while_the_one_before_still_ends_is_for_later():
    async def test(emulator: Emulator) -> None:
        emulator.end_s = 60.0
        here = pool(emulator)
        await here.start(spec())
        await replica(here, "listening")
        stopping = asyncio.create_task(here.stop("large-1", grace_s=2))
        await asyncio.sleep(0.2)
        with pytest.raises(NoCapacityError, match="still being ended"):
            await here.start(spec())
        await stopping
        await here.start(spec())
        await here.close(is_final=False)

    go(test)


def test_a_cluster_that_is_gone_is_unseen_and_comes_back_as_it_was():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        await here.start(spec())
        await replica(here, "listening")
        await emulator.end()
        for ask in (here.observe(), here.start(spec("b-1")), here.stop("large-1", grace_s=1),
                    here.cordon("n1", reason="x")):  # fmt: skip
            with pytest.raises(PoolUnseenError, match="on the current context"):
                await ask
        await emulator.begin()
        assert [one.name for one in (await here.observe()).replicas] == ["large-1"]
        await here.close(is_final=False)

    go(test)


def test_half_an_answer_is_none():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        for part in ("deployments", "pods", "nodes", "leaderworkersets"):
            for status in (401, 403, 429, 500):
                emulator.refusals.append(("GET", part, status, "no"))
                with pytest.raises(PoolUnseenError):
                    await here.observe()
                assert (await here.observe()).replicas == ()
        await here.close(is_final=False)

    go(test)


def test_a_context_that_no_kubeconfig_has_is_a_pool_unseen(tmp_path, monkeypatch):
    file = tmp_path / "config"
    file.write_text("clusters: []\ncontexts: []\nusers: []\n")
    monkeypatch.setenv("KUBECONFIG", str(file))
    launcher = KubernetesLauncher(context="nowhere", node_selector=PRODUCT)
    here = KubernetesPool(Cell(fleet="f", pool="p", launcher=launcher))
    with pytest.raises(PoolUnseenError, match="'nowhere' not found"):
        asyncio.run(here.observe())


KUBECONFIG = """\
clusters:
  - {{name: c, cluster: {{server: "http://127.0.0.1:{port}", insecure-skip-tls-verify: true}}}}
contexts:
  - {{name: here, context: {{cluster: c, user: plugin}}}}
  - {{name: broken, context: {{cluster: c, user: broken}}}}
users:
  - name: plugin
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1
        command: sh
        args:
          - -c
          - >-
            echo $KUBERNETES_EXEC_INFO | grep -qi credential.*client.authentication.k8s.io/v1.*false
            || exit 1; echo '{{"status": {{"token": "of-a-plugin"}}}}'
  - name: broken
    user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: "false", args: []}}}}
"""


def test_a_context_of_a_kubeconfig_logs_in_by_its_plugin(tmp_path, monkeypatch):
    async def test(emulator: Emulator) -> None:
        file = tmp_path / "config"
        file.write_text(KUBECONFIG.format(port=emulator.port))
        monkeypatch.setenv("KUBECONFIG", str(file))
        launcher = KubernetesLauncher(context="here", node_selector=PRODUCT)
        here = KubernetesPool(Cell(fleet="f", pool="p", launcher=launcher))
        assert len((await here.observe()).nodes) == 2
        assert set(emulator.tokens) == {"Bearer of-a-plugin"}
        await here.close(is_final=False)
        launcher = KubernetesLauncher(context="broken", node_selector=PRODUCT)
        broken = KubernetesPool(Cell(fleet="f", pool="p", launcher=launcher))
        with pytest.raises(PoolUnseenError, match="on broken"):
            await broken.observe()
        await broken.close(is_final=False)

    go(test)


def test_replicas_of_other_fleets_and_pools_are_not_touched():
    async def test(emulator: Emulator) -> None:
        ours, theirs = pool(emulator), pool(emulator, fleet="g")
        other = pool(emulator, name="q")
        await ours.start(spec())
        await theirs.start(spec(fleet="g"))
        await other.start(spec("large-2", pool="q"))
        emulator.put("deployments", {
            "metadata": {"name": "stranger"},
            "spec": {"template": {"metadata": {"labels": {}}, "spec": {"containers": []}}},
        }, "argosy")  # fmt: skip
        assert [one.name for one in (await ours.observe()).replicas] == ["large-1"]
        await ours.close(is_final=True)
        assert len((await theirs.observe()).replicas) == 1
        assert len((await other.observe()).replicas) == 1
        assert len(emulator.named("deployments")) == 3
        for one in (theirs, other):
            await one.close(is_final=False)

    go(test)


def test_nodes_are_those_of_the_pool_with_what_is_free_on_them():
    async def test(emulator: Emulator) -> None:
        emulator.node("elsewhere", **{"nvidia.com/gpu.product": "NVIDIA-L4"})
        here = pool(emulator)
        await here.start(spec())
        found = await replica(here, "listening")
        nodes = {node.name: node for node in (await here.observe()).nodes}
        assert set(nodes) == {"n1", "n2"}
        assert found.node is not None
        assert nodes.pop(found.node).chips_free == 4
        assert [(node.state, node.chips, node.chips_free) for node in nodes.values()] == [
            ("up", 8, 8)
        ]
        await here.close(is_final=False)

    go(test)


def test_a_cordoned_node_gets_nothing_new_until_it_is_uncordoned():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        await here.cordon("n1", reason="slow links")
        await here.cordon("n1", reason="again")
        node = emulator.objects["nodes", "", "n1"]
        assert node["metadata"]["annotations"]["argosy.dev/cordoned-why"] == "slow links"
        states = {node.name: node.state for node in (await here.observe()).nodes}
        assert states == {"n1": "draining", "n2": "up"}
        await here.start(spec())
        assert (await replica(here, "listening")).node == "n2"
        await here.uncordon("n1")
        await here.uncordon("n1")
        node = emulator.objects["nodes", "", "n1"]
        assert "unschedulable" not in node["spec"]
        assert "argosy.dev/cordoned-by" not in node["metadata"]["annotations"]
        await here.close(is_final=False)

    go(test)


def test_nodes_of_others_are_not_cordoned_and_their_cordons_stay(caplog):
    async def test(emulator: Emulator) -> None:
        emulator.node("elsewhere", **{"nvidia.com/gpu.product": "NVIDIA-L4"})
        here = pool(emulator)
        for name in ("elsewhere", "missing"):
            await here.cordon(name, reason="x")
            assert f"Node {name} is left alone: it is not of pool p" in caplog.text
        assert "unschedulable" not in emulator.objects["nodes", "", "elsewhere"]["spec"]
        emulator.objects["nodes", "", "n1"]["spec"]["unschedulable"] = True  # kubectl cordon
        await here.cordon("n1", reason="x")
        await here.uncordon("n1")
        assert emulator.objects["nodes", "", "n1"]["spec"]["unschedulable"] is True
        assert "Node n1 stays cordoned: somebody else did it" in caplog.text
        await here.close(is_final=False)

    go(test)


async def quiet(here: KubernetesPool) -> None:
    """Until nothing is told for a while."""
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(here.changed(), 0.15)


async def wakes(here: KubernetesPool, *, within_s: float = 3.0) -> None:
    await asyncio.wait_for(here.changed(), within_s)


def test_changes_wake_whoever_waits():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        await quiet(here)
        await here.start(spec())
        await wakes(here)
        await quiet(here)
        emulator.node("n1", ready="Unknown")
        await wakes(here)
        await quiet(here)
        theirs = pool(emulator, fleet="g")
        await theirs.start(spec(fleet="g"))
        await quiet(here)  # not ours
        for one in (here, theirs):
            await one.close(is_final=False)

    go(test)


@pytest.mark.parametrize("by_event", [False, True])
def test_watches_that_drop_or_expire_begin_again(by_event):
    async def test(emulator: Emulator) -> None:
        emulator.expires_by_event = by_event
        here = pool(emulator)
        await quiet(here)
        emulator.drop_watches()
        await asyncio.sleep(0.1)
        await here.start(spec())
        await wakes(here)
        await quiet(here)
        emulator.forget_history()
        await wakes(here)  # it lists again, and what was forgotten may be news
        await quiet(here)
        await here.stop("large-1", grace_s=1)
        await wakes(here)
        await here.close(is_final=False)

    go(test)


def test_a_watch_outlives_an_api_server_that_is_gone_for_a_while():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        await quiet(here)
        await emulator.end()
        await wakes(here)
        with pytest.raises(PoolUnseenError):
            await here.observe()
        await emulator.begin()
        await asyncio.sleep(0.5)
        await quiet(here)
        await here.start(spec())
        await wakes(here)
        await here.close(is_final=False)

    go(test)


def test_long_lists_come_in_parts():
    async def test(emulator: Emulator) -> None:
        here = pool(emulator)
        emulator.pods_quota = "none"  # objects alone
        for number in range(1100):
            emulator.put("deployments", {
                "metadata": {
                    "name": f"d{number}",
                    "labels": {"argosy.dev/fleet": "f", "argosy.dev/pool": "p"},
                    "annotations": {
                        "argosy.dev/fleet": "f", "argosy.dev/pool": "p",
                        "argosy.dev/replica": f"r-{number}", "argosy.dev/generation": "g",
                    },
                },
                "spec": {"selector": {}, "template": {}},
            }, "argosy")  # fmt: skip
        assert len((await here.observe()).replicas) == 1100
        await here.close(is_final=False)

    go(test)
