"""Asks the gateways what is asked for, and the policies how many replicas that takes, and where.

Owns the rhythm: a tick each ten seconds for all models, a look each second at those that requests
wait for; a replica that is new is timed first; and which pools are closed: drained, in quarantine,
or without room of late. What is decided is `policies/capacity`'s; what was learned, `scaling/`'s.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec

from argosy.control.controller import Controller
from argosy.control.scaling import LiveScaler, ModelDecision, Signals, Subject, measure
from argosy.engines.registry import adapter
from argosy.fleet.config import Fleet
from argosy.fleet.messages import Replica
from argosy.policies.capacity import Closed, Logged

logger = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0  # whether somebody waits
_CUT_OFF_S = 3.0  # after a pool is seen again: until then what is gone there is noticed
_INPUTS_BYTES_MAX = 2**20  # of one decision in the log
_LARGE = 4  # deployments to be placed: beyond these (some 10 ms) it is done in a thread

Hear = Callable[[], Awaitable[Sequence[Signals]]]  # of each gateway


class Autoscaling:
    """Of one run."""

    def __init__(
        self, scaler: LiveScaler, controller: Controller, hear: Hear, *, chance: random.Random
    ) -> None:
        self.scaler = scaler
        self._controller = controller
        self._hear = hear
        self._chance = chance
        self._running: asyncio.Task[None] | None = None
        self._tried: dict[str, asyncio.Task[None]] = {}  # timings, by deployment
        self._unseen_at_s: dict[str, float] = {}  # pools, when they last could not be seen
        self._full_until_s: dict[str, float] = {}  # pools that had no room

    def start(self, fleet: Fleet) -> None:
        """From now on, where the fleet has anything to scale."""
        self.stop()
        self._fleet = fleet
        if any(one.autoscale.max is not None for one in fleet.deployments):
            self._running = asyncio.create_task(self._decide_forever())

    def stop(self) -> None:
        """Targets stay as they are."""
        if self._running is not None:
            self._running.cancel()
            self._running = None

    async def _decide_forever(self) -> None:
        decide_at_s = 0.0
        while True:
            try:
                await self._look()
                now_s = self._controller.now_s()
                is_new = self._constrain(now_s)
                if self._is_newly_cut_off(now_s):
                    decide_at_s = now_s + _LOOK_EVERY_S  # when probes have told as well
                elif is_new or now_s >= decide_at_s:
                    decide_at_s = now_s + self.scaler.settings.decision_s
                    await self._decide(now_s, None)
                elif waited_for := self.scaler.is_wanted_at_once():
                    await self._decide(now_s, waited_for)
            except Exception:
                logger.exception("Autoscaling failed; it is tried again")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _look(self) -> None:
        asked_s = {name: one.asked_at_s for name, one in self._controller.records.items()}
        self.scaler.observe(self._controller.now_s(), self._controller.table, asked_s=asked_s)
        for signals in await self._hear():
            self.scaler.hear(signals)
        for deployment in self.scaler.unmeasured():
            self._measure_once(deployment)

    def _is_newly_cut_off(self, now_s: float) -> bool:
        """Whether any pool is that was not; the scaler is told of all."""
        known = frozenset(self._unseen_at_s)
        self._unseen_at_s |= dict.fromkeys(self._controller.watcher.unseen(), now_s)
        for pool, at_s in list(self._unseen_at_s.items()):
            if now_s - at_s > _CUT_OFF_S:
                del self._unseen_at_s[pool]
        self.scaler.cut_off(frozenset(self._unseen_at_s))
        return not known.issuperset(self._unseen_at_s)

    def _constrain(self, now_s: float) -> bool:
        """Tell the scaler which pools are closed and what is held; whether any of it is new."""
        controller, found = self._controller, dict[str, Closed]()
        retry_s = self.scaler.settings.retry_s
        for pool in controller.no_room:
            self._full_until_s.setdefault(pool, now_s + retry_s)
        for pool, until_s in list(self._full_until_s.items()):
            if until_s <= now_s and pool not in controller.no_room:
                del self._full_until_s[pool]
        for pool in sorted(self._full_until_s):
            found[pool] = Closed(pool=pool, why="has no room")
        for pool in sorted(controller.quarantines.pools()):
            found[pool] = Closed(pool=pool, why="is in quarantine", is_left=True)
        for pool in sorted(controller.drains.pools):
            found[pool] = Closed(pool=pool, why="is drained", is_left=True)
        refused = Counter(
            record.spec.deployment
            for record in controller.records.values()
            if record.life == "down" and record.spec.pool in self._full_until_s
        )
        return self.scaler.constrain(
            closed=tuple(found.values()), held=controller.held, refused=refused
        )

    async def _decide(self, now_s: float, models: Collection[str] | None) -> None:
        asked = self.scaler.ask(now_s, self._controller.table, models=models)
        if asked.size > _LARGE:
            decisions = await asyncio.to_thread(asked.decided)
        else:
            decisions = asked.decided()
        for one in self.scaler.tell(asked, decisions):
            self._controller.target(
                # A pool that is cut off fills again to what was wanted there before.
                {
                    target.deployment: target.replicas
                    for target in one.decision.targets
                    if self._controller.pool_of(target.deployment) not in self._unseen_at_s
                },
                reasons={target.deployment: target.reason for target in one.decision.targets},
                inputs=inputs_of(one),
            )

    def _measure_once(self, deployment: str) -> None:
        """By its first replica that is ready."""
        rows = self._controller.table.replicas
        row = next(
            (one for one in rows if one.deployment == deployment and one.state == "ready"), None
        )
        if row is None or row.url is None or deployment in self._tried:
            return
        subject = self._subject(row, row.url)
        if subject is not None:
            self._tried[deployment] = asyncio.create_task(self._measure(row, subject))

    async def _measure(self, row: Replica, subject: Subject) -> None:
        sustains = await measure(subject, chance=self._chance)
        if sustains is None:
            logger.warning("%s could not be timed: %s stays as it is", row.name, row.deployment)
        else:
            self.scaler.measured(row.deployment, sustains)

    def _subject(self, row: Replica, url: str) -> Subject | None:
        abilities = adapter(row.engine).abilities(row.engine)
        if abilities.slots is None or abilities.context_tokens is None:
            return None
        return Subject(
            url=url,
            model=row.model,
            slots=abilities.slots,
            context_tokens=abilities.context_tokens,
            itl_s_max=self._fleet.model(row.model).slo.itl_s_p99,
        )


def inputs_of(one: ModelDecision) -> bytes:
    """For the log: what it was decided from, where it is not too large."""
    logged = Logged(decision=one.decision, given=one.given, placing=one.placing)
    said = msgspec.json.encode(logged)
    if len(said) <= _INPUTS_BYTES_MAX:
        return said
    return msgspec.json.encode(Logged(decision=one.decision))
