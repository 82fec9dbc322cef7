"""Recomputes every constraint of a problem from a plan alone: an oracle that shares no code.

`faults` lists in words what a plan breaks; a plan that is right has none. Each loss is its own
small linear program over the replicas that are left.
"""

from collections import defaultdict

import highspy
import numpy as np

from argosy.planner.plan import Plan
from argosy.planner.problem import Problem, Survival

NEAR = 1e-5  # relative: the solver's tolerance, with room


def faults(plan: Plan) -> list[str]:
    """What the plan breaks."""
    view = _View(plan)
    return [
        *_needs(view),
        *_room(view),
        *_chips(view),
        *_commitments(view),
        *_losses(view),
        *_spreads(view),
        *_trainings(view),
        *_caps(view),
        *_money(view),
    ]


class _View:
    """A plan as arrays by slot."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.problem = plan, plan.problem
        zeros = lambda: np.zeros(len(self.problem.slots))  # noqa: E731
        self.hours = np.array([slot.hours for slot in self.problem.slots])
        self.period = np.array([slot.period for slot in self.problem.slots])
        self.replicas = defaultdict(zeros, {r.option: np.array(r.replicas) for r in plan.runs})
        self.drawn = defaultdict(zeros, {d.supply: np.array(d.chips) for d in plan.drawn})
        self.trained = defaultdict(
            zeros, {(t.training, t.pool): np.array(t.chips) for t in plan.trained}
        )
        self.nodes = defaultdict(int, {held.supply: held.nodes for held in plan.held})
        self.routed = defaultdict(zeros)
        for route in plan.routes:
            self.routed[route.need, route.option] += np.array(route.requests_per_s)

    def used(self, k: int) -> np.ndarray:
        """Replicas of that option that its requests fill."""
        option = self.problem.options[k]
        total = np.zeros(len(self.problem.slots))
        for (d, other), rate in self.routed.items():
            if other == k:
                c = self.problem.needs[d].length_class
                total += rate / option.requests_per_s[c]
        return total


def _over(value, most) -> bool:
    return bool(np.any(np.asarray(value) > np.asarray(most) + NEAR * (1 + np.abs(most))))


def _needs(view: _View) -> list[str]:
    found = []
    for d, need in enumerate(view.problem.needs):
        served = np.zeros(len(view.problem.slots))
        for (other, k), rate in view.routed.items():
            if other != d:
                continue
            served += rate
            option = view.problem.options[k]
            region = view.problem.pools[option.pool].region
            if rate.any() and (region not in need.regions or option.model != need.model):
                found.append(f"{need.name} is served in {region}")
            if rate.any() and option.requests_per_s[need.length_class] <= 0:
                found.append(f"{need.name} is served where its SLO fails")
        asked = np.array(need.requests_per_s)
        if need.may_wait:
            for period in set(view.period):
                now = view.hours * (view.period == period)
                if _over(asked @ now, served @ now) or _over(served @ now, asked @ now):
                    found.append(f"{need.name} is not served in period {period}")
        elif _over(asked, served) or _over(served, asked):
            found.append(f"{need.name} is not served")
    return found


def _room(view: _View) -> list[str]:
    room = 1 + view.problem.headroom
    return [
        f"{option.text(view.problem.pools)} is too full"
        for k, option in enumerate(view.problem.options)
        if _over(room * view.used(k), view.replicas[k])
    ]


def _chips(view: _View) -> list[str]:
    found = []
    problem = view.problem
    for p, pool in enumerate(problem.pools):
        used = sum(
            (o.chips * view.replicas[k] for k, o in enumerate(problem.options) if o.pool == p),
            np.zeros(len(problem.slots)),
        )
        used = used + sum(chips for (_, at), chips in view.trained.items() if at == p)
        drawn = sum(
            (view.drawn[u] for u, s in enumerate(problem.supplies) if s.pool == p),
            np.zeros(len(problem.slots)),
        )
        if _over(used, drawn):
            found.append(f"{pool.name} uses more chips than are drawn")
        if _over(drawn, pool.nodes_max * pool.chips_per_node):
            found.append(f"{pool.name} holds more than its nodes")
    return found


def _commitments(view: _View) -> list[str]:
    found = []
    for u, supply in enumerate(view.problem.supplies):
        per_node = view.problem.pools[supply.pool].chips_per_node
        if supply.kind in ("own", "reserved"):
            most = view.nodes[u] * per_node
            if not supply.nodes_min <= view.nodes[u] <= supply.nodes_max:
                found.append(f"{supply.name}: {view.nodes[u]} nodes")
        else:
            most = supply.nodes_max * per_node * supply.availability
        there = np.isin(view.period, supply.periods)
        if _over(view.drawn[u], most * there):
            found.append(f"{supply.name} draws more than there is")
    bought = {b.credit: b for b in view.plan.bought}
    for q, credit in enumerate(view.problem.credits):
        units = bought[q].units if q in bought else 0
        if not credit.units_min <= units <= credit.units_max:
            found.append(f"{credit.contract}: {units} units")
        now = view.hours * np.isin(view.period, credit.periods)
        used = sum(
            view.problem.supplies[u].price_usd_per_chip_hour * (view.drawn[u] @ now)
            for u in credit.supplies
        )
        if _over(used, units * credit.usd_per_unit):
            found.append(f"{credit.contract} is overdrawn")
    return found


def _losses(view: _View) -> list[str]:
    found = []
    problem = view.problem
    for survival in problem.survivals:
        pools = {problem.pools[o.pool] for o in problem.options if o.model == survival.model}
        for domain in sorted({pool.domain(survival.kind) for pool in pools}):
            found.extend(
                f"{survival.model} fails without {domain} in slot {s}"
                for s in range(len(problem.slots))
                if not _survives(view, survival, domain, s)
            )
    return found


def _survives(view: _View, survival: Survival, domain: str, s: int) -> bool:
    """One program: flows of each need, replicas that count; all of it is served."""
    problem = view.problem
    needs = [
        (need, need.requests_per_s[s])
        for need in problem.needs
        if need.model == survival.model and need.tier in survival.tiers and not need.may_wait
    ]
    options = [
        (k, o)
        for k, o in enumerate(problem.options)
        if o.model == survival.model and problem.pools[o.pool].domain(survival.kind) != domain
    ]
    h = highspy.Highs()
    h.setOptionValue("output_flag", False)
    counts = {k: h.addVariable(0.0, float(view.replicas[k][s])) for k, _ in options}
    fill = {k: [] for k, _ in options}
    for need, rate in needs:
        flows = []
        for k, option in options:
            per_s = option.requests_per_s[need.length_class]
            if problem.pools[option.pool].region in need.regions and per_s > 0:
                flows.append(h.addVariable(0.0))
                fill[k].append((1 + problem.headroom_lost) / per_s * flows[-1])
        if rate > 0 and not flows:
            return False
        if flows:
            h.addConstr(sum(flows[1:], flows[0] * 1.0) >= rate * (1 - NEAR))
    for k, parts in fill.items():
        if parts:
            h.addConstr(sum(parts[1:], parts[0]) - counts[k] <= 0)
    for p in {o.pool for _, o in options}:
        firm = sum(
            view.drawn[u][s]
            for u, supply in enumerate(problem.supplies)
            if supply.pool == p and supply.survives
        )
        used = [counts[k] * float(o.chips) for k, o in options if o.pool == p]
        h.addConstr(sum(used[1:], used[0]) <= float(firm) * (1 + NEAR) + NEAR)
    h.run()
    return h.getModelStatus() == highspy.HighsModelStatus.kOptimal


def _spreads(view: _View) -> list[str]:
    found = []
    problem = view.problem
    for spread in problem.spreads:
        inside = defaultdict(lambda: np.zeros(len(problem.slots)))
        for (_, k), rate in view.routed.items():
            option = problem.options[k]
            if option.model == spread.model:
                inside[problem.pools[option.pool].domain(spread.kind)] += rate
        total = sum(inside.values(), np.zeros(len(problem.slots)))
        found.extend(
            f"{domain} carries too much of {spread.model}"
            for domain, rate in inside.items()
            if _over(rate, spread.share_max * total)
        )
    return found


def _trainings(view: _View) -> list[str]:
    found = []
    for t, run in enumerate(view.problem.trainings):
        now = view.hours * np.isin(view.period, run.periods)
        tokens = sum(
            per_s * 3600 * (view.trained[t, pool] @ now)
            for pool, per_s in run.tokens_per_chip_s.items()
        )
        if _over(run.tokens, tokens):
            found.append(f"{run.name} does not end")
    return found


def _power(view: _View) -> dict[int, np.ndarray]:
    """Watts of the site by pool and slot."""
    watts = defaultdict(lambda: np.zeros(len(view.problem.slots)))
    for k, option in enumerate(view.problem.options):
        if option.power_w is None:
            continue
        idle = option.power_w_idle or 0.0
        busy = view.used(k) * (option.power_w - idle)
        pue = view.problem.pools[option.pool].pue
        watts[option.pool] += pue * (view.replicas[k] * idle + busy)
    return watts


def _caps(view: _View) -> list[str]:
    problem, caps, found = view.problem, view.problem.caps, []
    watts = _power(view)
    for region, most in caps.power_w_of_region.items():
        drawn = sum(w for p, w in watts.items() if problem.pools[p].region == region)
        if _over(drawn, most):
            found.append(f"power in {region}")
    days = problem.hours / 24
    kwh = {p: w @ view.hours / 1e3 / days for p, w in watts.items()}
    if caps.energy_kwh_per_day is not None and _over(sum(kwh.values()), caps.energy_kwh_per_day):
        found.append("energy")
    grams = sum(e * (problem.pools[p].carbon_g_per_kwh or 0.0) for p, e in kwh.items())
    if caps.carbon_kg_per_day is not None and _over(grams / 1e3, caps.carbon_kg_per_day):
        found.append("carbon")
    if caps.usd_per_hour is not None and _over(view.plan.usd_per_hour, caps.usd_per_hour):
        found.append("spending")
    return found


def _money(view: _View) -> list[str]:
    """What is paid, told once more."""
    problem = view.problem
    usd = sum(b.units * problem.credits[b.credit].usd_per_unit for b in view.plan.bought)
    for u, supply in enumerate(problem.supplies):
        there = view.hours * np.isin(view.period, supply.periods)
        price = supply.price_usd_per_chip_hour
        if supply.kind in ("own", "reserved"):
            per_node = problem.pools[supply.pool].chips_per_node
            usd += view.nodes[u] * per_node * price * there.sum()
        elif supply.kind in ("on_demand", "spot"):
            usd += price * (view.drawn[u] @ view.hours)
    total = view.plan.money.total
    wrong = abs(usd - total) > NEAR * (1 + abs(usd))
    return [f"it costs {usd:.2f}, not {total:.2f}"] if wrong else []


def check(problem: Problem, plan: Plan) -> None:
    """Fail a test with the faults in words."""
    assert plan.problem == problem
    assert faults(plan) == []
    assert plan.bound_usd <= plan.money.total * (1 + 1e-9) + 1e-6
