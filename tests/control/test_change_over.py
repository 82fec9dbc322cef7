"""What a changed fleet file means for the replicas that run, with real processes."""

import asyncio
import random
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from argosy.control.change import Change, change
from argosy.control.controller import Controller
from argosy.control.plan import DeploymentPlan, generation_of
from argosy.control.probe import HttpProber
from argosy.control.reconcile import Drains, Settings
from argosy.fleet.config import SimulatedEngine
from argosy.fleet.messages import Command, ReplicaSpec
from argosy.launchers.local import LocalPool
from argosy.policies.health import HealthSettings
from argosy.policies.lifecycle import Settings as Pace

TINY = str(Path(__file__).with_name("tiny_replica.py"))
# Of those whose successors come up in one tick the second waits for the next interval.
PACE = Pace(removal_interval_s=1.0)
QUICK = HealthSettings(probe_interval_s=0.1, probe_interval_s_starting=0.05)


def plan(
    replicas: int = 1, *, model: str = "m", pool: str = "here", flags: tuple[str, ...] = ()
) -> DeploymentPlan:
    spec = ReplicaSpec(
        fleet="test",
        name="",
        deployment=f"{model}@{pool}",
        model=model,
        pool=pool,
        engine=SimulatedEngine(),
        command=Command(argv=(sys.executable, "-S", "-E", TINY, *flags), env={}),
        health_path="/health",
        generation="",
    )
    spec = replace(spec, generation=generation_of(spec))
    return DeploymentPlan(spec=spec, replicas=replicas, names=model if pool == "here" else pool)


class House:
    def __init__(self, folder: Path, *plans: DeploymentPlan) -> None:
        self.launchers = {"here": LocalPool(folder), "there": LocalPool(folder)}
        self.busy = {}
        self.fewest_ready = 99
        self.most_rows = 0
        self._plans = plans
        self.controller = Controller(
            publish=self._watch,
            prober=HttpProber(),
            chance=random.Random(1),
            settings=Settings(health=QUICK, pace=PACE, drain_s=5.0),
        )
        self._came_up = False

    async def start(self) -> None:
        async def in_flight(name: str) -> int:
            return self.busy.get(name, 0)

        await self.controller.start(self._plans, self.launchers, in_flight=in_flight)

    def _watch(self, table) -> None:
        ready = sum(row.state == "ready" for row in table.replicas)
        self._came_up |= ready == sum(one.replicas for one in self._plans)
        self.most_rows = max(self.most_rows, len(table.replicas))
        if self._came_up:
            self.fewest_ready = min(self.fewest_ready, ready)

    def want(self, *plans: DeploymentPlan) -> Change:
        changed = change(self.controller.records.values(), plans)
        self.controller.want(plans, launchers=self.launchers)
        return changed

    def states(self) -> dict[str, str]:
        return {row.name: row.state for row in self.controller.table.replicas}

    async def until(self, states: dict[str, str]) -> None:
        try:
            async with asyncio.timeout(10):
                while self.states() != states:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self.states()}, not {states}") from None


@pytest.fixture
def story(tmp_path):
    def run(tell, *plans):
        async def main():
            house = House(tmp_path, *plans)
            try:
                await house.start()
                async with asyncio.timeout(10):
                    await house.controller.all_ready()
                await tell(house)
            finally:
                await house.controller.stop(2.0)

        asyncio.run(main())

    return run


def test_what_is_wanted_as_it_is_stays(story):
    async def tell(house: House) -> None:
        pids = {row.name: row.pid for row in house.controller.table.replicas}
        assert house.want(plan(2)) == Change(kept=2)
        await asyncio.sleep(0.3)
        assert {row.name: row.pid for row in house.controller.table.replicas} == pids

    story(tell, plan(2))


def test_one_more_is_added_and_the_newest_goes_first(story):
    async def tell(house: House) -> None:
        assert house.want(plan(3)) == Change(kept=2, added=1)
        await house.until({"m-1": "ready", "m-2": "ready", "m-3": "ready"})
        assert house.want(plan(2)) == Change(kept=2, removed=1)
        await house.until({"m-1": "ready", "m-2": "ready"})

    story(tell, plan(2))


def test_a_changed_replica_goes_when_its_successor_is_ready(story):
    async def tell(house: House) -> None:
        assert house.want(plan(2, flags=("--loading", "0.3"))) == Change(succeeded=2)
        wanted = house.controller.wanted["m@here"].spec.generation
        async with asyncio.timeout(10):
            while {one.spec.generation for one in house.controller.records.values()} != {wanted}:
                await asyncio.sleep(0.02)
            await house.controller.all_ready()
        assert house.fewest_ready == 2, "the model had a replica less than wanted"
        assert house.most_rows == 3 + 1, "one more at most, and one that ends what it has"

    story(tell, plan(2))


def test_a_successor_that_never_comes_up_leaves_the_old_one_alone(story):
    async def tell(house: House) -> None:
        house.want(plan(flags=("--crash",)))
        await house.until({"m-1": "ready", "m-2": "dead"})
        await asyncio.sleep(0.5)
        assert house.states()["m-1"] == "ready"
        house.want(plan())  # the mistake is taken back
        await house.until({"m-1": "ready"})

    story(tell, plan())


def test_a_removed_replica_ends_what_it_has(story):
    async def tell(house: House) -> None:
        house.busy["m-2"] = 1
        house.want(plan(1))
        await house.until({"m-1": "ready", "m-2": "stopping"})
        await asyncio.sleep(0.4)
        assert house.states()["m-2"] == "stopping"
        house.busy.clear()
        await house.until({"m-1": "ready"})

    story(tell, plan(2))


def test_a_model_that_moves_to_another_pool_is_never_without_a_replica(story):
    async def tell(house: House) -> None:
        house.want(plan(2, pool="there", flags=("--loading", "0.3")))
        await house.until({"there-1": "ready", "there-2": "ready"})
        assert house.fewest_ready == 2

    story(tell, plan(2))


def test_a_drained_pool_is_empty_once_others_are_ready_and_comes_back_when_told(story):
    async def tell(house: House) -> None:
        house.controller.drain(Drains(pools=frozenset({"there"})))
        await house.until({"m-1": "ready"})
        house.controller.drain(Drains())
        await house.until({"m-1": "ready", "there-1": "ready"})

    story(tell, plan(1), plan(1, pool="there"))


def test_a_drained_replica_is_replaced_before_it_goes(story):
    async def tell(house: House) -> None:
        house.controller.drain(Drains(replicas=frozenset({"m-1"})))
        await house.until({"m-2": "ready"})
        assert house.fewest_ready == 1

    story(tell, plan(1))


def test_a_model_that_is_wanted_no_more_goes_at_once(story):
    async def tell(house: House) -> None:
        house.want(plan(model="n"))
        await house.until({"n-1": "ready"})

    story(tell, plan(4))


def test_a_fleet_may_be_stopped_in_the_middle_of_a_change(story):
    async def tell(house: House) -> None:
        house.busy["m-2"] = 1
        house.want(plan(1, flags=("--mute",)), plan(model="n"))
        await asyncio.sleep(0.05)

    story(tell, plan(2))
