"""A plan's slot as cells of the exact simulator: a gateway a region, its replicas, its requests.

Models share neither replicas nor queues, so a region has one cell for each model. Requests come as
the plan's routes send them: each need with the lengths and chats of its class, from its origin.
Within the cell the fleet's own gateway decides. Large cells are simulated smaller, with replicas
and requests in the same proportion.
"""

from collections import defaultdict
from math import floor
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from argosy.fleet.architectures import architecture
from argosy.fleet.catalogue import chip
from argosy.fleet.config import BatchingEngine, Fleet
from argosy.fleet.fields import Tier
from argosy.perf.calibration import Calibration
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.refusal import DoesNotFit
from argosy.perf.replica import ReplicaModel, replica
from argosy.planner.capacity.candidates import Refused, deployments_of, engine_of
from argosy.planner.capacity.lengths import LengthClass
from argosy.planner.plan import Plan
from argosy.planner.problem import DomainKind, Option, Problem, layout_text
from argosy.planner.questions.losses_told import Flows, flows_when_lost, standing_in
from argosy.simulator.demanded import BLOCK_TOKENS, tenant_of_tier
from argosy.simulator.scenario import PUE_ASSUMED, Group, Scenario, slowed
from argosy.simulator.traces import Stream, Trace, demand

REPLICAS_MAX = 48  # of a cell: routing evens out a little better among more


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is replayed on, beside the plan: it was framed from this."""

    fleet: Fleet
    classes: dict[str, tuple[LengthClass, ...]]  # by model, as the needs number them
    calibration: Calibration | None = None


class Lost(NamedTuple):
    """A domain that is gone from the start."""

    kind: DomainKind
    domain: str


class RegionCell(msgspec.Struct, frozen=True, kw_only=True):
    """One model's replicas in one region, and what is sent there."""

    region: str
    model: str
    options: tuple[int, ...]  # of the plan's problem
    scenario: Scenario
    streams: tuple[Stream, ...]
    times: float  # of the region's demand in the plan, this is one so-manieth

    @property
    def requests_per_s(self) -> float:
        """That come to the cell."""
        return sum(float(stream.rate) for stream in self.streams)  # type: ignore[arg-type]

    def trace(self, *, seed: int, until_s: float, share: float = 1.0) -> Trace:
        """Its requests, or a share of them."""
        streams = [
            replace(stream, rate=float(stream.rate) * share)  # type: ignore[arg-type]
            for stream in self.streams
        ]
        shares = any(stream.chats is not None for stream in streams)
        blocks = BLOCK_TOKENS if shares else None
        return demand(streams, seed=seed, until_s=until_s, block_tokens=blocks)


class SlotCells(msgspec.Struct, frozen=True, kw_only=True):
    """A slot, ready to be simulated."""

    slot: int
    lost: Lost | None
    cells: tuple[RegionCell, ...]
    asked: dict[tuple[str, Tier], float]  # requests/s by model and tier, served or not


class UnplayableError(ValueError):
    """The plan is not of this fleet; the message says what is missing."""


class Replicas:
    """What is known of each option's replicas; each looked up once."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._known: dict[tuple[object, ...], tuple[ReplicaModel, EngineSettings]] = {}

    def of(self, problem: Problem, option: Option) -> tuple[ReplicaModel, EngineSettings]:
        """Raises UnplayableError where the fleet has no such replica."""
        name = problem.pools[option.pool].name
        key = (option.model, name, option.layout, option.prefill_tokens_max)
        if key not in self._known:
            self._known[key] = self._look_up(option, name)
        return self._known[key]

    def _look_up(self, option: Option, pool_name: str) -> tuple[ReplicaModel, EngineSettings]:
        fleet = self._ground.fleet
        pool, model = fleet.pool(pool_name), fleet.model(option.model)
        engine = engine_of(fleet, option.model, pool)
        if isinstance(engine, Refused):
            raise UnplayableError(f"{option.model}@{pool_name}: {engine.reason}")
        tokens = option.prefill_tokens_max or engine.settings.prefill_tokens_max
        settings = engine.stepping(tokens)
        assert model.architecture is not None, "a planned model has an architecture"
        found = replica(
            architecture(model.architecture),
            chip(str(pool.chip)),
            option.layout,
            settings,
            self._ground.calibration,
        )
        if isinstance(found, DoesNotFit):
            raise UnplayableError(f"{option.model}@{pool_name}: {found.message}")
        return found, settings


class Scene(NamedTuple):
    """One slot as planned, or with a domain lost and its requests sent to what is left."""

    plan: Plan
    ground: Ground
    replicas: Replicas
    slot: int
    lost: Lost | None = None
    slowness: float = 1.0  # every step takes so many times as long

    @property
    def problem(self) -> Problem:
        """Of the plan."""
        return self.plan.problem


def cells_of(scene: Scene) -> SlotCells:
    """Raises UnplayableError."""
    problem, slot, lost = scene.problem, scene.slot, scene.lost
    flows = _flows(scene.plan, slot)
    if lost is not None:
        flows = flows_when_lost(scene.plan, lost.kind, lost.domain, slot)
    by_cell: dict[tuple[str, str], Flows] = defaultdict(dict)
    for (need, option), rate in flows.items():
        region = problem.pools[problem.options[option].pool].region
        by_cell[problem.needs[need].model, region][need, option] = rate
    cells = (_cell(scene, model, region, of) for (model, region), of in sorted(by_cell.items()))
    return SlotCells(
        slot=slot,
        lost=lost,
        cells=tuple(cell for cell in cells if cell.scenario.groups),
        asked=_asked(scene.plan, slot),
    )


def _flows(plan: Plan, slot: int) -> Flows:
    return {
        (route.need, route.option): route.requests_per_s[slot]
        for route in plan.routes
        if route.requests_per_s[slot] > 0
    }


def _asked(plan: Plan, slot: int) -> dict[tuple[str, Tier], float]:
    """What may wait counts where it is served."""
    found: dict[tuple[str, Tier], float] = defaultdict(float)
    for need in plan.problem.needs:
        if not need.may_wait and need.requests_per_s[slot] > 0:
            found[need.model, need.tier] += need.requests_per_s[slot]
    for route in plan.routes:
        need = plan.problem.needs[route.need]
        if need.may_wait and route.requests_per_s[slot] > 0:
            found[need.model, need.tier] += route.requests_per_s[slot]
    return dict(found)


def _cell(scene: Scene, model: str, region: str, flows: Flows) -> RegionCell:
    problem = scene.problem
    counts = {
        option: count
        for option, count in _replicas(scene).items()
        if count > 0 and _is_in(problem, option, model, region, scene.lost)
    }
    kept = shrunk(counts)
    room = sum(count * _rate(problem, flows, option) for option, count in counts.items())
    kept_room = sum(count * _rate(problem, flows, option) for option, count in kept.items())
    share = kept_room / room if room > 0 else 1.0
    rates: dict[int, float] = defaultdict(float)
    for (need, _), rate in flows.items():
        rates[need] += rate * share
    groups = [_group(scene, option, count) for option, count in kept.items()]
    return RegionCell(
        region=region,
        model=model,
        options=tuple(counts),
        scenario=_scenario(scene.ground.fleet, model, groups, share),
        streams=tuple(_stream(scene, need, rate) for need, rate in sorted(rates.items())),
        times=1.0 / share,
    )


def _replicas(scene: Scene) -> dict[int, int]:
    """By option; in a loss, those that count in one: not what stands on spot."""
    if scene.lost is None:
        return {run.option: run.replicas[scene.slot] for run in scene.plan.runs}
    sure = standing_in(scene.plan, scene.slot).replicas
    return {option: floor(count + 1e-6) for option, count in sure.items()}


def _is_in(problem: Problem, option: int, model: str, region: str, lost: Lost | None) -> bool:
    one = problem.options[option]
    pool = problem.pools[one.pool]
    if one.model != model or pool.region != region:
        return False
    return lost is None or pool.domain(lost.kind) != lost.domain


def shrunk(counts: dict[int, int], replicas_max: int = REPLICAS_MAX) -> dict[int, int]:
    """At most about so many together, each at least one, in their proportions."""
    total = sum(counts.values())
    if total <= replicas_max:
        return counts
    return {key: max(1, round(count * replicas_max / total)) for key, count in counts.items()}


def _rate(problem: Problem, flows: Flows, option: int) -> float:
    """What a replica of it takes of the mix that comes to the cell."""
    rates = problem.options[option].requests_per_s
    total, filled = 0.0, 0.0
    for (need, _), flow in flows.items():
        rate = rates[problem.needs[need].length_class]
        if rate > 0:
            total, filled = total + flow, filled + flow / rate
    return total / filled if filled > 0 else 0.0


def _scenario(fleet: Fleet, model: str, groups: list[Group], share: float) -> Scenario:
    waiting_max = max(1, round(fleet.gateway.waiting_max * share))
    gateway = replace(fleet.gateway, waiting_max=waiting_max)
    return Scenario(
        fleet=replace(fleet, gateway=gateway),
        models=(model,),
        slos=(fleet.model(model).slo,),
        groups=tuple(sorted(groups, key=lambda group: group.name)),
    )


def _group(scene: Scene, place: int, count: int) -> Group:
    problem = scene.problem
    option = problem.options[place]
    pool = problem.pools[option.pool]
    perf, settings = scene.replicas.of(problem, option)
    if scene.slowness != 1.0:
        perf = replace(perf, step_time=slowed(perf.step_time, scene.slowness))
    contexts = [
        one.engine.context_tokens
        for one in deployments_of(scene.ground.fleet, option.model)
        if isinstance(one.engine, BatchingEngine)
    ]
    return Group(
        name=f"{option.model}@{pool.name} {layout_text(option.layout)}",
        model=0,
        pool=pool.name,
        region=pool.region,
        cloud=pool.cloud,
        maker=pool.maker,
        chip=pool.chip,
        replicas=count,
        context_tokens=max(contexts, default=0) or 32_768,
        engine=settings,
        perf=perf,
        start_s=0.0,
        price_usd_per_hour=None,
        price_source="the plan",
        carbon_g_per_kwh=pool.carbon_g_per_kwh,
        pue=pool.pue or PUE_ASSUMED,
    )


def _stream(scene: Scene, place: int, requests_per_s: float) -> Stream:
    need, ground = scene.problem.needs[place], scene.ground
    asked = ground.classes[need.model][need.length_class].stream(requests_per_s)
    return replace(
        asked, tenant=tenant_of_tier(ground.fleet, need.tier), tier=need.tier, origin=need.origin
    )
