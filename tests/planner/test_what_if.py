"""What if: changed problems by hand, what binds first, and what relieves it."""

import pytest
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Caps, Period, Slot
from argosy.planner.questions.changes import (
    Energy,
    Gone,
    Growth,
    NoSuchNameError,
    Priced,
    Scarce,
    Users,
    changed,
    text_of,
)
from argosy.planner.questions.what_if import WhatIf, what_if
from tests.planner.two_clouds import SURVIVES_CLOUDS, need, problem, solving, supply


def answered(change, asked=None) -> WhatIf:
    asked = problem() if asked is None else asked
    before = solving()(asked)
    assert isinstance(before, Plan)
    return what_if(asked, change, before=before, solving=solving())


def test_ten_times_the_users_first_run_out_of_the_cheapest_chips():
    found = answered(Users(times=10.0))
    assert found.change == "10 x the users"
    assert found.first_bound is not None
    assert found.first_bound.constraint == "gcp-v6e: all 400 nodes there are"
    # 400 v6e and 20 of one's own serve 440 requests/s, 4.4 times the day.
    assert 4.4 <= float(found.first_bound.at.split()[0]) <= 4.4 * 10 ** (1 / 32)
    assert found.possible_until is None
    best = found.reliefs[0]
    assert best.text == "40 more nodes of gcp-v6e"
    # By day they spare 20 H100 at 4 USD for 40 v6e at 1.5.
    assert best.saves_usd_per_hour == pytest.approx((20 * 4.0 - 40 * 1.5) / 2, rel=1e-3)


def test_beyond_all_stock_it_says_how_far_there_is_a_plan_and_what_would_help():
    found = answered(Users(times=20.0))
    assert isinstance(found.answer, Conflict)
    assert found.usd_per_hour is None
    assert found.more_usd_per_hour is None
    # 800 + 400 + 40 requests/s are all there is.
    assert found.possible_until is not None
    assert 12.4 / 20 ** (1 / 32) <= float(found.possible_until.split()[0]) <= 12.4
    texts = [one.text for one in found.reliefs]
    assert "more nodes of gcp-v6e" in texts[0]
    assert all(one.saves_usd_per_hour is None for one in found.reliefs)


def test_a_price_moves_the_plan_and_signed_contracts_hold_theirs():
    signed = supply(1, "reserved", 1.0, nodes_min=10, nodes_max=10, is_signed=True)
    asked = problem(supplies=(*problem().supplies, signed))
    found = answered(Priced(name="TPU-v6e", times=1.1), asked)
    assert found.remarks == ("signed, so at its price: gcp-v6e reserved",)
    assert found.more_usd_per_hour is not None
    assert found.more_usd_per_hour > 0


def test_a_shortage_takes_stock_but_not_what_is_held():
    signed = supply(1, "reserved", 1.0, nodes_min=50, nodes_max=50, is_signed=True)
    asked = problem(supplies=(*problem().supplies, signed))
    before = solving()(asked)
    assert isinstance(before, Plan)
    then = changed(asked, Scarce(chip="TPU-v6e", share=0.9), before=before).problem
    assert then.pools[1].nodes_max == 50
    assert then.supplies[1].nodes_max == 40
    assert then.supplies[3].nodes_max == 50


def test_electricity_is_paid_by_sites_of_ones_own_at_what_their_chips_draw():
    found = answered(Energy(usd_per_kwh=0.1))
    # 20 chips, always at work, of 700 W and a PUE of 1.25.
    assert found.more_usd_per_hour == pytest.approx(20 * 0.7 * 1.25 * 0.1, rel=1e-3)
    assert found.remarks == ("own-mi300x: 700 W a chip as it was used",)


def test_a_cloud_that_is_gone_leaves_the_others_and_its_contracts_unpaid():
    signed = supply(1, "reserved", 1.0, nodes_min=10, nodes_max=10, is_signed=True)
    asked = problem(supplies=(*problem().supplies, signed))
    found = answered(Gone(kind="cloud", name="gcp"), asked)
    # One's own 20 and by day 30 H100.
    assert found.usd_per_hour == pytest.approx(40.0 + 30 * 4.0 / 2)
    assert found.remarks[0].startswith("10.00 USD/h are signed with it and no longer paid")


def test_what_is_gone_for_good_breaks_residency_and_the_relief_is_to_allow_more():
    asked = problem(needs=(need("web", regions=("gcp/east",)),))
    found = answered(Gone(kind="region", name="gcp/east"), asked)
    assert isinstance(found.answer, Conflict)
    assert found.first_bound is not None
    assert any("whatever its residency" in one.text for one in found.reliefs)


def test_a_promise_that_is_dear_is_offered_as_a_relief():
    found = answered(Users(times=1.5), problem(survivals=SURVIVES_CLOUDS, headroom=0.2))
    texts = {one.text: one for one in found.reliefs}
    bold = texts["not surviving the loss of any one cloud"]
    assert bold.saves_usd_per_hour is not None
    assert bold.saves_usd_per_hour > 0
    # While a cloud is lost no headroom is asked for, and that is the dearer hour.
    assert "headroom 10% instead of 20%" not in texts


def test_ones_own_site_is_named_when_it_is_full():
    # Of 30 chips the 20 that the night needs are held.
    more = (*problem().supplies[:2], supply(2, "own", 2.0, nodes_max=30))
    found = answered(Users(times=2.0), problem(supplies=more))
    assert found.first_bound is not None
    assert found.first_bound.constraint == "own-mi300x: all 30 nodes there are"
    assert found.reliefs[0].text == "3 more nodes of own-mi300x"


def test_a_cap_that_binds_first_is_named_and_lifting_it_relieves():
    # H100 and MI300X serve 2 requests/s of 700 W, v6e one: less energy is dearer.
    few = (*problem().supplies[:2], supply(2, "own", 2.0, nodes_max=10))
    capped = problem(supplies=few, caps=Caps(energy_kwh_per_day=1_300.0))
    found = answered(Users(times=1.5), capped)
    assert found.first_bound is not None
    assert found.first_bound.constraint == "1,300 kWh a day"
    assert found.reliefs[0].text == "no cap on energy"


def test_growth_compounds_from_the_first_period_to_the_middle_of_each():
    asked = problem()
    two = replace(
        asked,
        periods=(
            Period(name="2027", begin="2027-01-01", days=365.0),
            Period(name="2028", begin="2028-01-01", days=366.0),
        ),
        slots=tuple(
            Slot(period=period, hour=hour, hours=4380.0) for period in (0, 1) for hour in (0, 12)
        ),
        supplies=tuple(replace(one, periods=(0, 1)) for one in asked.supplies),
        needs=(need("web", day=(40.0, 100.0, 40.0, 100.0)),),
    )
    before = solving()(two)
    assert isinstance(before, Plan)
    then = changed(two, Growth(share_per_year=1.0), before=before).problem
    first, _, second, _ = then.needs[0].requests_per_s
    assert first / 40.0 == pytest.approx(2**0.5, rel=1e-2)
    assert second / 40.0 == pytest.approx(2**1.5, rel=1e-2)


def test_a_name_that_is_not_there_is_refused_with_those_that_are():
    before = solving()(problem())
    assert isinstance(before, Plan)
    with pytest.raises(NoSuchNameError, match="It has: H100, MI300X, TPU-v6e"):
        changed(problem(), Scarce(chip="H101", share=0.5), before=before)
    assert text_of(Scarce(chip="H100", share=0.5)) == "50% less H100 to be had"


def test_what_a_relief_saves_is_off_what_the_changed_plan_costs():
    found = answered(Users(times=10.0))
    assert found.usd_per_hour is not None
    for one in found.reliefs:
        assert one.saves_usd_per_hour is not None
        assert one.usd_per_hour + one.saves_usd_per_hour == pytest.approx(found.usd_per_hour)
        assert not one.is_at_least


def test_pools_that_are_used_otherwise_are_told():
    moved = {one.pool: one for one in answered(Gone(kind="cloud", name="gcp")).moved}
    # 60 v6e by day make room for 30 H100.
    assert moved["gcp-v6e"].chips_mean_before == pytest.approx(30.0)
    assert moved["gcp-v6e"].chips_mean_after == 0.0
    assert moved["azure-h100"].chips_mean_after == pytest.approx(15.0)
    assert moved["azure-h100"].usd_per_hour_after == pytest.approx(15.0 * 4.0)
    assert "own-mi300x" not in moved


@pytest.mark.parametrize("hours", [3, 90])
def test_the_first_relief_is_a_plan_and_none_that_is_listed_costs_less(hours: int):
    # With more hours the problem is too large for whole numbers all at once.
    slots = tuple(Slot(period=0, hour=hour % 24, hours=8760 / hours) for hour in range(hours))
    day = tuple(40.0 + 30.0 * (place % 3) for place in range(hours))
    asked = problem(slots=slots, needs=(need("web", day=day),), survivals=SURVIVES_CLOUDS)
    before = solving(gap=0.02)(asked)
    assert isinstance(before, Plan)
    found = what_if(asked, Users(times=6.0), before=before, solving=solving(gap=0.02))
    assert isinstance(found.answer, Conflict)
    costs = [one.usd_per_hour for one in found.reliefs]
    assert costs == sorted(costs)
    assert not found.reliefs[0].is_at_least
    assert len(costs) > 1
    assert {one.is_at_least for one in found.reliefs[1:]} == {hours > 3}
    spent = sum(one.usd_per_hour_after - one.usd_per_hour_before for one in found.moved)
    assert before.usd_per_hour + spent == pytest.approx(costs[0], rel=1e-3)
