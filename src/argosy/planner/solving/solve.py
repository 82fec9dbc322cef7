"""Problem to plan: commit, survive, make whole, and say how far from the best it can be.

1. The relaxed program (replicas in fractions) with whole commitments: slot by slot if the problem
   is large and nothing but commitments ties its slots together (`split.py`), else whole. Its bound
   holds for every plan. Losses join as rows where they are failed (`program/losses.py`).
2. Whole replicas, slot by slot (`rounding.py`); what is held is then chosen anew.
3. A small problem that is still further from its bound than asked is branched on whole.

The seconds are the solver's own: this room has no clock.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import highspy
import numpy as np

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Problem
from argosy.planner.program.columns import Floats, outlined
from argosy.planner.program.highs import Answer, loaded, more_rows, solved
from argosy.planner.program.losses import Losses, losses_of
from argosy.planner.program.model import modelled
from argosy.planner.program.program import Model
from argosy.planner.solving.binding import Prices, binding_of
from argosy.planner.solving.conflict import conflict_of
from argosy.planner.solving.reading import plan_of
from argosy.planner.solving.rounding import improved, rounded, settled
from argosy.planner.solving.split import can_split, committed, relaxed, split

RELAXED_SHARE = 0.4  # of the gap asked for may be left before replicas are made whole
WHOLE_COLUMNS = 3000  # with fewer whole columns a problem is branched on as a whole
IMPROVE_SECONDS = 1.5  # for a slot, at most
Progress = Callable[[str, float], None]


@dataclass
class _Search:
    """A plan on its way: the program so far, the best solution known, the bound proven."""

    model: Model
    losses: Losses
    gap: float
    seconds_max: float
    tell: Progress
    seconds: float = 0.0
    bound: float = -np.inf  # USD an hour
    x: Floats = field(default_factory=lambda: np.empty(0))
    prices: Prices | None = None
    solver: highspy.Highs = field(default_factory=highspy.Highs)  # of the relaxed program

    @property
    def seconds_left(self) -> float:
        """Of solving; writing the programs takes about a third more, which no clock here sees."""
        return max(0.0, self.seconds_max - 1.35 * self.seconds)

    @property
    def lacking(self) -> float:
        """USD an hour by which the solution is further from the bound than asked."""
        cost = float(self.model.cost @ self.x)
        return cost - self.bound - self.gap * abs(cost)


def solve(
    problem: Problem,
    *,
    progress: Progress | None = None,
    gap: float = 0.005,
    seconds_max: float = 60.0,
) -> Plan | Conflict:
    """A plan within `gap` of the best if `seconds_max` of solving allow, or why there is none."""
    outline = outlined(problem)
    tell = progress or (lambda what, share: None)
    if outline.unserved:
        return conflict_of(problem, tell)
    model = modelled(outline)
    search = _Search(model, losses_of(model), gap, seconds_max, tell)
    if not len(model.cost):  # no demand, nothing held: nothing to decide
        search.bound = 0.0
        return _read(search)
    feasible = _commit_split(search) if can_split(model) else _relax(search) and _commit(search)
    if not feasible:
        return conflict_of(problem, tell)
    search.prices = search.prices or _priced(search)
    found = _make_whole(search)
    if found:
        _improve(search)
    if (not found or search.lacking > 0) and not _branch(search) and not found:
        return Conflict(
            constraints=(
                f"a plan with fractions of replicas exists, none with whole ones was found in "
                f"{search.seconds:.0f} s",
            ),
            reliefs=("more time", "smaller layouts: fewer chips to a replica"),
        )
    tell("done", 1.0)
    return _read(search)


def _commit_split(search: _Search) -> bool:
    """Whole commitments and every loss survived, slot by slot; False: there is no plan."""

    def tell(gap: float) -> None:
        search.tell(f"commitments: within {gap:.1%}", 0.1 + 0.3 * max(0.0, 1.0 - 20.0 * gap))

    search.tell("commitments", 0.0)
    parts = split(search.model, search.losses, tell)
    if not relaxed(parts, search.gap * RELAXED_SHARE):
        return False
    answer = committed(parts)
    search.model, search.x, search.bound = parts.model, answer.x, answer.bound
    search.seconds += answer.seconds
    search.prices = parts.prices()
    return True


def _relax(search: _Search) -> bool:
    """Nothing whole, every loss survived; False: not even that can be."""
    search.tell("relaxed plan", 0.0)
    search.solver = loaded(search.model.arrays())
    answer = _again(search)
    if answer.status != "optimal":
        return False
    search.x, search.bound = answer.x, answer.bound
    return True


def _again(search: _Search) -> Answer:
    """Solve the program from where it stands until its solution survives every loss."""
    while True:
        answer = solved(search.solver)
        search.seconds += answer.seconds
        if answer.status != "optimal":
            return answer
        rows = search.losses.violated(search.model, answer.x)
        if rows is None:
            return answer
        search.model = search.model.with_rows(rows)
        more_rows(search.solver, rows.lower, rows.upper, (rows.at_row, rows.at_col, rows.value))
        search.tell(f"losses: {search.losses.binding} matter", 0.2)


def _commit(search: _Search) -> bool:
    """Whole nodes and units of credit, replicas still in fractions."""
    search.tell("commitments", 0.3)
    answer = _commit_by_rounding(search)
    if answer is not None:
        search.x, search.prices = answer.x, _prices(search, answer)
        if answer.cost - search.bound <= search.gap * RELAXED_SHARE * abs(search.bound):
            return True
    whole = search.model.first_columns()
    found = _survived(search, whole, search.gap * RELAXED_SHARE, search.seconds_left / 3)
    if not len(found.x):
        return answer is not None
    firsts = len(search.model.first)
    if answer is None or (np.round(found.x[:firsts]) != np.round(answer.x[:firsts])).any():
        search.prices = None
    return True


def _commit_by_rounding(search: _Search) -> Answer | None:
    """Round a third of the commitments, solve again, until all are whole; None: a blind alley."""
    firsts = len(search.model.first)
    lower, upper = search.model.lower[:firsts].copy(), search.model.upper[:firsts].copy()
    index = np.arange(firsts, dtype=np.int32)
    x = search.x
    while True:
        free = np.flatnonzero(lower < upper)
        value = x[free]
        order = np.argsort(np.abs(value - np.round(value)), kind="stable")
        chosen = free[order[: max(1, (len(free) + 2) // 3)]]
        lower[chosen] = upper[chosen] = np.round(x[chosen])
        search.solver.changeColsBounds(firsts, index, lower, upper)
        answer = _again(search)
        if answer.status != "optimal":
            if not len(free):
                return None
            lower[chosen] = upper[chosen] = np.minimum(
                np.ceil(x[chosen] - 1e-9), search.model.upper[chosen]
            )
            search.solver.changeColsBounds(firsts, index, lower, upper)
            answer = _again(search)
            if answer.status != "optimal":
                return None
        x = answer.x
        if not len(free):
            return answer


def _prices(search: _Search, answer: Answer) -> Prices:
    solution = search.solver.getSolution()
    return Prices(
        model=search.model,
        rows=np.array(solution.row_dual, dtype=float),
        columns=np.array(solution.col_dual, dtype=float),
        x=answer.x,
    )


def _survived(search: _Search, whole: np.ndarray, gap: float, seconds: float) -> Answer:
    """Branch and bound, again with the losses that its solution fails, until it fails none."""
    while True:
        arrays = search.model.arrays(whole)
        solver = loaded(arrays, mip_rel_gap=gap, time_limit=max(1.0, seconds))
        if len(search.x) == len(search.model.cost):
            start = highspy.HighsSolution()
            start.col_value = search.x.tolist()
            solver.setSolution(start)
        answer = solved(solver, integer=bool(whole.any()))
        search.seconds += answer.seconds
        seconds -= answer.seconds
        search.bound = max(search.bound, answer.bound)
        if not len(answer.x):
            return answer
        rows = search.losses.violated(search.model, answer.x)
        if rows is None:
            search.x = answer.x
            return answer
        search.model = search.model.with_rows(rows)


def _priced(search: _Search) -> Prices:
    """Shadow prices with the commitments as they are."""
    model, firsts = search.model, len(search.model.first)
    arrays = model.arrays()
    held = np.round(search.x[:firsts])
    search.solver = loaded(
        replace(
            arrays,
            lower=np.concatenate([held, arrays.lower[firsts:]]),
            upper=np.concatenate([held, arrays.upper[firsts:]]),
        )
    )
    answer = solved(search.solver)
    search.seconds += answer.seconds
    return _prices(search, answer)


def _make_whole(search: _Search) -> bool:
    """Whole replicas, the busiest slot first; False: some slot has no way."""
    slots = len(search.model.outline.problem.slots)
    load_S = search.model.slots_of(search.x).sum(axis=1)
    todo = [int(s) for s in np.argsort(-load_S, kind="stable")]
    firsts = len(search.model.first)
    search.x[:firsts] = np.round(search.x[:firsts])
    while todo:
        for done, s in enumerate(todo):
            search.tell("whole replicas", 0.5 + 0.3 * done / slots)
            answer, search.model = rounded(search.model, search.losses, search.x, s)
            search.seconds += answer.seconds
            if not len(answer.x):
                return False
            search.x = answer.x
        todo = _settle(search)
    return True


def _settle(search: _Search) -> list[int]:
    """Hold what the whole replicas need; the slots that fail a loss and are to be done again."""
    answer = settled(search.model, search.x, search.gap / 10, max(2.0, search.seconds_left / 4))
    search.seconds += answer.seconds
    if len(answer.x):
        search.x = answer.x
    rows = search.losses.violated(search.model, search.x)
    if rows is None:
        return []
    search.model = search.model.with_rows(rows)
    return sorted(set(rows.slot.tolist()))


def _improve(search: _Search) -> None:
    """Slot by slot, the dearest first, until the plan is near enough or time is up."""
    slots = len(search.model.outline.problem.slots)
    usd_S = (search.model.slots_of(search.x) * search.model.slots_of(search.model.cost)).sum(axis=1)
    todo = [int(s) for s in np.argsort(-usd_S, kind="stable")]
    near = search.gap * abs(search.bound) / slots / 2
    before, model_before = search.x, search.model
    for done, s in enumerate(todo):
        if search.lacking <= 0 or search.seconds_left <= 0:
            break
        search.tell("fewer replicas", 0.8 + 0.15 * done / slots)
        seconds = min(IMPROVE_SECONDS, search.seconds_left)
        answer = improved(search.model, search.x, s, near, seconds)
        search.seconds += answer.seconds
        search.x = answer.x
    for _ in range(3):
        todo = _settle(search)
        if not todo:
            return
        for s in todo:
            answer, search.model = rounded(search.model, search.losses, search.x, s)
            search.seconds += answer.seconds
            if not len(answer.x):
                break
            search.x = answer.x
    search.x, search.model = before, model_before


def _branch(search: _Search) -> bool:
    """Branch on everything at once, with every option: what a small problem can afford."""
    outline = outlined(search.model.outline.problem, dominated=True)
    model = modelled(outline)
    whole = model.whole_columns()
    if whole.sum() > WHOLE_COLUMNS or search.seconds_left <= 0:
        return False
    search.tell("every whole number at once", 0.9)
    deep = _Search(model, losses_of(model), search.gap, search.seconds_left, search.tell)
    if not _relax(deep):
        return False
    deep.x = _carried(search, deep) if search.lacking > 0 else np.empty(0)
    answer = _survived(deep, whole, search.gap, deep.seconds_left)
    search.seconds += deep.seconds
    search.bound = max(search.bound, deep.bound)
    if not len(answer.x):
        return False
    columns = whole & (np.abs(answer.x - np.round(answer.x)) < 1e-4)
    answer.x[columns] = np.round(answer.x[columns])
    search.model, search.losses, search.x = deep.model, deep.losses, answer.x
    return True


def _carried(search: _Search, deep: _Search) -> Floats:
    """The solution in the columns of a program with more options."""
    x = np.zeros(len(deep.model.cost))
    x[: len(deep.model.first)] = search.x[: len(search.model.first)]
    to, of = deep.model.slots_of(x), search.model.slots_of(search.x)
    for key, place in search.model.block.items():
        to[:, deep.model.block[key]] = of[:, place]
    return x


def _read(search: _Search) -> Plan:
    prices = search.prices
    return plan_of(
        search.model,
        search.x,
        bound=min(search.bound, float(search.model.cost @ search.x)),
        binding=() if prices is None else binding_of(prices),
        checked=(search.losses.checked, search.losses.binding),
        seconds=search.seconds,
    )
