"""The control plane of one leader: built from the rooms, started, steered, stopped.

Owns the wiring: the controller, its memory in the store, the autoscaling that hears the gateways,
and what an operator may ask of them. `argosy up` has it beside its gateway; `argosy control` has it
as long as it leads (`leading.py`).
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from sqlalchemy import Engine as StoreEngine

from argosy.cli.applying import Applier
from argosy.cli.operating import Operator
from argosy.cli.operator_socket import Asked, OperatorReply
from argosy.cli.pretending import Pretence
from argosy.cli.state import now_s
from argosy.cli.wanted import Launchers, threads_each, wanted
from argosy.control.autoscaling import Autoscaling
from argosy.control.controller import Controller
from argosy.control.leading import Guarded, Leading
from argosy.control.memory import Intent, StoreMemory, read_kept, read_records
from argosy.control.peers import Peers
from argosy.control.probe import HttpProber
from argosy.control.reconcile import Note, Settings
from argosy.control.records import Record
from argosy.control.scaling import LiveScaler, Planned, Signals
from argosy.fleet.config import Fleet
from argosy.fleet.launchers import EndpointLauncher, LocalLauncher
from argosy.fleet.messages import ReplicaTable
from argosy.launchers.port import Launcher
from argosy.policies.lifecycle import Lifecycle
from argosy.store.control import Fenced, Published
from argosy.store.errors import FencedError, StoreError

logger = logging.getLogger(__name__)
VERSIONS = 10**9  # of the tables of one leader: any of the next one's is above all of them
_HEARD_S = 0.9  # so old an answer will do; the autoscaling looks each second
_UP_LEASE_S = 15.0
_UP = "up"  # the state folder has one run at a time: the one before is dead
# What is kept, by name.
_SCALING, _INTENT, _PEERS, _READY = "autoscaling", "intent", "peers", "ready"
_KEEP_READY_EVERY_S = 5.0  # or when it changes
_KEEP_EVERY_S = 60.0
_LOOK_EVERY_S = 0.5  # whether what is intended has changed


class Audience(Protocol):
    """The gateways, as the control plane needs them."""

    async def replace(self, fleet: Fleet) -> None:
        """Have them take up that fleet; as `Gateways.replace`."""
        ...

    async def in_flight(self, replica: str) -> int | None:
        """Requests on a replica that leaves; None: not known now."""
        ...

    async def heard(self, *, at_s: float) -> Sequence[Signals]:
        """What each tells; `at_s`: now, in Unix time."""
        ...


class ControlPlane:
    """Of one leader."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        file: Path | None,
        port: int | None,
        state: Path,
        store: StoreEngine,
        weights: Mapping[str, Path | None],
        gateways: Audience,
        publish: Callable[[ReplicaTable], None],
        pretence: Pretence | None = None,
        leading: Leading | None = None,
        plan: Planned | None = None,
    ) -> None:
        """`leading`: whose lease it acts under, with a store that others share; None: its own.

        `plan`: what scales begins with its replicas.

        Raises StoreError when another one leads.
        """
        self._fleet = fleet
        self._weights = weights
        self._plan = plan
        self._gateways = gateways
        self._publish = publish
        self._is_shared = leading is not None
        self._leading = leading or Leading(
            store, fleet.fleet, _UP, clock_s=awake_s, ttl_s=_UP_LEASE_S
        )
        lease = self._leading.lease or self._leading.take()
        self._fenced = Fenced(store, fleet.fleet, lease.token)
        self._memory = StoreMemory(
            self._fenced, on_fenced=lambda: self._leading.fence("the store refuses what we write")
        )
        self._launchers = _GuardedLaunchers(
            Launchers(state, pretence=pretence), self._leading.may_act
        )
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
            pretence=pretence,
            note=self._note_spec if self._is_shared else None,
        )
        self.operator = Operator(self.applier, self.controller, pretence=pretence)
        self._autoscaling: Autoscaling | None = None
        self._peers: Peers | None = None
        self._hearing = SharedHearing(
            lambda: gateways.heard(at_s=self.controller.now_s()), self.controller.now_s
        )
        self._ready_kept: tuple[float, dict[str, int]] = (0.0, {})
        self._keeping: list[asyncio.Task[None]] = []
        self._intended: Intent | None = None

    async def start(self) -> None:
        """Begin, with a first table published. Raises StoreError."""
        if not self._is_shared:
            self._leading.hold()
            self._keeping.append(asyncio.create_task(self._tell_when_lost()))
        parts = wanted(
            self._fleet,
            weights=self._weights,
            threads=threads_each(self._fleet),
            launchers=self._launchers,
        )
        left = await asyncio.to_thread(_read, self._fenced)
        version = self._first_version(left.published)
        self._memory.begin(left.records)
        self._note_lead(len(left.records))
        if self._is_shared and left.intent is not None:
            self.controller.recall(
                held=left.intent.held, targets=left.intent.targets, drains=left.intent.drains
            )
        elif self._plan is not None:
            counts = self._plan.counts(self._fleet, now_s())
            self.controller.recall(held={}, targets=counts, drains=self.controller.drains)
        if self._is_shared and left.ready is not None:
            self.controller.remember(left.ready)
        hear = self._hearing.hear
        self._peers = Peers(
            self.controller, hear, saved=left.peers, keep=lambda one: self._keep(_PEERS, one)
        )
        await self.controller.start(
            parts.plans,
            parts.launchers,
            prober=parts.prober,
            records=[one for one in left.records if self._outlives(one)],
            version=version,
            in_flight=self._gateways.in_flight,
        )
        if self.controller.table.version == version:  # it is the last leader's, and not told yet
            self._publish(self.controller.table)
        scaler = LiveScaler(self._fleet, saved=left.scaling)
        scaler.begin_with(self._plan)
        self._autoscaling = Autoscaling(scaler, self.controller, hear, chance=random.Random())
        self._autoscaling.start(self._fleet)
        self._peers.start()
        self._keeping.append(asyncio.create_task(self._keep_forever()))

    async def operate(self, asked: Asked) -> OperatorReply:
        """What an operator asks; said to be done once the next leader would know it too."""
        reply = await self.operator.handle(asked)
        if reply.done:
            await self._keep_intent()
        return reply

    async def stop(self, grace_s: float, *, is_final: bool = True) -> None:
        """End all replicas; may be called again with less grace. Not final: they run on."""
        if self._autoscaling is not None:
            self._autoscaling.stop()
        if self._peers is not None:
            self._peers.stop()
        await self.controller.stop(grace_s, is_final=is_final)

    async def close(self) -> None:
        """Write what is left to be written; after `stop`."""
        if self._keeping:
            for task in self._keeping:
                task.cancel()
            await asyncio.wait(self._keeping)
            await self._keep_scaling()
            await self._keep_intent()
            await self._keep_ready()
        await self._memory.close()
        await self._launchers.close()
        if not self._is_shared:
            await self._leading.resign()
            self._leading.close()

    def _note_lead(self, replicas: int) -> None:
        if self._is_shared:
            reason = f"leads with token {self._fenced.token}; replicas on record: {replicas}"
            note = Note(kind="lead", subject=self._leading.holder, reason=reason)
            self._memory.note([note], now_s=now_s())

    def _first_version(self, published: Published | None) -> int:
        """Above all that any gateway may have, also of a leader that could store no more."""
        last = 0 if published is None else published.version
        if not self._is_shared:
            return last
        return max(last + 1, self._fenced.token * VERSIONS)

    def _outlives(self, record: Record) -> bool:
        """Whether it may still run though the control plane that started it has ended."""
        for pool in self._fleet.pools:
            if pool.name == record.spec.pool:
                if isinstance(pool.launcher, EndpointLauncher):
                    return self._is_shared
                return not isinstance(pool.launcher, LocalLauncher)
        return False

    def _applied(self, fleet: Fleet) -> None:
        self._fleet = fleet
        if self._autoscaling is not None:
            self._autoscaling.scaler.use(fleet, seeds={})
            self._autoscaling.start(fleet)

    async def _note_spec(self, text: str) -> None:
        """For the gateways and the next leader. Raises StoreError."""
        try:
            await asyncio.to_thread(self._fenced.put_spec, text, by=self._leading.holder)
        except FencedError as error:
            raise StoreError(str(error)) from error

    # What the next one is to know.

    async def _tell_when_lost(self) -> None:
        reason = await self._leading.lost()
        logger.error("This run acts no more, it only serves: %s", reason)

    async def _keep_forever(self) -> None:
        kept_s = 0.0
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self._keep_intent()
            await self._keep_ready()
            kept_s += _LOOK_EVERY_S
            if kept_s >= _KEEP_EVERY_S:
                kept_s = 0.0
                await self._keep_scaling()

    async def _keep_intent(self) -> None:
        controller = self.controller
        intent = Intent(
            held=dict(controller.held), targets=dict(controller.targets), drains=controller.drains
        )
        if not self._is_shared or intent == self._intended:
            return
        if await self._keep(_INTENT, msgspec.json.encode(intent)):
            self._intended = intent

    async def _keep_ready(self) -> None:
        """What caps removals: at once where it changes, and as long as it holds."""
        lifecycle, now_s = self.controller.lifecycle, self.controller.now_s()
        most: dict[str, int] = {}
        for peak in lifecycle.peaks:
            most[peak.model] = max(peak.ready, most.get(peak.model, 0))
        kept_s, kept = self._ready_kept
        if not self._is_shared or (most == kept and now_s - kept_s < _KEEP_READY_EVERY_S):
            return
        if await self._keep(_READY, msgspec.json.encode(lifecycle)):
            self._ready_kept = (now_s, most)

    async def _keep_scaling(self) -> None:
        if self._autoscaling is not None:
            await self._keep(_SCALING, self._autoscaling.scaler.save())

    async def _keep(self, name: str, body: bytes) -> bool:
        try:
            await asyncio.to_thread(self._fenced.keep, name, body)
        except FencedError as error:
            self._leading.fence(str(error))
            return False
        except StoreError as error:
            logger.warning("What the next control plane is to know was not stored: %s", error)
            return False
        return True


class _GuardedLaunchers(Launchers):
    """Those of another one, each behind a guard of its own."""

    def __init__(self, launchers: Launchers, may_act: Callable[[], bool]) -> None:
        self._launchers = launchers
        self._may_act = may_act
        self._guarded: dict[str, Guarded] = {}

    def of(self, fleet: Fleet) -> dict[str, Launcher]:
        found: dict[str, Launcher] = {}
        for pool, launcher in self._launchers.of(fleet).items():
            guarded = self._guarded.get(pool)
            if guarded is None or guarded.launcher is not launcher:
                guarded = self._guarded[pool] = Guarded(launcher, self._may_act)
            found[pool] = guarded
        return found

    async def close(self) -> None:
        await self._launchers.close()


class SharedHearing:
    """One question to the gateways for all who want to hear them: an answer is work for them."""

    def __init__(
        self, ask: Callable[[], Awaitable[Sequence[Signals]]], now_s: Callable[[], float]
    ) -> None:
        self._ask = ask
        self._now_s = now_s
        self._asked: asyncio.Future[Sequence[Signals]] | None = None
        self._asked_s = 0.0

    async def hear(self) -> Sequence[Signals]:
        """Of the last moment, or the answer that is on its way."""
        now_s = self._now_s()
        if self._asked is None or now_s - self._asked_s > _HEARD_S or _has_failed(self._asked):
            self._asked, self._asked_s = asyncio.ensure_future(self._ask()), now_s
        return await asyncio.shield(self._asked)


def _has_failed(asked: "asyncio.Future[Sequence[Signals]]") -> bool:
    return asked.done() and (asked.cancelled() or asked.exception() is not None)


class _Left(msgspec.Struct, frozen=True, kw_only=True):
    """What the last leader left."""

    records: tuple[Record, ...]
    published: Published | None
    scaling: bytes | None
    peers: bytes | None
    intent: Intent | None
    ready: Lifecycle | None


def _read(fenced: Fenced) -> _Left:
    """Raises StoreError."""
    kept = fenced.kept()
    return _Left(
        records=read_records(fenced.load().values()),
        published=fenced.published(),
        scaling=kept.get(_SCALING),
        peers=kept.get(_PEERS),
        intent=read_kept(kept.get(_INTENT), Intent),
        ready=read_kept(kept.get(_READY), Lifecycle),
    )


def awake_s() -> float:
    """Seconds by a clock that never goes back and counts the time that this host sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
