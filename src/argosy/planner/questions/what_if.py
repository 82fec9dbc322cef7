"""What if: the new plan after a change, what binds first on the way there, and the cheapest relief.

A change of degree (users, prices, a shortage) is also made in part, to see where a constraint binds
for the first time and, where there is no plan at the end, how far there is one; what is searched on
the way are relaxed programs. The plan after the change is whole. What would help: `reliefs.py`.
"""

from collections.abc import Callable

import msgspec

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Problem
from argosy.planner.questions.changed import Solving
from argosy.planner.questions.changes import Change, changed, part_of, text_of
from argosy.planner.questions.reliefs import Relief, Reliefs
from argosy.planner.questions.spent import changes_of
from argosy.planner.solving.relaxed import Relaxed, relaxed
from argosy.planner.solving.tight import Tight

STEPS = 6  # halvings on the way to a change
_LEAST_SHARE = 1e-3  # of the cost: what would save less does not bind


class FirstBound(msgspec.Struct, frozen=True, kw_only=True):
    """The first constraint that binds and did not before, and how much of the change that takes."""

    constraint: str
    at: str  # "3.2 x the users"
    extent: float  # of the change: 0 none of it, 1 all


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """How one pool is used before the change and after it."""

    pool: str
    chip: str
    chips_mean_before: float  # in use
    chips_mean_after: float
    usd_per_hour_before: float
    usd_per_hour_after: float


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    change: str
    answer: Plan | Conflict
    usd_per_hour_before: float
    usd_per_hour: float | None  # None: there is no plan
    first_bound: FirstBound | None  # None: nothing new binds
    possible_until: str | None  # how far there is a plan; None: all the way, or it has no degrees
    possible_extent: float | None  # the same, of the change
    reliefs: tuple[Relief, ...]  # the cheapest plan first
    moved: tuple[Moved, ...]  # pools on which anything changes; with no plan: by the first relief
    remarks: tuple[str, ...] = ()

    @property
    def more_usd_per_hour(self) -> float | None:
        """What the change costs."""
        return None if self.usd_per_hour is None else self.usd_per_hour - self.usd_per_hour_before


def what_if(problem: Problem, change: Change, *, before: Plan, solving: Solving) -> WhatIf:
    """The plan after the change; `before` is the problem's plan. Raises NoSuchNameError."""
    then = changed(problem, change, before=before)
    solving.tell(f"what if {text_of(change)}")
    answer = solving(then.problem)
    first, extent = _on_the_way(problem, change, answer, before=before, solving=solving)
    part = None if extent is None else part_of(change, extent)
    reliefs = Reliefs(then.problem, answer, solving)
    after = answer if isinstance(answer, Plan) else reliefs.plan
    return WhatIf(
        change=text_of(change),
        answer=answer,
        usd_per_hour_before=before.usd_per_hour,
        usd_per_hour=answer.usd_per_hour if isinstance(answer, Plan) else None,
        first_bound=first,
        possible_until=None if part is None else text_of(part),
        possible_extent=extent,
        reliefs=reliefs.found,
        moved=() if after is None else _moved(before, after),
        remarks=then.remarks,
    )


def _moved(before: Plan, after: Plan) -> tuple[Moved, ...]:
    return tuple(
        Moved(
            pool=one.pool,
            chip=one.chip,
            chips_mean_before=one.chips_mean,
            chips_mean_after=other.chips_mean,
            usd_per_hour_before=one.usd_per_hour,
            usd_per_hour_after=other.usd_per_hour,
        )
        for one, other in changes_of(before, after)
    )


def _on_the_way(
    problem: Problem, change: Change, answer: Plan | Conflict, *, before: Plan, solving: Solving
) -> tuple[FirstBound | None, float | None]:
    """What binds first, and how much of the change leaves a plan; None: all of it."""
    known: dict[float, Relaxed | None] = {}

    def at(extent: float) -> Relaxed | None:
        part = change if extent == 1.0 else part_of(change, extent)
        assert part is not None, "it has degrees"
        if extent not in known:
            solving.tell(f"what if {text_of(part)}")
            then = changed(problem, part, before=before).problem
            known[extent] = relaxed(then, credit_whole=False)
        return known[extent]

    start = relaxed(problem, credit_whole=False)
    usual = set() if start is None else {(one.kind, one.name) for one in start.tight}

    def new_at(extent: float) -> Tight | None:
        found = at(extent)
        return None if found is None else _new(found, usual, problem.hours)

    if at(1.0) is not None and new_at(1.0) is None:
        return None, None
    if part_of(change, 1.0) is None:
        new = new_at(1.0)
        return FirstBound(constraint=_words(new, answer), at=text_of(change), extent=1.0), None
    first = _bisect(lambda extent: at(extent) is None or new_at(extent) is not None)
    part = part_of(change, first)
    assert part is not None
    bound = FirstBound(constraint=_words(new_at(first), answer), at=text_of(part), extent=first)
    if at(1.0) is not None:
        return bound, None
    return bound, _bisect(lambda extent: at(extent) is None) - 0.5**STEPS


def _bisect(is_beyond: Callable[[float], bool]) -> float:
    """The least extent that is beyond, to 2^-STEPS; 1 is."""
    below, beyond = 0.0, 1.0
    for _ in range(STEPS):
        middle = (below + beyond) / 2
        if is_beyond(middle):
            beyond = middle
        else:
            below = middle
    return beyond


def _new(found: Relaxed, usual: set[tuple[str, str]], hours: float) -> Tight | None:
    """The dearest limit that binds and did not; what saves next to nothing does not bind."""
    least = _LEAST_SHARE * found.usd / hours
    new = (one for one in found.tight if (one.kind, one.name) not in usual)
    return next((one for one in new if one.usd_per_hour > least), None)


def _words(new: Tight | None, answer: Plan | Conflict) -> str:
    if new is not None:
        return new.text
    if isinstance(answer, Conflict):
        return " + ".join(answer.constraints)
    return "whole nodes and replicas"
