"""What is simulated: the fleet file's planned deployments as groups of like replicas, in numbers.

Owns the translation from the fleet's nouns (and the catalogue's prices and carbon) to what the
driver needs, and the refusals that can be told before a request is simulated: a model that does
not fit, a promise that no replica can keep.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import msgspec
from msgspec.structs import replace

from argosy.fleet.architectures import architecture
from argosy.fleet.catalogue import NotInCatalogue, Offer, chip, offers, region
from argosy.fleet.config import (
    BatchingEngine,
    Deployment,
    Fleet,
    LlamaCppEngine,
    Pool,
    SimulatedEngine,
)
from argosy.fleet.demand import Slo
from argosy.fleet.launchers import LocalLauncher
from argosy.perf.calibration import Calibration
from argosy.perf.engine_settings import EngineSettings, settings_of
from argosy.perf.local import LocalCalibrations, of_given_rates
from argosy.perf.refusal import DoesNotFit
from argosy.perf.replica import ReplicaModel, replica
from argosy.perf.step_time import StepTime

START_S_ASSUMED = 300.0  # from asking for a replica to its being ready, where a pool does not say
ROUND_TRIP_S_ASSUMED = 0.1  # between two regions whose link the fleet does not give
ROUND_TRIP_S_INSIDE = 0.001  # within one region
LOCAL_START_S = 2.0  # of a small model from a warm disk: 1 to 2 s were measured
PUE_ASSUMED = 1.2  # where the catalogue knows none
THIS_MACHINE = "local/this-machine"  # the region of what was measured here
LossKind = Literal["region", "cloud", "maker", "chip", "pool", "deployment"]
LOSS_KINDS: tuple[LossKind, ...] = get_args(LossKind)


class ScenarioError(ValueError):
    """It cannot be simulated; the message says what was asked, what is true, what would work."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Of a group whose replicas follow demand."""

    min: int
    max: int


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Like replicas: one deployment."""

    name: str
    model: int  # place in `Scenario.models`
    pool: str
    region: str
    cloud: str
    maker: str
    chip: str
    replicas: int
    context_tokens: int
    engine: EngineSettings
    perf: ReplicaModel
    start_s: float
    price_usd_per_hour: float | None  # of one replica; None: no price is known
    price_source: str
    carbon_g_per_kwh: float | None
    pue: float
    price_offer: Offer | None = None  # whose list price it is; None: the fleet file's, or none
    slowdown: float = 1.0  # of a step while all other replicas of its machine work; see `local.py`
    autoscale: Bounds | None = None  # honoured where `serving.simulate` is given a scaler

    def domain(self, kind: str) -> str:
        """Its name as a failure domain of that kind."""
        return self.name if kind == "deployment" else str(getattr(self, kind))


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas of a domain are gone for some time."""

    kind: LossKind
    name: str
    at_s: float = 0.0
    until_s: float | None = None  # None: for good

    @property
    def text(self) -> str:
        """As it is written on the command line."""
        until = "" if self.until_s is None else f"-{self.until_s:g}"
        when = f"@{self.at_s:g}{until}" if self.at_s or until else ""
        return f"{self.kind}:{self.name}{when}"


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet, in numbers."""

    fleet: Fleet
    models: tuple[str, ...]
    slos: tuple[Slo, ...]  # of the models
    groups: tuple[Group, ...]  # by model, then by name
    losses: tuple[Loss, ...] = ()

    def round_trip_s(self, origin: str, place: str) -> float:
        """Between two regions."""
        if origin == place:
            return ROUND_TRIP_S_INSIDE
        for link in self.fleet.links:
            if {origin, place} == set(link.between):
                return link.round_trip_s
        return ROUND_TRIP_S_ASSUMED


def scenario_of(
    fleet: Fleet,
    *,
    calibration: Calibration | None = None,
    local: LocalCalibrations | None = None,
) -> Scenario:
    """Of a checked fleet; with `local`, what runs on this machine too. Raises ScenarioError."""
    models = tuple(model.name for model in fleet.models)
    found = [
        _group(fleet, one, models, calibration)
        for one in fleet.deployments
        if isinstance(one.engine, BatchingEngine)
    ]
    if local is not None:
        found += [_local_group(one, models, local) for one in _on_this_machine(fleet)]
    if not found:
        raise ScenarioError(
            f"fleet {fleet.fleet} has no deployment that can be simulated: none is on a planned "
            "pool with a chip. Try examples/five-makers.yaml"
        )
    groups = tuple(sorted(found, key=lambda group: (group.model, group.name)))
    for name in models:
        if all(group.model != models.index(name) for group in groups):
            raise ScenarioError(
                f"model {name} has no deployment on a planned pool, so nothing is known of its "
                "speed. Deploy it on one, or remove it from the file that is simulated."
            )
    return Scenario(
        fleet=fleet,
        models=models,
        slos=tuple(model.slo for model in fleet.models),
        groups=groups,
    )


def _group(
    fleet: Fleet, deployment: Deployment, models: Sequence[str], calibration: Calibration | None
) -> Group:
    pool = fleet.pool(deployment.pool)
    assert pool.chip is not None, "a checked planned pool has a chip"
    assert pool.region is not None, "and a region"
    settings = _settings(deployment)
    name = fleet.model(deployment.model).architecture
    assert name is not None, "a checked planned model has an architecture"
    found = replica(architecture(name), chip(pool.chip), deployment.layout, settings, calibration)
    if isinstance(found, DoesNotFit):
        raise ScenarioError(f"{deployment.name}: {found.message}")
    price, source, offer = _price(pool)
    bounds = deployment.autoscale
    carbon, pue = _electricity(pool.region)
    return Group(
        name=deployment.name,
        model=models.index(deployment.model),
        pool=pool.name,
        region=pool.region,
        cloud=pool.region.split("/")[0],
        maker=chip(pool.chip).maker,
        chip=pool.chip,
        replicas=deployment.replicas,
        context_tokens=deployment.engine.context_tokens or 0,
        engine=settings,
        perf=found,
        start_s=START_S_ASSUMED if pool.start_s is None else pool.start_s,
        price_usd_per_hour=None if price is None else price * found.chips,
        price_source=source,
        price_offer=offer,
        carbon_g_per_kwh=carbon,
        pue=pue,
        autoscale=None if bounds.max is None else Bounds(min=bounds.min, max=bounds.max),
    )


def _on_this_machine(fleet: Fleet) -> Iterable[Deployment]:
    for one in fleet.deployments:
        is_known = isinstance(one.engine, LlamaCppEngine | SimulatedEngine)
        if is_known and isinstance(fleet.pool(one.pool).launcher, LocalLauncher):
            yield one


def _local_group(deployment: Deployment, models: Sequence[str], local: LocalCalibrations) -> Group:
    """Of replicas of this machine: as they were measured, or as the fleet file says."""
    engine, slowdown = deployment.engine, 1.0
    if isinstance(engine, SimulatedEngine):
        perf, chunk, start_s = of_given_rates(engine), engine.context_tokens, engine.start_s
    else:
        assert isinstance(engine, LlamaCppEngine), "no other engine is measured here"
        found = local.of(deployment.model, engine, deployment.replicas)
        if found is None:
            raise ScenarioError(
                f"{deployment.name}: {deployment.replicas} llama.cpp replicas of {engine.slots} "
                f"slots and {engine.context_tokens} tokens of context were never measured on this "
                "machine. Measure them: argosy calibrate --local"
            )
        perf, chunk, slowdown = found.replica_model(), found.prefill_tokens_max, found.slowdown
        start_s = LOCAL_START_S
    bounds = deployment.autoscale
    return Group(
        name=deployment.name,
        model=models.index(deployment.model),
        pool=deployment.pool,
        region=THIS_MACHINE,
        cloud="local",
        maker="generic",
        chip="CPU-x86",
        replicas=deployment.replicas,
        context_tokens=engine.context_tokens,
        engine=EngineSettings(
            name="llama.cpp",
            requests_max=engine.slots,
            prefill_tokens_max=chunk,
            memory_share=1.0,
            prefix_cache=False,  # each slot keeps its last prompt alone
        ),
        perf=perf,
        start_s=start_s,
        price_usd_per_hour=None,
        price_source="this machine",
        carbon_g_per_kwh=None,
        pue=PUE_ASSUMED,
        autoscale=None if bounds.max is None else Bounds(min=bounds.min, max=bounds.max),
        slowdown=slowdown,
    )


def _settings(deployment: Deployment) -> EngineSettings:
    engine = deployment.engine
    assert isinstance(engine, BatchingEngine)
    settings = settings_of(engine)
    if settings.prefill_tokens_max < settings.requests_max:
        raise ScenarioError(
            f"{deployment.name}: engine.prefill_tokens_max = {settings.prefill_tokens_max} is "
            f"below engine.requests_max = {settings.requests_max}, so that one step could not "
            "decode all its requests. Write one that is as large, or fewer requests."
        )
    return settings


def _price(pool: Pool) -> tuple[float | None, str, Offer | None]:
    """USD per chip and hour, and where it is from: the file, or the cheapest list price."""
    if pool.price_usd_per_chip_hour is not None:
        return pool.price_usd_per_chip_hour, "fleet file", None
    # A price of another region or cloud is not this pool's.
    try:
        listed = [one for one in offers(pool.chip, pool.region) if one.term == "on_demand"]
    except NotInCatalogue:  # a region of one's own
        listed = []
    if not listed:
        return None, "no list price is known", None
    best = min(listed, key=lambda one: (one.price_usd_per_chip_hour, one.region))
    source = f"{best.node}, {best.region}, {best.price_date or 'of no known date'}"
    return best.price_usd_per_chip_hour, source, best


def _electricity(name: str) -> tuple[float | None, float]:
    try:
        found = region(name)
    except NotInCatalogue:
        return None, PUE_ASSUMED
    return found.carbon_g_per_kwh, found.pue or PUE_ASSUMED


def loss_of(text: str, scenario: Scenario) -> Loss:
    """`kind:name`, `kind:name@from` or `kind:name@from-until`, in seconds. Raises ScenarioError."""
    kind, _, rest = text.partition(":")
    name, _, when = rest.partition("@")
    if kind not in LOSS_KINDS or not name:
        raise ScenarioError(
            f'--lose "{text}" names no failure domain. Write one of '
            f"{', '.join(f'{one}:NAME' for one in LOSS_KINDS)}, with @FROM or @FROM-UNTIL seconds."
        )
    names = sorted({group.domain(kind) for group in scenario.groups})
    if name not in names:
        raise ScenarioError(
            f'--lose "{text}": this fleet has no {kind} "{name}". It has: {", ".join(names)}'
        )
    begin, _, end = when.partition("-")
    try:
        at_s, until_s = _second(begin or "0"), _second(end) if end else None
    except ValueError:
        raise ScenarioError(
            f'--lose "{text}": "{when}" is no time. Write seconds: @600 or @600-1200'
        ) from None
    if at_s < 0 or (until_s is not None and until_s <= at_s):
        raise ScenarioError(f'--lose "{text}": it must end after it began, at 0 s or later.')
    return Loss(kind=kind, name=name, at_s=at_s, until_s=until_s)  # type: ignore[arg-type]


def _second(text: str) -> float:
    """Raises ValueError; of inf and nan as well."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def round_trips_assumed(scenario: Scenario, origins: Iterable[str]) -> tuple[str, ...]:
    """Pairs of an origin and a region of the fleet between which no link is given."""
    linked = {frozenset(link.between) for link in scenario.fleet.links}
    regions = sorted({group.region for group in scenario.groups})
    return tuple(
        f"{origin} - {place}"
        for origin in sorted(set(origins))
        for place in regions
        if origin not in (place, "unnamed") and frozenset((origin, place)) not in linked
    )


def with_step_times(scenario: Scenario, step_time: StepTime) -> Scenario:
    """The same fleet if every replica's steps took this long."""
    groups = tuple(
        replace(group, perf=replace(group.perf, step_time=step_time)) for group in scenario.groups
    )
    return replace(scenario, groups=groups)


def slowed(step_time: StepTime, factor: float) -> StepTime:
    """The same replica if its steps took `factor` times as long."""
    return StepTime(
        knots_tokens=step_time.knots_tokens,
        knots_s=tuple(seconds * factor for seconds in step_time.knots_s),
        context_s_per_token=step_time.context_s_per_token * factor,
        pair_s=step_time.pair_s * factor,
    )


def refuse_impossible(
    scenario: Scenario, *, model: str, prompt_tokens: float, origins: Iterable[str]
) -> str | None:
    """What is promised of `model` and no idle replica keeps, and who comes nearest; else None."""
    place = scenario.models.index(model)
    slo, places = scenario.slos[place], tuple(origins)
    groups = [group for group in scenario.groups if group.model == place]
    for promised, field, least_s in (
        (slo.ttft_s_p95, "ttft_s_p95", _least_ttft_s),
        (slo.itl_s_p99, "itl_s_p99", _least_itl_s),
    ):
        if promised is None:
            continue
        best_s, nearest = min(
            (least_s(scenario, group, prompt_tokens, places), group.name) for group in groups
        )
        if best_s > promised:
            return (
                f"model {model}: {field} = {promised:g} s cannot be met by any of its replicas, "
                f"even with one request alone, of {prompt_tokens:,.0f} prompt tokens. Nearest: "
                f"{nearest} with {best_s:.3g} s. Promise more seconds, or deploy faster replicas."
            )
    return None


def _least_ttft_s(
    scenario: Scenario, group: Group, prompt_tokens: float, origins: tuple[str, ...]
) -> float:
    step, most = group.perf.step_time, group.engine.prefill_tokens_max
    seconds, read = 0.0, 0.0
    while read < prompt_tokens:
        chunk = min(most, prompt_tokens - read)
        seconds += step.step_s(tokens=chunk, pairs=chunk * (read + chunk / 2))
        read += chunk
    trips = [scenario.round_trip_s(origin, group.region) for origin in origins] or [0.0]
    return seconds + group.perf.overhead_s + min(trips)


def _least_itl_s(
    scenario: Scenario, group: Group, prompt_tokens: float, origins: tuple[str, ...]
) -> float:
    del scenario, origins
    return group.perf.step_time.step_s(tokens=1, contexts=prompt_tokens)
