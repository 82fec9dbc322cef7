"""Whole replicas out of fractions: one slot after the other, the rest of the plan held fixed.

The relaxed plan stays as it is in every slot but one. There the program is solved again and again
from where it stands, each time with a few fractions bound to at least the next whole number, so
that the others make up for it (a dive: some 100 small programs, half a second a slot of the full
size, where branch and bound takes seconds to find anything; measured, HiGHS 1.15). Rows over
several slots keep what the others leave. Nodes and credit may grow, never shrink, so that a slot
done stays feasible; at the end what is held is chosen anew for the whole replicas (`settled`).
"""

from dataclasses import dataclass, field, replace

import highspy
import numpy as np
from numpy.typing import NDArray

from argosy.planner.program.columns import Floats
from argosy.planner.program.highs import Answer, Arrays, Ints, loaded, more_rows, solved
from argosy.planner.program.losses import Losses
from argosy.planner.program.program import Model

Bools = NDArray[np.bool_]
NEAR_WHOLE = 1e-6
BATCH_SHARE = 0.05  # of the fractions left, bound in one step
BOX = 2  # replicas more or fewer of an option, while a slot is improved
NEW_AT_MOST = 0  # replicas of an option that has none
BRANCH_SECONDS = 5.0  # for a slot in which the dive finds nothing


@dataclass
class _Dive:
    """One slot's program while its whole columns are bound."""

    solver: highspy.Highs
    lower: Floats
    upper: Floats
    whole: Ints
    pool: Ints  # by column, of replicas; -1: of commitments and of replicas that count in a loss
    chips: Floats  # by column
    room: Floats  # by pool, chips that are there without holding more
    seconds: float = 0.0
    x: Floats = field(default_factory=lambda: np.empty(0))

    def solve(self) -> bool:
        answer = solved(self.solver)
        self.seconds += answer.seconds
        if answer.status == "optimal":
            self.x = answer.x
        return answer.status == "optimal"

    def run(self) -> bool:
        """Up to whole numbers; False: the way ended where nothing is feasible."""
        if not self.solve():
            return False
        while len(left := self._fractions()):
            if not self._step(left, max(1, int(BATCH_SHARE * len(left)))):
                return False
        return True

    def _fractions(self) -> Ints:
        """Whole columns that are not whole, in the order in which they are bound.

        What rounding up wastes of a replica, less its chips beside the largest: small replicas
        come last and fit around the rest (half the loss of the fraction alone, measured).
        """
        value, chips = self.x[self.whole], self.chips[self.whole]
        part = value - np.floor(value)
        part[np.minimum(part, 1.0 - part) <= NEAR_WHOLE] = 0.0
        order = np.argsort(1.0 - part - chips / max(1.0, chips.max()), kind="stable")
        return self.whole[order[part[order] > 0]]

    def _step(self, left: Ints, count: int) -> bool:
        """Bind so many; fewer, and at last the other way, where that leaves nothing feasible."""
        before = self.lower.copy(), self.upper.copy()
        while True:
            chosen = left[:count]
            up = self._fits(chosen)
            self._bind(chosen, up)
            if self.solve():
                return True
            self.lower, self.upper = before[0].copy(), before[1].copy()
            self._send(chosen)
            if count == 1:
                self._bind(chosen, ~up)
                return self.solve()
            count = max(1, count // 4)

    def _fits(self, columns: Ints) -> Bools:
        """Which of them can be one more replica beside all that is bound already."""
        used = np.zeros(len(self.room))
        mine = self.pool >= 0
        np.add.at(used, self.pool[mine], (self.chips * self.lower)[mine])
        up = np.ones(len(columns), dtype=bool)
        for i, column in enumerate(columns):
            pool = self.pool[column]
            if pool < 0:
                continue
            more = self.chips[column] * (np.ceil(self.x[column]) - self.lower[column])
            up[i] = used[pool] + more <= self.room[pool] + NEAR_WHOLE
            used[pool] += more * up[i]
        return up

    def _bind(self, columns: Ints, up: Bools) -> None:
        """At least the next whole number, or at most the last."""
        self.lower[columns] = np.where(up, np.ceil(self.x[columns]), self.lower[columns])
        self.upper[columns] = np.where(up, self.upper[columns], np.floor(self.x[columns]))
        self._send(columns)

    def _send(self, columns: Ints) -> None:
        index = columns.astype(np.int32)
        self.solver.changeColsBounds(len(index), index, self.lower[columns], self.upper[columns])


def _dive(model: Model, x: Floats, slot: int, part: Arrays) -> _Dive:
    problem = model.outline.problem
    firsts = len(model.first)
    pool = np.full(len(part.cost), -1, dtype=np.int64)
    chips = np.zeros(len(part.cost))
    room = np.zeros(len(problem.pools))
    for key, place in model.block.items():
        if key[0] == "replicas":
            option = problem.options[int(key[1])]
            pool[firsts + place], chips[firsts + place] = option.pool, option.chips
        elif key[0] == "drawn":
            supply = problem.supplies[int(key[1])]
            there = float(model.upper[model.column(slot, key)])
            if ("nodes", int(key[1])) in model.first:
                nodes = x[model.first["nodes", int(key[1])]]
                there = min(there, nodes * problem.pools[supply.pool].chips_per_node)
            room[supply.pool] += there
    stock = np.array([p.nodes_max * p.chips_per_node for p in problem.pools], dtype=float)
    return _Dive(
        solver=loaded(replace(part, integer=None), presolve="off"),
        lower=part.lower.copy(),
        upper=part.upper.copy(),
        whole=np.flatnonzero(np.zeros(0) if part.integer is None else part.integer),
        pool=pool,
        chips=chips,
        room=np.minimum(room, stock),
    )


def rounded(model: Model, losses: Losses, x: Floats, slot: int) -> tuple[Answer, Model]:
    """The same plan with whole replicas in that slot, and the program with the losses it met.

    `Answer.x` is over all columns; units of credit in it may be fractions (`settled` rounds them).
    """
    mine = _slot_columns(model, slot)
    lower = model.lower.copy()
    lower[: len(model.first)] = _held(model, x)
    part = _priced(model, slot, part_of(model, x, mine, lower))
    dive = _dive(model, x, slot, part)
    while dive.run():
        answer = _placed(model, x, mine, dive.x, dive.seconds)
        rows = losses.violated(model, answer.x, [slot])
        if rows is None:
            return answer, model
        model = model.with_rows(rows)
        columns = rows.at_col - slot * model.width
        more_rows(dive.solver, rows.lower, rows.upper, (rows.at_row, columns, rows.value))
    part = _priced(model, slot, part_of(model, x, mine, lower))
    branched = solved(loaded(part, mip_rel_gap=0.01, time_limit=BRANCH_SECONDS), integer=True)
    if not len(branched.x):
        return branched, model
    return _placed(model, x, mine, branched.x, dive.seconds + branched.seconds), model


def improved(model: Model, x: Floats, slot: int, near: float, seconds: float) -> Answer:
    """Branch and bound over that slot, each option within `BOX` replicas of what it has.

    `near`: USD an hour from the best that are near enough. Halves what the dive lost at full size,
    in about 1 s a slot (measured, HiGHS 1.15).
    """
    mine = _slot_columns(model, slot)
    lower, upper = model.lower.copy(), model.upper.copy()
    firsts = len(model.first)
    held = _held(model, x)
    is_node = np.array([key[0] == "nodes" for key in model.first], dtype=bool)
    lower[:firsts] = held
    upper[:firsts] = np.where(is_node, held, upper[:firsts])
    kinds = ("replicas", "firm")
    places = np.concatenate([model.places(kind) for kind in kinds])
    columns = firsts + slot * model.width + places
    lower[columns] = np.maximum(0.0, x[columns] - BOX)
    upper[columns] = np.where(x[columns] > 0, x[columns] + BOX, NEW_AT_MOST)
    part = _priced(model, slot, replace(part_of(model, x, mine, lower), upper=upper[mine]))
    solver = loaded(part, mip_rel_gap=0.0, mip_abs_gap=near, time_limit=seconds)
    start = highspy.HighsSolution()
    start.col_value = x[mine].tolist()
    solver.setSolution(start)
    answer = solved(solver, integer=True)
    before = float(part.cost @ x[mine]) + part.offset
    if not len(answer.x) or answer.cost >= before:
        return Answer(status="limit", x=x, cost=before, bound=-np.inf, seconds=answer.seconds)
    return _placed(model, x, mine, answer.x, answer.seconds)


def _held(model: Model, x: Floats) -> Floats:
    """Commitments so far: nodes whole, units of credit as they are."""
    firsts = len(model.first)
    is_node = np.array([key[0] == "nodes" for key in model.first], dtype=bool)
    return np.where(is_node, np.round(x[:firsts]), x[:firsts])


def _priced(model: Model, slot: int, part: Arrays) -> Arrays:
    """Credit is paid by what is drawn, in fractions of a unit.

    A slot that paid for whole units would take all that is left of the last for itself, and the
    next slot would buy another.
    """
    problem = model.outline.problem
    firsts = len(model.first)
    cost, integer = part.cost.copy(), model.whole_columns()[_slot_columns(model, slot)]
    for key, column in model.first.items():
        if key[0] == "units":
            cost[column], integer[column] = 0.0, False
    hours, period = problem.slots[slot].hours, problem.slots[slot].period
    for credit in problem.credits:
        for u in credit.supplies:
            if ("drawn", u) in model.block and period in credit.periods:
                price = problem.supplies[u].price_usd_per_chip_hour
                cost[firsts + model.block["drawn", u]] = price * hours / problem.hours
    return replace(part, cost=cost, integer=integer)


def _slot_columns(model: Model, slot: int) -> Bools:
    firsts = len(model.first)
    mine = np.zeros(len(model.cost), dtype=bool)
    mine[:firsts] = True
    mine[firsts + slot * model.width : firsts + (slot + 1) * model.width] = True
    return mine


def _placed(model: Model, x: Floats, mine: Bools, found: Floats, seconds: float) -> Answer:
    """A part's solution in its place, exactly whole where the solver was nearly."""
    placed = x.copy()
    placed[mine] = found
    near = mine & model.whole_columns() & (np.abs(placed - np.round(placed)) <= 10 * NEAR_WHOLE)
    placed[near] = np.round(placed[near])
    cost = float(model.cost @ placed)
    return Answer(status="optimal", x=placed, cost=cost, bound=-np.inf, seconds=seconds)


def settled(model: Model, x: Floats, gap: float, seconds: float) -> Answer:
    """What is held, bought and drawn, at the least cost that carries these whole replicas."""
    fixed = np.concatenate(
        [model.places(kind) for kind in ("replicas", "firm", "flow", "served", "capacity")]
    )
    mine = np.ones(len(x), dtype=bool)
    for slot in range(len(model.outline.problem.slots)):
        mine[len(model.first) + slot * model.width + fixed] = False
    part = part_of(model, x, mine, model.lower)
    answer = solved(loaded(part, mip_rel_gap=gap, time_limit=seconds), integer=True)
    if not len(answer.x):
        return answer
    return _placed(model, x, mine, answer.x, answer.seconds)


def part_of(model: Model, x: Floats, mine: Bools, lower: Floats) -> Arrays:
    """The program over those columns, the others held where they are."""
    rows = model.rows
    is_mine = mine[rows.at_col]
    held = np.bincount(
        rows.at_row[~is_mine],
        weights=rows.value[~is_mine] * x[rows.at_col[~is_mine]],
        minlength=len(rows.lower),
    )
    # Rows of other slots that touch only nodes held stay true: nodes do not shrink.
    inside = rows.at_col >= len(model.first)
    touched = np.zeros(len(rows.lower), dtype=bool)
    touched[rows.at_row[is_mine & (inside | (rows.slot[rows.at_row] < 0))]] = True
    keep = is_mine & touched[rows.at_row]
    new_row = np.cumsum(touched) - 1
    new_col = np.cumsum(mine) - 1
    return Arrays(
        cost=model.cost[mine],
        lower=lower[mine],
        upper=model.upper[mine],
        row_lower=(rows.lower - held)[touched],
        row_upper=(rows.upper - held)[touched],
        at_row=new_row[rows.at_row[keep]],
        at_col=new_col[rows.at_col[keep]],
        value=rows.value[keep],
        integer=model.whole_columns()[mine],
        offset=float(model.cost[~mine] @ x[~mine]),
    )
