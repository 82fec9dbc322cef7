"""What a changed fleet file means for the replicas that run."""

import asyncio
import random
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from argosy.control.plan import ReplicaPlan
from argosy.control.probe import HttpProber
from argosy.control.replan import change
from argosy.control.supervisor import Supervisor
from argosy.fleet.config import SimulatedEngine
from argosy.fleet.messages import Command, Replica
from argosy.launchers.local import LocalProcesses
from argosy.policies.health import HealthSettings

TINY = str(Path(__file__).with_name("tiny_replica.py"))
QUICK = HealthSettings(probe_interval_s=0.1, probe_interval_s_starting=0.05)


def plan(
    name: str, *, slots: int = 8, model: str = "m", flags: tuple[str, ...] = ()
) -> ReplicaPlan:
    row = Replica(
        name=name,
        deployment=f"{model}@here",
        model=model,
        pool="here",
        engine=SimulatedEngine(slots=slots),
        state="starting",
    )
    command = Command(argv=(sys.executable, "-S", "-E", TINY, *flags), env={})
    return ReplicaPlan(replica=row, command=command, health_path="/health")


def names(plans) -> list[str]:
    return [one.name for one in plans]


def test_what_is_wanted_as_it_is_stays():
    running = (plan("m-1"), plan("m-2"))
    same = change(running, running)
    assert names(same.kept) == ["m-1", "m-2"]
    assert (same.added, same.succeeded, same.removed) == ((), (), ())


def test_one_more_is_added_and_one_less_removed():
    assert names(change((plan("m-1"),), (plan("m-1"), plan("m-2"))).added) == ["m-2"]
    assert change((plan("m-1"), plan("m-2")), (plan("m-1"),)).removed == ("m-2",)


def test_a_changed_one_is_succeeded_under_a_free_name():
    (succession,) = change((plan("m-1"),), (plan("m-1", slots=4),), taken=("m-2",)).succeeded
    assert (succession.old, succession.new.name) == ("m-1", "m-3")
    assert succession.new.replica.engine == SimulatedEngine(slots=4)


def test_a_successor_counts_as_what_it_is_whatever_its_name():
    after = change((plan("m-2", slots=4),), (plan("m-1", slots=4),))
    assert names(after.kept) == ["m-2"]
    assert not after.added


def test_another_model_is_no_successor():
    other = change((plan("m-1"),), (plan("n-1", model="n"),))
    assert (names(other.added), other.removed) == (["n-1"], ("m-1",))


# The same with real processes.


class House:
    def __init__(self, folder: Path, *plans: ReplicaPlan) -> None:
        self.launchers = {"here": LocalProcesses(folder)}
        self.busy = {}
        self.fewest_ready = 99
        self.supervisor = Supervisor(
            plans,
            launchers=self.launchers,
            prober=HttpProber(),
            publish=self._watch,
            chance=random.Random(1),
            settings=QUICK,
        )
        self._came_up = False

    def _watch(self, table) -> None:
        ready = sum(row.state == "ready" for row in table.replicas)
        self._came_up |= ready > 0
        if self._came_up:
            self.fewest_ready = min(self.fewest_ready, ready)

    async def replan(self, *plans: ReplicaPlan):
        async def in_flight(name: str) -> int:
            return self.busy.get(name, 0)

        return await self.supervisor.replan(
            plans,
            launchers=self.launchers,
            prober=HttpProber(),
            in_flight=in_flight,
            drain_s=5.0,
        )

    def states(self) -> dict[str, str]:
        return {row.name: row.state for row in self.supervisor.table.replicas}

    async def until(self, states: dict[str, str]) -> None:
        async with asyncio.timeout(10):
            while self.states() != states:
                await asyncio.sleep(0.02)


@pytest.fixture
def story(tmp_path):
    def run(tell, *plans):
        async def main():
            house = House(tmp_path, *plans)
            try:
                await house.supervisor.start()
                await house.until({one.name: "ready" for one in plans})
                await tell(house)
            finally:
                await house.supervisor.stop(2.0)

        asyncio.run(main())

    return run


def test_a_changed_replica_goes_when_its_successor_is_ready(story):
    async def tell(house: House) -> None:
        await house.replan(plan("m-1", flags=("--loading", "0.3")))
        await house.until({"m-2": "ready"})
        assert house.fewest_ready == 1, "the model was without a replica"

    story(tell, plan("m-1"))


def test_a_successor_that_never_comes_up_leaves_the_old_one_alone(story):
    async def tell(house: House) -> None:
        await house.replan(plan("m-1", flags=("--crash",)))
        await asyncio.sleep(0.5)
        assert house.states()["m-1"] == "ready"
        await house.replan(plan("m-1"))  # the mistake is taken back
        await house.until({"m-1": "ready"})

    story(tell, plan("m-1"))


def test_a_removed_replica_ends_what_it_has(story):
    async def tell(house: House) -> None:
        house.busy["m-2"] = 1
        await house.replan(plan("m-1"))
        await house.until({"m-1": "ready", "m-2": "stopping"})
        await asyncio.sleep(0.4)
        assert house.states()["m-2"] == "stopping"
        house.busy.clear()
        await house.until({"m-1": "ready"})

    story(tell, plan("m-1"), plan("m-2"))


def test_a_fleet_may_be_stopped_in_the_middle_of_a_change(story):
    async def tell(house: House) -> None:
        house.busy["m-2"] = 1
        await house.replan(replace(plan("m-1"), health_path="/health?"), plan("m-3"))
        await asyncio.sleep(0.05)

    story(tell, plan("m-1"), plan("m-2"))
