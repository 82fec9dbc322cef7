"""What must hold of any plan, on small problems drawn by chance and solved to the optimum."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Problem, Supply
from argosy.planner.program.columns import outlined
from argosy.planner.program.losses import losses_of
from argosy.planner.program.model import modelled
from argosy.planner.solving.changeable import groups_of
from argosy.planner.solving.feasible import least_usd_per_hour
from argosy.planner.solving.solve import solve
from argosy.planner.solving.split import committed, relaxed, split
from tests.planner.plan_checker import check
from tests.planner.planner_problems import problems

NEAR = 1e-6  # relative: the solver's tolerance
law = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def best(problem: Problem) -> Plan | None:
    plan = solve(problem, gap=0.0)
    return plan if isinstance(plan, Plan) else None


def never_costlier(before: Problem, after: Problem) -> None:
    """Where the one has a plan, the other has one that costs no more."""
    first = best(before)
    assume(first is not None)
    second = best(after)
    assert second is not None
    assert second.money.total <= first.money.total * (1 + NEAR) + NEAR


@law
@given(problems())
def test_a_plan_breaks_no_constraint_and_costs_no_less_than_its_bound(problem):
    plan = solve(problem, gap=0.0)
    if isinstance(plan, Conflict):
        assert plan.constraints
    else:
        check(problem, plan)
        assert plan.gap == pytest.approx(0.0, abs=1e-4)


@law
@given(problems(), st.sampled_from((0.05, 0.005)))
def test_a_plan_that_need_not_be_the_best_still_breaks_nothing(problem, gap):
    plan = solve(problem, gap=gap)
    if isinstance(plan, Plan):
        check(problem, plan)
        assert plan.gap <= gap + 1e-9


@law
@given(problems(), st.integers(0, 9))
def test_a_cheaper_price_never_gives_a_costlier_plan(problem, which):
    u = which % len(problem.supplies)
    supplies = list(problem.supplies)
    supplies[u] = replace(supplies[u], price_usd_per_chip_hour=0.5)
    assume(problem.supplies[u].price_usd_per_chip_hour > 0.5)
    never_costlier(problem, replace(problem, supplies=tuple(supplies)))


@law
@given(problems(), st.integers(0, 9))
def test_more_stock_never_gives_a_costlier_plan(problem, which):
    u = which % len(problem.supplies)
    supplies = list(problem.supplies)
    supplies[u] = replace(supplies[u], nodes_max=supplies[u].nodes_max + 5)
    never_costlier(problem, replace(problem, supplies=tuple(supplies)))


@law
@given(problems(), st.integers(0, 3))
def test_another_supply_never_gives_a_costlier_plan(problem, which):
    more = Supply(
        name="more",
        pool=which % len(problem.pools),
        kind="reserved",
        price_usd_per_chip_hour=0.3,
        nodes_max=3,
        periods=(0,),
    )
    never_costlier(problem, replace(problem, supplies=(*problem.supplies, more)))


@law
@given(problems(), st.sampled_from(({"survivals": ()}, {"spreads": ()}, {"headroom": 0.0})))
def test_a_constraint_less_never_gives_a_costlier_plan(problem, less):
    never_costlier(problem, replace(problem, **less))


@law
@given(problems())
def test_more_money_never_gives_a_costlier_plan(problem):
    plan = best(problem)
    assume(plan is not None and plan.money.total > 0)
    capped = replace(problem.caps, usd_per_hour=plan.usd_per_hour * 1.001)
    tight = replace(problem, caps=capped)
    never_costlier(tight, problem)
    never_costlier(problem, tight)  # the best plan is within the cap


@law
@given(problems())
def test_the_same_problem_has_the_same_plan(problem):
    first, second = solve(problem), solve(problem)
    if isinstance(first, Plan):
        first, second = replace(first, seconds=0.0), replace(second, seconds=0.0)
    assert first == second


@law
@given(problems(), st.sampled_from((0.01, 3.0, 1000.0)))
def test_prices_times_a_make_the_cost_times_a(problem, times):
    supplies = tuple(
        replace(s, price_usd_per_chip_hour=s.price_usd_per_chip_hour * times)
        for s in problem.supplies
    )
    plan, scaled = best(problem), best(replace(problem, supplies=supplies))
    assume(plan is not None)
    assert scaled is not None
    assert scaled.money.total == pytest.approx(plan.money.total * times, rel=1e-5)


@law
@given(problems())
def test_what_a_conflict_names_has_no_plan_by_itself(problem):
    scarce = replace(
        problem,
        supplies=tuple(replace(s, nodes_max=min(1, s.nodes_max)) for s in problem.supplies),
    )
    found = solve(scarce)
    assume(isinstance(found, Conflict) and not outlined(scarce).unserved)
    assume("fractions of replicas" not in found.constraints[0])
    others = [
        group
        for group in groups_of(scarce)
        if not any(words.startswith(group.words) for words in found.constraints)
    ]
    eased = scarce
    for group in others:
        eased = group.without(eased)
    assert least_usd_per_hour(eased) is None


@law
@given(problems())
def test_slot_by_slot_costs_what_the_whole_costs(problem):
    needs = tuple(need for need in problem.needs if not need.may_wait)
    alone = replace(problem, needs=needs)
    usd = least_usd_per_hour(alone)
    model = modelled(outlined(alone))
    assume(not outlined(alone).unserved)
    search = split(model, losses_of(model), lambda gap: None)
    assert relaxed(search, 1e-5) == (usd is not None)
    if usd is not None:
        assert search.best == pytest.approx(usd, rel=1e-4, abs=1e-5)
        assert search.bound <= usd * (1 + 1e-6) + 1e-6
        answer = committed(search)
        assert answer.cost >= usd * (1 - 1e-5) - 1e-5
