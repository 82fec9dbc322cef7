"""What a person could change about a problem but its demand: in words, and without it or eased."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from argosy.planner.problem import Need, Problem, Spread, Survival

MANY = 100_000  # times what there is: more than could be asked for


@dataclass(frozen=True)
class Group:
    """One thing that a person can change: its words, the problem without it, and how to ease it."""

    kind: str
    subject: str
    words: str
    without: Callable[[Problem], Problem]
    relief: str  # "{value}" stands for the least value that works
    eased: Callable[[Problem, float], Problem] | None = None  # by a factor of at least 1
    value: float = 0.0  # what the factor multiplies
    is_count: bool = False


def groups_of(problem: Problem) -> list[Group]:
    """Everything in a problem that could be changed but its demand."""
    return [*_residencies(problem), *_survivals(problem), *_stocks(problem), *_capped(problem)]


def _residencies(problem: Problem) -> list[Group]:
    everywhere = tuple(sorted({pool.region for pool in problem.pools}))
    found: list[Group] = []
    for model in sorted({need.model for need in problem.needs}):
        needs = [need for need in problem.needs if need.model == model]
        if all(set(everywhere) <= set(need.regions) for need in needs):
            continue
        regions = sorted({region for need in needs for region in need.regions})
        common = set(needs[0].regions).intersection(*(need.regions for need in needs))
        kept = listed(regions) if len(common) == len(regions) else "the regions its clients reach"

        def without(given: Problem, model: str = model) -> Problem:
            def opened(need: Need) -> Need:
                return replace(need, regions=everywhere) if need.model == model else need

            return replace(given, needs=tuple(opened(need) for need in given.needs))

        found.append(
            Group(
                kind="reach",
                subject=model,
                words=f"{model} must stay in {kept}",
                without=without,
                relief=f"let {model} be served in any region",
            )
        )
    return found


def _survivals(problem: Problem) -> list[Group]:
    found: list[Group] = []
    for survival in problem.survivals:

        def without(given: Problem, gone: Survival = survival) -> Problem:
            return replace(given, survivals=tuple(s for s in given.survivals if s != gone))

        found.append(
            Group(
                kind="survive",
                subject=f"{survival.model}/{survival.kind}",
                words=f"{survival.model} must survive the loss of any one {survival.kind}",
                without=without,
                relief=f"let {survival.model} fail with the loss of one {survival.kind}",
            )
        )
    return found


def _stocks(problem: Problem) -> list[Group]:
    found: list[Group] = []
    for p, pool in enumerate(problem.pools):
        nodes = min(pool.nodes_max, sum(s.nodes_max for s in problem.supplies if s.pool == p))

        def eased(given: Problem, factor: float, p: int = p) -> Problem:
            return _stocked(given, p, factor)

        def without(given: Problem, p: int = p) -> Problem:
            return _stocked(given, p, MANY)

        found.append(
            Group(
                kind="stock",
                subject=pool.name,
                words=f"{pool.name} has no more than {nodes} nodes",
                without=without,
                relief=f"{pool.name} with {{value}} nodes instead of {nodes}",
                eased=eased,
                value=float(nodes),
                is_count=True,
            )
        )
    return found


def _stocked(problem: Problem, p: int, factor: float) -> Problem:
    """A pool and its supplies with so many times their nodes, upwards."""
    pools, supplies = list(problem.pools), list(problem.supplies)
    pools[p] = replace(pools[p], nodes_max=-int(-pools[p].nodes_max * factor // 1))
    for u, supply in enumerate(supplies):
        if supply.pool == p:
            supplies[u] = replace(supply, nodes_max=-int(-supply.nodes_max * factor // 1))
    return replace(problem, pools=tuple(pools), supplies=tuple(supplies))


def _capped(problem: Problem) -> list[Group]:
    return [*_powers(problem), *_averages(problem), *_spreads(problem), *_runs(problem)]


def _powers(problem: Problem) -> list[Group]:
    found: list[Group] = []
    for region, power_w in sorted(problem.caps.power_w_of_region.items()):

        def without(given: Problem, region: str = region) -> Problem:
            left = {r: w for r, w in given.caps.power_w_of_region.items() if r != region}
            return replace(given, caps=replace(given.caps, power_w_of_region=left))

        def eased(given: Problem, factor: float, region: str = region) -> Problem:
            more = dict(given.caps.power_w_of_region)
            more[region] = more[region] * factor
            return replace(given, caps=replace(given.caps, power_w_of_region=more))

        found.append(
            Group(
                kind="power",
                subject=region,
                words=f"{region} may draw no more than {power_w / 1e3:,.1f} kW",
                without=without,
                relief=f"{{value}} kW in {region} instead of {power_w / 1e3:,.1f}",
                eased=eased,
                value=power_w / 1e3,
            )
        )
    return found


def _averages(problem: Problem) -> list[Group]:
    units = {
        "energy_kwh_per_day": ("energy", "kWh a day"),
        "carbon_kg_per_day": ("carbon", "kg of CO2 a day"),
        "usd_per_hour": ("spending", "USD an hour"),
    }
    found: list[Group] = []
    for name, (what, unit) in units.items():
        cap = getattr(problem.caps, name)
        if cap is None:
            continue

        def eased(given: Problem, factor: float, name: str = name) -> Problem:
            now = getattr(given.caps, name)
            more = None if now is None else now * factor
            return replace(given, caps=replace(given.caps, **{name: more}))

        def without(given: Problem, name: str = name) -> Problem:
            return replace(given, caps=replace(given.caps, **{name: None}))

        found.append(
            Group(
                kind="cap",
                subject=name,
                words=f"{what} may be no more than {cap:,.2f} {unit}",
                without=without,
                relief=f"{{value}} {unit} of {what} instead of {cap:,.2f}",
                eased=eased,
                value=float(cap),
            )
        )
    return found


def _spreads(problem: Problem) -> list[Group]:
    found: list[Group] = []
    for spread in problem.spreads:

        def without(given: Problem, gone: Spread = spread) -> Problem:
            return replace(given, spreads=tuple(s for s in given.spreads if s != gone))

        most = f"{spread.share_max:.0%}"
        found.append(
            Group(
                kind="spread",
                subject=f"{spread.model}/{spread.kind}",
                words=f"no {spread.kind} may carry more than {most} of {spread.model}",
                without=without,
                relief=f"let one {spread.kind} carry more than {most} of {spread.model}",
            )
        )
    return found


def _runs(problem: Problem) -> list[Group]:
    found: list[Group] = []
    for run in problem.trainings:

        def without(given: Problem, gone: str = run.name) -> Problem:
            return replace(given, trainings=tuple(r for r in given.trainings if r.name != gone))

        last = problem.periods[max(run.periods)].name if run.periods else "no period"
        found.append(
            Group(
                kind="training",
                subject=run.name,
                words=f"training {run.name} must end by the end of {last}",
                without=without,
                relief=f"leave out training {run.name}, or give it a later deadline",
            )
        )
    return found


def listed(names: list[str], most: int = 4) -> str:
    """The first few, and how many more."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
