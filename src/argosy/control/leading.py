"""Who leads: takes the fleet's lease when it is free, holds it, and knows at once when it is over.

Owns the lease of one control plane and nothing else. A leader acts only while it may (`may_act`):
that ends a little before its lease does, whether or not the store can be reached, and by a clock
that goes on while a process or its host sleeps. What is done upon it is left to others.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import msgspec
from sqlalchemy import Engine as StoreEngine

from argosy.fleet.messages import Observation, ReplicaSpec
from argosy.launchers.port import Launcher, PoolUnseenError
from argosy.store.errors import StoreError
from argosy.store.leases import Held, Lease, acquire, look, release, renew

logger = logging.getLogger(__name__)
T = TypeVar("T")
TTL_S = 5.0
_MARGIN = 0.1  # of the lease: what is begun before it has ended with it
_LOOK_S_MAX = 1.0  # between two looks at another's lease: it may be released at any time
_AGAIN_S = 0.3  # after the store did not answer


class Leading:
    """One control plane's part in who leads. Its calls to the store have a thread of their own."""

    def __init__(
        self,
        store: StoreEngine,
        fleet: str,
        holder: str,
        *,
        clock_s: Callable[[], float],
        ttl_s: float = TTL_S,
        chance: random.Random | None = None,
    ) -> None:
        """`clock_s` never goes back, and counts the time that this host sleeps."""
        self.fleet = fleet
        self.holder = holder
        self.ttl_s = ttl_s
        self.other: Held | None = None  # who was seen to lead last, when it was not us
        self._store = store
        self._clock_s = clock_s
        self._chance = chance or random.Random()
        self._lease: Lease | None = None
        self._until_s = float("-inf")  # we believe in it until then
        self._over: asyncio.Future[str] | None = None  # why it is
        self._renewing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lease")

    # What is asked of it.

    def may_act(self) -> bool:
        """Whether nobody else can lead now."""
        return self._lease is not None and self._clock_s() < self._until_s

    @property
    def lease(self) -> Lease | None:
        """Ours, as far as we know: it may have ended."""
        return self._lease

    async def lost(self) -> str:
        """Returns why, once another one leads; while this one leads it waits."""
        if self._over is None:
            raise RuntimeError("this control plane does not lead")
        return await asyncio.shield(self._over)

    # Its course.

    def take(self) -> Lease:
        """Lead at once, or say who does: StoreError. To be followed by `hold`."""
        asked_s = self._clock_s()
        got = acquire(self._store, self.fleet, self.holder, ttl_s=self.ttl_s)
        if isinstance(got, Held):
            raise StoreError(
                f"the control plane {got.holder} leads fleet {self.fleet} on this store, for "
                f"{got.free_in_s:.0f} s more. Stop it first, or name another folder: --state DIR"
            )
        self._believe(got, asked_s)
        return got

    def hold(self) -> None:
        """Renew what was taken from now on."""
        if self._renewing is not None:
            self._renewing.cancel()
        self._over = asyncio.get_running_loop().create_future()
        self._renewing = asyncio.create_task(self._renew_forever())

    async def lead(self) -> Lease:
        """Wait until the lease is free, take and hold it."""
        told = False
        while True:
            try:
                lease = await self._tried()
            except StoreError as error:
                if not told:
                    logger.warning("Who leads cannot be seen: %s", error)
                told = True
                await asyncio.sleep(self._jittered(_AGAIN_S))
                continue
            told = False
            if lease is not None:
                self.other = None
                self.hold()
                return lease
            free_in_s = self.other.free_in_s if self.other is not None else 0.0
            await asyncio.sleep(self._jittered(min(max(free_in_s, 0.02), _LOOK_S_MAX)))

    def fence(self, reason: str) -> None:
        """The store has refused what we wrote: another one leads."""
        self._until_s = float("-inf")
        if self._over is not None and not self._over.done():
            self._over.set_result(reason)

    async def resign(self) -> None:
        """Let another one lead; after the last act."""
        lease, self._lease, self._until_s = self._lease, None, float("-inf")
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))
            self._renewing = None
        if lease is None or (self._over is not None and self._over.done()):
            return
        try:
            await self._in_thread(partial(release, self._store, lease))
        except StoreError as error:
            logger.warning("The lease could not be released, and ends by itself: %s", error)

    def close(self) -> None:
        """After the last of all."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    # How.

    async def _tried(self) -> Lease | None:
        held = await self._in_thread(partial(look, self._store, self.fleet))
        if held.holder is not None and held.free_in_s > 0:
            self.other = held
            return None
        asked_s = self._clock_s()
        got = await self._in_thread(
            partial(acquire, self._store, self.fleet, self.holder, ttl_s=self.ttl_s)
        )
        if isinstance(got, Held):
            self.other = got
            return None
        self._believe(got, asked_s)
        return got

    def _believe(self, lease: Lease, asked_s: float) -> None:
        self._lease = lease
        self._until_s = asked_s + lease.lasts_s * (1 - _MARGIN)

    async def _renew_forever(self) -> None:
        wait_s, failed = self.ttl_s / 3, False
        while self._over is not None and not self._over.done():
            await asyncio.sleep(wait_s)
            lease, asked_s = self._lease, self._clock_s()
            if lease is None:
                return
            try:
                got = await self._in_thread(partial(renew, self._store, lease, ttl_s=self.ttl_s))
            except StoreError as error:
                if not failed:
                    logger.warning("The lease could not be renewed, it is tried again: %s", error)
                wait_s, failed = self._jittered(_AGAIN_S), True
                continue
            if isinstance(got, Held):
                self.other = got
                self.fence(f"{got.holder or 'nobody'} has the lease now, token {got.token}")
                return
            if failed:
                logger.warning("The lease is renewed again")
            wait_s, failed = self.ttl_s / 3, False
            self._believe(got, asked_s)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _jittered(self, seconds: float) -> float:
        """Two that wait for one lease do not ask at the same moment."""
        return seconds * self._chance.uniform(1.0, 1.1)


class Guarded:
    """A launcher (`launchers/port.py`) that only looks unless we may act."""

    def __init__(self, launcher: Launcher, may_act: Callable[[], bool]) -> None:
        self.launcher = launcher
        self._may_act = may_act

    async def start(self, spec: ReplicaSpec) -> None:
        self._check()
        await self.launcher.start(spec)

    async def stop(self, name: str, *, grace_s: float) -> None:
        self._check()
        await self.launcher.stop(name, grace_s=grace_s)

    async def observe(self) -> Observation:
        return await self.launcher.observe()

    async def changed(self) -> None:
        await self.launcher.changed()

    async def cordon(self, node: str, *, reason: str) -> None:
        self._check()
        await self.launcher.cordon(node, reason=reason)

    async def uncordon(self, node: str) -> None:
        self._check()
        await self.launcher.uncordon(node)

    async def close(self, *, is_final: bool) -> None:
        await self.launcher.close(is_final=is_final and self._may_act())

    def _check(self) -> None:
        if not self._may_act():
            raise PoolUnseenError("this control plane does not lead now, and touches nothing")


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """One control plane, as the lease names it."""

    url: str  # of its API
    process: str  # HOST:PID:CHANCE: no other is called so

    def __str__(self) -> str:
        return f"{self.url} {self.process}"


def holder_of(url: str, *, host: str, pid: int) -> Holder:
    """A new name for this process."""
    return Holder(url=url, process=f"{host}:{pid}:{secrets.token_hex(4)}")


def url_of(holder: str | None) -> str | None:
    """Where the API of that holder is; None: it has none, or nobody leads."""
    url = (holder or "").partition(" ")[0]
    return url if url.startswith(("http://", "https://")) else None
