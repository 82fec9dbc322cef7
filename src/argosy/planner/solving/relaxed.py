"""What a problem costs at least: nodes and replicas in fractions, credit whole, losses survived.

Seconds where a plan of whole replicas takes a minute, and exact, so that small differences of large
sums can be told: what an offer is worth, what a promise costs.
"""

from collections.abc import Collection
from math import ceil, floor

import msgspec
import numpy as np

from argosy.planner.problem import Problem
from argosy.planner.program.columns import Floats, outlined
from argosy.planner.program.highs import Answer, Ints, loaded, more_rows, solved
from argosy.planner.program.losses import Losses, losses_of
from argosy.planner.program.model import modelled
from argosy.planner.program.program import Model
from argosy.planner.solving.tight import Tight, tight_of

GAP = 1e-5
_WHOLE = 1e-6


class Relaxed(msgspec.Struct, frozen=True, kw_only=True):
    """The cheapest such plan."""

    usd: float  # over the horizon; no plan of the problem costs less
    open_usd: float  # what was found costs so much more: 0 but for the solver's gap
    nodes: dict[int, float]  # by supply that is held
    chips_max: tuple[float, ...]  # by pool, in use at once
    tight: tuple[Tight, ...]  # limits without slack, with credit in fractions too


def relaxed(
    problem: Problem,
    *,
    whole: Collection[int] = (),
    credit_whole: bool = True,
    seconds_max: float = 60.0,
) -> Relaxed | None:
    """None where not even that is possible; of the supplies `whole`, whole nodes alone.

    Without `credit_whole` it takes a third of the time, for who asks whether, not how much.
    """
    outline = outlined(problem)
    if outline.unserved:
        return None
    model = modelled(outline)
    program = _Program(model, losses_of(model))
    answer = program.survived()
    if answer is None:
        return None
    tight = program.tight()
    integer = np.flatnonzero(_whole_columns(model, whole, credit_whole=credit_whole))
    if len(integer) == 1:
        answer = _either_side(program, int(integer[0]), answer)
    elif len(integer):
        answer = _branched(program, integer, seconds_max)
    if answer is None:
        return None
    hours = problem.hours
    return Relaxed(
        usd=answer.bound * hours,
        open_usd=max(0.0, answer.cost - answer.bound) * hours,
        nodes=_nodes(model, answer.x),
        chips_max=_chips_max(model, answer.x),
        tight=tight,
    )


class _Program:
    """The program in fractions, with the rows of losses that were broken so far."""

    def __init__(self, model: Model, losses: Losses) -> None:
        self.model, self.losses = model, losses
        self.solver = loaded(model.arrays())

    def survived(self) -> Answer | None:
        """Solved until no loss is broken, from where it stands; None: it cannot be."""
        while True:
            answer = solved(self.solver)
            if not len(answer.x) or answer.status == "infeasible":
                return None
            if not self.is_broken(answer):
                return answer

    def is_broken(self, answer: Answer) -> bool:
        """Whether it fails a loss; the rows that it fails are in the program from now on."""
        rows = self.losses.violated(self.model, answer.x)
        if rows is None:
            return False
        self.model = self.model.with_rows(rows)
        triplets = (rows.at_row, rows.at_col, rows.value)
        more_rows(self.solver, rows.lower, rows.upper, triplets)
        return True

    def tight(self) -> tuple[Tight, ...]:
        """Of what was solved last."""
        found = self.solver.getSolution()
        return tight_of(self.model, np.array(found.row_dual), np.array(found.col_dual))


def _either_side(program: _Program, column: int, answer: Answer) -> Answer | None:
    """One whole number: costs are convex in it, so the best is next to the best fraction."""
    fraction = float(answer.x[column])
    if abs(fraction - round(fraction)) < _WHOLE:
        return answer
    best: Answer | None = None
    for value in (floor(fraction), ceil(fraction)):
        program.solver.changeColBounds(column, float(value), float(value))
        found = program.survived()
        if found is not None and (best is None or found.cost < best.cost):
            best = found
    return best


def _branched(program: _Program, integer: Ints, seconds_max: float) -> Answer | None:
    """Several whole numbers."""
    is_whole = np.zeros(len(program.model.cost), dtype=bool)
    is_whole[integer] = True
    while True:
        arrays = program.model.arrays(is_whole)
        answer = solved(loaded(arrays, mip_rel_gap=GAP, time_limit=seconds_max), integer=True)
        if not len(answer.x):
            return None
        if not program.is_broken(answer):
            return answer


def _whole_columns(model: Model, supplies: Collection[int], *, credit_whole: bool) -> np.ndarray:
    """Credit, and nodes of these supplies."""
    found = np.zeros(len(model.cost), dtype=bool)
    for key, column in model.first.items():
        found[column] = (credit_whole and key[0] == "units") or (
            key[0] == "nodes" and key[1] in supplies
        )
    return found


def _nodes(model: Model, x: Floats) -> dict[int, float]:
    return {
        int(str(key[1])): float(x[column])
        for key, column in model.first.items()
        if key[0] == "nodes"
    }


def _chips_max(model: Model, x: Floats) -> tuple[float, ...]:
    problem = model.outline.problem
    block_SW = model.slots_of(x)
    chips_PS = np.zeros((len(problem.pools), len(problem.slots)))
    for key, place in model.block.items():
        if key[0] == "drawn":
            chips_PS[problem.supplies[int(str(key[1]))].pool] += block_SW[:, place]
    return tuple(float(most) for most in chips_PS.max(axis=1, initial=0.0))
