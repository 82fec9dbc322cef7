"""The planner's solver on problems small enough to reckon by hand."""

import pytest
from msgspec.structs import replace

from argosy.planner.plan import Plan
from argosy.planner.problem import (
    Caps,
    Credit,
    Period,
    Problem,
    Slot,
    Spread,
    Survival,
    Training,
)
from argosy.planner.solving.solve import solve
from tests.planner.plan_checker import check
from tests.planner.planner_problems import need, option, pool, problem, slots, supply

HOURS = 8760.0


def solved(given: Problem, **options) -> Plan:
    plan = solve(given, gap=0.0, **options)
    assert isinstance(plan, Plan), plan
    check(given, plan)
    return plan


def test_a_case_reckoned_by_hand_costs_what_the_hand_says():
    """One model, two halves of the day (4,380 h each), 10 and 4 requests/s.

    Pool a serves 2 requests/s a chip: 5 chips by day, 2 by night. On demand at 4 USD:
    (5 + 2) x 4,380 h x 4 USD = 122,640 USD. A reserved node is 8 chips at 2 USD, all year:
    8 x 8,760 x 2 = 140,160 USD: dearer. Pool g serves 1 request/s a chip at 3 USD: dearer per
    request. So: on demand on a, 122,640 USD.
    """
    plan = solved(problem())
    assert plan.money.total == pytest.approx(122_640.0, abs=0.01)
    assert [(run.option, run.replicas) for run in plan.runs] == [(0, (5, 2))]
    assert plan.bound_usd == pytest.approx(122_640.0, abs=0.01)
    # 7 replica-halves, each full: 700 W x PUE 1.2 x 12 h = 70.56 kWh a day; at 300 g a kWh.
    assert plan.energy_kwh_per_day == pytest.approx(7 * 12 * 0.84)
    assert plan.carbon_kg_per_day == pytest.approx(7 * 12 * 0.84 * 0.3)


def test_a_node_is_reserved_once_it_is_cheaper_than_renting_its_hours():
    """Half a node by day, all of it by night: 12 chip-halves on demand at 4 USD = 210,240 USD.

    The reserved node: 140,160 USD.
    """
    plan = solved(problem(needs=(need("m", (8.0, 16.0), ("aws/eu", "gcp/eu")),)))
    assert plan.money.reserved == pytest.approx(140_160.0)
    assert plan.money.on_demand == pytest.approx(0.0, abs=0.01)
    assert [(held.supply, held.nodes) for held in plan.held] == [(1, 1)]


def test_headroom_asks_for_more_replicas():
    plan = solved(problem(headroom=0.5))  # 15 and 6 requests/s: 8 and 3 replicas
    assert plan.runs[0].replicas == (8, 3)


def test_the_loss_of_a_cloud_keeps_replicas_on_both():
    """10 and 4 requests/s must be there without either cloud: 5 + 2 on a, 10 + 4 on g.

    (7 x 4 USD + 14 x 3 USD) x 4,380 h = 306,600 USD.
    """
    plan = solved(problem(survivals=(Survival(model="m", kind="cloud"),)))
    assert plan.money.total == pytest.approx(306_600.0, abs=0.01)
    assert (plan.losses_checked, plan.losses_added) == (4, 4)
    words = [one.constraint for one in plan.binding]
    assert any(text.startswith("m survives the loss of cloud aws") for text in words)


def test_residency_holds_while_a_domain_is_lost():
    """In Europe alone there are two clouds; the American pool is no refuge, however cheap."""
    given = problem(
        pools=(pool("a", "aws/eu"), pool("g", "gcp/eu"), pool("u", "azure/us")),
        supplies=(supply(0, price=4.0), supply(1, price=3.0), supply(2, price=0.1)),
        options=(option("m", 0), option("m", 1), option("m", 2)),
        survivals=(Survival(model="m", kind="cloud"),),
    )
    plan = solved(given)
    assert {run.option for run in plan.runs} == {0, 1}


def test_spot_is_used_but_does_not_count_in_a_loss():
    given = problem(
        supplies=(
            supply(0, price=4.0),
            supply(0, "spot", price=0.5, survives=False, availability=0.9),
            supply(1, price=3.0),
        ),
    )
    alone = solved(given)
    assert alone.money.spot > 0
    assert alone.money.on_demand == pytest.approx(0.0, abs=0.01)
    plan = solved(replace(given, survivals=(Survival(model="m", kind="cloud"),)))
    assert plan.money.on_demand == pytest.approx(306_600.0, abs=0.1)


def test_batch_waits_for_the_hours_that_are_paid_for():
    """A reserved node of 16 requests/s is half idle by night; batch of 4 fits there for nothing."""
    by_day = need("m", (16.0, 8.0), ("aws/eu",))
    batch = need("m", (4.0, 4.0), ("aws/eu",), tier="batch", may_wait=True)
    supplies = (supply(0, price=4.0), supply(0, "reserved", price=2.0))
    plan = solved(problem(supplies=supplies, needs=(by_day, batch)))
    assert plan.money.total == pytest.approx(140_160.0)
    waiting = [route for route in plan.routes if route.need == 1]
    assert sum(sum(route.requests_per_s) for route in waiting) == pytest.approx(8.0)
    assert sum(route.requests_per_s[0] for route in waiting) == pytest.approx(0.0, abs=1e-6)


def test_a_training_run_takes_the_idle_hours():
    """8 chips held; 5 and 2 serve; 3 and 6 are left for 4,380 h each."""
    tokens = 1000.0 * 3600 * 4380 * 9
    given = problem(
        supplies=(supply(0, "own", price=1.0, nodes_min=1, nodes_max=1),),
        trainings=(Training(name="t", tokens=tokens, tokens_per_chip_s={0: 1000.0}, periods=(0,)),),
        needs=(need("m", (10.0, 4.0), ("aws/eu",)),),
    )
    plan = solved(given)
    assert plan.trained[0].chips == pytest.approx((3.0, 6.0))
    assert plan.money.own == pytest.approx(8 * HOURS)


def test_a_spread_sends_part_elsewhere():
    given = problem(spreads=(Spread(model="m", kind="cloud", share_max=0.6),))
    plan = solved(given)
    there = [route for route in plan.routes if route.option == 1]
    assert there[0].requests_per_s == pytest.approx((4.0, 1.6), abs=2.5)
    assert any("carries 60% at most" in one.constraint for one in plan.binding)


def test_two_length_classes_share_a_replica_in_proportion():
    """2 of 4 requests/s and 1 of 2 fill one replica whole."""
    given = problem(
        slots=slots(1),
        options=(option("m", 0, (4.0, 2.0)),),
        needs=(
            need("m", (2.0,), ("aws/eu",)),
            need("m", (1.0,), ("aws/eu",), length_class=1),
        ),
    )
    assert solved(given).runs[0].replicas == (1,)


def test_credit_is_paid_whole_and_the_rest_at_list_price():
    """Committed at 3 USD a chip-hour, list at 4; units of 50,000 USD.

    30,660 chip-hours are asked for: 91,980 USD at the committed price. Two units (100,000 USD) pay
    for all; one unit pays for 16,666.7 chip-hours, and 13,993.3 at list are 55,973 USD: 105,973.
    """
    given = problem(
        supplies=(supply(0, price=4.0), supply(0, "committed_spend", price=3.0)),
        credits=(
            Credit(
                contract="deal",
                supplies=(1,),
                usd_per_unit=50_000.0,
                units_min=0,
                units_max=10,
                periods=(0,),
            ),
        ),
        needs=(need("m", (10.0, 4.0), ("aws/eu",)),),
    )
    plan = solved(given)
    assert plan.money.total == pytest.approx(100_000.0)
    assert plan.bought[0].units == 2
    assert plan.bought[0].used_usd == pytest.approx(91_980.0)


def test_a_contract_serves_in_its_periods_alone():
    """Reserved in the second year only: on demand in the first."""
    given = problem(
        periods=(
            Period(name="2027", begin="2027-01-01", days=365.0),
            Period(name="2028", begin="2028-01-01", days=365.0),
        ),
        slots=tuple(Slot(period=year, hour=0, hours=HOURS) for year in range(2)),
        supplies=(
            supply(0, price=4.0, periods=(0, 1)),
            supply(0, "reserved", price=2.0, periods=(1,)),
        ),
        needs=(need("m", (16.0, 16.0), ("aws/eu",)),),
    )
    plan = solved(given)
    assert plan.money.on_demand == pytest.approx(8 * HOURS * 4.0)
    assert plan.money.reserved == pytest.approx(8 * HOURS * 2.0)


def test_caps_hold_and_are_named_with_their_price():
    """600 W a chip more than 6 chips' power sends a request to g, dearer: 1 kW is worth money."""
    given = problem(caps=Caps(power_w_of_region={"aws/eu": 4 * 840.0}))
    plan = solved(given)
    assert plan.runs[0].replicas[0] <= 4
    power = [one for one in plan.binding if one.unit == "kW"]
    assert power
    assert power[0].usd_per_unit_hour > 0
    base = solved(problem())
    carbon = solved(problem(caps=Caps(carbon_kg_per_day=base.carbon_kg_per_day)))
    assert carbon.carbon_kg_per_day <= base.carbon_kg_per_day * (1 + 1e-6)


def test_stock_that_is_all_in_use_is_worth_what_it_saves():
    """Pool a has one node; by day 16 more requests/s go to g at 3 USD each instead of 2.

    A node more of a carries them for 8 x 4 USD instead of 16 x 3 USD, half of the day: 8 USD an
    hour on average.
    """
    supplies = (supply(0, price=4.0, nodes_max=1), supply(1, price=3.0))
    given = problem(supplies=supplies, needs=(need("m", (32.0, 4.0), ("aws/eu", "gcp/eu")),))
    plan = solved(given)
    binding = plan.binding[0]
    assert binding.constraint == "a: all 1 nodes on demand are in use at 00:00"
    assert binding.unit == "node"
    assert binding.usd_per_unit_hour == pytest.approx(8.0)
    assert binding.slots == (0,)


def test_progress_is_told_and_ends_at_one():
    told: list[tuple[str, float]] = []
    solve(problem(), progress=lambda what, share: told.append((what, share)))
    assert told[-1] == ("done", 1.0)
    assert all(0.0 <= share <= 1.0 for _, share in told)


def test_a_problem_without_demand_costs_what_is_signed():
    supplies = (supply(0, "own", price=1.0, nodes_min=2),)
    plan = solved(problem(supplies=supplies, needs=(need("m", (0.0, 0.0), ("aws/eu",)),)))
    assert plan.money.total == pytest.approx(16 * HOURS)


def test_nothing_to_decide_costs_nothing():
    plan = solved(problem(supplies=(supply(0),), needs=(need("m", (0.0, 0.0), ("aws/eu",)),)))
    assert plan.money.total == 0.0
    assert plan.runs == ()
