"""Islands on nodes of Ray pools: where each is put, what is sent with it, how its end is known.

Owns that an island is one program of a pool, in the run's own namespace of the cluster; when a dead
one is started again is its keeper's matter. Ray's part is `launchers/ray`. The actor outlives us:
the next keeper of the run finds it there, by its generation, and goes on with it.
"""

import asyncio
import contextlib
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic  # noqa: TID251  (of real nodes; nothing here is simulated)

import msgspec

from argosy.fleet.messages import Command, Observation, ObservedReplica
from argosy.fleet.runs import Island
from argosy.launchers.port import NoCapacityError, PoolUnseenError
from argosy.launchers.ray.link import Link
from argosy.launchers.ray.pool import Program, RayPool
from argosy.training.credentials import CA, CERT, KEY
from argosy.training.guests import Guests
from argosy.training.island.launched import CREDENTIALS_FOLDER, SPEC_FILE
from argosy.training.pools import PlacedPool

UNHEARD_S_MAX = 900.0  # as long as an island waits for a syncer that is away
_OTHER_GRACE_S = 10.0  # for one that is not the one that is wanted
_AGAIN_S = 1.0
_LEASE_S = 30.0  # to finish its lease where it is to leave; clouds that take a machine give as much
_STEP_S = 15.0  # then to finish its step
_LOOK_S = 10.0  # at the latest
_RENEW_S = 60.0  # between two looks at its credentials here
_UNSEEN_S_MAX = 15.0  # of a pool, before we give up ending something there
_NEW_BRIDGE_S = 8.0  # until it is said that a pool is not seen
_CONNECTS_S_MAX = 30.0  # the same, where the bridge may be new: a busy machine takes 10 s
_END = re.compile(
    r"(exited with status \d+|killed by (?:signal )?\w+)(?: before it listened)?(?:, (.*))?",
    re.DOTALL,
)


class Clusters:
    """The Ray clusters that a run's islands are on: to be used in one event loop, then closed."""

    def __init__(self, pools: Sequence[PlacedPool], *, fleet: str, logs: Path) -> None:
        """`fleet`: as the clusters know the run, see `fleet_of`; `logs`: a folder for bridges'.

        Raises UnknownResourceError, for chips that Ray has no name for.
        """
        self._fleet = fleet
        self._pools = {pool.name: pool for pool in pools}
        hosts = {pool.launcher.address: pool.fleet for pool in pools}
        self._links = {
            address: Link(address, fleet=fleet, guest_of=host, log=logs / f"ray-{number}.log")
            for number, (address, host) in enumerate(hosts.items())
        }
        self.guests = {name: Guests() for name in self._pools}
        for pool in self._pools:
            self.pool(pool)

    def pool(self, name: str) -> RayPool:
        """One more view of that pool, for one that waits for its news."""
        asked = self._pools[name]
        link = self._links[asked.launcher.address]
        return RayPool(
            asked.launcher,
            fleet=self._fleet,
            pool=name,
            chip=asked.chip,
            maker=asked.maker,
            link=link,
        )

    async def end_all(self) -> list[str]:
        """End every island of the run there; says which pools were not seen."""
        told = await asyncio.gather(*(_end_all_on(self.pool(name)) for name in self._pools))
        return [one for one in told if one]

    async def close(self) -> None:
        """What runs there runs on."""
        for link in self._links.values():
            await link.close()


def fleet_of(run: str, authority: bytes) -> str:
    """As clusters and their nodes know a run: its like elsewhere, of the same name, is another."""
    return f"run-{run}-{hashlib.sha256(authority).hexdigest()[:12]}"


class PlacedIsland:
    """One island of a run and the pool that it is for: started there, again and again."""

    def __init__(
        self,
        pool: RayPool,
        island: Island,
        guests: Guests,
        spec: bytes,
        *,
        credentials: Path,
        env: Mapping[str, str],
    ) -> None:
        """`spec`: its IslandSpec as JSON; `credentials`: the folder that has its own.

        `guests`: of that pool, it among them once it is there.
        """
        self._pool = pool
        self._island = island
        self._guests = guests
        self._name = _program_of(island.name)
        self._spec = spec
        self._credentials = credentials
        is_on_chips = pool.has_chips and island.device != "cpu"
        self._chips = island.processes if is_on_chips else 0
        module = "argosy.training.island.launched"
        words = ("-m", module, "{files}", "--folder", "{folder}", "--host", "{host}")
        self._command = Command(argv=(sys.executable, *words), env=dict(env))
        self._renewing: asyncio.Task[None] | None = None
        said = msgspec.json.encode((self._command, self._chips), order="deterministic")
        self._generation = hashlib.sha256(said + spec).hexdigest()[:16]

    async def start(self) -> "PlacedProcess":
        """Start it, or find it there. Raises LaunchError, NoCapacityError, PoolUnseenError."""
        there = await self._find_patiently()
        if there is not None and self._is_another(there):
            await self._pool.stop(there.name, grace_s=_OTHER_GRACE_S)
            there = None
        refusal = self._guests.refusal(self._island, monotonic())
        if refusal and there is None:
            raise NoCapacityError(refusal)
        files = self._files()
        await self._pool.start_program(
            Program(
                name=self._name,
                generation=self._generation,
                command=self._command,
                files=files,
                chips=self._chips,
                unheard_s_max=UNHEARD_S_MAX,
            )
        )
        process = PlacedProcess(self._pool, self._island.name, self._guests)
        self._guests.came(self._island, self._chips, process)
        has_others = there is not None  # a former life of ours sent them
        self._renewing = asyncio.create_task(
            self._keep_renewed(process, {} if has_others else files)
        )
        return process

    async def _find_patiently(self) -> ObservedReplica | None:
        """Its bridge may be new."""
        until_s = monotonic() + _NEW_BRIDGE_S
        while True:
            try:
                seen = await self._pool.observe()
                self._guests.hear(seen, monotonic())
                return one_of(seen, self._name)
            except PoolUnseenError:
                if monotonic() > until_s:
                    raise
            await asyncio.sleep(_AGAIN_S)

    def _is_another(self, there: ObservedReplica) -> bool:
        return there.generation != self._generation or there.state == "ended"

    def _files(self) -> dict[str, bytes]:
        own = {
            f"{CREDENTIALS_FOLDER}/{name}": (self._credentials / name).read_bytes()
            for name in (KEY, CA, CERT)  # a new certificate last: it is what an island looks at
        }
        return {SPEC_FILE: self._spec, **own}

    async def _keep_renewed(self, process: "PlacedProcess", sent: dict[str, bytes]) -> None:
        """Send its files again whenever they are others."""
        while True:
            with contextlib.suppress(PoolUnseenError, OSError):  # again after a while
                if (files := self._files()) != sent:
                    await self._pool.send_files(self._name, files)
                    sent = files
            await process.wait_ended(_RENEW_S)
            if process.has_ended:
                return


class PlacedProcess:
    """One life of an island on a node, followed from its start."""

    def __init__(self, pool: RayPool, island: str, guests: Guests) -> None:
        self._pool = pool
        self._island = island
        self._name = _program_of(island)
        self._guests = guests
        self._seen: ObservedReplica | None = None
        self._listens = asyncio.Event()
        self._how: str | None = None
        self._has_ended = asyncio.Event()
        self._following = asyncio.create_task(self._follow())
        self._leaving: asyncio.Task[None] | None = None
        self.tail = ""  # its last words, once it has ended
        self.left_for = ""  # why it was told to leave

    @property
    def pid(self) -> int | None:
        """On its node."""
        return None if self._seen is None else self._seen.pid

    @property
    def node(self) -> str | None:
        """Where it is."""
        return None if self._seen is None else self._seen.node

    async def joined(self) -> bool:
        """Once it has joined its run; False: it ended before."""
        await self._listens.wait()
        return self._how is None

    @property
    def has_ended(self) -> bool:
        """Whether it has."""
        return self._how is not None

    async def wait_ended(self, wait_s: float) -> None:
        """Returns once it has, or after so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_ended.wait(), wait_s)

    async def ended(self) -> str:
        """How, once it has; by then it is forgotten there, and its chips are free."""
        await self._has_ended.wait()
        assert self._how is not None
        return self._how

    async def stop(self, *, grace_s: float) -> None:
        """SIGTERM, then SIGKILL; returns when it is gone, or its pool is not seen for long."""
        if self._how is None:
            told = await end(self._pool, self._name, grace_s=grace_s)
            self._end(told or "was stopped")

    def leave(self, why: str) -> None:
        """Have it send what it trained and end; its keeper starts it again once it may come."""
        if not self.left_for:
            self.left_for = why
            self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        """The second word: at its next step, without the rest of its lease."""
        leaving = asyncio.create_task(self.stop(grace_s=_LEASE_S + _STEP_S))
        await asyncio.wait((leaving,), timeout=_LEASE_S)
        if not leaving.done():
            await self.stop(grace_s=_STEP_S)
        await leaving

    async def _follow(self) -> None:
        while self._how is None:
            try:
                look = await self._pool.observe()
            except PoolUnseenError:  # it trains on: what it needs is the syncer
                await asyncio.sleep(_AGAIN_S)
                continue
            seen = one_of(look, self._name)
            self._guests.hear(look, monotonic())
            if seen is None:
                self._end("was forgotten by its cluster")
            elif seen.state == "ended":
                await self._take_end(seen)
            else:
                self._seen = seen
                if seen.state == "listening":
                    self._listens.set()
                await _news(self._pool)

    async def _take_end(self, seen: ObservedReplica) -> None:
        how, tail = how_and_tail(seen.detail)
        await end(self._pool, self._name, grace_s=0.0)
        self.tail = f"{tail} (on {seen.node})" if tail else ""
        self._end(how)

    def _end(self, how: str) -> None:
        if self._how is None:
            self._how = how
            self._guests.gone(self._island, monotonic())
            self._listens.set()
            self._has_ended.set()


def how_and_tail(detail: str) -> tuple[str, str]:
    """How a process ended and its last words, from what its actor says; else how the actor did."""
    told = _END.fullmatch(detail)
    return (told[1], told[2] or "") if told else (detail, "")


def _program_of(island: str) -> str:
    """Its name among the programs of a pool."""
    return f"island-{island}"


def one_of(seen: Observation, name: str) -> ObservedReplica | None:
    """None: it is not there."""
    return next((one for one in seen.replicas if one.name == name), None)


async def end(pool: RayPool, name: str, *, grace_s: float) -> str:
    """End it and forget it; why it may run on, or empty: it is gone."""
    until_s = monotonic() + grace_s + _UNSEEN_S_MAX
    while True:
        try:
            await pool.stop(name, grace_s=grace_s)
        except PoolUnseenError as error:
            if monotonic() > until_s:
                return f"may run on, {UNHEARD_S_MAX / 60:.0f} min at most: {error}"
            await asyncio.sleep(_AGAIN_S)
            continue
        return ""


async def _end_all_on(pool: RayPool) -> str:
    """Why that is not known to be done; empty: it is."""
    until_s = monotonic() + _CONNECTS_S_MAX
    while True:
        try:
            await pool.close(is_final=True)
        except PoolUnseenError as error:
            if monotonic() > until_s:
                return str(error)
            await asyncio.sleep(_AGAIN_S)
            continue
        return ""


async def _news(pool: RayPool) -> None:
    try:
        await asyncio.wait_for(pool.changed(), _LOOK_S)
    except TimeoutError:
        return
