"""The Kubernetes launcher against an API over real sockets; see kubernetes_emulator.py."""

import asyncio
import time

import pytest

from argosy.fleet.launchers import KubernetesLauncher
from argosy.fleet.layout import Layout
from argosy.launchers.kubernetes.cell import Cell
from argosy.launchers.kubernetes.launch import KubernetesPool
from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError
from tests.launchers.kubernetes_emulator import Emulator, running, waiting
from tests.launchers.kubernetes_pools import PRODUCT, go, pool, replica, spec, until


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
