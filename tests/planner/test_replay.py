"""Plans in the exact simulator: what is kept, what breaks, and what is cut then."""

from functools import cache

import pytest
from msgspec.structs import replace

from argosy.planner.plan import Conflict, Plan, Route, Run
from argosy.planner.problem import Problem
from argosy.planner.replay.cells import Ground, Lost, Replicas, Scene, cells_of, shrunk
from argosy.planner.replay.replay import (
    losses_of_interest,
    plan_until_kept,
    replay,
    replays_of,
    slots_of_interest,
)
from argosy.planner.replay.runs import How
from tests.planner.played import SURVIVES_CLOUDS, ground, problem
from tests.planner.two_clouds import solving

SHORT = How(minutes=1.0, warm_s=30.0, with_interval=False)
AWS, GCP = "aws/us-east-1", "gcp/us-east5"


@cache
def played() -> Ground:
    return ground()


def planned(asked: Problem) -> Plan:
    plan = solving()(asked)
    assert isinstance(plan, Plan)
    return plan


def by_hand(asked: Problem, near: int, far: int, *, to_near: float) -> Plan:
    """So many replicas, and a share of all requests to the near ones."""
    plan = planned(asked)
    shares = {0: to_near, 1: 1.0 - to_near}
    return replace(
        plan,
        runs=(Run(option=0, replicas=(near, near)), Run(option=1, replicas=(far, far))),
        routes=tuple(
            Route(
                need=place,
                option=option,
                requests_per_s=tuple(rate * share for rate in need.requests_per_s),
            )
            for place, need in enumerate(asked.needs)
            for option, share in shares.items()
        ),
    )


def test_rates_as_they_were_measured_are_kept_by_all_replicas_together():
    found = replay(planned(problem()), played(), (1,), how=SHORT)
    assert found.what == "as planned"
    assert found.is_kept
    assert found.share() == pytest.approx(1.0, abs=0.01)
    asked = {one.tier: one.asked_per_s for one in found.attained}
    assert asked == {"consumer": 60.0, "enterprise": 20.0}
    for one in found.attained:
        assert one.requests == pytest.approx(60 * one.asked_per_s, rel=0.1)


def test_rates_believed_too_high_break_the_slo_and_are_cut_until_it_is_kept():
    asked = problem(believed=2.0)
    found = plan_until_kept(asked, played(), solving=solving(), how=SHORT)
    assert isinstance(found.answer, Plan)
    assert found.is_kept
    first, *_, last = found.rounds
    assert not all(one.is_kept for one in first.replays)
    assert all(0.5 <= cut.times < 1.0 for cut in first.cuts)
    assert "of its gaps in time" in first.cuts[0].because
    assert last.cuts == ()
    assert last.usd_per_hour > first.usd_per_hour
    assert found.answer.problem.options[0].requests_per_s < asked.options[0].requests_per_s


def test_a_promise_that_no_rate_would_keep_is_told_and_cuts_nothing():
    fleet = played().fleet
    hasty = tuple(replace(one, slo=replace(one.slo, ttft_s_p95=0.001)) for one in fleet.models)
    impossible = replace(played(), fleet=replace(fleet, models=hasty))
    found = plan_until_kept(problem(), impossible, solving=solving(), how=SHORT)
    assert not found.is_kept
    assert len(found.rounds) == 1
    assert found.rounds[0].cuts == ()
    assert "with half the requests still" in found.rounds[0].hopeless[0]


def test_a_problem_without_a_plan_is_its_conflict():
    far = problem(needs=tuple(replace(one, regions=("own/moon",)) for one in problem().needs))
    found = plan_until_kept(far, played(), solving=solving(), how=SHORT)
    assert isinstance(found.answer, Conflict)
    assert not found.is_kept
    assert found.rounds == ()


def test_a_loss_that_was_promised_to_be_survived_is():
    plan = planned(problem(survivals=SURVIVES_CLOUDS))
    what = [one.what for one in replays_of(plan, played(), how=SHORT)]
    assert what == ["as planned", "cloud aws lost", "cloud gcp lost"]
    lost = replay(plan, played(), (1,), how=SHORT, lost=Lost("cloud", "aws"))
    assert lost.is_kept
    assert lost.share() == pytest.approx(1.0, abs=0.01)
    assert {one.region for one in lost.kept} == {GCP}


def test_a_loss_that_was_not_promised_leaves_requests_that_nobody_serves():
    plan = by_hand(problem(), 6, 1, to_near=0.8)
    lost = replay(plan, played(), (1,), how=SHORT, lost=Lost("cloud", "aws"))
    rows = {one.tier: one for one in lost.attained}
    # One replica is left, for 16 enterprise requests/s of 20 and nobody else.
    assert rows["enterprise"].unrouted_share == pytest.approx(0.2, abs=0.01)
    assert rows["consumer"].unrouted_share == pytest.approx(1.0, abs=0.01)
    assert rows["consumer"].slo_met_share == pytest.approx(0.0, abs=0.01)
    assert lost.kept == ()  # nothing was promised


def test_headroom_is_what_slower_replicas_live_on():
    usual = {"slots": (1,), "how": SHORT, "slowness": 1.5}
    full = replay(by_hand(problem(), 3, 2, to_near=0.6), played(), **usual)
    roomy = replay(planned(problem(headroom=0.5)), played(), **usual)
    assert full.what == "every step 1.5 x as long"
    assert not full.is_kept
    assert roomy.share() > 0.999
    gaps = [min(one.itl_in_time_share or 0.0 for one in of.kept) for of in (full, roomy)]
    assert gaps[0] < 0.95 < 0.97 < gaps[1]


def test_the_ends_of_the_interval_lie_around_what_is_expected():
    how = replace(SHORT, with_interval=True)
    for one in replay(planned(problem(headroom=0.1)), played(), (1,), how=how).attained:
        assert one.slo_met_share_low is not None
        assert one.slo_met_share_high is not None
        assert one.slo_met_share_low <= one.slo_met_share <= one.slo_met_share_high + 1e-9


def test_each_region_is_sent_what_the_routes_say_from_where_it_comes():
    plan = by_hand(problem(), 4, 2, to_near=0.75)
    found = cells_of(Scene(plan, played(), Replicas(played()), 1))
    near, far = found.cells
    assert (near.region, far.region) == (AWS, GCP)
    assert near.requests_per_s == pytest.approx(0.75 * 80)
    assert far.requests_per_s == pytest.approx(0.25 * 80)
    rates = {(one.origin, one.tier, one.tenant): one.rate for one in far.streams}
    assert rates == {(AWS, "enterprise", "acme"): 5.0, (GCP, "consumer", "web"): 15.0}
    assert far.scenario.round_trip_s(AWS, GCP) == 0.02
    assert [group.replicas for group in far.scenario.groups] == [2]


def test_the_way_from_the_origin_counts():
    fleet = played().fleet
    links = tuple(replace(link, round_trip_s=1.5) for link in fleet.links)
    far_away = replace(played(), fleet=replace(fleet, links=links))
    plan = by_hand(problem(), 4, 4, to_near=0.5)
    found = replay(plan, far_away, (1,), how=SHORT)
    met = {one.tier: one.slo_met_share for one in found.attained}
    # The half that is served over there is promised its first token in a second.
    assert met["enterprise"] == pytest.approx(0.5, abs=0.05)
    assert not found.is_kept


def test_a_large_cell_is_simulated_smaller_in_its_proportions():
    assert shrunk({0: 30, 1: 10}) == {0: 30, 1: 10}
    assert shrunk({0: 300, 1: 100, 2: 1}) == {0: 36, 1: 12, 2: 1}
    plan = by_hand(problem(), 960, 2, to_near=0.9)
    cell, _ = cells_of(Scene(plan, played(), Replicas(played()), 1)).cells
    assert cell.times == pytest.approx(20.0)
    assert cell.requests_per_s == pytest.approx(0.9 * 80 / 20)


def test_of_many_cells_the_largest_are_simulated():
    plan = by_hand(problem(), 5, 1, to_near=0.9)
    found = replay(plan, played(), (1,), how=replace(SHORT, cells_max=1))
    assert [one.region for one in found.kept] == [AWS]
    assert {one.unrouted_share for one in found.attained} == {0.0}


def test_the_hours_looked_at_are_peaks_and_some_between():
    plan = planned(problem(survivals=SURVIVES_CLOUDS))
    assert slots_of_interest(plan, sampled=0) in ((1,), (0, 1))
    assert 1 in slots_of_interest(plan)
    assert losses_of_interest(plan) == [(Lost("cloud", "aws"), 1), (Lost("cloud", "gcp"), 1)]


def test_the_same_seed_gives_the_same_replay():
    plan = planned(problem())
    first, again = (replay(plan, played(), (1,), how=SHORT) for _ in range(2))
    assert first == again
