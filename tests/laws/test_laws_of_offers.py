"""Laws of offers and changes, on small problems by chance: the break-even is where none matters."""

from itertools import pairwise

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from argosy.planner.plan import Plan
from argosy.planner.problem import Problem
from argosy.planner.questions.baselines import baselines
from argosy.planner.questions.changed import with_users, without_survivals
from argosy.planner.questions.costs import without_larger
from argosy.planner.questions.offer import Offer, Offered, as_one_lot, worth
from argosy.planner.solving.relaxed import relaxed
from tests.planner.two_clouds import (
    SURVIVES_CLOUDS,
    need,
    option,
    pool,
    problem,
    solving,
    supply,
)

FEW = settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
MAIA = 3


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Two clouds and a site of one's own, and a pool of which nothing is supplied."""
    rates = [draw(st.integers(2, 12)) / 4 for _ in range(4)]
    prices = [draw(st.integers(4, 20)) / 4 for _ in range(3)]
    day = (float(draw(st.integers(0, 60))), float(draw(st.integers(40, 120))))
    one = problem(
        supplies=(
            supply(0, "on_demand", prices[0]),
            supply(1, "on_demand", prices[1]),
            supply(2, "own", prices[2], nodes_max=draw(st.integers(5, 60))),
        ),
        options=tuple(option(place, rate) for place, rate in enumerate(rates)),
        needs=(need("web", day=day), need("acme", "enterprise", day=(10.0, 10.0))),
        survivals=draw(st.sampled_from([(), SURVIVES_CLOUDS])),
        headroom=draw(st.sampled_from([0.0, 0.5])),
    )
    return replace(one, pools=(*one.pools, pool("maia", "azure/west", "Microsoft", "Maia-200")))


def offer_of(
    asked: Problem, nodes: int, *, counts: tuple[int, ...] = (), whole: bool | None = None
) -> Offer:
    offered = Offered(pool=MAIA, nodes=nodes, periods=(0,))
    found = worth(asked, offered, solving=solving(), counts=counts, whole=whole)
    assume(isinstance(found, Offer))
    assert isinstance(found, Offer)
    return found


@FEW
@given(problems(), st.integers(1, 40))
def test_below_its_worth_an_offer_is_taken_and_above_it_is_left(asked: Problem, nodes: int):
    offered = Offered(pool=MAIA, nodes=nodes, periods=(0,))
    found = offer_of(asked, nodes, counts=(nodes,))
    price = found.asked.break_even_usd
    assume(price > 0.01)
    below, above = found.bids
    assert below.is_taken
    assert below.gain_usd_per_hour > 0
    assert not above.is_taken
    assert found.is_whole
    for factor, takes in ((0.98, True), (1.02, False)):
        lot = as_one_lot(asked, offered, factor * price)
        plan = solving()(lot)
        assert isinstance(plan, Plan)
        assert any(one.supply == len(lot.supplies) - 1 for one in plan.held) is takes


@FEW
@given(problems(), st.integers(2, 40))
def test_more_nodes_are_worth_more_together_and_less_each(asked: Problem, nodes: int):
    counts = (1, nodes)
    whole = offer_of(asked, nodes, counts=counts).curve
    curve = offer_of(asked, nodes, counts=counts, whole=False).curve
    for fewer, more in (*pairwise(curve), *pairwise(whole)):
        assert more.value_usd_per_hour >= fewer.value_usd_per_hour - 1e-6
    for fewer, more in pairwise(curve):  # whole nodes may need one another
        assert more.marginal_usd <= fewer.marginal_usd + 1e-6
    for one, in_fractions in zip(whole, curve, strict=True):
        # Fractions are right to within what whole nodes and replicas leave open.
        left = one.tolerance_usd + in_fractions.tolerance_usd + 1e-6
        assert abs(one.break_even_usd - in_fractions.break_even_usd) <= left
    for one in (*curve, *whole):
        assert one.break_even_usd_low is not None
        assert one.break_even_usd_high is not None
        assert one.break_even_usd_low - 1e-6 <= one.break_even_usd
        assert one.break_even_usd <= one.break_even_usd_high + 1e-6


@FEW
@given(problems(), st.lists(st.integers(6, 20), min_size=6, max_size=6))
def test_larger_replicas_that_smaller_ones_replace_are_in_no_better_plan(
    asked: Problem, rates: list[int]
):
    larger = [option(place % 3, rate / 4, chips=2 + place // 3) for place, rate in enumerate(rates)]
    asked = replace(asked, options=(*asked.options, *larger))
    fewer = without_larger(asked)
    assert len(fewer.options) <= len(asked.options)
    plans = [solving(gap=1e-6)(one) for one in (asked, fewer)]
    assume(all(isinstance(plan, Plan) for plan in plans))
    costs = [plan.money.total for plan in plans if isinstance(plan, Plan)]
    assert abs(costs[0] - costs[1]) <= 1e-5 * costs[0]


@FEW
@given(problems(), st.floats(1.0, 3.0))
def test_more_users_never_cost_less_and_fewer_promises_never_more(asked: Problem, times: float):
    now, then = relaxed(asked), relaxed(with_users(asked, times))
    free = relaxed(without_survivals(asked))
    assume(now is not None)
    assert now is not None
    assert then is None or then.usd >= now.usd * (1 - 1e-9)
    assert free is not None
    assert free.usd <= now.usd * (1 + 1e-9)


@FEW
@given(problems())
def test_a_relaxed_plan_costs_no_more_than_the_whole_one_and_baselines_no_less(asked: Problem):
    plan = solving()(asked)
    assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    least = relaxed(asked)
    assert least is not None
    assert least.usd <= plan.money.total * (1 + 1e-6)
    for one in baselines(asked, solving()):
        if one.usd_per_hour is not None and not one.gives_up:
            assert one.usd_per_hour * asked.hours >= least.usd * (1 - 1e-6)
