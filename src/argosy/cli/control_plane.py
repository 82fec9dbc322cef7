"""The control plane inside `argosy up`: built from the rooms, started, steered, stopped.

Owns the wiring: the controller, its memory in the store, the autoscaling that hears the gateways,
and what an operator may ask of them.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import Engine as StoreEngine

from argosy.cli.applying import Applier
from argosy.cli.gateways import Gateways
from argosy.cli.operating import Operator
from argosy.cli.state import now_s
from argosy.cli.wanted import Launchers, threads_each, wanted
from argosy.control.autoscaling import Autoscaling
from argosy.control.controller import Controller
from argosy.control.memory import StoreMemory, read_records
from argosy.control.probe import HttpProber
from argosy.control.reconcile import Settings
from argosy.control.records import Record
from argosy.control.scaling import LiveScaler, Signals, signals_of
from argosy.fleet.config import Fleet
from argosy.fleet.launchers import EndpointLauncher, LocalLauncher
from argosy.fleet.messages import ReplicaTable
from argosy.gateway.together import metrics_of
from argosy.store.control import Fenced
from argosy.store.errors import StoreError
from argosy.store.leases import Held, Lease, acquire, renew

logger = logging.getLogger(__name__)
_LEASE_S = 15.0
_HOLDER = "up"  # the state folder has one run at a time: the one before is dead
_KEPT = "autoscaling"
_KEEP_EVERY_S = 60.0


class ControlPlane:
    """Of one run."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        file: Path | None,
        port: int | None,
        state: Path,
        store: StoreEngine,
        weights: Mapping[str, Path | None],
        gateways: Gateways,
        publish: Callable[[ReplicaTable], None],
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._weights = weights
        self._gateways = gateways
        self._lease = _acquired(store, fleet.fleet)
        self._fenced = Fenced(store, fleet.fleet, self._lease.token)
        self._memory = StoreMemory(self._fenced)
        self._launchers = Launchers(state)
        self.controller = Controller(
            publish=publish,
            prober=HttpProber(),
            chance=random.Random(),
            settings=Settings(drain_s=fleet.gateway.drain_s),
            memory=self._memory,
            unix_s=now_s(),
        )
        self.applier = Applier(
            fleet,
            file=file,
            port=port,
            gateways=gateways,
            controller=self.controller,
            launchers=self._launchers,
            on_applied=self._applied,
        )
        self.operator = Operator(self.applier, self.controller)
        self._autoscaling: Autoscaling | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once, with a first table published."""
        parts = wanted(
            self._fleet,
            weights=self._weights,
            threads=threads_each(self._fleet),
            launchers=self._launchers,
        )
        stored = read_records(self._fenced.load().values())
        outlive = [one for one in stored if _outlives(self._fleet, one)]
        published = self._fenced.published()
        self._memory.begin(stored)
        await self.controller.start(
            parts.plans,
            parts.launchers,
            prober=parts.prober,
            records=outlive,
            version=0 if published is None else published.version,
            in_flight=self._gateways.in_flight,
        )
        scaler = LiveScaler(self._fleet, saved=self._fenced.kept().get(_KEPT))
        self._autoscaling = Autoscaling(scaler, self.controller, self._hear, chance=random.Random())
        self._autoscaling.start(self._fleet)
        self._keeping = asyncio.create_task(self._keep_forever())

    async def stop(self, grace_s: float) -> None:
        """End all replicas; may be called again with less grace."""
        if self._autoscaling is not None:
            self._autoscaling.stop()
        await self.controller.stop(grace_s)

    async def close(self) -> None:
        """Write what is left to be written; after `stop`."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait((self._keeping,))
            await self._keep()
        await self._memory.close()

    def _applied(self, fleet: Fleet) -> None:
        self._fleet = fleet
        if self._autoscaling is not None:
            self._autoscaling.scaler.use(fleet, seeds={})
            self._autoscaling.start(fleet)

    async def _hear(self) -> Signals:
        collected = await self._gateways.collect()
        at_s = self.controller.now_s()
        return signals_of(
            metrics_of(collected),
            at_s=at_s,
            began_s=at_s - collected.uptime_s,
            is_whole=not collected.silent,
        )

    async def _keep_forever(self) -> None:
        """The lease, and what the autoscaling has learned."""
        rounds = 0
        while True:
            await asyncio.sleep(_LEASE_S / 3)
            rounds += 1
            try:
                renewed = await asyncio.to_thread(renew, self._store, self._lease, ttl_s=_LEASE_S)
            except StoreError as error:
                logger.warning("The lease could not be renewed: %s", error)
                continue
            if isinstance(renewed, Held):
                logger.error("Another control plane has the lease of %s", self._fleet.fleet)
                return
            if rounds * _LEASE_S / 3 >= _KEEP_EVERY_S:
                rounds = 0
                await self._keep()

    async def _keep(self) -> None:
        if self._autoscaling is None:
            return
        saved = self._autoscaling.scaler.save()
        try:
            await asyncio.to_thread(self._fenced.keep, _KEPT, saved)
        except StoreError as error:
            logger.warning("What the autoscaling learned could not be stored: %s", error)


def _acquired(store: StoreEngine, fleet: str) -> Lease:
    """Raises StoreError."""
    got = acquire(store, fleet, _HOLDER, ttl_s=_LEASE_S)
    if isinstance(got, Held):
        raise StoreError(
            f"the control plane {got.holder} leads fleet {fleet} on this store, for "
            f"{got.free_in_s:.0f} s more. Stop it first, or name another folder: --state DIR"
        )
    return got


def _outlives(fleet: Fleet, record: Record) -> bool:
    """Whether it may still run though the run that started it has ended."""
    for pool in fleet.pools:
        if pool.name == record.spec.pool:
            return not isinstance(pool.launcher, LocalLauncher | EndpointLauncher)
    return False
