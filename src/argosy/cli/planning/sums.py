"""A `PlanReport` of a plan: its indices become names, its slots become days, sums and shares."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta

from msgspec.structs import replace

from argosy.cli.planning.report import (
    BaselineRow,
    BindingRow,
    Commitment,
    ModelRow,
    PeriodRow,
    PlanReport,
    Replay,
    ReplicaRow,
    RouteRow,
    SlotRow,
    Spell,
    SupplyRow,
    TrainingRow,
)
from argosy.planner.plan import Money, Plan, Run
from argosy.planner.problem import Need, Problem, Supply, Survival, layout_text

KINDS = ("own", "reserved", "committed_spend", "on_demand", "spot")

_HOUR_S = 3600
_HELD = ("own", "reserved")
_NEGLIGIBLE_RATE = 1e-9  # requests/s: a solver's zero


def report_of(
    plan: Plan,
    *,
    fleet: str,
    demand: str,
    baselines: Sequence[BaselineRow] = (),
    replay: Replay | None = None,
    assumed: Sequence[str] = (),
    refused: Sequence[str] = (),
    ends: Mapping[str, str] | None = None,
) -> PlanReport:
    """All that is printed and drawn of a plan; `ends`: the day after each contract's last."""
    problem, day = plan.problem, problem_days(plan.problem)
    tokens_in, tokens_out = (
        _tokens(problem, lambda need: need.tokens_in),
        _tokens(problem, lambda need: need.tokens_out),
    )
    rates = _demand_by_slot(problem)
    used = _options_used(plan)
    return PlanReport(
        fleet=fleet,
        demand=demand,
        begin=problem.periods[0].begin,
        until=_until(problem, len(problem.periods) - 1),
        hours=problem.hours,
        periods=_periods(plan, rates),
        slots=tuple(
            SlotRow(period=problem.periods[slot.period].name, hour=slot.hour, hours=slot.hours)
            for slot in problem.slots
        ),
        cost_usd=plan.money.total,
        cost_usd_by_kind=by_kind(plan.money),
        usd_per_hour=plan.usd_per_hour,
        bound_usd=plan.bound_usd,
        gap=plan.gap,
        usd_per_mtok_out=plan.money.total / tokens_out * 1e6 if tokens_out else None,
        requests_per_s_mean=_mean(problem, rates),
        requests_per_s_peak=max(rates, default=0.0),
        tokens_in_per_day=tokens_in / day,
        tokens_out_per_day=tokens_out / day,
        headroom=problem.headroom,
        headroom_lost=problem.headroom_lost,
        energy_kwh_per_day=plan.energy_kwh_per_day,
        carbon_kg_per_day=plan.carbon_kg_per_day,
        commitments=tuple(_ending(one, ends or {}) for one in _commitments(plan)),
        supplies=_supplies(plan),
        replicas=tuple(_replicas(plan, run) for run in plan.runs if any(run.replicas)),
        routes=_routes(plan),
        models=_models(plan),
        training=_training(plan),
        binding=_binding(plan),
        baselines=tuple(baselines),
        replay=replay,
        survives=tuple(_survival(one) for one in problem.survivals),
        losses_checked=plan.losses_checked,
        losses_added=plan.losses_added,
        uncalibrated=tuple(
            problem.options[place].text(problem.pools)
            for place in used
            if problem.options[place].uncalibrated
        ),
        power_unknown=_once(
            problem.pools[problem.options[place].pool].chip
            for place in used
            if problem.options[place].power_w is None
        ),
        carbon_unknown=_once(
            problem.pools[problem.options[place].pool].region
            for place in used
            if problem.pools[problem.options[place].pool].carbon_g_per_kwh is None
        ),
        assumed=tuple(assumed),
        refused=tuple(refused),
    )


def hour_text(problem: Problem, place: int) -> str:
    """2027 14:00; of a plan of one period, 14:00."""
    slot = problem.slots[place]
    period = f"{problem.periods[slot.period].name} " if len(problem.periods) > 1 else ""
    return f"{period}{slot.hour:02}:00"


def by_kind(money: Money) -> dict[str, float]:
    """USD by kind of contract."""
    return {kind: getattr(money, kind) for kind in KINDS}


def problem_days(problem: Problem) -> float:
    """Of the horizon."""
    return problem.hours / 24


def _until(problem: Problem, period: int) -> str:
    """The day after its last."""
    begin = date.fromisoformat(problem.periods[period].begin)
    return (begin + timedelta(days=round(problem.periods[period].days))).isoformat()


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _mean(problem: Problem, values: Sequence[float], slots: Sequence[int] | None = None) -> float:
    """By the hours that the slots stand for."""
    chosen = range(len(problem.slots)) if slots is None else slots
    hours = sum(problem.slots[place].hours for place in chosen)
    return sum(values[place] * problem.slots[place].hours for place in chosen) / hours


def _demand_by_slot(problem: Problem, model: str | None = None) -> list[float]:
    """Requests per second."""
    chosen = [need for need in problem.needs if model in (None, need.model)]
    return [sum(need.requests_per_s[place] for need in chosen) for place in _places(problem)]


def _places(problem: Problem) -> range:
    return range(len(problem.slots))


def _of_period(problem: Problem, period: int) -> list[int]:
    return [place for place in _places(problem) if problem.slots[place].period == period]


def _tokens(
    problem: Problem, tokens_of: Callable[[Need], float], model: str | None = None
) -> float:
    """Over the horizon."""
    return sum(
        tokens_of(need) * rate * slot.hours * _HOUR_S
        for need in problem.needs
        if model in (None, need.model)
        for rate, slot in zip(need.requests_per_s, problem.slots, strict=True)
    )


def _options_used(plan: Plan) -> list[int]:
    return [run.option for run in plan.runs if any(run.replicas)]


def _running(plan: Plan) -> list[float]:
    """Chips on replicas, by slot."""
    chips = [0.0] * len(plan.problem.slots)
    for run in plan.runs:
        size = plan.problem.options[run.option].chips
        for place, count in enumerate(run.replicas):
            chips[place] += size * count
    return chips


def _periods(plan: Plan, rates: Sequence[float]) -> tuple[PeriodRow, ...]:
    problem, chips = plan.problem, _running(plan)
    rows = []
    for index, period in enumerate(problem.periods):
        slots = _of_period(problem, index)
        rows.append(
            PeriodRow(
                name=period.name,
                begin=period.begin,
                until=_until(problem, index),
                days=period.days,
                requests_per_s_mean=_mean(problem, rates, slots),
                requests_per_s_peak=max(rates[place] for place in slots),
                chips_mean=_mean(problem, chips, slots),
                chips_peak=max(chips[place] for place in slots),
            )
        )
    return tuple(rows)


def _hours_of(problem: Problem, supply: Supply) -> float:
    return sum(slot.hours for slot in problem.slots if slot.period in supply.periods)


def _drawn_usd(plan: Plan, supply: int, period: int | None = None) -> float:
    """What its chips in use cost at its price."""
    problem = plan.problem
    price = problem.supplies[supply].price_usd_per_chip_hour
    return sum(
        chips * slot.hours * price
        for drawn in plan.drawn
        if drawn.supply == supply
        for chips, slot in zip(drawn.chips, problem.slots, strict=True)
        if period in (None, slot.period)
    )


def _ending(one: Commitment, ends: Mapping[str, str]) -> Commitment:
    """With the contract's own end, where the plan does not reach so far."""
    end = ends.get(one.contract)
    return replace(one, ends=end) if end is not None and end > one.until else one


def _commitments(plan: Plan) -> tuple[Commitment, ...]:
    problem = plan.problem
    held = [_held(plan, one.supply, one.nodes) for one in plan.held if one.nodes]
    bought = []
    for one in plan.bought:
        credit = problem.credits[one.credit]
        if not one.units:
            continue
        pools = [problem.pools[problem.supplies[place].pool] for place in credit.supplies]
        bought.append(
            Commitment(
                contract=credit.contract,
                kind="committed_spend",
                pools=_once(pool.name for pool in pools),
                chips_of=_once(pool.chip for pool in pools),
                is_signed=credit.is_signed,
                begin=problem.periods[min(credit.periods)].begin,
                until=_until(problem, max(credit.periods)),
                units=one.units,
                usd=one.usd,
                used_usd=one.used_usd,
                used_usd_by_period=tuple(
                    sum(_drawn_usd(plan, place, period) for place in credit.supplies)
                    for period in range(len(problem.periods))
                ),
                used_share=one.used_usd / one.usd if one.usd else 0.0,
            )
        )
    return (*held, *bought)


def _held(plan: Plan, place: int, nodes: int) -> Commitment:
    problem, supply = plan.problem, plan.problem.supplies[place]
    pool = problem.pools[supply.pool]
    chips = nodes * pool.chips_per_node
    usd = chips * supply.price_usd_per_chip_hour * _hours_of(problem, supply)
    chip_hours = sum(
        count * slot.hours
        for drawn in plan.drawn
        if drawn.supply == place
        for count, slot in zip(drawn.chips, problem.slots, strict=True)
    )
    used_usd = _drawn_usd(plan, place)
    return Commitment(
        contract=supply.contract or pool.name,
        kind="own" if supply.kind == "own" else "reserved",
        pools=(pool.name,),
        chips_of=(pool.chip,),
        is_signed=supply.is_signed,
        begin=problem.periods[min(supply.periods)].begin,
        until=_until(problem, max(supply.periods)),
        nodes=nodes,
        chips=chips,
        usd_per_chip_hour=supply.price_usd_per_chip_hour,
        usd=usd,
        used_usd=used_usd,
        used_usd_by_period=tuple(
            _drawn_usd(plan, place, period) for period in range(len(problem.periods))
        ),
        used_share=chip_hours / (chips * _hours_of(problem, supply)),
    )


def _supplies(plan: Plan) -> tuple[SupplyRow, ...]:
    problem = plan.problem
    nodes = {one.supply: one.nodes for one in plan.held}
    rows = []
    for drawn in plan.drawn:
        supply = problem.supplies[drawn.supply]
        if not (any(drawn.chips) or nodes.get(drawn.supply)):
            continue
        pool = problem.pools[supply.pool]
        usd = _drawn_usd(plan, drawn.supply)
        if supply.kind in _HELD:
            held = nodes.get(drawn.supply, 0) * pool.chips_per_node
            usd = held * supply.price_usd_per_chip_hour * _hours_of(problem, supply)
        rows.append(
            SupplyRow(
                supply=supply.name,
                kind=supply.kind,
                contract=supply.contract,
                pool=pool.name,
                region=pool.region,
                cloud=pool.cloud,
                maker=pool.maker,
                chip=pool.chip,
                usd_per_chip_hour=supply.price_usd_per_chip_hour,
                usd=usd,
                chips_mean=_mean(problem, drawn.chips),
                chips_peak=max(drawn.chips),
                chips=drawn.chips,
            )
        )
    return tuple(rows)


def _replicas(plan: Plan, run: Run) -> ReplicaRow:
    problem, option = plan.problem, plan.problem.options[run.option]
    pool = problem.pools[option.pool]
    rates = _demand_by_slot(problem, option.model)
    return ReplicaRow(
        model=option.model,
        pool=pool.name,
        region=pool.region,
        chip=pool.chip,
        engine=option.engine,
        layout=layout_text(option.layout),
        prefill_tokens_max=option.prefill_tokens_max,
        chips=option.chips,
        by_period=tuple(
            _spell(problem, run, rates, period) for period in range(len(problem.periods))
        ),
        replicas=run.replicas,
        load=_load(plan, run.option),
        requests_per_s=option.requests_per_s,
        requests_per_s_low=option.requests_per_s_low,
        requests_per_s_high=option.requests_per_s_high,
        is_uncalibrated=option.uncalibrated,
    )


def _spell(problem: Problem, run: Run, rates: Sequence[float], period: int) -> Spell:
    slots = _of_period(problem, period)
    return Spell(
        night=run.replicas[min(slots, key=lambda place: rates[place])],
        mean=_mean(problem, run.replicas, slots),
        peak=run.replicas[max(slots, key=lambda place: rates[place])],
    )


def _load(plan: Plan, place: int) -> tuple[float, ...]:
    """Replicas that the requests routed there take at the believed rates, without headroom."""
    problem, option = plan.problem, plan.problem.options[place]
    taken = [0.0] * len(problem.slots)
    for route in plan.routes:
        if route.option != place:
            continue
        able = option.requests_per_s[problem.needs[route.need].length_class]
        if able <= 0:
            continue
        for slot, rate in enumerate(route.requests_per_s):
            taken[slot] += rate / able
    return tuple(taken)


def _routes(plan: Plan) -> tuple[RouteRow, ...]:
    problem = plan.problem
    rows = []
    for route in plan.routes:
        need, option = problem.needs[route.need], problem.options[route.option]
        mean = _mean(problem, route.requests_per_s)
        if mean <= _NEGLIGIBLE_RATE:
            continue
        pool = problem.pools[option.pool]
        rows.append(
            RouteRow(
                need=need.name,
                model=need.model,
                tier=need.tier,
                origin=need.origin,
                length_class=need.length_class,
                pool=pool.name,
                region=pool.region,
                layout=layout_text(option.layout),
                share=mean / _mean(problem, need.requests_per_s),
                requests_per_s=route.requests_per_s,
            )
        )
    return tuple(rows)


def _models(plan: Plan) -> tuple[ModelRow, ...]:
    """What each model costs: of every pool's cost, its share of the chip-hours there."""
    problem, days = plan.problem, problem_days(plan.problem)
    hours = _chip_hours(plan)
    cost_of = _cost_by_pool(plan)
    in_pool: dict[int, float] = defaultdict(float)
    for (_, pool), value in hours.items():
        in_pool[pool] += value
    rows = []
    for model in dict.fromkeys(need.model for need in problem.needs):
        mine = {pool: value for (name, pool), value in hours.items() if name == model}
        usd = sum(cost_of[pool] * value / in_pool[pool] for pool, value in mine.items() if value)
        rates = _demand_by_slot(problem, model)
        tokens_out = _tokens(problem, lambda need: need.tokens_out, model)
        rows.append(
            ModelRow(
                model=model,
                requests_per_s_mean=_mean(problem, rates),
                requests_per_s_peak=max(rates),
                tokens_in_per_day=_tokens(problem, lambda need: need.tokens_in, model) / days,
                tokens_out_per_day=tokens_out / days,
                chip_hours_per_day=sum(mine.values()) / days,
                usd=usd,
                usd_per_mtok_out=usd / tokens_out * 1e6 if tokens_out else None,
            )
        )
    return tuple(rows)


def _chip_hours(plan: Plan) -> dict[tuple[str | None, int], float]:
    """By model (None: training) and pool."""
    problem = plan.problem
    hours: dict[tuple[str | None, int], float] = defaultdict(float)
    for run in plan.runs:
        option = problem.options[run.option]
        for count, slot in zip(run.replicas, problem.slots, strict=True):
            hours[option.model, option.pool] += count * option.chips * slot.hours
    for trained in plan.trained:
        for chips, slot in zip(trained.chips, problem.slots, strict=True):
            hours[None, trained.pool] += chips * slot.hours
    return hours


def _cost_by_pool(plan: Plan) -> dict[int, float]:
    """USD by pool; what a credit left unused is borne by what did use it."""
    problem = plan.problem
    cost: dict[int, float] = defaultdict(float)
    dearer: dict[int, float] = {}
    for one in plan.bought:
        for place in problem.credits[one.credit].supplies:
            dearer[place] = max(1.0, one.usd / one.used_usd) if one.used_usd else 1.0
    nodes = {one.supply: one.nodes for one in plan.held}
    for place, supply in enumerate(problem.supplies):
        if supply.kind in _HELD:
            chips = nodes.get(place, 0) * problem.pools[supply.pool].chips_per_node
            usd = chips * supply.price_usd_per_chip_hour * _hours_of(problem, supply)
        else:
            usd = _drawn_usd(plan, place) * dearer.get(place, 1.0)
        cost[supply.pool] += usd
    return cost


def _training(plan: Plan) -> tuple[TrainingRow, ...]:
    problem = plan.problem
    rows = []
    for trained in plan.trained:
        if not any(trained.chips):
            continue
        run = problem.trainings[trained.training]
        chip_hours = _mean(problem, trained.chips) * problem.hours
        rows.append(
            TrainingRow(
                run=run.name,
                pool=problem.pools[trained.pool].name,
                tokens=chip_hours * _HOUR_S * run.tokens_per_chip_s[trained.pool],
                chips_mean=_mean(problem, trained.chips),
                chips_peak=max(trained.chips),
                chips=trained.chips,
            )
        )
    return tuple(rows)


def _binding(plan: Plan) -> tuple[BindingRow, ...]:
    problem = plan.problem
    return tuple(
        BindingRow(
            constraint=one.constraint,
            unit=one.unit,
            usd_per_unit_hour=one.usd_per_unit_hour,
            hours=tuple(
                hour_text(problem, place)
                for place in (one.slots if len(one.slots) < len(problem.slots) else ())
            ),
        )
        for one in plan.binding
    )


def _survival(one: Survival) -> str:
    return f"{one.model} ({', '.join(one.tiers)}): any one {one.kind}"
