"""What a problem costs at least: in whole nodes and replicas where it is small, else in fractions.

A fraction of a node hides what a whole one costs: in a fleet of a few nodes that is most of it, in
one of hundreds next to nothing. So a small problem is solved in whole numbers, to the last cent
that its seconds prove; a large one as `relaxed.py` does, exact to 1e-5 in fractions.
"""

from collections.abc import Collection

import msgspec
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Option, Problem
from argosy.planner.program.columns import has_power_caps, outlined
from argosy.planner.program.model import modelled
from argosy.planner.questions.changed import Solving
from argosy.planner.solving.relaxed import relaxed

# Whole columns that are solved exactly in seconds: 218 took 1 to 10 s, 434 3 to 60 s (2026-11-21).
WHOLE_COLUMNS = 250
WHOLE_SECONDS = 15.0  # for one such problem, at most
WHOLE_GAP = 1e-6


class Least(msgspec.Struct, frozen=True, kw_only=True):
    """What the cheapest plan costs, over the horizon."""

    usd: float
    open_usd: float  # what was found may cost so much more than the least
    nodes: dict[int, float]  # by supply that is held


def is_small(problem: Problem) -> bool:
    """Whether its whole numbers are few enough to be decided all at once."""
    outline = outlined(without_larger(problem), dominated=True)
    if outline.unserved:
        return False
    return int(modelled(outline).whole_columns().sum()) <= WHOLE_COLUMNS


def without_larger(problem: Problem) -> Problem:
    """Without options whose replica some smaller replicas replace, on no more chips.

    No plan of whole replicas is lost that something could want, and half of the whole numbers go.
    """
    if has_power_caps(problem):  # smaller ones may draw more
        return problem
    kept = tuple(
        option
        for place, option in enumerate(problem.options)
        if not any(
            _replaces(other, option, is_first=at < place)
            for at, other in enumerate(problem.options)
            if at != place
        )
    )
    return replace(problem, options=kept)


def _replaces(some: Option, one: Option, *, is_first: bool) -> bool:
    """As many of `some` as fit into the chips of `one` do all that it does, in any class."""
    if (some.model, some.pool) != (one.model, one.pool) or some.chips > one.chips:
        return False
    count = one.chips // some.chips
    rates = [
        (count * more, rate)
        for more, rate in zip(some.requests_per_s, one.requests_per_s, strict=True)
    ]
    # Of two that are the same one stays.
    is_same = some.chips == one.chips and all(more == rate for more, rate in rates)
    return all(more >= rate for more, rate in rates) and (is_first or not is_same)


class Costs:
    """Least costs in one way, whole or in fractions; each problem is solved once."""

    def __init__(self, solving: Solving, *, is_whole: bool, gap: float = WHOLE_GAP) -> None:
        self.is_whole, self._solving, self._gap = is_whole, solving, gap
        self._plans: list[tuple[Problem, Plan | Conflict]] = []
        self._known: list[tuple[Problem, frozenset[int], Least | None]] = []

    def tell(self, what: str) -> None:
        """Say what comes next."""
        self._solving.tell(what)

    def plan(self, problem: Problem) -> Plan | Conflict:
        """A whole plan: the best one, or one to within the gap that was asked for."""
        for known, found in self._plans:
            if known == problem:
                return found
        answer = self._exact(problem) if self.is_whole else self._solving(problem)
        self._plans.append((problem, answer))
        return answer

    def least(self, problem: Problem, *, whole: Collection[int] = ()) -> Least | None:
        """None where there is no plan; of the supplies `whole` whole nodes in any case."""
        asked = frozenset(whole)
        for known, supplies, found in self._known:
            if known == problem and supplies == asked:
                return found
        least = self._whole(problem) if self.is_whole else self._in_fractions(problem, asked)
        self._known.append((problem, asked, least))
        return least

    def _exact(self, problem: Problem) -> Plan | Conflict:
        solving = self._solving
        return solving.solve(
            without_larger(problem),
            progress=solving.progress,
            gap=self._gap,
            seconds_max=min(WHOLE_SECONDS, solving.seconds_max),
        )

    def _whole(self, problem: Problem) -> Least | None:
        plan = self.plan(problem)
        if isinstance(plan, Conflict):
            return None
        usd = plan.money.total
        return Least(
            usd=usd,
            open_usd=max(0.0, usd - plan.bound_usd),
            nodes={one.supply: float(one.nodes) for one in plan.held},
        )

    def _in_fractions(self, problem: Problem, whole: Collection[int]) -> Least | None:
        found = relaxed(problem, whole=whole, seconds_max=self._solving.seconds_max)
        if found is None:
            return None
        return Least(usd=found.usd, open_usd=found.open_usd, nodes=found.nodes)
