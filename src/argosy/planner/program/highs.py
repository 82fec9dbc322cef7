"""HiGHS behind three functions: load arrays, run, read. One thread, no output, no row by row."""

from dataclasses import dataclass
from typing import Literal

import highspy
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Status = Literal["optimal", "infeasible", "limit"]


@dataclass(frozen=True)
class Arrays:
    """A linear program: rows between bounds, the matrix as triplets; `integer` may be empty."""

    cost: Floats
    lower: Floats
    upper: Floats
    row_lower: Floats
    row_upper: Floats
    at_row: Ints
    at_col: Ints
    value: Floats
    integer: NDArray[np.bool_] | None = None
    offset: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What HiGHS found; `x` is empty where it found nothing."""

    status: Status
    x: Floats
    cost: float
    bound: float  # no solution costs less
    seconds: float


def loaded(arrays: Arrays, **options: str | float) -> highspy.Highs:
    """A solver that holds the program."""
    solver = highspy.Highs()
    for name, value in {"output_flag": False, "threads": 1, "parallel": "off"}.items():
        solver.setOptionValue(name, value)
    for name, value in options.items():
        solver.setOptionValue(name, value)
    solver.passModel(_lp(arrays))
    return solver


def solved(solver: highspy.Highs, *, integer: bool = False) -> Answer:
    """Run it, from where it stands; `integer`: the program has integer columns."""
    before = solver.getRunTime()
    solver.run()
    seconds = solver.getRunTime() - before
    state = solver.getModelStatus()
    info = solver.getInfo()
    empty = state == highspy.HighsModelStatus.kModelEmpty  # no columns: nothing is to be decided
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    infeasible = state in (
        highspy.HighsModelStatus.kInfeasible,
        highspy.HighsModelStatus.kUnboundedOrInfeasible,
    )
    optimal = empty or state == highspy.HighsModelStatus.kOptimal
    status: Status = "optimal" if optimal else "infeasible" if infeasible else "limit"
    x = np.array(solver.getSolution().col_value, dtype=float) if found else np.empty(0)
    cost = info.objective_function_value if found else 0.0 if empty else np.inf
    bound = info.mip_dual_bound if integer and not empty else (cost if optimal else -np.inf)
    return Answer(status=status, x=x, cost=cost, bound=bound, seconds=seconds)


def more_rows(
    solver: highspy.Highs, lower: Floats, upper: Floats, rows: tuple[Ints, Ints, Floats]
) -> None:
    """Add rows; the solver goes on from the basis it has."""
    at_row, at_col, value = rows
    start, index, values = _by_row(len(lower), at_row, at_col, value)
    solver.addRows(len(lower), lower, upper, len(values), start[:-1], index, values)


def _lp(arrays: Arrays) -> highspy.HighsLp:
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(arrays.cost), len(arrays.row_lower)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = arrays.cost, arrays.lower, arrays.upper
    lp.row_lower_, lp.row_upper_ = arrays.row_lower, arrays.row_upper
    lp.offset_ = arrays.offset
    start, index, values = _by_row(lp.num_row_, arrays.at_row, arrays.at_col, arrays.value)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.num_col_, lp.a_matrix_.num_row_ = lp.num_col_, lp.num_row_
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = start, index, values
    if arrays.integer is not None and arrays.integer.any():
        whole, real = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
        lp.integrality_ = [whole if is_whole else real for is_whole in arrays.integer]
    return lp


def _by_row(
    rows: int, at_row: Ints, at_col: Ints, value: Floats
) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats]:
    order = np.lexsort((at_col, at_row))
    start = np.zeros(rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(at_row, minlength=rows), out=start[1:])
    return start, at_col[order].astype(np.int32), value[order]
