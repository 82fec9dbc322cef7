"""The supervisor and a place that has no room for a while, or ends what it was given."""

import asyncio
from pathlib import Path

from argosy.cli.training_supervisor import Child, Keeper, Restarts
from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError

FAST = Restarts(pause_s=0.01, pause_s_max=0.02, good_s=5.0, deaths_max=3)


class OneLife:
    """Ends as soon as it is told how."""

    def __init__(self, how: str = "", left_for: str = "") -> None:
        self.pid = 7
        self.left_for = left_for
        self.node = "n1"
        self.tail = "saying: bye"
        self._how: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if how:
            self._how.set_result(how)

    async def joined(self) -> bool:
        return True

    async def ended(self) -> str:
        return await asyncio.shield(self._how)

    async def stop(self, *, grace_s: float) -> None:
        if not self._how.done():
            self._how.set_result("exited with status 0")


class Script:
    """A place where starts go as they are told to, one after the other."""

    def __init__(self, *starts: Exception | str | tuple[str, str]) -> None:
        self._starts = list(starts)
        self.count = 0

    async def start(self) -> OneLife:
        self.count += 1
        told = self._starts.pop(0)
        if isinstance(told, Exception):
            raise told
        return OneLife(told) if isinstance(told, str) else OneLife(*told)


def keeper(place: Script, said: list[str]) -> Keeper:
    child = Child(name="island-ann", place=place)
    return Keeper(child, folder=Path("nowhere"), say=said.append, restarts=FAST)


def test_no_room_is_no_death_and_is_told_once():
    said: list[str] = []
    full, unseen = NoCapacityError("all is taken"), PoolUnseenError("no head answers")
    place = Script(full, full, full, full, unseen, "exited with status 0")
    assert asyncio.run(keeper(place, said).run()) == "finished"
    assert place.count == 6
    waits = [line for line in said if "waits for a place" in line]
    assert [line.rpartition(": ")[2] for line in waits] == ["all is taken", "no head answers"]


def test_one_that_was_told_to_leave_is_started_again_once_it_may_come_and_that_is_no_death():
    said: list[str] = []
    left = ("exited with status 0", "a replica finds no room")
    away = NoCapacityError("it gives way to replicas")
    place = Script(*(left, away, away) * FAST.deaths_max, "exited with status 0")
    one = keeper(place, said)
    assert asyncio.run(one.run()) == "finished"
    assert one.state.starts == FAST.deaths_max + 1
    assert said.count("island-ann has left its place: a replica finds no room") == FAST.deaths_max
    assert "island-ann waits for a place: it gives way to replicas" in said


def test_a_node_that_dies_is_a_death_and_it_is_started_again():
    said: list[str] = []
    place = Script("node n1: its node has died", "exited with status 0")
    assert asyncio.run(keeper(place, said).run()) == "finished"
    assert any("its node has died; started again in" in line for line in said)


def test_a_start_that_cannot_be_is_given_up():
    said: list[str] = []
    place = Script(*(LaunchError("names no chips") for _ in range(3)))
    assert asyncio.run(keeper(place, said).run()) == "gave_up"
    assert "names no chips" in said[-1]


def test_one_that_waits_for_room_stops_when_it_is_told_to():
    async def play() -> str:
        one = keeper(Script(*(NoCapacityError("all is taken") for _ in range(10_000))), [])
        running = asyncio.create_task(one.run())
        while one.state.state != "waiting":
            await asyncio.sleep(0)
        await one.stop(grace_s=1.0)
        return await running

    assert asyncio.run(play()) == "stopped"


def test_it_is_told_where_it_trains_and_it_ends_there_when_it_is_told_to():
    said: list[str] = []

    async def play() -> str:
        one = keeper(Script(""), said)
        running = asyncio.create_task(one.run())
        await one.listening.wait()
        assert one.state.pid == 7
        await one.stop(grace_s=1.0)
        return await running

    assert asyncio.run(play()) == "stopped"
    assert said == ["island-ann trains on n1"]
