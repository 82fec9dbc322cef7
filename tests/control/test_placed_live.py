"""The control loop with simulated replicas over HTTP in pools of four prices: where they go."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
from msgspec.structs import replace

from argosy.cli.pretending import PretendedPool
from argosy.control.autoscaling import Autoscaling
from argosy.control.controller import Controller
from argosy.control.plan import plan_deployments
from argosy.control.probe import HttpProber
from argosy.control.reconcile import Drains, Note, State
from argosy.control.reconcile import Settings as Patience
from argosy.control.scaling import LiveScaler, Signals
from argosy.fleet import load
from argosy.fleet.config import Fleet
from argosy.fleet.messages import ReplicaSpec
from argosy.launchers.port import NoCapacityError
from argosy.policies.autoscaling import Settings
from argosy.policies.capacity import Logged, replayed
from argosy.policies.lifecycle import Settings as Pace

TEXT = """
fleet: placed
pools:
  - {name: cheap, launcher: {kind: local}, region: gcp/europe-west4, start_s: 3,
     price_usd_per_chip_hour: 1.0}
  - {name: dear, launcher: {kind: local}, region: azure/westeurope, start_s: 3,
     price_usd_per_chip_hour: 2.0}
  - {name: dearest, launcher: {kind: local}, region: aws/eu-central-1, start_s: 3,
     price_usd_per_chip_hour: 4.0}
  - {name: abroad, launcher: {kind: local}, region: aws/us-east-1, start_s: 3,
     price_usd_per_chip_hour: 0.1}
models: [{name: chat}]
deployments:
  - {model: chat, pool: cheap, autoscale: {min: 1, max: 4}, engine: THIS}
  - {model: chat, pool: dear, autoscale: {min: 0, max: 4}, engine: THIS}
  - {model: chat, pool: dearest, autoscale: {min: 0, max: 4}, engine: THIS}
  - {model: chat, pool: abroad, autoscale: {min: 0, max: 4}, engine: THIS}
""".replace("THIS", "{kind: simulated, slots: 4, decode_tokens_per_s: 10}")
WAITING_EACH = 2  # requests that wait are about the work of a replica, in the time there is


def fleet() -> Fleet:
    """The file would be refused: chat is deployed where it must not be."""
    read = load.parse(TEXT, source="placed.yaml")
    return replace(read, models=(replace(read.models[0], residency=("eu",)),))


class SmallPool(PretendedPool):
    """Has room for so many."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.room = 99
        self._one_by_one = asyncio.Lock()

    async def start(self, spec: ReplicaSpec) -> None:
        async with self._one_by_one:
            there = [one for one in self._children.values() if not one.has_ended]
            if spec.name not in self._children and len(there) >= self.room:
                raise NoCapacityError("all is taken", retry_after_s=None)
            await super().start(spec)


class Notes:
    """The control plane's memory: of decisions alone."""

    def __init__(self) -> None:
        self.said: list[Note] = []

    def keep(self, state: State) -> None:
        pass

    def note(self, notes: Sequence[Note], *, now_s: float) -> None:
        self.said += notes


class Live:
    """One run."""

    def __init__(self, state: Path) -> None:
        self.fleet, self.notes, self.queued = fleet(), Notes(), 0
        self.pools = {pool.name: SmallPool(state) for pool in self.fleet.pools}
        self.controller = Controller(
            publish=lambda _: None, prober=HttpProber(), chance=Random(1), memory=self.notes,
            settings=Patience(pace=Pace(removal_interval_s=2.0)),
        )  # fmt: skip
        scaler = LiveScaler(self.fleet, settings=Settings(decision_s=1.0))
        self.autoscaling = Autoscaling(scaler, self.controller, self.hear, chance=Random(2))

    async def hear(self) -> list[Signals]:
        return [Signals(at_s=self.controller.now_s(), queued={"chat": self.queued}, source="a")]

    def ready(self) -> dict[str, int]:
        rows = self.controller.table.replicas
        return {
            pool: sum(one.state == "ready" for one in rows if one.pool == pool)
            for pool in self.pools
        }

    async def until(self, holds: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        async with asyncio.timeout(60):
            while not holds(self.ready()):
                await asyncio.sleep(0.05)
        return self.ready()

    def reasons(self, deployment: str) -> list[str]:
        return [
            one.reason for one in self.notes.said
            if one.kind == "scale" and one.subject == deployment
        ]  # fmt: skip


@asynccontextmanager
async def live(state: Path, **room: int) -> AsyncIterator[Live]:
    one = Live(state)
    for pool, count in room.items():
        one.pools[pool].room = count
    begin = plan_deployments(one.fleet, weights={}, threads={})
    begin = [replace(plan, replicas=int(plan.spec.pool == "cheap")) for plan in begin]
    await one.controller.start(begin, one.pools)
    try:
        await one.until(lambda ready: ready["cheap"] == 1)
        one.autoscaling.start(one.fleet)
        yield one
    finally:
        one.autoscaling.stop()
        await one.controller.stop(0.0)


def test_the_cheapest_grows_first_then_the_next_and_what_is_lost_moves(tmp_path: Path):
    async def story() -> None:
        async with live(tmp_path, cheap=2) as fleet_:
            fleet_.queued = 2 * WAITING_EACH
            await fleet_.until(lambda ready: ready["cheap"] == 2)
            assert fleet_.ready()["dear"] == 0
            fleet_.queued = 4 * WAITING_EACH
            ready = await fleet_.until(lambda ready: ready["dear"] >= 1)
            assert ready["cheap"] == 2
            assert any("after chat@cheap (has no room)" in one
                       for one in fleet_.reasons("chat@dear"))  # fmt: skip
            before = sum(fleet_.ready().values())
            await fleet_.pools["cheap"].lose()
            await fleet_.until(
                lambda ready: ready["cheap"] == 0 and ready["dear"] + ready["dearest"] >= before
            )
            assert not fleet_.pools["abroad"]._children  # nothing was ever started there
            same = [msgspec.json.decode(one.inputs, type=Logged)
                    for one in fleet_.notes.said if one.inputs is not None]  # fmt: skip
            assert any(one.placing is not None for one in same)
            for one in same:
                assert one.given is None or replayed(one) == one.decision

    asyncio.run(story())


def test_a_drained_pool_is_emptied_once_others_do_its_work_and_a_held_one_stays(tmp_path: Path):
    async def story() -> None:
        async with live(tmp_path) as fleet_:
            fleet_.queued = 2 * WAITING_EACH
            await fleet_.until(lambda ready: ready["cheap"] >= 2)
            fleet_.controller.hold("chat@dearest", 1)
            await fleet_.until(lambda ready: ready["dearest"] == 1)
            total = sum(fleet_.ready().values()) - 1
            fleet_.controller.drain(Drains(pools=frozenset({"cheap"})))
            least = 99

            def is_empty(ready: dict[str, int]) -> bool:
                nonlocal least
                least = min(least, sum(ready.values()))
                return ready["cheap"] == 0

            ready = await fleet_.until(is_empty)
            assert ready["dear"] >= 1
            assert ready["dearest"] == 1
            assert least >= total
            assert any("is drained" in one for one in fleet_.reasons("chat@cheap"))

    asyncio.run(story())
