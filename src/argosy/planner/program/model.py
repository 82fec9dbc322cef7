"""A problem as rows and columns: one slot's pattern, copied to all by numpy, and what ties them.

Costs are USD an hour, on average over the horizon.
"""

import numpy as np

from argosy.planner.problem import Problem
from argosy.planner.program.columns import Floats, Outline
from argosy.planner.program.coupling import coupled
from argosy.planner.program.program import HELD_KINDS, Model, Rows
from argosy.planner.program.sketch import Sketch, chips_max, sketched


def modelled(outline: Outline) -> Model:
    """The program of a problem, without its losses (`losses.py` adds those that matter)."""
    return _copied(sketched(outline))


def _copied(sketch: Sketch) -> Model:
    """The block for every slot, with that slot's rates, prices and supplies."""
    outline = sketch.outline
    slots, width, firsts = len(outline.problem.slots), len(sketch.block), len(sketch.first)
    count = len(sketch.keys)
    lower = np.tile(np.array(sketch.lower, dtype=float), (slots, 1))
    upper = np.tile(np.array(sketch.upper, dtype=float), (slots, 1))
    for row, key in enumerate(sketch.keys):
        if key[0] == "serve":
            lower[:, row] = upper[:, row] = outline.groups[int(key[1])].rate_S
    at = np.array(sketch.entries, dtype=float).reshape(-1, 3)
    ones = np.array(sketch.entries_first, dtype=float).reshape(-1, 3)
    shift = np.arange(slots)[:, None]
    rows = Rows(
        lower=lower.ravel(),
        upper=upper.ravel(),
        slot=np.repeat(np.arange(slots), count),
        key=tuple(sketch.keys) * slots,
        at_row=np.concatenate(
            [(at[:, 0] + shift * count).ravel(), (ones[:, 0] + shift * count).ravel()]
        ).astype(np.int64),
        at_col=np.concatenate(
            [(firsts + at[:, 1] + shift * width).ravel(), np.tile(ones[:, 1], slots)]
        ).astype(np.int64),
        value=np.concatenate([np.tile(at[:, 2], slots), np.tile(ones[:, 2], slots)]),
    )
    cost, col_lower, col_upper = _bounds(sketch)
    model = Model(
        outline=outline,
        first=sketch.first,
        block=sketch.block,
        cost=cost,
        lower=col_lower,
        upper=col_upper,
        rows=rows,
    )
    return model.with_rows(coupled(model))


def _bounds(sketch: Sketch) -> tuple[Floats, Floats, Floats]:
    """Of every column: USD an hour, and the least and most of it."""
    problem = sketch.outline.problem
    slots, width, firsts = len(problem.slots), len(sketch.block), len(sketch.first)
    cost = np.zeros(firsts + slots * width)
    lower, upper = np.zeros_like(cost), np.full_like(cost, np.inf)
    hours = np.array([slot.hours for slot in problem.slots])
    period = np.array([slot.period for slot in problem.slots])
    for key, column in sketch.first.items():
        if key[0] == "nodes":
            supply = problem.supplies[int(key[1])]
            chips = problem.pools[supply.pool].chips_per_node
            held_h = hours[np.isin(period, supply.periods)].sum()
            cost[column] = chips * supply.price_usd_per_chip_hour * held_h / problem.hours
            lower[column], upper[column] = supply.nodes_min, supply.nodes_max
        else:
            credit = problem.credits[int(key[1])]
            cost[column] = credit.usd_per_unit / problem.hours
            lower[column], upper[column] = credit.units_min, credit.units_max
    cost_SW = cost[firsts:].reshape(slots, width)
    upper_SW = upper[firsts:].reshape(slots, width)
    for key, place in sketch.block.items():
        if key[0] == "drawn":
            supply = problem.supplies[int(key[1])]
            is_there = np.isin(period, supply.periods)
            upper_SW[:, place] = np.where(is_there, chips_max(problem, supply), 0.0)
            if supply.kind not in HELD_KINDS:
                paid = ~np.isin(period, _credit_periods(problem, int(key[1])))
                cost_SW[:, place] = paid * supply.price_usd_per_chip_hour * hours / problem.hours
        elif key[0] == "trained":
            is_before = np.isin(period, problem.trainings[int(key[1])].periods)
            upper_SW[:, place] = np.where(is_before, np.inf, 0.0)
    return cost, lower, upper


def _credit_periods(problem: Problem, supply: int) -> list[int]:
    """In which what is drawn is paid for out of a credit, so that drawing itself costs nothing."""
    return [p for credit in problem.credits if supply in credit.supplies for p in credit.periods]
