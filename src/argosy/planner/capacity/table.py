"""What every model does on every pool within its SLO: by layout, engine and length class.

Owns which candidates are tried and which are dropped unseen, what is kept of earlier answers, and
the words for those that are no option. How one rate is found is `sustain.py`'s.

A larger replica is not tried where the last doubling of chips did no more for each chip in any
class, nor one of a dtype that on as many chips takes longer in every step: a plan wants neither.
"""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from argosy.fleet.architectures import architecture
from argosy.fleet.catalogue import chip
from argosy.fleet.config import Fleet, Model, Pool
from argosy.fleet.demand import Demand
from argosy.fleet.launchers import is_on_chips
from argosy.fleet.layout import Layout
from argosy.perf.calibration import Calibration
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.memory import plan_memory
from argosy.perf.refusal import DoesNotFit
from argosy.perf.replica import ReplicaModel, replica
from argosy.planner.capacity.candidates import Engine, Refused, engine_of, layouts_of, longer
from argosy.planner.capacity.lengths import LengthClass, classes_of
from argosy.planner.capacity.rates import Rates, faster, key_of, limits_of, measured
from argosy.planner.capacity.steps import Stepped, Steps
from argosy.planner.capacity.sustain import REQUESTS, Drawn, OneReplica

_WORTH_A_HINT = 1.25  # times as many requests
Told = Callable[[str], None]


class Sustained(msgspec.Struct, frozen=True, kw_only=True):
    """A way to run a model on a pool, tried."""

    model: str
    pool: str
    layout: Layout
    settings: EngineSettings
    is_step_chosen: bool = False  # its prefill_tokens_max, by the planner: the operator left it
    chips: int  # of a replica
    rates: tuple[Rates, ...]  # by length class of the model
    power_w: float | None  # of its chips at the highest rate; None: not known
    power_w_idle: float | None
    rung: str  # what the performance model knows the chip from
    uncalibrated: bool

    @property
    def requests_per_s(self) -> tuple[float, ...]:
        """Expected, by length class."""
        return tuple(one.requests_per_s for one in self.rates)


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """All options of a fleet, the length classes that their rates are of, and what is none."""

    demand: tuple[Demand, ...]  # that the classes' members are places of
    classes: dict[str, tuple[LengthClass, ...]]  # by model
    options: tuple[Sustained, ...]
    refused: tuple[Refused, ...]
    hints: tuple[str, ...] = ()  # what other engine settings would do

    def nearest(self, model: str) -> Refused | None:
        """Of what is no option for it, what misses its SLO least; None where nothing was tried."""
        missed = [one for one in self.refused if one.model == model and one.near is not None]
        return min(missed, key=lambda one: one.near or 0.0, default=None)


def capacity_of(
    fleet: Fleet,
    *,
    demand: Sequence[Demand] | None = None,
    calibration: Calibration | None = None,
    known: MutableMapping[str, Rates] | None = None,
    told: Told | None = None,
    requests: int = REQUESTS,
) -> Capacity:
    """Of a checked fleet; `demand` instead of the fleet file's, `known` is read and added to.

    `requests` are simulated at each rate that is tried. Raises TraceError where a demand asks for
    more tokens than its model's context holds.
    """
    asked = tuple(fleet.demand if demand is None else demand)
    classes = classes_of(fleet, asked)
    shop = _Shop(
        replace(fleet, demand=asked), classes, calibration, {} if known is None else known, requests
    )
    options: list[Sustained] = []
    refused: list[Refused] = []
    hints: list[str] = []
    for model in fleet.models:
        if model.architecture is None or not classes[model.name]:
            continue
        gains: list[Gain | None] = []
        for pool in planned_pools(fleet):
            if told is not None:
                told(f"measuring what {model.name} does on {pool.name}")
            found = list(shop.on_pool(model, pool))
            able = [one for one in found if isinstance(one, Sustained)]
            options += able
            refused += [one for one in found if isinstance(one, Refused)]
            gains.append(shop.gain(model, pool, able))
        known_gains = [one for one in gains if one is not None]
        hints += _hint(model, known_gains, 1.0 + fleet.plan.headroom)
    return Capacity(
        demand=asked,
        classes=classes,
        options=tuple(options),
        refused=tuple(refused),
        hints=tuple(hints),
    )


def planned_pools(fleet: Fleet) -> list[Pool]:
    """Those that a plan may use: on paper, with a chip and a region."""
    return [
        pool
        for pool in fleet.pools
        if is_on_chips(pool.launcher) and pool.chip is not None and pool.region is not None
    ]


class Gain(NamedTuple):
    """What a model would gain on a pool in steps of the planner's choice, beside the operator's."""

    pool: str
    tokens: int  # of such a step
    times: float  # so many requests, with headroom


class _Shop:
    """Answers what a replica sustains; each question once."""

    def __init__(
        self,
        fleet: Fleet,
        classes: dict[str, tuple[LengthClass, ...]],
        calibration: Calibration | None,
        known: MutableMapping[str, Rates],
        requests: int,
    ) -> None:
        """`fleet` with the demand that the classes are of."""
        self._fleet, self._classes, self._known = fleet, classes, known
        self._calibration = calibration
        self._drawn = {
            model: tuple(Drawn(one, requests=requests) for one in found)
            for model, found in classes.items()
        }
        self._replicas: dict[tuple[object, ...], ReplicaModel] = {}

    def on_pool(self, model: Model, pool: Pool) -> Iterator[Sustained | Refused]:
        """All that is tried of a model there."""
        engine = engine_of(self._fleet, model.name, pool)
        if isinstance(engine, Refused):
            yield engine
            return
        settings = engine.stepping(engine.step_tokens_least)
        assert model.architecture is not None
        shape = architecture(model.architecture)
        missing: list[Refused] = []
        able: list[tuple[Layout, ReplicaModel]] = []
        for layout in layouts_of(self._fleet, model.name, pool, shape):
            if isinstance(layout, Refused):
                yield layout
                continue
            fits = self._fitting(model, pool, layout, settings)
            (missing if isinstance(fits, Refused) else able).append(fits)  # type: ignore[arg-type]
        if not able:
            able = list(self._over_nodes(model, pool, settings, missing))
        yield from missing
        yield from self._tried(model, pool, engine, able)

    def _over_nodes(
        self, model: Model, pool: Pool, settings: EngineSettings, missing: Sequence[Refused]
    ) -> Iterator[tuple[Layout, ReplicaModel]]:
        """Of each kind of layout that no node holds, the shortest pipeline that fits."""
        assert model.architecture is not None
        shape = architecture(model.architecture)
        kinds = dict.fromkeys(replace(one.layout, tp=1, pp=1) for one in missing if one.layout)
        for kind in kinds:
            for layout in longer(kind, pool, shape):
                fits = self._fitting(model, pool, layout, settings)
                if not isinstance(fits, Refused):
                    yield fits
                    break

    def gain(self, model: Model, pool: Pool, able: Sequence[Sustained]) -> Gain | None:
        """What its best replica would do in steps of the planner's choice; None: they are so."""
        engine = engine_of(self._fleet, model.name, pool)
        if not able or isinstance(engine, Refused) or engine.step_tokens is None:
            return None
        best = max(able, key=lambda one: sum(one.requests_per_s) / one.chips)
        steps = self._steps(model, pool, best.layout, engine, 1.0 + self._fleet.plan.headroom)
        tokens = steps.choice(engine.sizes)
        if tokens is None:
            return None
        before, after = steps.cost(engine.step_tokens), steps.cost(tokens)
        if not before[1] or not after[1]:
            return None
        return Gain(pool=pool.name, tokens=tokens, times=before[1] / after[1])

    def _step_tokens(
        self, model: Model, pool: Pool, layout: Layout, engine: Engine
    ) -> tuple[int, tuple[float, ...]]:
        """The operator's, or what does most of the demand; about what it does, () if unknown."""
        if engine.step_tokens is not None:
            return engine.step_tokens, ()
        slowness = 1.0 + self._fleet.plan.headroom
        for slower in (slowness, 1.0):  # as believed where otherwise nothing is in time
            steps = self._steps(model, pool, layout, engine, slower)
            tokens = steps.choice(engine.sizes)
            assert tokens is not None, "the least fits"
            if any(steps.rates(tokens)):
                return tokens, tuple(faster(rate, slower) for rate in steps.rates(tokens))
        return tokens, ()

    def _steps(
        self,
        model: Model,
        pool: Pool,
        layout: Layout,
        engine: Engine,
        slowness: float,
    ) -> Steps:
        def stepped(tokens: int) -> Stepped | None:
            settings = engine.stepping(tokens)
            fits = self._fitting(model, pool, layout, settings)
            if isinstance(fits, Refused):
                return None
            return Stepped(settings, fits[1], limits_of(self._fleet, model, fits[1]))

        rates = [
            sum(self._fleet.demand[place].requests_per_s for place in one.members)
            for one in self._classes[model.name]
        ]
        return Steps(
            stepped,
            list(zip(self._drawn[model.name], rates, strict=True)),
            known=self._known,
            slowness=slowness,
        )

    def _fitting(
        self,
        model: Model,
        pool: Pool,
        layout: Layout,
        settings: EngineSettings,
    ) -> tuple[Layout, ReplicaModel] | Refused:
        assert model.architecture is not None
        shape = architecture(model.architecture)
        there = pool.nodes.max * pool.nodes.chips_per_node
        if layout.chips > there:
            reason = f"a replica of {layout.chips} chips is more than the pool's {there}"
            return Refused(model=model.name, pool=pool.name, layout=layout, reason=reason)
        longest = _longest_tokens(self._classes[model.name])
        of, key = chip(str(pool.chip)), (pool.chip, model.name, layout, settings.name)
        found = self._replicas.get((*key, settings.memory_share))
        plan = plan_memory(shape, of, layout, settings)
        if found is None or plan is None or plan.kv_tokens < longest:
            found = replica(shape, of, layout, settings, self._calibration, kv_tokens=longest)
        if isinstance(found, DoesNotFit):
            reason = found.message.replace("\n", " ")
            return Refused(model=model.name, pool=pool.name, layout=layout, reason=reason)
        # Of all that it is, the step's size changes only what is left for the KV cache.
        self._replicas[*key, settings.memory_share] = found
        return layout, replace(found, kv_tokens=found.kv_tokens if plan is None else plan.kv_tokens)

    def _tried(
        self,
        model: Model,
        pool: Pool,
        engine: Engine,
        able: Sequence[tuple[Layout, ReplicaModel]],
    ) -> Iterator[Sustained | Refused]:
        """Each kind of layout from its smallest replica up, while more chips do more each."""
        classes = self._classes[model.name]
        wanted = [
            (layout, perf)
            for layout, perf in able
            if not any(_is_faster(other, perf, classes) for _, other in able)
        ]
        best: dict[Layout, list[float]] = {}  # by kind: what each chip does for each class
        for layout, perf in sorted(wanted, key=lambda pair: pair[1].chips):
            kind = replace(layout, tp=1, pp=1)
            if kind in best and not best[kind]:
                continue
            tokens, about = self._step_tokens(model, pool, layout, engine)
            settings = engine.stepping(tokens)
            fits = self._fitting(model, pool, layout, settings)
            assert not isinstance(fits, Refused), "a size that fits is chosen"
            perf = fits[1]
            rates = self._rates(model, perf, settings, about)
            each = [one.requests_per_s / perf.chips for one in rates]
            seen = best.get(kind, [0.0] * len(each))
            has_gained = any(now > before for now, before in zip(each, seen, strict=True))
            best[kind] = each if has_gained or not any(each) else []
            if not any(each):
                yield _too_slow(model, pool, layout, rates)
                continue
            yield Sustained(
                model=model.name,
                pool=pool.name,
                layout=layout,
                settings=settings,
                is_step_chosen=engine.step_tokens is None,
                chips=perf.chips,
                rates=rates,
                power_w=_power_w(perf, rates),
                power_w_idle=perf.power_w_idle,
                rung=perf.rung,
                uncalibrated=perf.uncalibrated,
            )

    def _rates(
        self, model: Model, perf: ReplicaModel, settings: EngineSettings, about: Sequence[float]
    ) -> tuple[Rates, ...]:
        """`about`: guesses, as the answer depends a little on where it is looked for; or none."""
        limits = limits_of(self._fleet, model, perf)
        one: OneReplica | None = None
        rates: list[Rates] = []
        for drawn, guess in zip_longest(self._drawn[model.name], about):
            key = key_of(perf, settings, drawn, limits, guess)
            if key not in self._known:
                one = one or OneReplica(perf, settings)
                self._known[key] = measured(one, drawn, limits, perf, guess=guess)
            rates.append(self._known[key])
        return tuple(rates)


def _is_faster(one: ReplicaModel, other: ReplicaModel, classes: Sequence[LengthClass]) -> bool:
    """On as many chips, in every kind of step, with no less KV cache."""
    if one.chips != other.chips or one.kv_tokens < other.kv_tokens:
        return False
    pairs = [
        (mine, its)
        for asked in classes
        for mine, its in zip(_steps_s(one, asked), _steps_s(other, asked), strict=True)
    ]
    return all(mine <= its for mine, its in pairs) and any(mine < its for mine, its in pairs)


def _steps_s(perf: ReplicaModel, asked: LengthClass) -> Iterator[float]:
    """Steps that decode so many requests of the class, or read so many tokens of their prompts."""
    for requests in (1.0, 8.0, 64.0, 256.0):
        contexts = requests * (asked.tokens_in + asked.tokens_out / 2)
        yield perf.step_time.step_s(tokens=requests, contexts=contexts)
    for tokens in (512.0, 2048.0, 8192.0):
        yield perf.step_time.step_s(tokens=tokens, pairs=tokens * asked.tokens_in / 2)


def _longest_tokens(classes: Sequence[LengthClass]) -> int:
    """Prompt and answer of a long request of the longest class."""
    return int(max(one.tokens_in + one.lengths.output.tokens_p95 for one in classes)) + 1024


def _power_w(perf: ReplicaModel, rates: Sequence[Rates]) -> float | None:
    """At the rate: idle for the time without a step, at work in the rest, as the simulator has."""
    if perf.power_w_idle is None or perf.power_w_busy is None:
        return None
    busy = max(one.busy_share for one in rates if one.requests_per_s > 0)
    return perf.power_w_idle + busy * (perf.power_w_busy - perf.power_w_idle)


def _hint(model: Model, gains: Sequence[Gain], slowness: float) -> Iterator[str]:
    more = [one for one in gains if one.times >= _WORTH_A_HINT]
    if more:
        pools = ", ".join(f"{one.pool} {one.times:.1f} times ({one.tokens:,})" for one in more)
        yield (
            f"{model.name} reads prompts in the steps that its deployments' engines set; without "
            "engine.prefill_tokens_max the planner chooses, and a replica would keep the SLO at "
            f"more requests where every step takes {slowness:g} times as long: {pools} as many"
        )


def _too_slow(model: Model, pool: Pool, layout: Layout, rates: Sequence[Rates]) -> Refused:
    """No class of its requests is served in time, however few come."""
    best = min(rates, key=lambda one: one.ttft_s_p95)
    seen = (
        ("TTFT p95", "ttft_s_p95", best.ttft_s_p95, model.slo.ttft_s_p95),
        ("ITL p99", "itl_s_p99", best.itl_s_p99, model.slo.itl_s_p99),
    )
    missed = [
        (said, least_s, promised_s)
        for said, name, least_s, promised_s in seen
        if name in best.binds and least_s is not None and promised_s is not None
    ]
    parts = [
        f"{said} is {least_s:.3g} s on an idle replica, promised {promised_s:g}"
        for said, least_s, promised_s in missed
    ] or ["requests wait too long on an idle replica"]
    share = max((least_s / promised_s for _, least_s, promised_s in missed), default=1.0)
    return Refused(
        model=model.name,
        pool=pool.name,
        layout=layout,
        reason=f"cannot keep the SLO: {'; '.join(parts)}",
        near=share,
    )
