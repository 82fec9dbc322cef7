"""Keeps the processes of a run alive: one syncer and its islands, each started again when it dies.

Owns when a dead one is started again and when that is given up, and the order in which they come
and go. What they do is theirs (`training_syncer.py`, `training_island.py`); what is true of the
run is in the ledger. So this process may be killed at any time: its children end with it, the next
one finds them on record should one be held up, and goes on.
"""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec

from argosy.cli.training_places import Here, Life, Place
from argosy.fleet.messages import Command
from argosy.launchers.local import how_it_ended
from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError
from argosy.training.island.launched import REFUSED as REFUSED  # a child's exit code

_SYNCER_START_S = 60.0
_ISLAND_GRACE_S = 120.0  # to finish its lease, send it, and leave
_SYNCER_GRACE_S = 10.0

End = Literal["finished", "stopped", "refused", "gave_up"]


class Restarts(msgspec.Struct, frozen=True, kw_only=True):
    """When a child that died is started again."""

    pause_s: float = 0.5  # after the first death; doubled with each further one
    pause_s_max: float = 20.0
    good_s: float = 10.0  # who listened and lived so long begins anew at `pause_s`
    deaths_max: int = 6  # in a row, none of which lived so long: it is given up


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """One process that is to live as long as the run."""

    name: str  # as the run calls it, and its log
    command: Command | None = None  # of a process of this host
    place: Place | None = None  # where it is started instead


class ChildState(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one so far."""

    name: str
    state: Literal["starting", "running", "waiting", "finished", "stopped", "refused", "gave_up"]
    pid: int | None
    starts: int
    reason: str  # of its last death; "": none yet


class Keeper:
    """One child: starts it, and again, until it ends in order or that is given up."""

    def __init__(
        self,
        child: Child,
        *,
        folder: Path,
        say: Callable[[str], None],
        restarts: Restarts | None = None,
    ) -> None:
        self.state = ChildState(name=child.name, state="starting", pid=None, starts=0, reason="")
        self.listening: asyncio.Event = asyncio.Event()
        self._child = child
        self._place = _place_of(child, folder)
        self._say = say
        self._rule = restarts or Restarts()
        self._process: Life | None = None
        self._began_s = 0.0  # this life, or the last
        self._tail = ""  # of the last life
        self._left_for = ""  # the same
        self._waits_for = ""  # a place that has no room for it; "": it does not wait
        self._stopping = asyncio.Event()
        self._has_listened = False  # in this life; an island: has joined

    async def run(self) -> End:
        """Until it ends in order, is stopped, or given up; never raises for what the child does."""
        deaths = 0
        while True:
            how = await self._live()
            if self._stopping.is_set():
                return self._end("stopped")
            if self._left_for:
                self._say(f"{self._child.name} has left its place: {self._left_for}")
                deaths = 0
                continue
            if how == how_it_ended(0):
                return self._end("finished")
            tail = self._tail
            if how == how_it_ended(REFUSED):
                self._say(f"{self._child.name} cannot go on, {tail}")
                return self._end("refused", tail)
            is_good = self._has_listened and _now_s() - self._began_s >= self._rule.good_s
            deaths = 1 if is_good else deaths + 1
            if deaths >= self._rule.deaths_max:
                told = f"{self._child.name} {how}, {deaths} times in a row: given up"
                self._say(f"{told}, {tail}")
                return self._end("gave_up", how)
            await self._pause(deaths, how, tail)
            if self._stopping.is_set():
                return self._end("stopped")

    async def stop(self, *, grace_s: float) -> None:
        """End it in order: SIGTERM, and SIGKILL after the grace."""
        self._stopping.set()
        if self._process is not None:
            await self._process.stop(grace_s=grace_s)

    async def _live(self) -> str:
        """One life of it; how it ended."""
        self._has_listened, self._left_for = False, ""
        self._is(state="starting", starts=self.state.starts + 1)
        try:
            process = await self._start()
        except (LaunchError, OSError) as error:
            self._tail = ""
            return f"could not be started: {error}"
        if process is None:
            return "was not started"
        self._process = process
        self._began_s, self._waits_for = _now_s(), ""
        self._is(state="running", pid=process.pid)
        if self._stopping.is_set():  # while it was being started
            await process.stop(grace_s=0.0)
        listening = asyncio.create_task(self._hear(process))
        try:
            return await process.ended()
        finally:
            listening.cancel()
            self._tail, self._left_for = process.tail, process.left_for
            self._process = None
            self.listening.clear()
            self._is(pid=None)

    async def _start(self) -> Life | None:
        """Once there is room for it, which is no death however long it takes; None: stopped."""
        pause_s = self._rule.pause_s
        while True:
            try:
                return await self._place.start()
            except (NoCapacityError, PoolUnseenError) as error:
                self._is(state="waiting", reason=str(error))
                if str(error) != self._waits_for:
                    self._waits_for = str(error)
                    self._say(f"{self._child.name} waits for a place: {error}")
            if await self._stops_within(pause_s):
                return None
            pause_s = min(pause_s * 2, self._rule.pause_s_max)

    async def _hear(self, process: Life) -> None:
        if await process.joined():
            self._has_listened = True
            self._is(pid=process.pid)
            self.listening.set()
            if process.node is not None:
                self._say(f"{self._child.name} trains on {process.node}")

    async def _pause(self, deaths: int, how: str, tail: str) -> None:
        pause_s = min(self._rule.pause_s * 2 ** (deaths - 1), self._rule.pause_s_max)
        self._is(state="waiting", reason=how)
        words = "" if "SIGKILL" in how or not tail else f", {tail}"
        self._say(f"{self._child.name} {how}; started again in {pause_s:g} s{words}")
        await self._stops_within(pause_s)

    async def _stops_within(self, seconds: float) -> bool:
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((stopped,), timeout=seconds)
        stopped.cancel()
        return self._stopping.is_set()

    def _end(self, end: End, reason: str = "") -> End:
        self._is(state=end, reason=reason or self.state.reason)
        return end

    def _is(self, **news: str | int | None) -> None:
        self.state = msgspec.structs.replace(self.state, **news)


class Supervisor:
    """All of a run's processes. `run` once; `stop` may be set at any time."""

    def __init__(
        self,
        syncer: Child,
        islands: Iterable[Child],
        *,
        folder: Path,
        say: Callable[[str], None],
        restarts: Restarts | None = None,
    ) -> None:
        self._say = say
        self._syncer = Keeper(syncer, folder=folder, say=say, restarts=restarts)
        self._islands = [
            Keeper(island, folder=folder, say=say, restarts=restarts) for island in islands
        ]
        self.stop = asyncio.Event()

    @property
    def children(self) -> tuple[ChildState, ...]:
        """The syncer, then the islands, as they are now."""
        return tuple(keeper.state for keeper in (self._syncer, *self._islands))

    async def run(self) -> End:
        """Until all islands have ended, the syncer cannot go on, or `stop` is set."""
        keeping = asyncio.create_task(self._syncer.run())
        stopping = asyncio.create_task(self.stop.wait())
        islands: list[asyncio.Task[End]] = []
        try:
            if await self._syncer_listens(keeping, stopping):
                islands = [asyncio.create_task(island.run()) for island in self._islands]
                everyone = asyncio.ensure_future(asyncio.gather(*islands))
                await asyncio.wait(
                    (everyone, keeping, stopping), return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            stopping.cancel()
            ends = await self._go_down(islands)
            await self._syncer.stop(grace_s=_SYNCER_GRACE_S)
            syncer_end = await keeping
        return self._end_of(syncer_end, ends)

    async def kill(self) -> None:
        """All at once, where stopping in order takes too long. `run` then returns."""
        self.stop.set()
        await asyncio.gather(*(one.stop(grace_s=0.0) for one in (*self._islands, self._syncer)))

    async def _syncer_listens(
        self, keeping: "asyncio.Task[End]", stopping: "asyncio.Task[bool]"
    ) -> bool:
        listening = asyncio.create_task(self._syncer.listening.wait())
        await asyncio.wait(
            (listening, keeping, stopping),
            return_when=asyncio.FIRST_COMPLETED,
            timeout=_SYNCER_START_S,
        )
        listening.cancel()
        if not (listening.done() or keeping.done() or stopping.done()):
            self._say(f"the syncer has not listened for {_SYNCER_START_S:g} s: given up")
        return self._syncer.listening.is_set()

    async def _go_down(self, islands: "list[asyncio.Task[End]]") -> list[End]:
        await asyncio.gather(*(one.stop(grace_s=_ISLAND_GRACE_S) for one in self._islands))
        return list(await asyncio.gather(*islands))

    def _end_of(self, syncer: End, islands: list[End]) -> End:
        if self.stop.is_set():
            return "stopped"
        if syncer in ("refused", "gave_up"):
            return syncer
        if not islands or all(end in ("refused", "gave_up") for end in islands):
            return "gave_up"
        return "finished" if "finished" in islands else "stopped"


def _place_of(child: Child, folder: Path) -> Place:
    if child.place is not None:
        return child.place
    assert child.command is not None, "it is started somewhere"
    return Here(folder, child.name, child.command)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
