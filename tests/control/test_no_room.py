"""Where there is no room: a full pool is no fault of a replica, and a drained node is closed."""

import asyncio
import random
from itertools import pairwise

from argosy.control.controller import Controller
from argosy.control.lives import next_moment
from argosy.control.probe import HttpProber
from argosy.control.reconcile import Drains
from argosy.control.records import Record, SeenReplica, StartFailure, first_record
from argosy.fleet.config import SimulatedEngine
from argosy.fleet.messages import Observation, ObservedNode, ObservedReplica, ReplicaSpec
from argosy.launchers.port import PoolUnseenError
from argosy.policies.health import HealthSettings

SPEC = ReplicaSpec(
    fleet="f", name="m-1", deployment="m@here", model="m", pool="here", engine=SimulatedEngine(),
    command=None, health_path="/health", generation="g",
)  # fmt: skip
NO_ROOM = StartFailure(reason="all is taken", is_capacity=True)


def tried(record: Record, now_s: float, seen: SeenReplica) -> Record:
    new = next_moment(record, seen, now_s=now_s, settings=HealthSettings(), chance=random.Random(1))
    assert new is not None
    return new


def test_a_replica_that_found_no_room_for_long_starts_at_once_after_its_first_fault():
    record, now_s, tries = first_record(SPEC, now_s=0.0, reason=""), 0.0, []
    while now_s < 1_800.0:
        record = tried(record, now_s, SeenReplica(observed_at_s=now_s))  # it is asked for
        tries.append(now_s)
        record = tried(record, now_s, SeenReplica(observed_at_s=now_s, failure=NO_ROOM))
        record = tried(record, now_s, SeenReplica(is_stopped=True))
        now_s = record.not_before_s
    assert tries[1] < 5.0, "room that comes soon is found soon"
    assert max(b - a for a, b in pairwise(tries)) < 40.0
    assert len(tries) < 120, "one that comes late is not asked for all the time"
    assert record.crash_loop is None
    assert record.row.restarts == 0, "it was never there"
    record = tried(record, now_s, SeenReplica(is_accepted=True, observed_at_s=now_s))
    ended = ObservedReplica(name="m-1", generation="g", state="ended", detail="killed")
    record = tried(record, now_s + 1, SeenReplica(observed=ended, observed_at_s=now_s + 1))
    assert record.not_before_s < now_s + 2
    record = tried(record, now_s + 2, SeenReplica(is_stopped=True, observed_at_s=now_s + 2))
    again_s = record.not_before_s
    record = tried(record, again_s, SeenReplica(observed_at_s=again_s))
    assert record.row.restarts == 1, "it was there, and died"


class Nodes:
    """A pool of two nodes without replicas, out of sight when told."""

    def __init__(self) -> None:
        self.cordoned: dict[str, str] = {}
        self.is_unseen = False

    async def observe(self) -> Observation:
        if self.is_unseen:
            raise PoolUnseenError("away")
        nodes = tuple(ObservedNode(name=name, state="up") for name in ("n1", "n2"))
        return Observation(replicas=(), nodes=nodes)

    async def changed(self) -> None:
        await asyncio.sleep(0.05)

    async def cordon(self, node: str, *, reason: str) -> None:
        self.cordoned[node] = reason

    async def uncordon(self, node: str) -> None:
        self.cordoned.pop(node, None)

    async def close(self, *, is_final: bool) -> None:
        pass


def test_a_drained_node_is_closed_until_it_is_used_again():
    async def story() -> None:
        pool = Nodes()
        controller = Controller(
            publish=lambda _: None, prober=HttpProber(), chance=random.Random(1)
        )
        await controller.start([], {"here": pool})
        try:
            await _until(lambda: len(list(controller.watcher.nodes())) == 2)
            controller.drain(Drains(nodes=frozenset({"n2"})))
            await _until(lambda: pool.cordoned == {"n2": "it is drained"})
            pool.is_unseen = True
            await _until(lambda: controller.watcher.unseen() == {"here"})
            await asyncio.sleep(0.2)
            assert pool.cordoned.keys() == {"n2"}, "not opened because it cannot be seen"
            pool.is_unseen = False
            controller.drain(Drains())
            await _until(lambda: not pool.cordoned)
        finally:
            await controller.stop(0.0)

    asyncio.run(story())


async def _until(holds) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)
