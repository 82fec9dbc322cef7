"""What an offer is worth: by hand on a problem whose every price is known."""

import pytest
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Slot
from argosy.planner.questions.changed import unsupplied
from argosy.planner.questions.costs import is_small
from argosy.planner.questions.losses_told import served_when_lost
from argosy.planner.questions.offer import Needed, Offer, Offered, as_one_lot, worth
from tests.planner.two_clouds import (
    SURVIVES_CLOUDS,
    need,
    option,
    pool,
    problem,
    solving,
    supply,
)

MAIA = 3  # its place among the pools


def with_maia(requests_per_s: float = 3.0, **changes):
    """A pool in azure/west of which nothing is supplied yet."""
    one = problem(**changes)
    maia = replace(option(MAIA, requests_per_s), uncalibrated=True)
    return replace(
        one,
        pools=(*one.pools, pool("maia", "azure/west", "Microsoft", "Maia-200")),
        options=(*one.options, maia),
    )


def offered(nodes: int = 10) -> Offered:
    return Offered(pool=MAIA, nodes=nodes, periods=(0,))


def worth_of(asked, nodes: int = 10, **rest) -> Offer:
    found = worth(asked, offered(nodes), solving=solving(), **rest)
    assert isinstance(found, Offer)
    return found


def test_a_chip_is_worth_what_it_spares():
    # One serves 3 requests/s day and night, as 1.5 chips of one's own do for 3 USD.
    found = worth_of(with_maia())
    assert found.asked.break_even_usd == pytest.approx(3.0, rel=1e-4)
    assert found.asked.value_usd_per_hour == pytest.approx(30.0, rel=1e-4)
    assert found.hours_of_term == 365 * 24
    assert found.is_uncalibrated


def test_its_worth_is_a_range_because_its_rates_are_one():
    asked = worth_of(with_maia()).asked
    assert asked.break_even_usd_low == pytest.approx(0.8 * 3.0, rel=1e-4)
    assert asked.break_even_usd_high == pytest.approx(1.2 * 3.0, rel=1e-4)


def test_the_demand_curve_falls_and_beyond_what_is_needed_a_chip_is_worth_nothing():
    found = worth_of(with_maia(), counts=(10, 20, 30, 60))
    marginal = [one.marginal_usd for one in found.curve]
    assert marginal == sorted(marginal, reverse=True)
    # 13 1/3 chips spare one's own; the next ones v6e, in the day alone, at 3 x 1.5 / 2 USD.
    assert marginal[1] == pytest.approx((10 / 3 * 3.0 + 20 / 3 * 2.25) / 10, rel=1e-3)
    assert marginal[-1] == pytest.approx(0.1 * 0.75 * 100 / 30, abs=0.3)
    assert found.nodes_worth(2.9) == 10
    assert found.nodes_worth(2.0) == 30
    assert found.nodes_worth(5.0) == 0


def test_it_is_taken_a_little_below_its_worth_and_not_a_little_above():
    below, above = worth_of(with_maia()).bids
    assert below.price_usd == pytest.approx(0.98 * 3.0, rel=1e-4)
    assert below.is_taken
    assert below.gain_usd_per_hour == pytest.approx(0.02 * 30.0, rel=1e-2)
    assert not above.is_taken
    assert above.gain_usd_per_hour == pytest.approx(0.0, abs=1e-6)


def test_the_plan_of_whole_nodes_decides_alike():
    asked = with_maia()
    price = worth_of(asked).asked.break_even_usd
    for factor, takes in ((0.98, True), (1.02, False)):
        lot = as_one_lot(asked, offered(), factor * price)
        plan = solving()(lot)
        assert isinstance(plan, Plan)
        assert any(one.supply == len(lot.supplies) - 1 for one in plan.held) is takes


def test_what_it_displaces_is_told_in_chips_and_dollars():
    found = {one.pool: one for one in worth_of(with_maia(), 5).displaced}
    assert found["maia"].chips_mean_without == 0
    assert found["maia"].chips_mean_with > 0
    saved = sum(one.usd_per_hour_without - one.usd_per_hour_with for one in found.values())
    assert saved == pytest.approx(15.0, rel=0.05)


def test_at_its_break_even_what_it_displaces_costs_as_much_as_it_does():
    found = worth_of(with_maia())
    rows = found.displaced_at(found.asked.break_even_usd)
    saved = sum(one.usd_per_hour_without - one.usd_per_hour_with for one in rows)
    assert saved == pytest.approx(0.0, abs=1e-3)
    [maia] = [one for one in rows if one.pool == "maia"]
    assert maia.usd_per_hour_with == pytest.approx(30.0, rel=1e-3)


def test_chips_that_serve_nothing_are_not_in_use():
    found = worth_of(with_maia(), 60)
    [maia] = [one for one in found.displaced if one.pool == "maia"]
    # 100 requests/s by day and 40 at night, 3 on each: 34 and 14 whole replicas of 60.
    assert maia.chips_mean_with == pytest.approx((34 + 14) / 2, abs=1.0)
    assert found.usd_per_hour_with == pytest.approx(0.0, abs=1e-6)


def test_a_chip_in_a_third_cloud_makes_surviving_a_loss_cheaper():
    asked = with_maia(survivals=SURVIVES_CLOUDS)
    elsewhere = tuple(
        replace(one, region="own/there", cloud="other") if one.name == "maia" else one
        for one in asked.pools
    )
    everywhere = tuple(replace(one, regions=(*one.regions, "own/there")) for one in asked.needs)
    found = worth_of(replace(asked, pools=elsewhere, needs=everywhere)).resilience
    assert found.usd_per_hour_without is not None
    assert found.usd_per_hour_with is not None
    assert found.usd_per_hour_with < found.usd_per_hour_without
    assert all(one.served["consumer"] == pytest.approx(1.0) for one in found.losses_with)


def test_without_a_promise_a_loss_leaves_what_is_left():
    plan = solving()(problem())
    assert isinstance(plan, Plan)
    served = {one.domain: one.served["consumer"] for one in served_when_lost(plan, ["cloud"])}
    # By day 40 requests/s are on one's own chips and 60 on v6e.
    assert served["gcp"] == pytest.approx(0.4, abs=0.01)


def test_enterprise_requests_are_served_first_when_a_cloud_is_lost():
    asked = problem(needs=(need("web"), need("acme", "enterprise", day=(10.0, 30.0))))
    plan = solving()(asked)
    assert isinstance(plan, Plan)
    [lost] = [one for one in served_when_lost(plan, ["cloud"]) if one.domain == "gcp"]
    assert lost.served["enterprise"] == pytest.approx(1.0)
    assert lost.served["consumer"] < 0.5


def test_where_there_is_no_plan_without_it_no_price_is_too_high():
    far = with_maia(needs=(need("web", day=(900.0, 900.0), regions=("azure/west",)),))
    found = worth(far, offered(200), solving=solving())
    assert isinstance(found, Needed)
    assert isinstance(found.without, Conflict)


def test_where_it_does_not_help_there_is_no_plan_either():
    far = with_maia(needs=(need("web", day=(9e4, 9e4)),))
    assert isinstance(worth(far, offered(), solving=solving()), Conflict)


def test_an_offer_of_a_pool_that_is_supplied_already_is_refused_until_it_is_told_apart():
    asked = with_maia()
    both = replace(asked, supplies=(*asked.supplies, supply(0, "on_demand", 4.0, pool=MAIA)))
    with pytest.raises(ValueError, match="supplied already"):
        worth(both, offered(), solving=solving())
    assert isinstance(worth(unsupplied(both, MAIA), offered(), solving=solving()), Offer)


def few_nodes(day: tuple[float, float] = (9.0, 9.0)):
    """Nodes of eight chips: a reserved one at 2 USD a chip, used or not, of which five serve."""
    one = with_maia(needs=(need("web", day=day),))
    eights = tuple(replace(pool, chips_per_node=8) for pool in one.pools)
    reserved = supply(2, "reserved", 2.0, nodes_max=2)
    return replace(one, pools=eights, supplies=(reserved,))


def test_in_a_fleet_of_few_nodes_an_offer_spares_whole_ones():
    # 9 requests/s take 4.5 chips of a node that costs 16 USD an hour; three of maia's serve them.
    found = worth_of(few_nodes(), 1)
    assert found.is_whole
    assert found.asked.value_usd_per_hour == pytest.approx(16.0, rel=1e-6)
    assert found.asked.break_even_usd == pytest.approx(2.0, rel=1e-6)
    assert found.asked.tolerance_usd == pytest.approx(0.0, abs=1e-5)
    in_fractions = worth_of(few_nodes(), 1, whole=False)
    assert in_fractions.asked.value_usd_per_hour == pytest.approx(9.0, rel=1e-4)  # 4.5 x 2 USD
    assert in_fractions.asked.tolerance_usd * 8 >= 7.0 - 1e-3


def test_whole_plans_are_indifferent_at_the_break_even_of_few_nodes():
    asked = few_nodes()
    found = worth_of(asked, 1)
    assert [one.is_taken for one in found.bids] == [True, False]
    for factor, takes in ((0.98, True), (1.02, False)):
        lot = as_one_lot(asked, offered(1), factor * 2.0)
        plan = solving(gap=1e-6)(lot)
        assert isinstance(plan, Plan)
        assert plan.usd_per_hour == pytest.approx(min(16.0, 16.0 * factor), rel=1e-6)
        assert any(one.supply == len(lot.supplies) - 1 for one in plan.held) is takes


def test_where_nodes_need_one_another_the_count_that_gains_most_is_worth_renting():
    # 45 requests/s take 23 chips, three nodes; one of maia's serves 24 of them and spares one
    # node, two spare all three, a third adds nothing.
    asked = few_nodes((45.0, 45.0))
    asked = replace(asked, supplies=(replace(asked.supplies[0], nodes_max=4),))
    found = worth_of(asked, 4, counts=(1, 2, 3))
    assert [one.value_usd_per_hour for one in found.curve] == pytest.approx([16, 48, 48, 48])
    assert [one.marginal_usd for one in found.curve] == pytest.approx([2.0, 4.0, 0.0, 0.0])
    assert found.nodes_worth(2.5) == 2
    assert found.nodes_worth(3.5) == 0


def test_a_problem_of_many_hours_is_told_in_fractions():
    assert is_small(few_nodes())
    slots = tuple(Slot(period=0, hour=hour % 24, hours=100.0) for hour in range(100))
    long = problem(slots=slots, needs=(need("web", day=(40.0, 100.0) * 50),))
    assert not is_small(long)
