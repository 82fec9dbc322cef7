"""Replicas that come and go in a simulation, as an autoscaling policy decides from what it sees.

Owns which replicas of each group are off, starting, up, draining or lost, since when, and what that
costs; what the policy is told (arrivals by seconds, queues and replicas, `age_s` before its
decision takes effect, as live); and the looks at the fleet in virtual time. A replica that starts
is up after its pool's `start_s`; one that goes gets no new requests and is off once its last has
ended. Where its domain is lost it does not start before that is back.

Decides nothing: `Scaler.decide` does, the live policies' own text in `PolicyScaler`.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from argosy.policies.autoscaling import (
    Ask,
    Decision,
    DeploymentView,
    DomainKind,
    Event,
    ModelView,
    ScaleState,
    Settings,
    Sustains,
    asked,
    remembering,
    scale,
)
from argosy.policies.capacity import World, decided, world_of
from argosy.simulator import driver
from argosy.simulator.outcomes import DONE
from argosy.simulator.scenario import Bounds, Group, Scenario
from argosy.simulator.seen import Seen

AGE_S = 1.0  # from what is seen to what is done about it: a scrape and a tick of the control plane
_BATCH = 2  # the batch tier's rank
_DOMAINS: tuple[DomainKind, ...] = ("cloud", "maker", "region", "pool")
_OFF, _STARTING, _UP, _DRAINING, _LOST = 0, 1, 2, 3, 4
_LOOK, _DO, _READY = 0, 1, 2  # events, in this order at one time
_REASONS_MAX = 4096
_LOST_S = 10.0  # until a start that cannot succeed is looked at again


class Scaler(Protocol):
    """Says how many replicas each deployment of a model is to have."""

    @property
    def every_s(self) -> float:
        """Between two looks."""
        ...

    @property
    def age_s(self) -> float:
        """How old what it is told is when its decision takes effect."""
        ...

    def sustains(self, group: Group) -> Sustains:
        """What one replica of a group does within the SLO, as it is believed."""
        ...

    def decide(self, view: ModelView) -> Decision:
        """Of one model, at one look; called with later times only."""
        ...


@runtime_checkable
class FleetScaler(Scaler, Protocol):
    """One that decides on all models of a look at once, and knows the pools."""

    def decide_all(self, views: Sequence[ModelView], world: World) -> Sequence[Decision]:
        """Of each model."""
        ...


class PolicyScaler:
    """The live policies, with their memory of each model; for one simulation."""

    def __init__(
        self,
        sustains: Mapping[str, Sustains],  # by deployment
        settings: Settings | None = None,
        *,
        events: Sequence[Event] = (),
        age_s: float = AGE_S,
    ) -> None:
        self.settings = settings or Settings()
        self.age_s = age_s
        self._sustains, self._events = sustains, tuple(events)
        self._states: dict[str, ScaleState] = {}

    @property
    def every_s(self) -> float:
        """As the settings say."""
        return self.settings.decision_s

    def sustains(self, group: Group) -> Sustains:
        """As it was told."""
        return self._sustains[group.name]

    def decide(self, view: ModelView) -> Decision:
        """Of one model alone, where nothing is known of pools."""
        state = self._states.get(view.model, ScaleState())
        view = replace(view, events=self._events)
        self._states[view.model], decision = scale(state, view, self.settings)
        return decision

    def decide_all(self, views: Sequence[ModelView], world: World) -> tuple[Decision, ...]:
        """How much each needs, then where."""
        asks: list[Ask] = []
        for view in views:
            state = self._states.get(view.model, ScaleState())
            view = replace(view, events=self._events)
            self._states[view.model], ask = asked(state, view, self.settings)
            asks.append(ask)
        decisions = decided(asks, world)
        for ask, decision in zip(asks, decisions, strict=True):
            self._states[ask.model] = remembering(self._states[ask.model], ask, decision)
        return decisions


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A group's replicas from one time on."""

    at_s: float
    up: int
    starting: int
    draining: int


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that changed how many replicas a deployment is to have."""

    at_s: float
    deployment: str
    replicas: int
    reason: str


class Scaled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a group's replicas until the last arrival."""

    replica_s: float  # up, starting or draining, all together: what is paid
    replicas_mean: float
    replicas_max: int
    started: int
    stopped: int
    course: tuple[Standing, ...]  # each change
    decisions: tuple[Changed, ...]  # the first of them


def at_most(scenario: Scenario) -> Scenario:
    """The same fleet with as many replicas of each group as it may ever have."""
    return replace(
        scenario,
        groups=tuple(
            group if group.autoscale is None else replace(group, replicas=group.autoscale.max)
            for group in scenario.groups
        ),
    )


class Scaling:
    """Of one simulation under way; `next_s` is when it is to be called again."""

    def __init__(
        self, scaler: Scaler, scenario: Scenario, sim: driver.Sim, begins: Sequence[int]
    ) -> None:
        self._scaler, self._scenario, self._sim = scaler, scenario, sim
        self._group_of: NDArray[np.int64] = sim.engine.replicas["group"].copy()
        self._sustains = [scaler.sustains(group) for group in scenario.groups]
        self._state = np.zeros(self._group_of.size, np.int64)
        self._since_s = np.zeros(self._group_of.size)  # of the state
        self._paid_from_s = np.zeros(self._group_of.size)
        self._birth = np.zeros(self._group_of.size, np.int64)  # which start an event is of
        self._gone = [False] * len(scenario.groups)
        self._missed = [False] * len(scenario.groups)  # gone, and noticed
        self._world = world_of(scenario.fleet)
        groups = len(scenario.groups)
        self._paid: list[list[tuple[float, float]]] = [[] for _ in range(groups)]
        self._course: list[list[Standing]] = [[] for _ in range(groups)]
        self._started, self._stopped = [0] * groups, [0] * groups
        self._changed: list[list[Changed]] = [[] for _ in range(groups)]
        self._wanted = list(begins)
        self._seen = Seen(len(scenario.models))
        self._read = 0  # of the results that are not yet absorbed
        self._events: list[tuple[float, int, int, tuple]] = []
        self._number = 0
        for place, count in enumerate(begins):
            self._state[np.flatnonzero(self._group_of == place)[:count]] = _UP
        self._off(np.flatnonzero(self._state == _OFF), 0.0)
        self._push(scaler.every_s, _LOOK, ())
        self._note(0.0)

    def standing(self) -> NDArray[np.int64]:
        """The replicas that are up."""
        return np.flatnonzero(self._state == _UP)

    @property
    def next_s(self) -> float:
        """When `tick` is to be called."""
        return self._events[0][0]

    def _push(self, at_s: float, kind: int, what: tuple) -> None:
        self._number += 1
        heapq.heappush(self._events, (at_s, kind, self._number, what))

    # What is seen.

    def arrive(self, columns: driver.Columns, begin: int, end: int) -> None:
        """These rows came."""
        model = columns.model[begin:end].astype(np.int64)
        is_batch = columns.tier[begin:end] == _BATCH
        at_s = columns.arrival_s[begin:end]
        self._seen.add(model, np.where(is_batch, 2, 0), at_s, 1)
        self._seen.add(model, np.where(is_batch, 3, 1), at_s, columns.prompt_tokens[begin:end])

    def read_results(self) -> None:
        """Before they are absorbed."""
        self._read_answers()
        self._read = 0

    def _read_answers(self) -> None:
        book = self._sim.book
        new = book.results[self._read : int(book.marks[0]["ended"])]
        self._read = int(book.marks[0]["ended"])
        done = new[new["outcome"] == DONE]
        model = done["model"].astype(np.int64)
        self._seen.add(model, 4, done["end_s"], 1)
        self._seen.add(model, 5, done["end_s"], done["output_tokens"].astype(np.int64))

    # What happens.

    def tick(self, at_s: float) -> None:
        """All that is to happen at `at_s`; all before it has been run."""
        while self._events[0][0] <= at_s:
            _, kind, _, what = heapq.heappop(self._events)
            if kind == _LOOK:
                self._look(at_s)
            elif kind == _DO:
                self._do(what, at_s)
            else:
                self._ready(what, at_s)
        self._note(at_s)

    def _look(self, at_s: float) -> None:
        self._end_drained(at_s)
        self._read_answers()
        views = [self._view(model, at_s) for model in range(len(self._scenario.models))]
        if isinstance(self._scaler, FleetScaler):
            decisions = self._scaler.decide_all(views, self._world)
        else:
            decisions = [self._scaler.decide(view) for view in views]
        for decision in decisions:
            self._push(at_s + self._scaler.age_s, _DO, (decision,))
        self._push(at_s + self._scaler.every_s, _LOOK, ())

    def _view(self, model: int, at_s: float) -> ModelView:
        queues = self._sim.gateway.queues
        places = [p for p, group in enumerate(self._scenario.groups) if group.model == model]
        return ModelView(
            model=self._scenario.models[model],
            now_s=at_s + self._scaler.age_s,
            age_s=self._scaler.age_s,
            history=self._seen.history(model, at_s),
            recent=self._seen.recent(model, at_s),
            queued=int(queues.lanes["waiting"][model, :_BATCH].sum()),
            deployments=tuple(
                self._deployment(place, is_only=len(places) == 1) for place in places
            ),
            survive=tuple(
                kind
                for kind in _DOMAINS
                if f"any_one_{kind}" in self._scenario.fleet.models[model].survive
            ),
        )

    def _deployment(self, place: int, *, is_only: bool) -> DeploymentView:
        group, own = self._scenario.groups[place], self._group_of == place
        state, rows = self._state[own], self._sim.engine.replicas[own]
        since_s, up = self._since_s[own], self._state[own] == _UP
        bounds = group.autoscale or Bounds(min=group.replicas, max=group.replicas)
        starting = state == _STARTING
        if self._missed[place] and not is_only:  # nobody sees it: nothing can be started there
            bounds, starting = Bounds(min=int(up.sum()), max=int(up.sum())), state < 0
        blocks = int(rows["blocks"][up].sum())
        return DeploymentView(
            name=group.name,
            ready=int(up.sum()),
            pending=tuple(sorted(since_s[starting].tolist())),
            draining=tuple(sorted(since_s[state == _DRAINING].tolist())),
            sustains=self._sustains[place],
            start_s_p95=group.start_s,
            min=bounds.min,
            max=bounds.max,
            price_usd_per_hour=group.price_usd_per_hour,
            domains=tuple((kind, group.domain(kind)) for kind in _DOMAINS),
            in_flight=int((rows["decoding"] + rows["reading"] + rows["waiting"]).sum()),
            waiting=int(rows["waiting"].sum()),
            slots=group.engine.requests_max,
            kv_used_share=1 - int(rows["blocks_free"][up].sum()) / blocks if blocks else None,
        )

    # What is done.

    def _do(self, what: tuple, at_s: float) -> None:
        (decision,) = what
        names = [group.name for group in self._scenario.groups]
        for target in decision.targets:
            place = names.index(target.deployment)
            group = self._scenario.groups[place]
            if group.autoscale is None:
                continue
            wanted = min(max(target.replicas, group.autoscale.min), group.autoscale.max)
            if wanted != self._wanted[place] and len(self._changed[place]) < _REASONS_MAX:
                self._changed[place].append(
                    Changed(at_s=at_s, deployment=group.name, replicas=wanted, reason=target.reason)
                )
            self._wanted[place] = wanted
            self._set(place, wanted, at_s)

    def _set(self, place: int, wanted: int, at_s: float) -> None:
        own = np.flatnonzero(self._group_of == place)
        state = self._state[own]
        have = int(((state == _UP) | (state == _STARTING)).sum())
        if wanted > have:
            back = own[state == _DRAINING][: wanted - have]  # they are there already
            self._up(back, at_s)
            self._start(own[state == _OFF][: wanted - have - back.size], place, at_s)
        elif wanted < have:
            starting = own[state == _STARTING]
            newest = starting[np.argsort(-self._since_s[starting], kind="stable")]
            self._off(newest[: have - wanted], at_s)
            left = have - wanted - min(newest.size, have - wanted)
            self._drain(own[state == _UP], left, at_s)

    def _start(self, replicas: NDArray[np.int64], place: int, at_s: float) -> None:
        self._move(replicas, _STARTING, at_s)
        self._paid_from_s[replicas] = at_s
        self._birth[replicas] += 1
        self._started[place] += replicas.size
        for replica in replicas.tolist():
            born = int(self._birth[replica])
            self._push(at_s + self._scenario.groups[place].start_s, _READY, (replica, born))

    def _ready(self, what: tuple, at_s: float) -> None:
        replica, born = what
        if self._state[replica] != _STARTING or self._birth[replica] != born:
            return
        if self._gone[int(self._group_of[replica])]:
            self._push(at_s + _LOST_S, _READY, what)
            return
        self._up(np.array([replica]), at_s)

    def _up(self, replicas: NDArray[np.int64], at_s: float) -> None:
        if replicas.size:
            self._move(replicas, _UP, at_s)
            driver.replicas_join(self._sim, replicas, at_s)

    def _drain(self, up: NDArray[np.int64], count: int, at_s: float) -> None:
        """Those with the fewest requests; of equals the last."""
        if count <= 0:
            return
        has = self._busy(up)
        goes = up[np.lexsort((-up, has))][:count]
        self._move(goes, _DRAINING, at_s)
        driver.replicas_drain(self._sim, np.sort(goes), at_s)
        self._end_drained(at_s)

    def _busy(self, replicas: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = self._sim.engine.replicas[replicas]
        return rows["decoding"] + rows["reading"] + rows["waiting"]

    def _end_drained(self, at_s: float) -> None:
        draining = np.flatnonzero(self._state == _DRAINING)
        self._off(draining[self._busy(draining) == 0], at_s)

    def _off(self, replicas: NDArray[np.int64], at_s: float) -> None:
        if not replicas.size:
            return
        was_paid = self._state[replicas] != _OFF
        self._pay(replicas[was_paid], at_s)
        self._move(replicas, _OFF, at_s)
        driver.replicas_die(self._sim, replicas, at_s)  # idle: nobody loses anything

    def _pay(self, replicas: NDArray[np.int64], at_s: float) -> None:
        for replica in replicas.tolist():
            place = int(self._group_of[replica])
            self._paid[place].append((float(self._paid_from_s[replica]), at_s))
            self._stopped[place] += 1

    def _move(self, replicas: NDArray[np.int64], state: int, at_s: float) -> None:
        self._state[replicas] = state
        self._since_s[replicas] = at_s

    def lost_or_back(
        self, replicas: NDArray[np.int64], kind: int, at_s: float
    ) -> NDArray[np.int64]:
        """A domain's replicas die (0), are noticed (1) or are back (2); whom that is true of."""
        if replicas.size:
            self._missed[int(self._group_of[replicas[0]])] = kind == 1
        if not replicas.size or kind == 1:
            return replicas
        self._gone[int(self._group_of[replicas[0]])] = kind == 0
        if kind == 0:
            dies = replicas[self._state[replicas] != _OFF]
            self._pay(dies, at_s)
            self._move(dies, _LOST, at_s)
        else:
            replicas = replicas[self._state[replicas] == _LOST]
            self._move(replicas, _UP, at_s)
            self._paid_from_s[replicas] = at_s
        self._note(at_s)
        return replicas

    # What is told.

    def _note(self, at_s: float) -> None:
        for place, course in enumerate(self._course):
            state = self._state[self._group_of == place]
            one = Standing(
                at_s=at_s,
                up=int((state == _UP).sum()),
                starting=int((state == _STARTING).sum()),
                draining=int((state == _DRAINING).sum()),
            )
            if not course or replace(course[-1], at_s=at_s) != one:
                course.append(one)

    def scaled(self, until_s: float) -> tuple[Scaled, ...]:
        """Of each group, until then."""
        return tuple(self._scaled(place, until_s) for place in range(len(self._course)))

    def _scaled(self, place: int, until_s: float) -> Scaled:
        is_paid = (self._state != _OFF) & (self._state != _LOST) & (self._group_of == place)
        spans = self._paid[place] + [(float(at_s), math.inf) for at_s in self._paid_from_s[is_paid]]
        paid_s = math.fsum(max(0.0, min(end, until_s) - begin) for begin, end in spans)
        course = tuple(one for one in self._course[place] if one.at_s <= until_s)
        return Scaled(
            replica_s=paid_s,
            replicas_mean=paid_s / until_s if until_s > 0 else 0.0,
            replicas_max=max(one.up + one.starting + one.draining for one in course),
            started=self._started[place],
            stopped=self._stopped[place],
            course=course,
            decisions=tuple(self._changed[place]),
        )
