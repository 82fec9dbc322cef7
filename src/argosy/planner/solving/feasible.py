"""Whether a problem has any plan in fractions, and the least that one costs: exact re-solves."""

from collections.abc import Iterable

import numpy as np
from msgspec.structs import replace

from argosy.planner.problem import Problem
from argosy.planner.program.columns import outlined
from argosy.planner.program.highs import loaded, more_rows, solved
from argosy.planner.program.losses import losses_of
from argosy.planner.program.model import modelled
from argosy.planner.solving.split import can_split, relaxed, split

SPLIT_GAP = 0.01


def least_usd_per_hour(problem: Problem) -> float | None:
    """The cost of the relaxed plan, on average over the horizon; None: there is no plan."""
    outline = outlined(problem)
    if outline.unserved:
        return None
    model = modelled(outline)
    losses = losses_of(model)
    if can_split(model):
        search = split(model, losses, lambda gap: None)
        return search.best if relaxed(search, SPLIT_GAP) else None
    solver = loaded(model.arrays())
    while True:
        answer = solved(solver)
        if answer.status != "optimal":
            return None
        rows = losses.violated(model, answer.x)
        if rows is None:
            return answer.cost
        model = model.with_rows(rows)
        more_rows(solver, rows.lower, rows.upper, (rows.at_row, rows.at_col, rows.value))


def only_slots(problem: Problem, slots: Iterable[int]) -> Problem:
    """The problem of those slots alone: what it cannot do there, the whole cannot do either.

    Needs that may wait, training runs and averages over the horizon ask nothing of one slot.
    """
    kept = list(slots)
    needs = tuple(
        replace(need, requests_per_s=tuple(need.requests_per_s[s] for s in kept))
        for need in problem.needs
        if not need.may_wait
    )
    caps = replace(problem.caps, energy_kwh_per_day=None, carbon_kg_per_day=None, usd_per_hour=None)
    return replace(
        problem,
        slots=tuple(problem.slots[s] for s in kept),
        needs=needs,
        trainings=(),
        credits=tuple(
            replace(credit, units_max=max(1, credit.units_max) * 1_000_000)
            for credit in problem.credits
        ),
        caps=caps,
    )


def hardest_slot(problem: Problem) -> int | None:
    """A slot that cannot be served even alone; None: what fails needs several slots to see."""
    total_S = np.sum([need.requests_per_s for need in problem.needs], axis=0)
    for s in np.argsort(-total_S, kind="stable"):
        if least_usd_per_hour(only_slots(problem, [int(s)])) is None:
            return int(s)
    return None
