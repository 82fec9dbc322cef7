"""What would help after a change: more of what is dear, less that is promised; the cheapest first.

Each is solved again: whole in a small problem, else in fractions (`costs.py`). What it saves is the
difference of two such costs. Where only a relief makes a plan possible, whole plans are made until
one costs no more than any other relief at least: that is the cheapest, and stands first.
"""

from collections.abc import Iterable
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
from argosy.planner.questions.costs import Costs, is_small
from argosy.planner.questions.spent import beyond_stock
from argosy.planner.solving.relaxed import Relaxed, relaxed
from argosy.planner.solving.tight import Tight

MORE_STOCK = 0.1  # of a pool's nodes, where there is a plan already
POOLS_MAX = 8  # of which more is tried
WHOLE_GAP = 1e-3  # of whole plans in a small problem
_ANY_STOCK = 1000.0
_MORE_OF = "more of "  # and how many nodes: known once it is solved
_LEAST_SHARE = 1e-3  # of the cost: what saves less is no relief
_Candidate = tuple[str, Problem]  # in words, and eased


class Relief(msgspec.Struct, frozen=True, kw_only=True):
    """Something less asked for or more to be had, and what plans then cost, by solving again."""

    text: str
    usd_per_hour: float
    saves_usd_per_hour: float | None  # None: without it there is no plan
    is_at_least: bool  # the cost is that in fractions, and no whole plan was made


class _Eased(msgspec.Struct, frozen=True, kw_only=True):
    """One tried relief: the problem with it, what that costs at least, and nodes beyond stock."""

    text: str
    problem: Problem
    usd_per_hour: float
    more_nodes: tuple[tuple[int, str], ...]  # of pools

    @property
    def told(self) -> str:
        """With how much more of a pool is then used."""
        if not self.text.startswith(_MORE_OF):
            return self.text
        parts = [f"{nodes:,} more nodes of {name}" for nodes, name in self.more_nodes if nodes > 0]
        return " and ".join(parts) or self.text


class Reliefs:
    """Of a problem with its answer: those that help."""

    def __init__(self, problem: Problem, answer: Plan | Conflict, solving: Solving) -> None:
        self._problem, self._solving = problem, solving
        self._costs = Costs(solving, is_whole=is_small(problem), gap=WHOLE_GAP)
        candidates = _candidates(problem, relaxed(problem, credit_whole=False))
        self.plan: Plan | None = None  # with the first, where only a relief makes one possible
        self.found: tuple[Relief, ...]  # the cheapest plan first
        if isinstance(answer, Plan):
            self.found = self._savings(answer, candidates)
        else:
            self.found = self._ways_out(candidates)

    def _savings(self, answer: Plan, candidates: Iterable[_Candidate]) -> tuple[Relief, ...]:
        """What the plan would cost less with it."""
        base = self._eased("", self._problem)
        usd = answer.usd_per_hour if base is None else base.usd_per_hour
        best: dict[str, Relief] = {}
        for eased in self._tried(candidates):
            saves = usd - eased.usd_per_hour
            if saves >= _LEAST_SHARE * eased.usd_per_hour:
                one = Relief(
                    text=eased.text,
                    usd_per_hour=answer.usd_per_hour - saves,
                    saves_usd_per_hour=saves,
                    is_at_least=False,
                )
                best[one.text] = min(one, best.get(one.text, one), key=_rank)
        return tuple(sorted(best.values(), key=_rank))

    def _ways_out(self, candidates: Iterable[_Candidate]) -> tuple[Relief, ...]:
        """What makes a plan possible; whole plans of the first, until it is the cheapest."""
        best: dict[str, _Eased] = {}
        for eased in self._tried(candidates):
            known = best.get(eased.told)
            if known is None or eased.usd_per_hour < known.usd_per_hour:
                best[eased.told] = eased
        found = [
            Relief(
                text=text,
                usd_per_hour=eased.usd_per_hour,
                saves_usd_per_hour=None,
                is_at_least=not self._costs.is_whole,
            )
            for text, eased in best.items()
        ]
        plans: dict[str, Plan] = {}
        while found and (first := min(found, key=_rank)).text not in plans:
            self._solving.tell(f"relief: {first.text}, as a plan")
            found.remove(first)
            plan = self._costs.plan(best[first.text].problem)
            if isinstance(plan, Plan):  # else it is one in fractions alone
                plans[first.text] = plan
                told = replace(first, usd_per_hour=plan.usd_per_hour, is_at_least=False)
                found.append(told)
        found.sort(key=_rank)
        self.plan = plans[found[0].text] if found else None
        return tuple(found)

    def _tried(self, candidates: Iterable[_Candidate]) -> Iterable[_Eased]:
        for text, problem in candidates:
            self._solving.tell(f"relief: {text}")
            eased = self._eased(text, problem)
            if eased is not None:
                yield eased

    def _eased(self, text: str, problem: Problem) -> _Eased | None:
        """None where there is no plan."""
        if not self._costs.is_whole:
            return self._in_fractions(text, problem)
        plan = self._costs.plan(problem)
        if isinstance(plan, Conflict):
            return None
        beyond = beyond_stock(self._problem, plan)
        return _Eased(
            text=text,
            problem=problem,
            usd_per_hour=plan.usd_per_hour,
            more_nodes=tuple((ceil(one.more - 1e-6), one.pool) for one in beyond),
        )

    def _in_fractions(self, text: str, problem: Problem) -> _Eased | None:
        found = relaxed(problem, credit_whole=False)
        if found is None:
            return None
        pools = zip(found.chips_max, self._problem.pools, strict=True)
        return _Eased(
            text=text,
            problem=problem,
            usd_per_hour=found.usd / problem.hours,
            more_nodes=tuple(
                (ceil(chips / pool.chips_per_node - pool.nodes_max - 1e-6), pool.name)
                for chips, pool in pools
            ),
        )


def _rank(one: Relief) -> tuple[float, str]:
    return one.usd_per_hour, one.text


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
            f"{_MORE_OF}{problem.pools[place].name}",
            with_stock(problem, _ANY_STOCK, pools={place}),
        )
    if len(largest) > 1:
        yield f"{_MORE_OF}every pool", with_stock(problem, _ANY_STOCK, pools=supplied)


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
