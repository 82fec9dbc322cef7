"""Naive plans: what they cost by hand, and what they say that they cannot keep."""

import pytest
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Credit, Training
from argosy.planner.questions.baselines import (
    baselines,
    cheapest_chips,
    cost_minimal,
    peak_on_demand,
    single_cloud,
)
from argosy.planner.questions.spent import spent, unused_credit_usd
from tests.planner.two_clouds import (
    DAYS,
    SURVIVES_CLOUDS,
    need,
    option,
    problem,
    solving,
    supply,
)


def promises(baseline) -> set[str]:
    return {given.promise for given in baseline.gives_up}


def test_the_cheapest_cloud_that_serves_all_of_it_alone_is_taken_and_the_others_are_told():
    one = single_cloud(problem(), solving())
    # v6e serves a request/s for 1.5 USD, 70 of them on average.
    assert one.name == "gcp alone"
    assert one.usd_per_hour == pytest.approx(105.0)
    assert one.gives_up == ()
    assert any("azure alone: 140.00 USD/h" in remark for remark in one.remarks)
    assert any("own alone" in remark and "stock" in remark for remark in one.remarks)


def test_one_cloud_does_not_survive_its_loss_and_says_so():
    asked = problem(survivals=SURVIVES_CLOUDS)
    one = single_cloud(asked, solving())
    assert promises(one) == {"survive"}
    assert one.gives_up[0].text == "surviving any one cloud lost (chat)"
    assert one.usd_per_hour == pytest.approx(105.0)


def test_a_cloud_outside_of_the_residency_gives_it_up_and_comes_last():
    at_home = problem(needs=(need("web"), need("acme", day=(4.0, 4.0), regions=("azure/west",))))
    one = single_cloud(at_home, solving())
    assert one.name == "azure alone"
    assert promises(one) == set()
    assert any("gcp alone" in remark and "residency" in remark for remark in one.remarks)


def test_a_cloud_without_an_option_for_a_model_cannot_serve_and_names_the_need():
    other = replace(option(0, 1.0), model="large")
    asked = problem(
        options=(*problem().options, other),
        needs=(need("web"), need("research", model="large", day=(1.0, 1.0))),
    )
    one = single_cloud(asked, solving())
    assert one.name == "azure alone"
    [told] = [remark for remark in one.remarks if remark.startswith("gcp alone")]
    assert "cannot serve it" in told
    assert "research" in told


def test_the_chip_with_the_cheapest_hour_is_not_the_one_with_the_cheapest_request():
    by_hour, by_request = cheapest_chips(problem(), solving())
    assert by_hour.name == "TPU-v6e alone (cheapest per chip-hour, 1.50 USD)"
    assert by_hour.usd_per_hour == pytest.approx(105.0)
    assert by_request.name == "MI300X alone (cheapest per request of this demand)"
    assert by_request.usd_per_hour == pytest.approx(100.0)
    assert by_request.gives_up[0].text == "the stock of own-mi300x (50 nodes, 20 exist)"


def test_a_chip_that_cannot_serve_all_is_passed_over_and_named():
    slow = tuple(replace(one, requests_per_s=(0.0,)) if one.pool == 1 else one
                 for one in problem().options)  # fmt: skip
    first, *_ = cheapest_chips(problem(options=slow), solving())
    assert first.name.startswith("MI300X alone")
    assert "cannot serve all of it alone: TPU-v6e" in first.remarks


def test_the_peak_on_demand_pays_the_busiest_hour_all_day():
    alone = problem(supplies=(supply(1, "on_demand", 1.5), supply(1, "reserved", 1.0)))
    one = peak_on_demand(alone, solving())
    assert one.usd_per_hour == pytest.approx(150.0)
    assert one.gives_up == ()


def test_the_cost_minimal_plan_keeps_no_headroom_and_survives_nothing():
    asked = problem(headroom=0.5, survivals=SURVIVES_CLOUDS)
    full = solving()(asked)
    one = cost_minimal(asked, solving())
    assert isinstance(full, Plan)
    assert one.usd_per_hour == pytest.approx(85.0)
    assert full.usd_per_hour > 1.4 * 85.0
    assert promises(one) == {"headroom", "survive"}


def test_contracts_that_are_signed_elsewhere_are_not_paid_in_it_and_that_is_said():
    signed = supply(0, "reserved", 3.0, nodes_min=10, nodes_max=10, is_signed=True)
    asked = problem(supplies=(*problem().supplies, signed))
    one = single_cloud(asked, solving())
    assert one.name == "gcp alone"
    assert one.remarks[0] == "signed contracts of 30.00 USD/h are not paid in it"


def test_a_training_run_without_a_chip_in_the_cloud_is_given_up_and_counts_against_it():
    run = Training(name="next", tokens=1e9, tokens_per_chip_s={0: 1e4}, periods=(0,))
    one = single_cloud(problem(trainings=(run,)), solving())
    assert one.name == "azure alone"
    assert promises(one) == set()
    [told] = [remark for remark in one.remarks if remark.startswith("gcp alone")]
    assert told == "gcp alone: 105.00 USD/h at least, without training next"


def test_where_no_cloud_can_serve_alone_that_is_the_answer():
    asked = problem(
        options=(replace(option(0, 2.0), model="a"), replace(option(1, 1.0), model="b")),
        needs=(need("one", model="a"), need("two", model="b")),
    )
    one = single_cloud(asked, solving())
    assert isinstance(one.answer, Conflict)
    assert one.usd_per_hour is None
    assert len(one.remarks) == 2
    [chip] = cheapest_chips(asked, solving())
    assert isinstance(chip.answer, Conflict)
    assert "TPU-v6e: not one" in chip.answer.constraints


def test_no_baseline_that_gives_nothing_up_is_cheaper_than_the_plan():
    asked = problem(survivals=SURVIVES_CLOUDS, headroom=0.2)
    plan = solving()(asked)
    assert isinstance(plan, Plan)
    for one in baselines(asked, solving()):
        assert one.gives_up or one.usd_per_hour is None or (
            one.usd_per_hour >= plan.bound_usd / asked.hours - 1e-6
        )  # fmt: skip


def test_what_is_spent_by_pool_adds_up_to_the_plan():
    credit = Credit(
        contract="gcp-2027",
        supplies=(3,),
        usd_per_unit=10.0 * DAYS * 24,
        units_min=3,
        units_max=3,
        periods=(0,),
        is_signed=True,
    )
    cheap = supply(1, "committed_spend", 1.2, contract="gcp-2027")
    asked = problem(supplies=(*problem().supplies, cheap), credits=(credit,))
    plan = solving()(asked)
    assert isinstance(plan, Plan)
    total = sum(one.usd for one in spent(plan)) + unused_credit_usd(plan)
    assert total == pytest.approx(plan.money.total, rel=1e-6)
