"""What the Kubernetes launcher sees of a cluster: its nodes, and changes as they happen."""

import asyncio
import contextlib

import pytest

from argosy.launchers.kubernetes.launch import KubernetesPool
from argosy.launchers.port import PoolUnseenError
from tests.launchers.kubernetes_emulator import Emulator
from tests.launchers.kubernetes_pools import go, pool, replica, spec


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
