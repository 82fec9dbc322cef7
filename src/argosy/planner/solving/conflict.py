"""Why there is no plan: a minimal set of constraints in words, and what would work.

Constraints come in groups that a person can change: where a model may be served, a loss to survive,
a pool's stock, one cap, a spread, a training run. A group is needed if the problem without it (and
without those found needless before) has a plan; groups are dropped by halves (QuickXplain, Junker
2004). Each answer is an exact re-solve of the relaxed problem; one slot that fails alone is looked
at alone.
"""

from collections.abc import Callable
from math import ceil

from argosy.planner.plan import Conflict
from argosy.planner.problem import Problem, Survival
from argosy.planner.program.columns import outlined
from argosy.planner.solving.changeable import Group, groups_of, listed
from argosy.planner.solving.feasible import hardest_slot, least_usd_per_hour, only_slots

STEPS = 12  # of bisection to the least change of a number that makes a plan possible


def conflict_of(problem: Problem, tell: Callable[[str, float], None]) -> Conflict:
    """The conflict of a problem that has no plan."""
    tell("why there is no plan", 0.1)
    missing = _no_option(problem)
    if missing:
        return missing
    slot = hardest_slot(problem)
    part = problem if slot is None else only_slots(problem, [slot])
    groups = groups_of(problem)
    if not _has_plan(part, groups):
        return _demand(problem, slot)
    needed = _minimal(part, groups)
    reliefs: list[tuple[float, str]] = []
    for done, group in enumerate(needed):
        tell("what would work", 0.5 + 0.5 * done / len(needed))
        reliefs.extend(_relief(problem, part, group))
    return Conflict(
        constraints=tuple(_told(problem, group, needed) for group in needed),
        reliefs=tuple(text for _, text in sorted(reliefs)),
    )


def _has_plan(problem: Problem, without: list[Group]) -> bool:
    for group in without:
        problem = group.without(problem)
    return least_usd_per_hour(problem) is not None


def _minimal(problem: Problem, groups: list[Group]) -> list[Group]:
    """The fewest groups of which each is needed for the conflict (QuickXplain).

    Kept groups hold; every other is dropped.
    """

    def conflicts(kept: list[Group]) -> bool:
        names = {id(group) for group in kept}
        return not _has_plan(problem, [group for group in groups if id(group) not in names])

    def search(background: list[Group], changed: bool, among: list[Group]) -> list[Group]:
        if changed and conflicts(background):
            return []
        if len(among) == 1:
            return among
        half = len(among) // 2
        first, second = among[:half], among[half:]
        from_second = search(background + first, bool(first), second)
        from_first = search(background + from_second, bool(from_second), first)
        return from_first + from_second

    return search([], False, groups)


def _relief(problem: Problem, part: Problem, group: Group) -> list[tuple[float, str]]:
    """How to ease that group alone, with the cost of the plan that this allows; or nothing."""
    if least_usd_per_hour(group.without(part)) is None:
        return []
    if group.eased is None:
        usd = least_usd_per_hour(group.without(problem))
        return [] if usd is None else [(usd, _priced(group.relief, usd))]
    # What the hour that fails alone needs; more of it where the other hours together do.
    for asked in (part,) if part is problem else (part, problem):
        factor = _least_factor(asked, group)
        usd = None if factor is None else least_usd_per_hour(group.eased(problem, factor))
        if factor is not None and usd is not None:
            value = group.value * factor
            number = f"{ceil(value - 1e-6):,}" if group.is_count else f"{value:,.2f}"
            return [(usd, _priced(group.relief.format(value=number), usd))]
    return []


def _priced(relief: str, usd_per_hour: float) -> str:
    return f"{relief} (from {usd_per_hour:,.2f} USD an hour)"


def _least_factor(problem: Problem, group: Group) -> float | None:
    """The least factor, to a hundredth of it, by which easing the group allows a plan."""
    if group.eased is None or group.value <= 0:
        return None
    low, high = 1.0, 2.0
    while least_usd_per_hour(group.eased(problem, high)) is None:
        low, high = high, 4 * high
        if high > 1e6:
            return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        if least_usd_per_hour(group.eased(problem, middle)) is None:
            low = middle
        else:
            high = middle
        if high / low < 1.001:
            break
    return high


def _told(problem: Problem, group: Group, needed: list[Group]) -> str:
    """Its words; where a model may be served is told with what that leaves to a loss."""
    kinds = {other.subject: other for other in needed if other.kind == "survive"}
    if group.kind != "reach":
        return group.words
    for survival in problem.survivals:
        if survival.model == group.subject and f"{survival.model}/{survival.kind}" in kinds:
            hosts = _hosts(problem, survival)
            only = f"only one {survival.kind}" if len(hosts) == 1 else f"only {len(hosts)}"
            plural = "" if len(hosts) == 1 else f" {survival.kind}s"
            return f"{group.words}, where {only}{plural} ({', '.join(hosts)}) can serve it"
    return group.words


def _hosts(problem: Problem, survival: Survival) -> list[str]:
    """Domains with a pool that may serve the model and can."""
    regions = {
        region for need in problem.needs if need.model == survival.model for region in need.regions
    }
    supplied = {supply.pool for supply in problem.supplies if supply.nodes_max > 0}
    pools = {
        option.pool
        for option in problem.options
        if option.model == survival.model and option.pool in supplied and any(option.requests_per_s)
    }
    return sorted(
        {
            problem.pools[p].domain(survival.kind)
            for p in pools
            if problem.pools[p].region in regions
        }
    )


def _no_option(problem: Problem) -> Conflict | None:
    """Needs that nothing can serve: no chip there meets the SLO, or no region is allowed."""
    unserved = outlined(problem).unserved
    if not unserved:
        return None
    words: list[str] = []
    reliefs: list[str] = []
    for model, c in sorted(
        {(problem.needs[d].model, problem.needs[d].length_class) for d in unserved}
    ):
        needs = [
            problem.needs[d]
            for d in unserved
            if (problem.needs[d].model, problem.needs[d].length_class) == (model, c)
        ]
        regions = sorted({region for need in needs for region in need.regions})
        origins = listed(sorted({need.origin for need in needs}))
        where = f"in {listed(regions)}" if regions else "in no region"
        able = sorted(_able(problem, model, c))
        words.append(
            f"{model}, length class {c}, from {origins}, may be served {where}: "
            f"no pool there has an option that meets its SLO"
        )
        if able:
            reliefs.append(f"let {model} from {origins} be served in {listed(able, 6)}")
        else:
            reliefs.append(
                f"a looser SLO for {model} or other chips: nowhere is it met in length class {c}"
            )
    return Conflict(constraints=tuple(words), reliefs=tuple(reliefs))


def _able(problem: Problem, model: str, c: int) -> set[str]:
    """Regions with a pool that could serve that class."""
    supplied = {supply.pool for supply in problem.supplies if supply.nodes_max > 0}
    return {
        problem.pools[option.pool].region
        for option in problem.options
        if option.model == model and option.pool in supplied and option.requests_per_s[c] > 0
    }


def _demand(problem: Problem, slot: int | None) -> Conflict:
    """Not even without all its constraints: what is left is demand and the options there are."""
    when = "" if slot is None else f" at {problem.slots[slot].hour:02d}:00"
    return Conflict(
        constraints=(f"the demand{when} is more than any number of the pools' chips can serve",),
        reliefs=("less demand, or options on other pools",),
    )
