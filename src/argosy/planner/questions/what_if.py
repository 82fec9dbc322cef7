"""What if: the new plan after a change, what binds first on the way there, and the cheapest relief.

A change of degree (users, prices, a shortage) is also made in part, to see where a constraint binds
for the first time and, where there is no plan at the end, how far there is one. Reliefs are those
of the limits that are dear by their duals, and of what is promised; each is solved again. The plan
after the change is whole; what is searched on the way to it are relaxed programs.
"""

from collections.abc import Callable, Iterable
from math import ceil

import msgspec
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Caps, DomainKind, Problem
from argosy.planner.questions.changed import (
    Solving,
    with_more_nodes,
    with_stock,
    without_survivals,
)
from argosy.planner.questions.changes import Change, changed, part_of, text_of
from argosy.planner.solving.relaxed import Relaxed, relaxed
from argosy.planner.solving.tight import Tight

STEPS = 6  # halvings on the way to a change
MORE_STOCK = 0.1  # of a pool's nodes, where there is a plan already
POOLS_MAX = 8  # of which more is tried
_ANY_STOCK = 1000.0
_LEAST_SHARE = 1e-3  # of the cost: what saves less is no relief


class FirstBound(msgspec.Struct, frozen=True, kw_only=True):
    """The first constraint that binds and did not before, and how much of the change that takes."""

    constraint: str
    at: str  # "3.2 x the users"


class Relief(msgspec.Struct, frozen=True, kw_only=True):
    """Something less asked for or more to be had, and what plans then cost, by solving again."""

    text: str
    usd_per_hour: float  # at least
    saves_usd_per_hour: float | None  # None: without it there is no plan


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    change: str
    answer: Plan | Conflict
    usd_per_hour_before: float
    usd_per_hour: float | None  # None: there is no plan
    first_bound: FirstBound | None  # None: nothing new binds
    possible_until: str | None  # how far there is a plan; None: all the way, or it has no degrees
    reliefs: tuple[Relief, ...]  # the cheapest plan first
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
    first, until = _on_the_way(problem, change, answer, before=before, solving=solving)
    return WhatIf(
        change=text_of(change),
        answer=answer,
        usd_per_hour_before=before.usd_per_hour,
        usd_per_hour=answer.usd_per_hour if isinstance(answer, Plan) else None,
        first_bound=first,
        possible_until=until,
        reliefs=tuple(_reliefs(then.problem, solving)),
        remarks=then.remarks,
    )


def _on_the_way(
    problem: Problem, change: Change, answer: Plan | Conflict, *, before: Plan, solving: Solving
) -> tuple[FirstBound | None, str | None]:
    """What binds first, and how far there is a plan."""
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
        return FirstBound(constraint=_words(new, answer), at=text_of(change)), None
    first = _bisect(lambda extent: at(extent) is None or new_at(extent) is not None)
    part = part_of(change, first)
    assert part is not None
    bound = FirstBound(constraint=_words(new_at(first), answer), at=text_of(part))
    if at(1.0) is not None:
        return bound, None
    last = part_of(change, _bisect(lambda extent: at(extent) is None) - 0.5**STEPS)
    return bound, None if last is None else text_of(last)


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


def _reliefs(problem: Problem, solving: Solving) -> list[Relief]:
    """Those that help, the cheapest plan first."""
    found: list[Relief] = []
    now = relaxed(problem, credit_whole=False)
    for text, eased in _candidates(problem, now):
        solving.tell(f"relief: {text}")
        then = relaxed(eased, credit_whole=False)
        if then is None:
            continue
        saves = None if now is None else (now.usd - then.usd) / problem.hours
        if saves is not None and saves < _LEAST_SHARE * then.usd / problem.hours:
            continue
        said = _with_nodes(text, problem, then)
        if any(one.text == said for one in found):
            continue
        found.append(
            Relief(
                text=said,
                usd_per_hour=then.usd / problem.hours,
                saves_usd_per_hour=saves,
            )
        )
    return sorted(found, key=lambda one: (one.usd_per_hour, one.text))


_Candidate = tuple[str, Problem]


def _candidates(problem: Problem, now: Relaxed | None) -> Iterable[_Candidate]:
    """More of what is dear, or of anything where there is no plan; then what is promised."""
    if now is None:
        yield from _any_stock_of(problem)
        yield from _anywhere(problem)
    else:
        yield from _stock_of(problem, now.tight)
    yield from _caps_of(problem)
    yield from _promises_of(problem)


def _stock_of(problem: Problem, tight: Iterable[Tight]) -> Iterable[_Candidate]:
    """A tenth more of what is dear."""
    pools = {pool.name: place for place, pool in enumerate(problem.pools)}
    supplies = {supply.name: place for place, supply in enumerate(problem.supplies)}
    for one in [one for one in tight if one.kind in ("stock", "nodes")][:POOLS_MAX]:
        if one.kind == "nodes":
            supply = problem.supplies[supplies[one.name]]
            more = max(1, ceil(supply.nodes_max * MORE_STOCK))
            of = problem.pools[supply.pool].name if supply.kind == "own" else one.name
            eased = with_more_nodes(problem, supplies[one.name], more)
            yield f"{more} more nodes of {of}", eased
            continue
        nodes = problem.pools[pools[one.name]].nodes_max
        more = max(1, ceil(nodes * MORE_STOCK))
        eased = with_stock(problem, (nodes + more) / max(1, nodes), pools={pools[one.name]})
        yield f"{more} more nodes of {one.name}", eased


def _any_stock_of(problem: Problem) -> Iterable[_Candidate]:
    """As much as is wanted of one pool, or of all; the largest first."""
    supplied = {supply.pool for supply in problem.supplies}
    largest = sorted(
        supplied,
        key=lambda place: -problem.pools[place].nodes_max * problem.pools[place].chips_per_node,
    )
    for place in largest[:POOLS_MAX]:
        yield (
            f"more of {problem.pools[place].name}",
            with_stock(problem, _ANY_STOCK, pools={place}),
        )
    if len(largest) > 1:
        yield "more of every pool", with_stock(problem, _ANY_STOCK, pools=supplied)


def _with_nodes(text: str, problem: Problem, then: Relaxed) -> str:
    """How much more of a pool is then used."""
    if not text.startswith("more of "):
        return text
    beyond = (
        (ceil(chips / pool.chips_per_node - pool.nodes_max - 1e-6), pool.name)
        for chips, pool in zip(then.chips_max, problem.pools, strict=True)
    )
    parts = [f"{nodes:,} more nodes of {name}" for nodes, name in beyond if nodes > 0]
    return " and ".join(parts) or text


def _promises_of(problem: Problem) -> Iterable[_Candidate]:
    kinds: tuple[DomainKind, ...] = ("cloud", "maker", "region", "pool")
    for kind in kinds:
        if any(one.kind == kind for one in problem.survivals):
            yield (
                f"not surviving the loss of any one {kind}",
                without_survivals(problem, lambda one, kind=kind: one.kind == kind),
            )
    for place, spread in enumerate(problem.spreads):
        others = problem.spreads[:place] + problem.spreads[place + 1 :]
        yield f"{spread.model} not spread by {spread.kind}", replace(problem, spreads=others)
    if problem.headroom > 0:
        half = problem.headroom / 2
        text = f"headroom {half:.0%} instead of {problem.headroom:.0%}"
        yield text, replace(problem, headroom=half)


def _caps_of(problem: Problem) -> Iterable[_Candidate]:
    caps = problem.caps
    for region in caps.power_w_of_region:
        others = {one: watts for one, watts in caps.power_w_of_region.items() if one != region}
        eased = replace(caps, power_w_of_region=others)
        yield f"more power in {region}", replace(problem, caps=eased)
    names = {
        "energy_kwh_per_day": "no cap on energy",
        "carbon_kg_per_day": "no cap on carbon",
        "usd_per_hour": "no cap on cost",
    }
    for field, text in names.items():
        if getattr(caps, field) is not None:
            kept = {name: getattr(caps, name) for name in Caps.__struct_fields__ if name != field}
            yield text, replace(problem, caps=Caps(**kept))


def _anywhere(problem: Problem) -> Iterable[_Candidate]:
    """Any model's requests served wherever it runs, where now they may not."""
    for model in sorted({need.model for need in problem.needs}):
        regions = {
            problem.pools[option.pool].region
            for option in problem.options
            if option.model == model and any(rate > 0 for rate in option.requests_per_s)
        }
        bound = {
            need.name for need in problem.needs if need.model == model and regions - {*need.regions}
        }
        if bound:
            needs = tuple(
                replace(need, regions=tuple(sorted({*need.regions, *regions})))
                if need.name in bound and need.model == model
                else need
                for need in problem.needs
            )
            text = f"{model} served in {', '.join(sorted(regions))} whatever its residency and way"
            yield text, replace(problem, needs=needs)
