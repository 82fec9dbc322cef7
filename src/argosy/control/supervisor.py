"""Owns every replica of a fleet: starts it, watches it, says why it ended, starts it again.

One task per replica, so that one that cannot start holds up no other. What a failed probe means
and how long to wait is decided in `policies/health.py`; how a process is started is left to the
launchers; who reads the published table is not known here.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from argosy.control.plan import ReplicaPlan
from argosy.control.probe import Prober
from argosy.fleet.messages import Replica, ReplicaState, ReplicaTable
from argosy.launchers.port import Launched, Launcher, ReplicaEndedError
from argosy.policies.health import (
    HealthSettings,
    HealthState,
    Healthy,
    Probe,
    RestartState,
    Suspect,
    Unresponsive,
    became_ready,
    judge,
    restart_delay_s,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")
_CANCEL_AGAIN_S = 0.1


class Supervisor:
    """Keeps the planned replicas alive; owns their processes and the replica table."""

    def __init__(
        self,
        plans: Sequence[ReplicaPlan],
        *,
        launchers: Mapping[str, Launcher],  # by pool
        prober: Prober,
        publish: Callable[[ReplicaTable], None],
        chance: random.Random,
        settings: HealthSettings | None = None,
    ) -> None:
        self._plans = tuple(plans)
        self._launchers = launchers
        self._prober = prober
        self._publish = publish
        self._chance = chance
        self._settings = settings or HealthSettings()
        self._rows = {plan.name: plan.replica for plan in self._plans}
        self._version = 0
        self._changed = asyncio.Event()  # set, and replaced, with each new table
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._starts: dict[str, asyncio.Task[Launched]] = {}  # done once the process exists

    @property
    def table(self) -> ReplicaTable:
        """All replicas as they are now."""
        return ReplicaTable(version=self._version, replicas=tuple(self._rows.values()))

    async def start(self) -> None:
        """Begin to start every replica; returns at once, with a first table published."""
        if self._loops:
            raise RuntimeError("The supervisor runs already; stop() it before another start().")
        self._put(*(plan.replica for plan in self._plans))
        for plan in self._plans:
            self._loops[plan.name] = asyncio.create_task(self._keep(plan), name=plan.name)

    async def stop(self, grace_s: float) -> None:
        """Stop all replicas at once, killing them after `grace_s`; returns when they are gone.

        May be called at any time, and again: a second call with less grace hurries the first.
        """
        await _cancel(self._loops.values())
        self._loops.clear()
        self._put(*(self._stopped(plan.name) for plan in self._plans))
        await asyncio.gather(*(self._end(name, grace_s=grace_s) for name in list(self._starts)))
        self._put(*(self._stopped(plan.name) for plan in self._plans))

    async def first_ready(self) -> Replica:
        """The first replica that is ready. Waits as long as it takes: cancel it to give up."""
        while True:
            for row in self._rows.values():
                if row.state == "ready":
                    return row
            await self._changed.wait()

    async def all_ready(self) -> None:
        """Returns when all replicas are ready. Waits as long as it takes."""
        while not all(row.state == "ready" for row in self._rows.values()):
            await self._changed.wait()

    # ── one replica ──────────────────────────────────────────────────────────────────────────

    async def _keep(self, plan: ReplicaPlan) -> None:
        """One life of the replica after the other; nothing that happens in one ends this."""
        restarts = RestartState()
        while True:
            try:
                restarts, ended = await self._live(plan, restarts)
            except Exception as error:
                logger.exception("The supervision of %s failed; it is restarted", plan.name)
                ended = f"its supervision failed: {error!r}"
            restarts, delay = restart_delay_s(
                restarts,
                now_s=_now_s(),
                jitter=self._chance.random(),
                settings=self._settings,
            )
            self._put(_dead(self._rows[plan.name], f"{ended}; {delay.reason}"))
            await self._end(plan.name, grace_s=0.0)
            await asyncio.sleep(delay.delay_s)
            self._put(_restarted(self._rows[plan.name], ended))

    async def _live(self, plan: ReplicaPlan, restarts: RestartState) -> tuple[RestartState, str]:
        """Start, listen, become ready, be watched; returns why that is over."""
        try:
            async with asyncio.timeout(self._settings.start_s_max):
                launched = await self._start(plan)
                url = await self._listen(plan, launched)
                if plan.is_ours:
                    ended = await _first(launched.ended(), self._until_ready(plan, url))
                    if ended is not None:
                        return restarts, f"ended before it was ready: {ended}"
            restarts = became_ready(restarts, now_s=_now_s())
            return restarts, await _first(launched.ended(), self._watch(plan, url))
        except TimeoutError:
            return restarts, f"not ready after {self._settings.start_s_max:g} s"
        except ReplicaEndedError as error:
            return restarts, f"cannot start: {error}"
        except OSError as error:
            program = plan.command.argv[0] if plan.command else plan.name
            return restarts, f"cannot start {program}: {error.strerror or error}"

    async def _start(self, plan: ReplicaPlan) -> Launched:
        """Never cancelled halfway: `stop` waits until there is something that it can stop."""
        launcher = self._launchers[plan.replica.pool]
        starting = asyncio.create_task(launcher.start(plan.name, plan.command))
        self._starts[plan.name] = starting
        launched = await asyncio.shield(starting)
        self._put(replace(self._rows[plan.name], pid=launched.pid))
        return launched

    async def _listen(self, plan: ReplicaPlan, launched: Launched) -> str:
        url = await launched.listening()
        self._put(replace(self._rows[plan.name], url=url, reason="listens"))
        return url

    async def _until_ready(self, plan: ReplicaPlan, url: str) -> None:
        """Ask until one probe is good, however long the model takes to load."""
        while not (probe := await self._probe(plan, url)).ok:
            reason = f"listens, not ready yet: {probe.detail}"
            self._put(replace(self._rows[plan.name], reason=reason))
            await asyncio.sleep(self._settings.probe_interval_s_starting)

    async def _watch(self, plan: ReplicaPlan, url: str) -> str:
        """Judge probe after probe; returns why the replica has to go."""
        health = HealthState()
        while True:
            probe = await self._probe(plan, url)
            health, verdict = judge(health, probe, now_s=_now_s(), settings=self._settings)
            if isinstance(verdict, Unresponsive) and plan.is_ours:
                return verdict.reason
            self._put(_judged(self._rows[plan.name], verdict))
            await asyncio.sleep(self._interval_s(plan))

    async def _probe(self, plan: ReplicaPlan, url: str) -> Probe:
        settings = self._settings
        return await self._prober.probe(
            url.rstrip("/") + plan.health_path,
            pool=plan.replica.pool,
            timeout_s=settings.probe_timeout_s
            if plan.is_ours
            else settings.probe_timeout_s_endpoint,
        )

    def _interval_s(self, plan: ReplicaPlan) -> float:
        settings = self._settings
        return settings.probe_interval_s if plan.is_ours else settings.probe_interval_s_endpoint

    async def _end(self, name: str, *, grace_s: float) -> None:
        """Stop what was started under that name; returns when it is gone."""
        starting = self._starts.get(name)
        if starting is None:
            return
        await asyncio.wait({starting})
        if not starting.cancelled() and starting.exception() is None:
            try:
                await starting.result().stop(grace_s=grace_s)
            except Exception:
                logger.exception("Stopping %s failed; its process may be left", name)
        self._starts.pop(name, None)

    # ── the table ────────────────────────────────────────────────────────────────────────────

    def _stopped(self, name: str) -> Replica:
        """The row of a replica that is being stopped, or that needs no stopping any more."""
        row = self._rows[name]
        if name in self._starts:
            return replace(row, state="stopping", reason="the fleet stops")
        return _dead(row, "the fleet stopped")

    def _put(self, *rows: Replica) -> None:
        """Publish a whole new table when one of these rows says something new."""
        changed = [row for row in rows if row != self._rows[row.name]]
        if not changed and self._version:
            return
        for row in changed:
            logger.info("%s is %s: %s", row.name, row.state, row.reason)
            self._rows[row.name] = row
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()
        try:
            self._publish(self.table)
        except Exception:
            logger.exception("Replica table %d could not be published", self._version)


def _judged(row: Replica, verdict: Healthy | Suspect | Unresponsive) -> Replica:
    state: ReplicaState
    match verdict:
        case Healthy():
            state = "ready"
        case Suspect():
            state = "suspect"
        case Unresponsive():
            state = "dead"
    return replace(row, state=state, reason=verdict.reason)


def _dead(row: Replica, reason: str) -> Replica:
    return replace(row, state="dead", reason=reason, url=None, pid=None)


def _restarted(row: Replica, ended: str) -> Replica:
    reason = f"started again; before that: {ended}"
    return replace(row, state="starting", reason=reason, restarts=row.restarts + 1)


async def _first(*coroutines: Coroutine[Any, Any, T]) -> T:
    """What the first to finish returns or raises; the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Returns when all have ended.

    Asks more than once: before Python 3.12 `asyncio.wait_for`, in a launcher say, loses a
    cancellation that arrives together with its result.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
