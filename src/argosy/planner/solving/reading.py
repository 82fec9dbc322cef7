"""A solution's numbers as a `Plan`: replicas, routes, what is held and drawn, money, energy."""

from collections import defaultdict

import numpy as np

from argosy.planner.plan import Binding, Bought, Drawn, Held, Money, Plan, Route, Run, Trained
from argosy.planner.problem import Problem
from argosy.planner.program.columns import Floats
from argosy.planner.program.program import HELD_KINDS, Model

LEAST = 1e-9  # less than this of anything is the solver's dust


def plan_of(
    model: Model,
    x: Floats,
    *,
    bound: float,
    binding: tuple[Binding, ...],
    checked: tuple[int, int],
    seconds: float,
) -> Plan:
    """The plan; `bound` in USD an hour, `checked`: losses looked at, and those that are rows."""
    problem = model.outline.problem
    runs, routes = runs_of(model, x), routes_of(model, x)
    energy_kwh, carbon_kg = energy_of(model, runs, routes)
    return Plan(
        problem=problem,
        money=money_of(model, x),
        bound_usd=bound * problem.hours,
        held=held_of(model, x),
        bought=bought_of(model, x),
        runs=runs,
        routes=routes,
        drawn=drawn_of(model, x),
        trained=trained_of(model, x),
        binding=binding,
        energy_kwh_per_day=energy_kwh,
        carbon_kg_per_day=carbon_kg,
        losses_checked=checked[0],
        losses_added=checked[1],
        seconds=seconds,
    )


def held_of(model: Model, x: Floats) -> tuple[Held, ...]:
    """Nodes by supply, those of which some are held."""
    return tuple(
        Held(supply=int(key[1]), nodes=round(x[column]))
        for key, column in model.first.items()
        if key[0] == "nodes" and round(x[column]) > 0
    )


def bought_of(model: Model, x: Floats) -> tuple[Bought, ...]:
    """Credits by contract, those of which some is bought."""
    problem = model.outline.problem
    block_SW = model.slots_of(x)
    found: list[Bought] = []
    for key, column in model.first.items():
        if key[0] == "units" and round(x[column]) > 0:
            credit = problem.credits[int(key[1])]
            hours = _hours(problem, credit.periods)
            used_usd = sum(
                problem.supplies[u].price_usd_per_chip_hour
                * float(hours @ block_SW[:, model.block["drawn", u]])
                for u in credit.supplies
                if ("drawn", u) in model.block
            )
            units = round(x[column])
            found.append(
                Bought(
                    credit=int(key[1]),
                    units=units,
                    usd=units * credit.usd_per_unit,
                    used_usd=used_usd,
                )
            )
    return tuple(found)


def _hours(problem: Problem, periods: tuple[int, ...]) -> Floats:
    return np.array([slot.hours if slot.period in periods else 0.0 for slot in problem.slots])


def runs_of(model: Model, x: Floats) -> tuple[Run, ...]:
    """Replicas by option."""
    block_SW = model.slots_of(x)
    found: list[Run] = []
    for key, place in model.block.items():
        if key[0] == "replicas":
            replicas = tuple(round(n) for n in block_SW[:, place])
            if any(replicas):
                found.append(Run(option=int(key[1]), replicas=replicas))
    return tuple(found)


def routes_of(model: Model, x: Floats) -> tuple[Route, ...]:
    """Each need's share of its group's flow, onto each option by what that carries there."""
    outline = model.outline
    block_SW = model.slots_of(x)
    shares = _shares_in_region(model, block_SW)
    found: list[Route] = []
    for g, group in enumerate(outline.groups):
        for d in group.needs:
            need_S = np.array(outline.problem.needs[d].requests_per_s)
            part_S = _part_of_group(group.rate_S, need_S, group.may_wait, model)
            sums: dict[int, Floats] = {}
            for region in group.regions:
                flow_S = block_SW[:, model.block["flow", g, region]] * part_S
                for k, share_S in shares[group.model, group.length_class, region].items():
                    sums[k] = sums.get(k, 0.0) + flow_S * share_S
            for k, rate_S in sorted(sums.items()):
                if rate_S.max() > LEAST:
                    kept = tuple(float(rate) if rate > LEAST else 0.0 for rate in rate_S)
                    found.append(Route(need=d, option=k, requests_per_s=kept))
    return tuple(found)


def _part_of_group(rate_S: Floats, need_S: Floats, may_wait: bool, model: Model) -> Floats:
    """A need's part of its group, by slot; of what may wait, by period."""
    if may_wait:
        slots = model.outline.problem.slots
        periods = np.array([slot.period for slot in slots])
        hours = np.array([slot.hours for slot in slots])
        for period in np.unique(periods):
            among = periods == period
            rate_S = np.where(among, (rate_S * hours)[among].sum(), rate_S)
            need_S = np.where(among, (need_S * hours)[among].sum(), need_S)
    return np.divide(need_S, rate_S, out=np.zeros_like(need_S), where=rate_S > 0)


def _shares_in_region(
    model: Model, block_SW: Floats
) -> dict[tuple[str, int, str], dict[int, Floats]]:
    """What part of a region's flow of a class each option there carries."""
    outline, problem = model.outline, model.outline.problem
    carried: dict[tuple[str, int, str], dict[int, Floats]] = defaultdict(dict)
    for k in outline.options:
        option = problem.options[k]
        region = problem.pools[option.pool].region
        for c in outline.classes[option.model]:
            rate = option.requests_per_s[c]
            if rate <= 0:
                continue
            if ("served", k, c) in model.block:
                load_S = np.maximum(block_SW[:, model.block["served", k, c]], 0.0)
            else:
                load_S = rate * np.maximum(block_SW[:, model.block["replicas", k]], 0.0)
            carried[option.model, c, region][k] = load_S
    for loads in carried.values():
        total_S = np.sum(list(loads.values()), axis=0)
        for k, load_S in loads.items():
            loads[k] = np.divide(load_S, total_S, out=np.zeros_like(load_S), where=total_S > 0)
    return carried


def drawn_of(model: Model, x: Floats) -> tuple[Drawn, ...]:
    """Chips in use by supply."""
    block_SW = model.slots_of(x)
    return tuple(
        Drawn(supply=int(key[1]), chips=_dusted(block_SW[:, place]))
        for key, place in model.block.items()
        if key[0] == "drawn" and block_SW[:, place].max() > LEAST
    )


def trained_of(model: Model, x: Floats) -> tuple[Trained, ...]:
    """Chips by training run and pool; no more than the run takes, where idle chips cost nothing."""
    block_SW = model.slots_of(x)
    places = {key: place for key, place in model.block.items() if key[0] == "trained"}
    return tuple(
        Trained(
            training=int(key[1]),
            pool=int(key[2]),
            chips=_dusted(block_SW[:, place] * _share_wanted(model, int(key[1]), block_SW)),
        )
        for key, place in places.items()
        if block_SW[:, place].max() > LEAST
    )


def _share_wanted(model: Model, training: int, block_SW: Floats) -> float:
    """Of the chips that the program gave a run, the share that its tokens take."""
    problem = model.outline.problem
    run = problem.trainings[training]
    seconds_S = 3600.0 * _hours(problem, run.periods)
    tokens = sum(
        per_s * float(seconds_S @ block_SW[:, model.block["trained", training, pool]])
        for pool, per_s in run.tokens_per_chip_s.items()
        if ("trained", training, pool) in model.block
    )
    return min(1.0, run.tokens / tokens) if tokens > 0 else 1.0


def _dusted(chips_S: Floats) -> tuple[float, ...]:
    return tuple(float(chips) if chips > LEAST else 0.0 for chips in chips_S)


def money_of(model: Model, x: Floats) -> Money:
    """USD over the horizon by kind of contract."""
    problem = model.outline.problem
    usd: dict[str, float] = defaultdict(float)
    for key, column in model.first.items():
        if key[0] == "nodes":
            supply = problem.supplies[int(key[1])]
            usd[supply.kind] += round(x[column]) * float(model.cost[column]) * problem.hours
        else:
            usd["committed_spend"] += round(x[column]) * problem.credits[int(key[1])].usd_per_unit
    usd_SW = np.maximum(model.slots_of(x), 0.0) * model.slots_of(model.cost) * problem.hours
    for key, place in model.block.items():
        if key[0] == "drawn" and problem.supplies[int(key[1])].kind not in HELD_KINDS:
            usd[problem.supplies[int(key[1])].kind] += float(usd_SW[:, place].sum())
    return Money(**usd)


def energy_of(
    model: Model, runs: tuple[Run, ...], routes: tuple[Route, ...]
) -> tuple[float | None, float | None]:
    """KWh and kg of carbon a day, on average; None where nothing of it is known."""
    problem = model.outline.problem
    hours_S = np.array([slot.hours for slot in problem.slots])
    used: dict[int, Floats] = defaultdict(lambda: np.zeros(len(problem.slots)))
    for route in routes:
        option = problem.options[route.option]
        rate = option.requests_per_s[problem.needs[route.need].length_class]
        used[route.option] += np.array(route.requests_per_s) / rate
    kwh, kg = 0.0, 0.0
    knows_power = knows_carbon = False
    for run in runs:
        option = problem.options[run.option]
        pool = problem.pools[option.pool]
        if option.power_w is None:
            continue
        idle_w = option.power_w_idle or 0.0
        busy_w = max(0.0, option.power_w - idle_w)
        watts_S = np.array(run.replicas) * idle_w + used[run.option] * busy_w
        pool_kwh = pool.pue * float(watts_S @ hours_S) / 1e3 / (problem.hours / 24.0)
        knows_power, kwh = True, kwh + pool_kwh
        if pool.carbon_g_per_kwh is not None:
            knows_carbon, kg = True, kg + pool_kwh * pool.carbon_g_per_kwh / 1e3
    return (kwh if knows_power else None), (kg if knows_carbon else None)
