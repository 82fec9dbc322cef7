"""Replicas that come and go in a simulation, case by case, mostly as a plan says."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest

from argosy.fleet import load
from argosy.policies.autoscaling import Decision, ModelView, Settings, Sustains, Target
from argosy.simulator.outcomes import DONE
from argosy.simulator.report import report_of
from argosy.simulator.scaling import PolicyScaler, at_most
from argosy.simulator.scenario import Loss
from argosy.simulator.serving import Ran, simulate
from tests.simulator.small_fleet import TEXT, small_scenario, trace_of_rows

START_S = 7.0
SCALED = TEXT.replace("nodes: {max: 9}", f"nodes: {{max: 9}}, start_s: {START_S:g}").replace(
    "pool: near, replicas: 2,", "pool: near, replicas: 2, autoscale: {min: 0, max: 4},"
)
NEAR, FAR = 1, 0  # places of the groups, by name
SUSTAINS = Sustains(prefill_tokens_per_s=9000.0, decode_tokens_per_s=600.0)


class Plan:
    """So many of chat@near from each time on."""

    every_s, age_s = 1.0, 0.5

    def __init__(self, *steps: tuple[float, int]) -> None:
        self.steps = steps
        self.views: list[ModelView] = []

    def sustains(self, group: object) -> Sustains:
        return SUSTAINS

    def decide(self, view: ModelView) -> Decision:
        self.views.append(view)
        now = [count for at_s, count in self.steps if at_s <= view.now_s - self.age_s]
        if not now:
            return Decision(targets=())
        return Decision(
            targets=(Target(deployment="chat@near", replicas=now[-1], reason="as planned"),)
        )


def run(scaler: Plan, *losses: Loss, every_s: float = 0.25, seconds: float = 60.0) -> Ran:
    """Small requests at even times."""
    scenario = msgspec.structs.replace(small_scenario(SCALED), losses=losses)
    rows = round(seconds / every_s)
    arrival_s = [every_s * (row + 1) for row in range(rows)]
    return simulate(scenario, trace_of_rows(arrival_s, [200] * rows, [20] * rows), scaler=scaler)


def standing(ran: Ran, at_s: float, place: int = NEAR) -> tuple[int, int, int]:
    """Up, starting, draining."""
    assert ran.scaled is not None
    one = [one for one in ran.scaled[place].course if one.at_s <= at_s][-1]
    return one.up, one.starting, one.draining


def test_a_replica_is_up_when_its_cold_start_is_over():
    ran = run(Plan((10.0, 3)))
    assert standing(ran, 10.4) == (2, 0, 0)
    assert standing(ran, 10.6) == (2, 1, 0)  # half a second later, as live
    assert standing(ran, 10.4 + START_S) == (2, 1, 0)
    assert standing(ran, 10.6 + START_S) == (3, 0, 0)


def test_a_replica_that_drains_ends_its_streams_and_gets_no_new_request():
    scenario = small_scenario(SCALED)
    long = trace_of_rows([1.0] * 16 + [30.0], [200] * 16 + [200], [400] * 16 + [20])
    ran = simulate(scenario, long, scaler=Plan((2.0, 0)))
    assert standing(ran, 2.6)[2] > 0
    assert standing(ran, 29.0) == (0, 0, 0)
    assert int(ran.tally.outcomes[0, 1, DONE]) == 17
    assert sum(account.killed for account in ran.accounts) == 0


def test_what_drains_is_taken_back_before_another_is_started():
    scenario = small_scenario(SCALED)
    long = trace_of_rows([1.0] * 16 + [30.0], [200] * 16 + [200], [1500] * 16 + [20])
    ran = simulate(scenario, long, scaler=Plan((2.0, 0), (4.0, 2)))
    assert ran.scaled is not None
    assert standing(ran, 5.0) == (2, 0, 0)
    assert ran.scaled[NEAR].started == 0


def test_one_that_is_starting_is_given_up_before_one_that_is_up_drains():
    ran = run(Plan((10.0, 4), (12.0, 2)))
    assert standing(ran, 13.0) == (2, 0, 0)
    assert standing(ran, 30.0) == (2, 0, 0)  # it never comes


def test_what_is_up_starting_or_draining_is_paid_and_nothing_else():
    ran = run(Plan((10.0, 3), (40.0, 1)))
    assert ran.scaled is not None
    paid_s = ran.scaled[NEAR].replica_s
    assert paid_s == pytest.approx(2 * 40.5 + 30.0 + 1 * (ran.fed_s - 40.5), abs=3.0)
    assert ran.scaled[FAR].replica_s == pytest.approx(2 * ran.fed_s)


def test_bounds_hold_whatever_is_decided():
    ran = run(Plan((5.0, 99), (30.0, -3)))
    assert ran.scaled is not None
    assert max(one.up for one in ran.scaled[NEAR].course) == 4
    assert min(one.up for one in ran.scaled[NEAR].course) == 0


def test_no_replica_starts_where_its_cloud_is_gone_until_that_is_back():
    loss = Loss(kind="cloud", name="aws", at_s=5.0, until_s=30.0)
    ran = run(Plan((10.0, 4)), loss)
    assert standing(ran, 6.0) == (0, 0, 0)
    assert standing(ran, 29.0) == (0, 2, 0)  # the two that were lost will come back
    assert standing(ran, 59.0)[0] == 4


def test_what_is_told_is_what_had_happened_before_the_look():
    plan = Plan()
    ran = run(plan, every_s=0.5)
    for view in plan.views:
        at_s = view.now_s - plan.age_s
        came = sum(one for one in view.recent.requests)
        assert came <= at_s / 0.5
        assert view.recent.until_s <= at_s
        assert view.history.until_s <= at_s
    last = [view for view in plan.views if view.now_s < ran.fed_s][-1]
    assert sum(last.recent.requests) == 2 * last.recent.until_s - 1  # one at each half second
    assert sum(last.recent.answered) > 0.9 * sum(last.recent.requests)
    assert sum(last.recent.output_tokens) == 20 * sum(last.recent.answered)


def test_without_a_scaler_bounds_change_nothing():
    plain, bounded = small_scenario(), small_scenario(SCALED)
    trace = trace_of_rows(np.arange(1, 200) * 0.05, [200] * 199, [20] * 199)
    ends = [simulate(scenario, trace).tally.ttft.tobytes() for scenario in (plain, bounded)]
    assert ends[0] == ends[1]
    assert [group.replicas for group in at_most(bounded).groups] == [2, 4]


def test_a_scaler_that_changes_nothing_gives_the_same_answers():
    text = SCALED.replace("max: 4}", "max: 2}")
    trace = trace_of_rows(np.arange(1, 400) * 0.02, [500] * 399, [40] * 399)
    plain = simulate(small_scenario(), trace)
    scaled = simulate(small_scenario(text), trace, scaler=Plan())
    assert plain.tally.ttft.tobytes() == scaled.tally.ttft.tobytes()
    assert plain.end_s == scaled.end_s
    assert plain.accounts == scaled.accounts


def policy_run(rates: Sequence[tuple[float, float]]) -> Ran:
    """Requests a second, for so long; the live policy decides."""
    arrivals, at_s = [], 0.0
    for per_s, seconds in rates:
        arrivals.append(at_s + np.arange(1, round(per_s * seconds)) / per_s)
        at_s += seconds
    arrival_s = np.concatenate(arrivals)
    rows = arrival_s.size
    scenario = small_scenario(SCALED.replace("replicas: 2, engine", "replicas: 1, engine"))
    sustains = {group.name: SUSTAINS for group in scenario.groups}
    scaler = PolicyScaler(sustains, Settings(quantile=0.9))  # of half an hour, 0.99 is the worst
    return simulate(scenario, trace_of_rows(arrival_s, [300] * rows, [30] * rows), scaler=scaler)


def test_the_live_policy_follows_a_rise_and_a_fall():
    ran = policy_run([(5.0, 900.0), (30.0, 900.0), (5.0, 1800.0)])
    quiet, busy, after = (standing(ran, at_s)[0] for at_s in (890.0, 1790.0, 3590.0))
    assert quiet < busy > after
    assert int(ran.tally.met.sum()) > 0.95 * ran.requests
    assert ran.scaled is not None
    assert all(one.reason for one in ran.scaled[NEAR].decisions)


def test_the_report_says_how_many_replicas_there_were():
    report = report_of(policy_run([(5.0, 300.0)]), trace="t")
    far, near = report.groups
    assert far.scaling is None
    assert near.scaling is not None
    assert (near.scaling.replicas_min, near.scaling.replicas_max) == (0, 4)
    assert near.scaling.replica_hours == pytest.approx(
        near.scaling.replicas_mean * 300 / 3600, rel=0.02
    )
    assert near.paid_s == pytest.approx(3600 * near.scaling.replica_hours, rel=0.01)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("min: 0, max: 4", "min: 5, max: 4"), "is more than max = 4"),
        (lambda text: text.replace("min: 0, max: 4", "min: 3, max: 4"), "not within autoscale"),
        (lambda text: text.replace("max: 4}", "max: 400}"), "its deployments want"),
    ],
)
def test_bounds_that_cannot_be_are_refused_with_what_would_work(
    change: Callable[[str], str], said: str
):
    with pytest.raises(Exception, match=said):
        load.parse(change(SCALED), source="small.yaml")
