"""The control plane's loop: look, decide, act, publish; again whenever something may have changed.

Owns nothing but the order. What is seen comes from `watching.py` and `probing.py`, what is to be
done is decided in `reconcile.py`, and done in `acting.py`. A tick that fails is told and taken
again: nothing that happens in one ends the loop.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from argosy.control.acting import Actor
from argosy.control.plan import DeploymentPlan
from argosy.control.probe import Prober
from argosy.control.probing import Probing
from argosy.control.quarantines import Quarantines
from argosy.control.reconcile import (
    Drains,
    Note,
    Seen,
    Settings,
    State,
    Step,
    adopted,
    reconcile,
)
from argosy.control.records import Record, SeenReplica
from argosy.control.watching import Watcher
from argosy.fleet.messages import ObservedReplica, Replica, ReplicaTable
from argosy.launchers.port import Launcher
from argosy.policies.lifecycle import Lifecycle

logger = logging.getLogger(__name__)
_TICK_S_MAX = 1.0  # from one tick to the next, though nothing has happened
_FAILED_TICK_S = 1.0
_LEAVING_ASK_EVERY_S = 0.25

InFlight = Callable[[str], Awaitable[int | None]]  # requests on a replica; None: not known now


class Memory(Protocol):
    """Where what is decided is kept; never waits and never raises."""

    def keep(self, state: State) -> None:
        """The state after a tick."""
        ...

    def note(self, notes: Sequence[Note], *, now_s: float) -> None:
        """What was decided in a tick, for the log."""
        ...


class Controller:
    """Keeps a fleet as it is wanted."""

    def __init__(
        self,
        *,
        publish: Callable[[ReplicaTable], None],
        prober: Prober,
        chance: random.Random,
        settings: Settings | None = None,
        memory: Memory | None = None,
        unix_s: float | None = None,  # now; None: times are the loop's
    ) -> None:
        self._publish = publish
        self._chance = chance
        self._memory = memory
        self._unix_s = unix_s
        self._offset_s = 0.0
        self._settings = settings or Settings()
        self._plans: dict[str, DeploymentPlan] = {}  # of the fleet file
        self._targets: dict[str, int] = {}  # of the autoscaling, by deployment
        self._held: dict[str, int] = {}  # by the operator: they go before
        self._wanted: dict[str, DeploymentPlan] = {}  # all in all
        self._drains = Drains()
        self._quarantines = Quarantines()
        self._served_s: Mapping[str, float] = {}
        self._greeted: set[str] = set()  # pools that were looked at since we began
        self._said: list[Note] = []  # for the log, at the next tick
        self._in_flight: InFlight | None = None
        self._state = State()
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()  # set, and replaced, with each new table
        self._busy: dict[str, int | None] = {}  # requests of those that leave
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._actor = Actor(self._wake.set)
        self._watcher = Watcher(self._wake.set, self.now_s)
        self._probing = Probing(prober, self._wake.set, self._settings.health)
        self._loop: asyncio.Task[None] | None = None
        self._due_s = 0.0
        self.waits: tuple[str, ...] = ()  # what had to wait at the last tick, and why

    # What others read.

    @property
    def table(self) -> ReplicaTable:
        """All replicas as they are now."""
        return self._state.table

    @property
    def records(self) -> Mapping[str, Record]:
        """All replicas, and what is remembered of them."""
        return self._state.records

    @property
    def wanted(self) -> Mapping[str, DeploymentPlan]:
        """What is to be, by deployment."""
        return self._wanted

    def pool_of(self, deployment: str) -> str | None:
        """Where a deployment is; None where there is no such one."""
        plan = self._plans.get(deployment)
        return None if plan is None else plan.spec.pool

    @property
    def no_room(self) -> frozenset[str]:
        """Pools where a start found no room of late."""
        now_s = self.now_s()
        return frozenset(p for p, until_s in self._state.no_room_until_s.items() if until_s > now_s)

    @property
    def watcher(self) -> Watcher:
        """What the pools look like."""
        return self._watcher

    def now_s(self) -> float:
        """Unix seconds, by the loop's clock: they never go back in a run."""
        return asyncio.get_running_loop().time() + self._offset_s

    async def first_ready(self) -> Replica:
        """The first replica that is ready. Waits as long as it takes: cancel it to give up."""
        while True:
            for row in self.table.replicas:
                if row.state == "ready":
                    return row
            await self._changed.wait()

    async def all_ready(self) -> None:
        """Returns when all that is wanted is ready. Waits as long as it takes."""
        while not self._is_as_wanted():
            await self._changed.wait()

    def _is_as_wanted(self) -> bool:
        rows = self.table.replicas
        return all(row.state == "ready" for row in rows) and len(rows) == sum(
            plan.replicas for plan in self._wanted.values()
        )

    # Its life.

    async def start(
        self,
        wanted: Iterable[DeploymentPlan],
        launchers: Mapping[str, Launcher],
        *,
        prober: Prober | None = None,
        records: Iterable[Record] = (),
        version: int = 0,
        in_flight: InFlight | None = None,
    ) -> None:
        """Begin; returns at once, with a first table published.

        `records` and `version` are of the control plane before this one.
        """
        if self._loop is not None:
            raise RuntimeError("The controller runs already; stop() it before another start().")
        if self._unix_s is not None:
            self._offset_s = self._unix_s - asyncio.get_running_loop().time()
        known = adopted(records)
        rows = tuple(record.row for record in known.values())
        table = ReplicaTable(version=version, replicas=rows)
        self._state = State(records=known, lifecycle=self._state.lifecycle, table=table)
        self._in_flight = in_flight
        self._forget_quarantines()
        self.want(wanted, launchers=launchers, prober=prober)
        self._tick()
        self._loop = asyncio.create_task(self._tick_forever())

    async def stop(self, grace_s: float, *, is_final: bool = True) -> None:
        """End all replicas at once, killing them after `grace_s`; returns when they are gone.

        May be called at any time, and again: a second call with less grace hurries the first. Not
        `is_final`: what outlives us runs on, for the next control plane.
        """
        await self._stop_looking()
        if is_final:
            self._put(self._parting())
            pools = {record.name: record.spec.pool for record in self._state.records.values()}
            await self._actor.finish(pools, grace_s=grace_s)
            self._put(self._parted())
        for launcher in self._actor.launchers.values():
            await launcher.close(is_final=is_final)

    async def _stop_looking(self) -> None:
        self._watcher.stop()
        self._probing.stop()
        for task in (*self._asking.values(), *((self._loop,) if self._loop else ())):
            task.cancel()
        if self._loop is not None:
            await asyncio.wait((self._loop,))
            self._loop = None

    def _parting(self) -> tuple[Replica, ...]:
        return tuple(
            self._parted_with(record)
            if record.life == "down"
            else record.told("stopping", "the fleet stops")
            for record in self._state.records.values()
        )

    def _parted(self) -> tuple[Replica, ...]:
        return tuple(map(self._parted_with, self._state.records.values()))

    @staticmethod
    def _parted_with(record: Record) -> Replica:
        return replace(record.told("dead", "the fleet stopped"), url=None, pid=None)

    # What is wanted.

    def want(
        self,
        wanted: Iterable[DeploymentPlan],
        *,
        launchers: Mapping[str, Launcher],
        prober: Prober | None = None,
        drain_s: float | None = None,
    ) -> None:
        """Go over to these deployments, on these pools."""
        self._plans = {plan.name: plan for plan in wanted}
        for told in (self._targets, self._held):
            for name in [name for name in told if name not in self._plans]:
                del told[name]
        self._add_up()
        old = self._actor.launchers
        used = {record.spec.pool for record in self._state.records.values()}
        kept = {pool: old[pool] for pool in used if pool in old and pool not in launchers}
        self._actor.launchers = {**kept, **launchers}
        self._watcher.watch(self._actor.launchers)
        if prober is not None:
            self._probing.prober = prober
        if drain_s is not None:
            self._settings = replace(self._settings, drain_s=drain_s)
        self._wake.set()

    def target(
        self,
        targets: Mapping[str, int],
        *,
        reasons: Mapping[str, str],
        inputs: bytes | None = None,
    ) -> None:
        """What the autoscaling wants, by deployment; `inputs`: JSON of what it was made from."""
        for name, replicas in targets.items():
            if name in self._plans and self._targets.get(name) != replicas:
                self._targets[name] = replicas
                self._said.append(
                    Note(kind="scale", subject=name, reason=reasons[name], inputs=inputs)
                )
        self._add_up()

    def hold(self, deployment: str, replicas: int | None) -> None:
        """So many replicas, whatever the file and the autoscaling say; None: as they say again."""
        if replicas is None:
            self._held.pop(deployment, None)
            told = "the operator holds it no more"
        else:
            self._held[deployment] = replicas
            told = f"the operator wants {replicas}"
        self._said.append(Note(kind="hold", subject=deployment, reason=told))
        self._add_up()

    def as_wanted(self, plans: Iterable[DeploymentPlan]) -> tuple[DeploymentPlan, ...]:
        """These, with as many replicas as the operator or the autoscaling wants."""
        return tuple(
            replace(
                plan,
                replicas=self._held.get(plan.name, self._targets.get(plan.name, plan.replicas)),
            )
            for plan in plans
        )

    def _add_up(self) -> None:
        self._wanted = {plan.name: plan for plan in self.as_wanted(self._plans.values())}
        self._wake.set()

    @property
    def held(self) -> Mapping[str, int]:
        """What the operator holds, by deployment."""
        return self._held

    @property
    def targets(self) -> Mapping[str, int]:
        """What the autoscaling wants, by deployment."""
        return self._targets

    def recall(
        self, *, held: Mapping[str, int], targets: Mapping[str, int], drains: Drains
    ) -> None:
        """What the control plane before this one was told; before `start`."""
        self._held, self._targets, self._drains = dict(held), dict(targets), drains

    @property
    def lifecycle(self) -> Lifecycle:
        """How many were ready of late, which caps removals."""
        return self._state.lifecycle

    def remember(self, lifecycle: Lifecycle) -> None:
        """That of the control plane before this one; before `start`."""
        self._state = replace(self._state, lifecycle=lifecycle)

    def note(self, note: Note) -> None:
        """For the log, with what the next tick decides."""
        self._said.append(note)
        self._wake.set()

    @property
    def drains(self) -> Drains:
        """What the operator wants empty."""
        return self._drains

    def drain(self, drains: Drains) -> None:
        """Empty these, and keep them empty."""
        self._drains = drains
        self._wake.set()

    @property
    def quarantines(self) -> Quarantines:
        """What is in quarantine."""
        return self._quarantines

    def quarantine(self, quarantines: Quarantines, notes: Iterable[Note] = ()) -> None:
        """All that is in quarantine from now on; `notes`: why, for the log."""
        if self._loop is None:  # of the control plane before: it may not have come to that
            self._actor.cordoned.update((one.pool, one.name) for one in quarantines.on_trial)
        self._quarantines = quarantines
        self._said += notes
        self._wake.set()

    def _forget_quarantines(self) -> None:
        """Of replicas that are gone: their names are free again."""
        out = {one.name for one in self._quarantines.out if one.kind == "replica"}
        self._quarantines = self._quarantines.but(out - self._state.records.keys())

    def witness(self, served_s: Mapping[str, float]) -> None:
        """When gateways had bytes of an answer last, by replica."""
        self._served_s = served_s

    # A tick.

    async def _tick_forever(self) -> None:
        while True:
            wait_s = max(0.0, min(_TICK_S_MAX, self._due_s - self.now_s()))
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                self._tick()
            except Exception:
                logger.exception("A tick of the control plane failed; it is taken again")
                await asyncio.sleep(_FAILED_TICK_S)

    def _tick(self) -> None:
        seen = self._look()
        step = reconcile(
            self._state,
            self._wanted,
            seen,
            drains=self._drains,
            settings=self._settings,
            chance=self._chance,
        )
        self._due_s = step.due_s
        self._take(step, seen.now_s)
        gone = self._drains.replicas - step.state.records.keys()
        if gone:  # their names are free again
            self._drains = replace(self._drains, replicas=self._drains.replicas - gone)
        self._forget_quarantines()

    def _look(self) -> Seen:
        now_s = self.now_s()
        found = {one.name: (pool, one) for pool, one, _ in self._watcher.replicas()}
        probes = self._probing.take()
        actor = self._actor
        replicas = {
            name: SeenReplica(
                observed=_of_pool(found.get(name), record.spec.pool),
                observed_at_s=self._observed_at_s(record.spec.pool),
                probes=probes.get(name, ()),
                failure=actor.failed.get(name),
                is_accepted=name in actor.accepted,
                is_stopped=name in actor.stopped,
                requests_in_flight=self._busy.get(name),
                served_s=self._served_s.get(name),
            )
            for name, record in self._state.records.items()
        }
        actor.failed.clear()
        actor.accepted.clear()
        actor.stopped.clear()
        return Seen(
            now_s=now_s,
            replicas=replicas,
            unseen_pools=self._watcher.unseen(),
            quarantines=self._quarantines,
            strays=tuple(self._strays()),
        )

    def _strays(self) -> Iterator[tuple[str, ObservedReplica]]:
        """At the first look at each pool; what comes later we have started ourselves."""
        for pool, one, _ in self._watcher.replicas():
            if pool not in self._greeted and one.name not in self._state.records:
                yield pool, one
        self._greeted |= self._watcher.seen()

    def _observed_at_s(self, pool: str) -> float | None:
        sight = self._watcher.sight(pool)
        if sight is None:
            return float("-inf")  # it is about to be looked at: nothing is amiss
        return None if sight.observation is None else sight.at_s

    def _take(self, step: Step, now_s: float) -> None:
        table = self._state.table
        self._state, self.waits = step.state, step.waits
        notes = (*self._said, *step.notes)
        self._said.clear()
        for note in notes:
            logger.info("%s %s: %s", note.subject, note.kind, note.reason)
        if self._memory is not None:
            self._memory.keep(step.state)
            self._memory.note(notes, now_s=now_s)
        if step.state.table is not table or not table.version:
            self._tell()
        self._actor.cordon(self._drained_nodes() | self._quarantines.nodes())
        self._actor.do(step.actions)
        self._probing.watch(step.state.records.values())
        self._ask_those_that_leave()

    def _drained_nodes(self) -> dict[tuple[str, str], str]:
        """By pool and node; in a pool that is out of sight, those that were closed stay so."""
        seen = {(pool, node.name) for pool, node in self._watcher.nodes()}
        nodes = seen | self._actor.cordoned
        return {one: "it is drained" for one in nodes if one[1] in self._drains.nodes}

    def _put(self, rows: tuple[Replica, ...]) -> None:
        table = self._state.table
        if rows != table.replicas:
            table = ReplicaTable(version=table.version + 1, replicas=rows)
            self._state = replace(self._state, table=table)
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        try:
            self._publish(self.table)
        except Exception:
            logger.exception("Replica table %d could not be published", self.table.version)

    # Those that leave.

    def _ask_those_that_leave(self) -> None:
        leaving = {
            record.name
            for record in self._state.records.values()
            if record.leaving is not None and record.life in ("starting", "up")
        }
        for name in self._asking.keys() - leaving:
            self._asking.pop(name).cancel()
            self._busy.pop(name, None)
        for name in leaving - self._asking.keys():
            self._asking[name] = asyncio.create_task(self._ask_forever(name))

    async def _ask_forever(self, name: str) -> None:
        while self._in_flight is not None:
            self._busy[name] = await self._in_flight(name)
            if self._busy[name] == 0:
                self._wake.set()
            await asyncio.sleep(_LEAVING_ASK_EVERY_S)


def _of_pool(found: tuple[str, ObservedReplica] | None, pool: str) -> ObservedReplica | None:
    return found[1] if found is not None and found[0] == pool else None
