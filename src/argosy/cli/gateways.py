"""All gateway processes of one run: started, replaced when they die, exchanged for another file.

Owns the processes, their numbers and their columns of the ledger. The sockets stay open here for
the whole run (`listeners.py`), so that whoever replaces a process loses no connection. Restarts
wait as replicas' do (`policies/health.py`).
"""

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path

import msgspec

from argosy.cli.channel import Answered, Begin, Collecting, Keys
from argosy.cli.gateway_child import GatewayChild, GatewayStartError
from argosy.cli.listeners import Listeners
from argosy.cli.state import LEDGER_FILE, QUOTA_FILE, now_s
from argosy.cli.tls import TlsError, certificate_of
from argosy.control.scaling import Signals, signals_of
from argosy.fleet.config import Fleet
from argosy.fleet.messages import Key, LiveKeys, ReplicaTable
from argosy.gateway import ledger_file
from argosy.gateway.ledger import Ledger, budgets_of
from argosy.gateway.together import Collected, metrics_of
from argosy.observability.counts import Counts
from argosy.policies.health import HealthSettings, RestartState, became_ready, restart_delay_s

logger = logging.getLogger(__name__)
GENERATIONS = 4  # of gateway processes that may be alive at once: one serves, three still drain
_WATCH_EVERY_S = 2.0
_SILENT_S_MAX = 10.0  # one that says nothing for so long is killed and replaced
_HEALTH = HealthSettings()


class GatewayTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What all gateway processes of a run are told, whatever the fleet file."""

    state: Path
    operator_token: str
    up_key: Key
    say: Callable[[str], None]
    chance: random.Random
    store: str | None = None  # a shared one's URL; None: the state folder's own
    table_age_s: Callable[[], float | None] = lambda: None  # where others make the table


class Gateways:
    """The gateway, seen from its parent."""

    def __init__(self, fleet: Fleet, terms: GatewayTerms, listeners: Listeners) -> None:
        self._terms = terms
        self._fleet = fleet
        self._listeners = listeners
        self._table = ReplicaTable(version=0, replicas=())
        self._keys: LiveKeys | None = None
        self._current: dict[int, GatewayChild] = {}  # by number
        self._alive: set[GatewayChild] = set()
        self._replacing: dict[int, asyncio.Task[None]] = {}
        self._restarts: dict[int, RestartState] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._gone = Counts()  # what processes counted that have ended
        self._columns = GENERATIONS * fleet.gateway.processes + 1  # the last one is ours
        self._columns_taken: set[int] = set()
        self._ledger: Ledger | None = None
        self._is_stopping = False
        self._watching: asyncio.Task[None] | None = None
        self._began_s = _loop_s()
        ledger_file.remove(terms.state / LEDGER_FILE)
        ledger_file.remove(terms.state / QUOTA_FILE)

    # Its life.

    async def start(self) -> None:
        """Returns when all serve. Raises GatewayStartError."""
        await self._take_over(self._fleet)
        self._watching = asyncio.create_task(self._watch_forever())

    async def replace(self, fleet: Fleet) -> None:
        """New processes with that fleet serve, and the old ones end what they have.

        Raises GatewayStartError when they do not come up: then nothing has changed.
        """
        free = self._columns - 1 - len(self._columns_taken)
        if free < len(self._listeners.groups):
            raise GatewayStartError(
                f"the processes of {GENERATIONS - 1} reloads still end their streams, which takes "
                f"at most drain_s = {self._fleet.gateway.drain_s:g} s; reload again after that"
            )
        await self._take_over(fleet)

    async def drain(self, timeout_s: float) -> None:
        """Refuse what comes, let end what runs; returns when all processes have ended."""
        self._is_stopping = True
        if self._watching is not None:
            self._watching.cancel()
        for task in self._replacing.values():
            task.cancel()
        self._listeners.close()
        self.hurry(timeout_s)
        await asyncio.gather(*(child.ended for child in self._alive))

    def hurry(self, timeout_s: float = 0.0) -> None:
        """They have no more than this."""
        for child in self._alive:
            child.drain(timeout_s)

    async def drain_unless(self, hurry: asyncio.Event, drain_s: float) -> None:
        """Drain; from `hurry` on at once."""
        self._terms.say(
            "draining: streams may end, new requests are refused; Ctrl-C again to stop now"
        )
        draining = asyncio.create_task(self.drain(drain_s))
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not draining.done():
            self.hurry()
        await draining

    async def stop(self) -> None:
        """Leave nothing, whatever state it is in."""
        self._is_stopping = True
        for child in self._alive:
            child.kill()
        await self.drain(0.0)
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    @property
    def table(self) -> ReplicaTable:
        """What they route on."""
        return self._table

    def publish(self, table: ReplicaTable) -> None:
        """They route on this from now on."""
        self._table = table
        for child in self._alive:
            child.table(table)

    @property
    def keys_revision(self) -> int:
        """Of what a control plane told; 0: none did."""
        return 0 if self._keys is None else self._keys.revision

    def tell_keys(self, keys: LiveKeys) -> None:
        """They know these from now on, where they are newer than what they know."""
        self._keys = keys
        for child in self._alive:
            child.say(Keys(keys=keys))

    # What they tell.

    async def collect(self, explain: str | None = None) -> Collected:
        """Asks all that serve or drain, at once; a second at most."""
        asked = self._heard()
        gone = Counts()  # now: who answers and then ends must not be counted twice
        gone.add(self._gone)
        asked.sort(key=lambda child: (child in self._current.values(), child.pid))
        reports = await asyncio.gather(*(child.report(explain) for child in asked))
        silent: list[int] = []
        for child, report in zip(asked, reports, strict=True):
            if report is None:
                gone.add(child.counts)
            if report is None and child in self._alive:
                silent.append(child.pid)
        return Collected(
            uptime_s=_loop_s() - self._began_s,
            snapshots=tuple(report for report in reports if report is not None),
            silent=tuple(silent),
            gone=gone,
            table_age_s=self._terms.table_age_s(),
        )

    async def heard(self, *, at_s: float) -> Sequence[Signals]:
        """What all of them tell the autoscaling, as that of one gateway; `at_s`: now."""
        collected = await self.collect()
        return [
            signals_of(
                metrics_of(collected),
                at_s=at_s,
                began_s=at_s - collected.uptime_s,
                is_whole=not collected.silent,
            )
        ]

    async def in_flight(self, replica: str) -> int | None:
        """Requests on that replica; None while a process does not say."""
        counted = await asyncio.gather(*(child.count() for child in self._heard()))
        if None in counted:
            return None
        return sum(
            count
            for metrics in counted
            if metrics is not None
            for (_, name), count in metrics.readings.in_flight.items()
            if name == replica
        )

    def _heard(self) -> list[GatewayChild]:
        return [child for child in self._alive if child.state != "starting"]

    def _answer(self, child: GatewayChild, asked: Collecting) -> None:
        async def answer() -> None:
            collected = await self.collect(asked.explain)
            child.say(Answered(number=asked.number, collected=collected))

        task = asyncio.create_task(answer())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    # One generation.

    async def _take_over(self, fleet: Fleet) -> None:
        """All or none: they listen when each of them is ready."""
        try:
            certificate_of(fleet.gateway.tls)
        except TlsError as error:
            raise GatewayStartError(f"gateway.tls: {error}") from error
        self._hold_budgets(fleet)
        numbers = range(len(self._listeners.groups))
        children: list[GatewayChild] = []
        try:
            for number in numbers:
                children += (await self._spawn(number, fleet),)
            await _all(child.become_ready() for child in children)
            self._check_goes_on()
            await _all(child.serve() for child in children)
        except BaseException:
            for child in children:
                child.kill()
            raise
        for task in self._replacing.values():
            task.cancel()
        old, drain_s = list(self._current.values()), self._fleet.gateway.drain_s
        self._current, self._fleet = dict(enumerate(children)), fleet
        for child in old:
            child.retire(drain_s)
        for child in children:
            self._serves(child)
            if child.ended.done():  # since it listens
                self._replace(child)

    def _check_goes_on(self) -> None:
        if self._is_stopping:
            raise GatewayStartError("the fleet stops")

    async def _spawn(self, number: int, fleet: Fleet) -> GatewayChild:
        column = next(column for column in itertools.count() if column not in self._columns_taken)
        self._columns_taken.add(column)
        begin = Begin(
            fleet=fleet,
            state=str(self._terms.state),
            store=self._terms.store,
            process=number,
            column=column,
            columns=self._columns,
            operator_token=self._terms.operator_token,
            up_key=self._terms.up_key,
            table=self._table,
            keys=self._keys,
        )
        try:
            child = await GatewayChild.start(begin, self._listeners.groups[number], self._answer)
        except BaseException:
            self._columns_taken.discard(column)
            raise
        self._alive.add(child)
        child.table(self._table)  # a newer one may have come while it was started
        if self._keys is not None:
            child.say(Keys(keys=self._keys))
        child.ended.add_done_callback(lambda _: self._ended(child))
        return child

    def _hold_budgets(self, fleet: Fleet) -> None:
        """Ours is the column that nobody uses: we only drop what dead processes had reserved."""
        if self._ledger is None and budgets_of(fleet):
            self._ledger = Ledger(
                self._terms.state / LEDGER_FILE,
                {},
                process=self._columns - 1,
                processes=self._columns,
                spent=lambda tenant, since_s: (0, 0),
                now_unix_s=now_s(),
            )

    # Deaths.

    def _serves(self, child: GatewayChild) -> None:
        state = self._restarts.get(child.number, RestartState())
        self._restarts[child.number] = became_ready(state, now_s=_loop_s())

    def _ended(self, child: GatewayChild) -> None:
        self._alive.discard(child)
        self._gone.add(child.counts)
        if self._ledger is not None:
            self._ledger.drop(child.column)
        self._columns_taken.discard(child.column)
        if self._current.get(child.number) is child:
            self._replace(child)

    def _replace(self, child: GatewayChild) -> None:
        replacing = self._replacing.get(child.number)
        if self._is_stopping or (replacing is not None and not replacing.done()):
            return
        self._terms.say(f"gateway process {child.pid} {child.ended.result()}; it is replaced")
        task = asyncio.create_task(self._replace_until_it_serves(child.number))
        self._replacing[child.number] = task

    async def _replace_until_it_serves(self, number: int) -> None:
        while True:
            restarts, delay = restart_delay_s(
                self._restarts.get(number, RestartState()),
                now_s=_loop_s(),
                jitter=self._terms.chance.random(),
                settings=_HEALTH,
            )
            self._restarts[number] = restarts
            await asyncio.sleep(delay.delay_s)
            try:
                child = await self._started(number)
            except GatewayStartError as error:
                self._terms.say(f"no gateway process in its place: {error}")
                continue
            except Exception:
                logger.exception("Replacing gateway process %d failed; it is tried again", number)
                continue
            self._current[number] = child
            self._serves(child)
            if not child.ended.done():
                return

    async def _started(self, number: int) -> GatewayChild:
        """One more of the current generation."""
        child = await self._spawn(number, self._fleet)
        try:
            await child.become_ready()
            await child.serve()
        except BaseException:
            child.kill()
            raise
        return child

    async def _watch_forever(self) -> None:
        """Kill who has not said a word for long: a stopped process keeps connections waiting."""
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            await asyncio.gather(*(child.count() for child in self._heard()))
            for child in tuple(self._alive):
                silent_s = _loop_s() - child.heard_s
                if child.state == "serving" and silent_s > _SILENT_S_MAX:
                    self._terms.say(f"gateway process {child.pid} says nothing; it is killed")
                    child.kill()


async def _all(steps: Iterable[Coroutine[object, object, None]]) -> None:
    """At once; the first that fails is raised when all have come to an end."""
    failed = await asyncio.gather(*steps, return_exceptions=True)
    for error in failed:
        if error is not None:
            raise error


def _loop_s() -> float:
    return asyncio.get_running_loop().time()
