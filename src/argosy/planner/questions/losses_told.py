"""What a plan still serves when a domain is lost: the same replicas, the demand sent elsewhere.

Higher tiers first, residency as ever; replicas on capacity that does not count in a loss (spot)
are taken as gone. It asks what is there, promised or not; `program/losses.py` is about promises.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from argosy.fleet.fields import Tier
from argosy.planner.plan import Plan
from argosy.planner.problem import DomainKind, Problem
from argosy.planner.program.highs import Arrays, loaded, solved

# A request of a tier goes before any number of those below it that it could displace.
WEIGHTS: dict[Tier, float] = {"enterprise": 1e6, "consumer": 1e3, "batch": 1.0}
_FULLNESS = 1e-3  # requests/s of batch that an even spread may cost
Flows = dict[tuple[int, int], float]  # requests/s by (need, option)


class LossTold(msgspec.Struct, frozen=True, kw_only=True):
    """The loss of one domain, in the worst of the slots looked at."""

    kind: DomainKind
    domain: str
    slot: int
    served: dict[Tier, float]  # share of each tier's requests


class Standing(NamedTuple):
    """What a plan has in one slot."""

    replicas: dict[int, float]  # by option
    rates: Sequence[float]  # requests/s by need, as they are served in it


def served_when_lost(
    plan: Plan, kinds: Iterable[DomainKind] = ("cloud", "maker", "region")
) -> tuple[LossTold, ...]:
    """Each domain that hosts replicas, in the busiest slots and in that where it carries most."""
    problem = plan.problem
    found: list[LossTold] = []
    for kind in kinds:
        carried = _carried(plan, kind)
        for domain in sorted(carried):
            by_slot = carried[domain]
            slots = {*_busiest_slots(problem), max(range(len(by_slot)), key=by_slot.__getitem__)}
            told = [_told(plan, kind, domain, slot) for slot in sorted(slots)]
            found.append(min(told, key=lambda one: tuple(one.served.get(t, 1.0) for t in WEIGHTS)))
    return tuple(found)


def flows_when_lost(plan: Plan, kind: DomainKind, domain: str, slot: int) -> Flows:
    """Where each need's requests then go; what is missing is not served."""
    standing = standing_in(plan, slot)
    return spread_over(
        plan.problem, standing, lambda place: plan.problem.pools[place].domain(kind) != domain
    )


def standing_in(plan: Plan, slot: int) -> Standing:
    """Replicas that count in a loss, and the demand served in that slot."""
    problem = plan.problem
    sure = _sure_shares(plan, slot)
    replicas = {
        run.option: run.replicas[slot] * sure[problem.options[run.option].pool]
        for run in plan.runs
        if run.replicas[slot] > 0
    }
    rates = [0.0 if need.may_wait else need.requests_per_s[slot] for need in problem.needs]
    for route in plan.routes:
        if problem.needs[route.need].may_wait:
            rates[route.need] += route.requests_per_s[slot]
    return Standing(replicas, rates)


def spread_over(problem: Problem, standing: Standing, is_left: Callable[[int], bool]) -> Flows:
    """The most that replicas on the pools that are left can serve, higher tiers first."""
    replicas = {
        k: count
        for k, count in standing.replicas.items()
        if count > 0 and is_left(problem.options[k].pool)
    }
    pairs = [
        (d, k)
        for d, need in enumerate(problem.needs)
        if standing.rates[d] > 0
        for k in replicas
        if problem.options[k].model == need.model
        and problem.pools[problem.options[k].pool].region in need.regions
        and problem.options[k].requests_per_s[need.length_class] > 0
    ]
    if not pairs:
        return {}
    answer = solved(loaded(_program(problem, standing, replicas, pairs)))
    rates = answer.x[: len(pairs)]
    return {pair: float(rate) for pair, rate in zip(pairs, rates, strict=True) if rate > 1e-9}


def _program(
    problem: Problem,
    standing: Standing,
    replicas: dict[int, float],
    pairs: Sequence[tuple[int, int]],
) -> Arrays:
    """Rows: no need beyond its rate, no replica fuller than its model's fullest.

    Columns: the flows, then how full each model's fullest replicas are, which costs a little, so
    that requests are spread as a gateway would, not packed.
    """
    needs = {d: row for row, d in enumerate(dict.fromkeys(d for d, _ in pairs))}
    options = {k: row + len(needs) for row, k in enumerate(dict.fromkeys(k for _, k in pairs))}
    models = sorted({problem.options[k].model for k in options})
    fullest = {model: place + len(pairs) for place, model in enumerate(models)}
    entries = [(needs[d], column, 1.0) for column, (d, _) in enumerate(pairs)]
    for column, (d, k) in enumerate(pairs):
        rate = problem.options[k].requests_per_s[problem.needs[d].length_class]
        entries.append((options[k], column, 1.0 / rate))
    entries += [
        (row, fullest[problem.options[k].model], -replicas[k]) for k, row in options.items()
    ]
    at_row, at_col, value = zip(*entries, strict=True)
    weights = [-WEIGHTS[problem.needs[d].tier] for d, _ in pairs]
    return Arrays(
        cost=np.array([*weights, *[_FULLNESS] * len(models)]),
        lower=np.zeros(len(pairs) + len(models)),
        upper=np.array([*[np.inf] * len(pairs), *[1.0] * len(models)]),
        row_lower=np.full(len(needs) + len(options), -np.inf),
        row_upper=np.array([*(standing.rates[d] for d in needs), *[0.0] * len(options)]),
        at_row=np.array(at_row),
        at_col=np.array(at_col),
        value=np.array(value),
    )


def _told(plan: Plan, kind: DomainKind, domain: str, slot: int) -> LossTold:
    flows = flows_when_lost(plan, kind, domain, slot)
    asked: dict[Tier, float] = defaultdict(float)
    served: dict[Tier, float] = defaultdict(float)
    for need, rate in zip(plan.problem.needs, standing_in(plan, slot).rates, strict=True):
        asked[need.tier] += rate
    for (d, _), rate in flows.items():
        served[plan.problem.needs[d].tier] += rate
    return LossTold(
        kind=kind,
        domain=domain,
        slot=slot,
        served={tier: min(1.0, served[tier] / rate) for tier, rate in asked.items() if rate > 0},
    )


def _carried(plan: Plan, kind: DomainKind) -> dict[str, list[float]]:
    """Chips in use by domain and slot."""
    problem = plan.problem
    found: dict[str, list[float]] = {}
    for run in plan.runs:
        option = problem.options[run.option]
        domain = problem.pools[option.pool].domain(kind)
        row = found.setdefault(domain, [0.0] * len(problem.slots))
        for slot, count in enumerate(run.replicas):
            row[slot] += count * option.chips
    return found


def _busiest_slots(problem: Problem) -> set[int]:
    """Of each model."""
    slots: set[int] = set()
    for model in {need.model for need in problem.needs}:
        rows = [need.requests_per_s for need in problem.needs if need.model == model]
        sums = [sum(column) for column in zip(*rows, strict=True)]
        slots.add(max(range(len(sums)), key=sums.__getitem__))
    return slots


def _sure_shares(plan: Plan, slot: int) -> list[float]:
    """By pool, the share of its chips in use that counts when a domain is lost."""
    problem = plan.problem
    sure, used = [0.0] * len(problem.pools), [0.0] * len(problem.pools)
    for drawn in plan.drawn:
        supply, chips = problem.supplies[drawn.supply], drawn.chips[slot]
        used[supply.pool] += chips
        sure[supply.pool] += chips if supply.survives else 0.0
    return [part / all_ if all_ > 0 else 1.0 for part, all_ in zip(sure, used, strict=True)]
