"""Owns every replica of a fleet: starts it, watches it, says why it ended, starts it again.

One task per replica, so that one that cannot start holds up no other. What a failed probe means
and how long to wait is decided in `policies/health.py`; how a process is started is left to the
launchers; who reads the published table is not known here. What a new fleet file changes is
`replan.py`'s; here it is done in an order that leaves no model without a ready replica.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from argosy.control.plan import ReplicaPlan
from argosy.control.probe import Prober
from argosy.control.replan import Change, Succession, change
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
_LEAVING_ASK_EVERY_S = 0.25
_LEAVING_GRACE_S = 3.0

InFlight = Callable[[str], Awaitable[int | None]]  # requests on a replica; None: not known now


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
        self._plans = {plan.name: plan for plan in plans}  # of replicas that are to run
        self._launchers = launchers
        self._prober = prober
        self._publish = publish
        self._chance = chance
        self._settings = settings or HealthSettings()
        self._rows = {plan.name: plan.replica for plan in plans}  # those that leave too
        self._version = 0
        self._is_stopping = False
        self._changed = asyncio.Event()  # set, and replaced, with each new table
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._starts: dict[str, asyncio.Task[Launched]] = {}  # done once the process exists
        self._changes: set[asyncio.Task[None]] = set()  # successions and removals under way
        self._successions: set[asyncio.Task[None]] = set()  # of these, what a new plan overrides

    @property
    def table(self) -> ReplicaTable:
        """All replicas as they are now."""
        return ReplicaTable(version=self._version, replicas=tuple(self._rows.values()))

    async def start(self) -> None:
        """Begin to start every replica; returns at once, with a first table published."""
        if self._loops:
            raise RuntimeError("The supervisor runs already; stop() it before another start().")
        self._is_stopping = False
        self._put(*(plan.replica for plan in self._plans.values()))
        for plan in self._plans.values():
            self._loops[plan.name] = asyncio.create_task(self._keep(plan), name=plan.name)

    async def stop(self, grace_s: float) -> None:
        """Stop all replicas at once, killing them after `grace_s`; returns when they are gone.

        May be called at any time, and again: a second call with less grace hurries the first.
        """
        self._is_stopping = True
        await _cancel(self._changes)
        await _cancel(self._loops.values())
        self._loops.clear()
        self._put(*(self._stopped(name) for name in self._rows))
        await asyncio.gather(*(self._end(name, grace_s=grace_s) for name in list(self._starts)))
        self._put(*(self._stopped(name) for name in self._rows))

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

    # ── another plan ─────────────────────────────────────────────────────────────────────────

    async def replan(
        self,
        plans: Sequence[ReplicaPlan],
        *,
        launchers: Mapping[str, Launcher],
        prober: Prober,
        in_flight: InFlight,
        drain_s: float,
    ) -> Change:
        """Go over to these replicas; returns what that takes as soon as it is under way.

        What is added starts at once. A changed replica goes when its successor is ready, one
        after the other in a deployment, so that one more at most needs room. A removed one goes
        when another of its model is ready, or at once with its model. Whoever goes gets no new
        requests and has `drain_s` for those that it has.
        """
        await _cancel(self._successions)
        if self._is_stopping:
            return Change()
        wanted = change(tuple(self._plans.values()), plans, taken=self._rows)
        self._launchers, self._prober = launchers, prober
        for plan in wanted.added:
            self._add(plan)
        leave = _Leave(in_flight, drain_s)
        by_deployment: dict[str, list[Succession]] = {}
        for succession in wanted.succeeded:
            by_deployment.setdefault(succession.new.replica.deployment, []).append(succession)
        for successions in by_deployment.values():
            self._under_way(self._succeed(successions, leave), is_succession=True)
        models = {plan.replica.model for plan in plans}
        for name in wanted.removed:
            self._under_way(self._remove(name, leave, models), is_succession=True)
        return wanted

    def _under_way(self, doing: Coroutine[Any, Any, None], *, is_succession: bool) -> None:
        task = asyncio.create_task(doing)
        for tasks in (self._changes, self._successions) if is_succession else (self._changes,):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def _add(self, plan: ReplicaPlan) -> None:
        self._plans[plan.name] = plan
        self._put(plan.replica)
        self._loops[plan.name] = asyncio.create_task(self._keep(plan), name=plan.name)

    async def _succeed(self, successions: Sequence[Succession], leave: "_Leave") -> None:
        """One after the other. What a new plan interrupts goes on running until that plan ends it.

        One whose turn has not come has no successor yet: it is still the one that runs.
        """
        for succession in successions:
            self._add(succession.new)
            await self._until(lambda new=succession.new.name: self._rows[new].state == "ready")
            self._let_go(succession.old, leave)

    async def _remove(self, name: str, leave: "_Leave", models: set[str]) -> None:
        model = self._rows[name].model
        if model in models:
            await self._until(
                lambda: any(
                    row.state == "ready" and row.model == model and row.name != name
                    for row in self._rows.values()
                )
            )
        self._let_go(name, leave)

    def _let_go(self, name: str, leave: "_Leave") -> None:
        """From here on it is wanted no more, whatever plan comes."""
        del self._plans[name]
        self._under_way(self._part_with(name, leave), is_succession=False)

    async def _part_with(self, name: str, leave: "_Leave") -> None:
        await _cancel((self._loops.pop(name),))
        reason = "the fleet file wants it no more; it ends what it has"
        self._put(replace(self._rows[name], state="stopping", reason=reason))
        end_s = _now_s() + leave.drain_s
        while _now_s() < end_s:
            if await leave.in_flight(name) == 0:
                break
            await asyncio.sleep(_LEAVING_ASK_EVERY_S)
        await self._end(name, grace_s=_LEAVING_GRACE_S)
        del self._rows[name]
        self._tell()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
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
        changed = [row for row in rows if row != self._rows.get(row.name)]
        if not changed and self._version:
            return
        for row in changed:
            logger.info("%s is %s: %s", row.name, row.state, row.reason)
            self._rows[row.name] = row
        self._tell()

    def _tell(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()
        try:
            self._publish(self.table)
        except Exception:
            logger.exception("Replica table %d could not be published", self._version)


class _Leave:
    """How replicas part that are wanted no more."""

    def __init__(self, in_flight: InFlight, drain_s: float) -> None:
        self.in_flight = in_flight
        self.drain_s = drain_s


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
