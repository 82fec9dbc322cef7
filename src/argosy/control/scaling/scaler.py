"""The live autoscaler: what gateways and tables tell goes in, targets of deployments come out.

    observe(now_s, table), hear(signals)  -> what is known
    decide(now_s, table, signals)         -> `policies.autoscaling`, then `policies.capacity`

A decision is made in three steps: `ask` what each model needs, `Round.decided` where (it is pure,
and may be made in a thread), `tell` what came of it. It makes the views that the simulator makes of
the same arrivals (`simulator/scaling.py`), so that the decisions are the same; `tests/agreement`
holds the two together. It starts and ends nothing.

Times are Unix time. Where nothing was heard of any gateway for `HELD_S`, targets stay. Where nobody
knows yet what a replica sustains, its deployment keeps what it has, and gets one if somebody waits.
"""

import logging
import math
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime

import msgspec
from msgspec.structs import replace

from argosy.control.scaling.demands import Demands, Kept
from argosy.control.scaling.launches import Launched, Launches
from argosy.control.scaling.planned import Planned
from argosy.control.scaling.rounds import Asking, ModelDecision, Round
from argosy.control.scaling.signals import Signals, in_flight_of, queued_of
from argosy.control.scaling.sites import Site, sites_of, survived
from argosy.control.scaling.sustains import Belief, Learned, given
from argosy.fleet.config import Fleet
from argosy.fleet.messages import ReplicaTable
from argosy.policies.autoscaling import (
    Ask,
    Decision,
    DeploymentView,
    Event,
    ModelView,
    ScaleState,
    Settings,
    Sustains,
    Target,
    asked,
    given_of,
    remembering,
)
from argosy.policies.capacity import (
    Closed,
    Taken,
    World,
    placing_of,
    world_of,
)

logger = logging.getLogger(__name__)
HELD_S = 30.0  # without a word of any gateway: nothing is decided on what was so long ago
_AGES_S = (1.0, 10.0, 20.0, HELD_S)  # of what is seen when something is done about it
_AGE_SPARE_S = 1.0  # that the first of these may be too young
_WINDOW_MINUTES = 90  # of history that the policy is given; older loads it remembers itself
_SEEN_TIMES = 2.0  # of the longest start that was seen, where the file says nothing
_VERSION = 1


Rule = Callable[[ScaleState, ModelView, Settings], tuple[ScaleState, Decision]]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model."""

    state: ScaleState = ScaleState()
    unit: Sustains | None = None  # of its first deployment: loads are counted in it
    decided: Decision | None = None  # the last


class Saved(msgspec.Struct, kw_only=True):
    """All that is stored."""

    version: int
    demands: Kept
    launched: Launched
    beliefs: dict[str, Belief]
    memories: dict[str, Memory]


class LiveScaler:
    """Of one fleet."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        seeds: Mapping[str, Sustains] | None = None,
        saved: bytes | None = None,
        settings: Settings | None = None,
        events: Sequence[Event] = (),
        rule: Rule | None = None,
    ) -> None:
        """`seeds`: what a replica sustains, by deployment, as it was measured (`calibrated`).

        `rule`: another one than ours, to be compared; it says where too, and nothing is replayed.
        """
        self._rule = rule
        self._plan: Planned | None = None
        self._told: dict[str, tuple[int, ...]] = {}  # by model: the targets that were told last
        self.settings = settings or Settings()
        self.events = tuple(events)
        known = _read(saved)
        self._demands = Demands(known.demands)
        self._launches = Launches(known.launched)
        self._learned = Learned(known.beliefs)
        self._memories = known.memories
        self._heard: dict[str, Signals] = {}  # by source: the latest
        self._cut_off: frozenset[str] = frozenset()  # pools
        self._doubtful: Counter[str] = Counter()  # suspect replicas, by deployment
        self._closed: tuple[Closed, ...] = ()
        self._held_by: dict[str, int] = {}  # by the operator, by deployment
        self._refused: dict[str, int] = {}  # for want of room, by deployment
        self._today: date | None = None
        self._world: World | None = None  # of that day
        self.use(fleet, seeds=seeds or {})

    def use(self, fleet: Fleet, *, seeds: Mapping[str, Sustains]) -> None:
        """The fleet file as it is now; what was learned stays."""
        self._fleet, self._sites, self._world = fleet, sites_of(fleet), None
        pools = {one.name: fleet.pool(one.pool) for one in fleet.deployments}
        self._guessed = {name for name, pool in pools.items() if pool.start_s is None}
        for one in fleet.deployments:
            sustains = given(one)
            if sustains is not None:
                self._learned.seed(one.name, sustains, is_fixed=True)
            elif one.name in seeds and one.name not in self._learned.beliefs:
                self._learned.seed(one.name, seeds[one.name])

    def begin_with(self, plan: Planned | None) -> None:
        """Where nothing was decided yet its replicas are wanted, and placing looks there first."""
        self._plan = plan

    def save(self) -> bytes:
        """All that is remembered, for another control plane: 0.3 MB a model of two weeks."""
        saved = Saved(
            version=_VERSION,
            demands=self._demands.save(),
            launched=self._launches.kept,
            beliefs=self._learned.beliefs,
            memories=self._memories,
        )
        return zlib.compress(msgspec.msgpack.encode(saved), 1)

    # What is known.

    def observe(
        self, now_s: float, table: ReplicaTable, *, asked_s: Mapping[str, float] | None = None
    ) -> None:
        """The table as it is now: at every change of it, for launches are timed by this.

        `asked_s`: when each replica's launch was asked for, where somebody remembers that.
        """
        self._launches.observe(now_s, table, asked_s)
        rows = table.replicas
        self._doubtful = Counter(row.deployment for row in rows if row.state == "suspect")

    def cut_off(self, pools: frozenset[str]) -> None:
        """Those that nobody sees now: what is ready there counts, and nothing can be started."""
        self._cut_off = pools

    def hear(self, signals: Signals) -> None:
        """What a gateway tells; as often as it is asked, at least every ten seconds."""
        self._demands.hear(signals)
        self._heard[signals.source] = signals
        self._learned.hear(signals)

    def unmeasured(self) -> tuple[str, ...]:
        """Deployments that scale and of whose replicas nobody knows what they sustain."""
        return tuple(
            site.name
            for sites in self._sites.values()
            for site in sites
            if site.is_scaled and self._learned.of(site.name) is None
        )

    def measured(self, deployment: str, sustains: Sustains) -> None:
        """Of a replica that was timed at its warm-up."""
        if deployment not in self._learned.beliefs:
            self._learned.seed(deployment, sustains)

    def is_wanted_at_once(self) -> tuple[str, ...]:
        """Models that scale and that requests wait for: they are not for the next tick."""
        return tuple(
            model
            for model, sites in self._sites.items()
            if any(site.is_scaled for site in sites) and queued_of(self._fresh(), model)
        )

    def constrain(
        self,
        *,
        closed: Sequence[Closed] = (),
        held: Mapping[str, int] | None = None,
        refused: Mapping[str, int] | None = None,
    ) -> bool:
        """What placing must keep to from now on, of models with several deployments.

        `held` by the operator, `refused` of its replicas for want of room; both by deployment.
        True: other pools are closed than before, or the operator holds something else.
        """
        before = self._closed, self._held_by
        self._closed, self._held_by = tuple(closed), dict(held or {})
        self._refused = dict(refused or {})
        return before != (self._closed, self._held_by)

    # What is decided.

    def decide(
        self,
        now_s: float,
        table: ReplicaTable,
        *signals: Signals,
        models: Collection[str] | None = None,
    ) -> tuple[ModelDecision, ...]:
        """Targets of `models`, all that scale where they are not named.

        Each of these calls is later than the one before.
        """
        asked = self.ask(now_s, table, *signals, models=models)
        return self.tell(asked, asked.decided())

    def ask(
        self,
        now_s: float,
        table: ReplicaTable,
        *signals: Signals,
        models: Collection[str] | None = None,
    ) -> Round:
        """What each of these models needs; as for `decide`."""
        self.observe(now_s, table)
        for one in signals:
            self.hear(one)
        self._look(now_s)
        found, done = dict[str, Asking](), list[ModelDecision]()
        for model, sites in self._sites.items():
            if any(site.is_scaled for site in sites) and (models is None or model in models):
                match self._asked(model, sites, now_s):
                    case Asking() as one:
                        found[model] = one
                    case ModelDecision() as one:
                        done.append(one)
        return Round(
            fleet=self._fleet, world=self._world_at(now_s, found), asked=found, done=tuple(done)
        )

    def tell(self, asked: Round, decisions: Sequence[Decision]) -> tuple[ModelDecision, ...]:
        """Remember what was decided. Nothing where the fleet file is another one by now."""
        if asked.fleet is not self._fleet:
            return ()
        asks = [one.ask for one in asked.asked.values()]
        made = {one.model: one for one in asked.done}
        for one, decision in zip(asked.asked.values(), decisions, strict=True):
            state = remembering(one.after, one.ask, decision)
            made[one.ask.model] = self._told_of(one, decision, state, asks, asked.world)
        return tuple(made[model] for model in self._sites if model in made)

    def _told_of(
        self,
        one: Asking,
        decision: Decision,
        state: ScaleState,
        asks: Sequence[Ask],
        world: World,
    ) -> ModelDecision:
        model, unit = one.ask.model, one.view.deployments[0].sustains
        self._memories[model] = Memory(state=state, unit=unit, decided=decision)
        targets = tuple(target.replicas for target in decision.targets)
        is_new = self._told.get(model) != targets
        self._told[model] = targets
        if not is_new:
            return ModelDecision(model=model, decision=decision)
        return ModelDecision(
            model=model,
            decision=decision,
            given=given_of(one.before, state, one.view, self.settings),
            placing=placing_of(one.ask, asks, world),
        )

    def _world_at(self, now_s: float, asked: Collection[str]) -> World:
        """Of the fleet's pools; the chips of models that are not asked about are taken."""
        today = datetime.fromtimestamp(now_s, UTC).date()
        if self._today != today or self._world is None:
            self._today, self._world = today, world_of(self._fleet, on=today)
        taken = tuple(
            Taken(pool=site.pool, chips=site.chips * self._kept_there(model, site))
            for model, sites in self._sites.items()
            if model not in asked
            for site in sites
        )
        planned = {} if self._plan is None else self._plan.counts(self._fleet, now_s)
        return replace(self._world, closed=self._closed, taken=taken, planned=planned)

    def _kept_there(self, model: str, site: Site) -> int:
        """Replicas that it has, or is to have."""
        memory = self._memories.get(model)
        decided = memory.decided.targets if memory and memory.decided else ()
        told = {one.deployment: one.replicas for one in decided}
        wanted = self._held_by.get(site.name, told.get(site.name, site.replicas))
        return max(wanted, self._there(site))

    def view(self, model: str, now_s: float) -> ModelView:
        """What the policy is told of a model that has something measured."""
        sites, fresh = self._sites[model], self._fresh()
        assumed = next(filter(None, (self._learned.of(site.name) for site in sites)))
        return ModelView(
            model=model,
            now_s=now_s,
            age_s=self._age_s(now_s),
            history=self._demands.history(model, self._minutes(model)),
            recent=self._demands.recent(model),
            queued=queued_of(fresh, model),
            deployments=tuple(self._deployment(site, assumed) for site in sites),
            survive=survived(self._fleet, model),
            events=self.events,
        )

    def _asked(self, model: str, sites: Sequence[Site], now_s: float) -> "Asking | ModelDecision":
        held = self._kept(model, sites, now_s)
        if held is not None:
            self._told.pop(model, None)
            return ModelDecision(model=model, decision=held)
        view = self.view(model, now_s)
        unit, memory = view.deployments[0].sustains, self._memories.get(model, Memory())
        before = memory.state
        if memory.unit not in (None, unit):
            before = _in_units_of(unit, memory.unit, before)
            view = replace(view, history=self._demands.history(model))
        if self._rule is not None:
            state, decision = self._rule(before, view, self.settings)
            self._memories[model] = Memory(state=state, unit=unit, decided=decision)
            return ModelDecision(model=model, decision=decision)
        after, ask = asked(before, view, self.settings)
        return Asking(before=before, after=after, view=view, ask=ask)

    def _kept(self, model: str, sites: Sequence[Site], now_s: float) -> Decision | None:
        """What is told where the rule is not asked, for too little is known; None: it is asked."""
        memory = self._memories.get(model, Memory())
        silent_s = now_s - max((one.at_s for one in self._heard.values()), default=-math.inf)
        if memory.decided is None and not any(self._there(site) for site in sites):
            begin, said = {site.name: site.replicas for site in sites}, "the file's"
            if self._plan is not None:
                begin, said = begin | self._plan.counts(self._fleet, now_s), "the plan's"
            return self._held(model, sites, begin, f"scaling begins with {said} replicas")
        if silent_s > HELD_S:
            said = "nothing was heard of any gateway"
            said += f" for {silent_s:.0f} s" if silent_s < math.inf else " yet"
            last = memory.decided.targets if memory.decided else ()
            return self._held(model, sites, {one.deployment: one.replicas for one in last}, said)
        if all(self._learned.of(site.name) is None for site in sites):
            return self._held(model, sites, {}, "nobody has measured what a replica sustains")
        return None

    def _held(
        self, model: str, sites: Sequence[Site], counts: Mapping[str, int], reason: str
    ) -> Decision:
        """So many, or what there is; one, if none is there and somebody waits."""
        counts = {site.name: counts.get(site.name, self._there(site)) for site in sites}
        if not any(counts.values()) and queued_of(self._fresh(), model):
            counts[next(site.name for site in sites if site.max)] = 1
        targets = tuple(
            Target(
                deployment=site.name,
                replicas=min(max(counts[site.name], site.min), site.max),
                reason=f"stay: {reason}",
            )
            for site in sites
        )
        decision, memory = Decision(targets=targets), self._memories.get(model, Memory())
        self._memories[model] = replace(memory, decided=decision)
        return decision

    def _there(self, site: Site) -> int:
        pending = self._launches.since_s(site.name, "pending")
        return self._launches.ready(site.name) + len(pending)

    def _fresh(self) -> tuple[Signals, ...]:
        """Of the gateways that are not silent."""
        newest_s = max((one.at_s for one in self._heard.values()), default=0.0)
        return tuple(one for one in self._heard.values() if one.at_s > newest_s - HELD_S)

    def _age_s(self, now_s: float) -> float:
        """Roughly: it is part of the horizon, and where that wavers all forecasts are made anew."""
        age_s = now_s - min(one.at_s for one in self._fresh())
        return next((one for one in _AGES_S if age_s <= one + _AGE_SPARE_S), 2 * HELD_S)

    def _minutes(self, model: str) -> int | None:
        """Of history: all where the policy remembers no loads, else those since and some."""
        memory = self._memories.get(model)
        if memory is None or memory.state.loads is None:
            return None
        since_s = self._demands.until_s - memory.state.loads.until_s
        return max(_WINDOW_MINUTES, math.ceil(since_s / 60.0) + 1)

    def _deployment(self, site: Site, assumed: Sustains) -> DeploymentView:
        launches, fresh = self._launches, self._fresh()
        sustains = self._learned.of(site.name)
        in_flight = [in_flight_of(fresh, name) for name in launches.replicas(site.name)]
        low, high = site.min, site.max
        ready, pending = launches.ready(site.name), launches.since_s(site.name, "pending")
        if site.pool in self._cut_off:
            low = high = ready = ready - self._doubtful[site.name]
            pending = ()
        elif sustains is None:  # it keeps what it has
            low = high = min(max(self._there(site), site.min), site.max)
        elif not site.is_only:
            pending = pending[: len(pending) - self._refused.get(site.name, 0)]
            held = self._held_by.get(site.name)
            low, high = (low, high) if held is None else (held, held)
        return DeploymentView(
            name=site.name,
            ready=ready,
            pending=pending,
            draining=launches.since_s(site.name, "draining"),
            sustains=sustains or assumed,
            start_s_p95=launches.start_s_p95(site.name, self._assumed_s(site)),
            min=low,
            max=high,
            price_usd_per_hour=site.price_usd_per_hour,
            domains=site.domains,
            in_flight=sum(in_flight),
            waiting=sum(_beyond(count, site.slots) for count in in_flight),
            slots=site.slots,
        )

    def _assumed_s(self, site: Site) -> float:
        """Of a cold start: as the file says, or what is guessed until one was seen."""
        seen_s = self._launches.kept.seconds.get(site.name)
        if site.name in self._guessed and seen_s:
            return min(site.start_s, _SEEN_TIMES * max(seen_s))
        return site.start_s

    def _look(self, now_s: float) -> None:
        """At what ready replicas did, to learn from it."""
        fresh, ready = self._fresh(), set[str]()
        for model, sites in self._sites.items():
            slo = self._fleet.model(model).slo
            for site in sites:
                for name in self._launches.ready_names(site.name):
                    ready.add(name)
                    slots = site.slots
                    is_full = slots is not None and in_flight_of(fresh, name) >= slots
                    self._learned.look(now_s, name, site.name, is_full=is_full, slo=slo)
        self._learned.forget(ready)


def _beyond(in_flight: int, slots: int | None) -> int:
    """Of a replica's requests, those that wait in its engine."""
    return 0 if slots is None else max(0, in_flight - slots)


def _in_units_of(unit: Sustains, old: Sustains | None, state: ScaleState) -> ScaleState:
    """The first deployment sustains more or less than was believed: loads anew, from history."""
    assert old is not None, "asked where it changed"
    times = old.decode_tokens_per_s / unit.decode_tokens_per_s
    return replace(
        state,
        loads=None,
        made=(),
        ahead_steps=0,
        wanted=_times(state.wanted, times),
        wanted_whole=_times(state.wanted_whole, times),
        wanted_lost=_times(state.wanted_lost, times),
    )


def _times(
    wanted: tuple[tuple[float, float], ...], times: float
) -> tuple[tuple[float, float], ...]:
    return tuple((at_s, load * times) for at_s, load in wanted)


def _read(saved: bytes | None) -> Saved:
    """What was stored; nothing where that cannot be read, by another version say."""
    if saved is not None:
        try:
            found = msgspec.msgpack.decode(zlib.decompress(saved), type=Saved)
        except (msgspec.MsgspecError, zlib.error) as error:
            logger.warning("What autoscaling remembered cannot be read; it begins anew: %s", error)
        else:
            if found.version == _VERSION:
                return found
    return Saved(version=_VERSION, demands=Kept(), launched=Launched(), beliefs={}, memories={})
