"""Laws of the fluid simulator: nobody is lost on the way, more load is no better, exact agrees."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from argosy.fleet import load
from argosy.simulator.demanded import trace_of_demand
from argosy.simulator.fluid.flow import flow_of_demand
from argosy.simulator.fluid.mixes import NEAR, mixed
from argosy.simulator.fluid.running import Surfaces, simulate_fluid
from argosy.simulator.outcomes import DONE
from argosy.simulator.report import Report, report_of
from argosy.simulator.scenario import Loss, Scenario, scenario_of, with_step_times
from argosy.simulator.serving import simulate
from tests.simulator.small_fleet import STEP, TEXT

DEMAND = """
demand:
  - model: chat
    origin: aws/us-east-1
    tier: enterprise
    requests_per_s: 2
    prompt_tokens: {mean: 800, p95: 2000}
    output_tokens: {mean: 60, p95: 150}
  - model: chat
    origin: gcp/us-east5
    tier: consumer
    requests_per_s: 6
    prompt_tokens: {mean: 500, p95: 1500}
    output_tokens: {mean: 40, p95: 100}
"""
SECONDS = 120.0


@cache
def surfaces() -> Surfaces:
    return Surfaces()


@cache
def scenario() -> Scenario:
    return with_step_times(scenario_of(load.parse(TEXT + DEMAND, source="small.yaml")), STEP)


def fluid(scale: float, *losses: Loss, seconds: float = SECONDS) -> Report:
    lost = replace(scenario(), losses=losses)
    flow = flow_of_demand(lost.fleet, until_s=seconds, scale=scale)
    return report_of(simulate_fluid(lost, flow, surfaces=surfaces()), trace="")


@pytest.fixture(scope="module", autouse=True)
def measured_to_the_highest_rate():
    fluid(16.0)
    fluid(16.0, Loss(kind="cloud", name="gcp", at_s=SECONDS / 3))


@settings(max_examples=8, deadline=None)
@given(scale=st.floats(0.01, 16.0), is_lost=st.booleans())
def test_all_that_came_is_done_or_refused_and_counted_once(scale, is_lost):
    losses = (Loss(kind="cloud", name="gcp", at_s=SECONDS / 3),) if is_lost else ()
    flow = flow_of_demand(scenario().fleet, until_s=SECONDS, scale=scale)
    ran = simulate_fluid(replace(scenario(), losses=losses), flow, surfaces=surfaces())
    tally, done = ran.tally, ran.tally.outcomes[:, :, DONE]
    assert ran.requests == tally.outcomes.sum()
    assert abs(ran.requests - 8.0 * scale * SECONDS) <= 1.0
    assert (tally.ttft.sum(axis=2) == done).all()
    assert (tally.met <= done).all()
    assert abs(int(tally.over_time["arrived"].sum()) - ran.requests) <= 1
    assert abs(int(tally.over_time["done"].sum() + tally.over_time["refused"].sum())
               - ran.requests) <= 2  # fmt: skip
    assert all((counts >= 0).all() for counts in (tally.outcomes, tally.ttft, tally.tpot))
    assert all(0.0 <= group.busy_share <= 1.0 for group in report_of(ran, trace="").groups)


@settings(max_examples=6, deadline=None)
@given(scale=st.floats(0.05, 10.0), more=st.floats(1.3, 1.6))
def test_more_load_is_never_better_but_for_chance(scale, more):
    less, most = fluid(scale), fluid(scale * more)
    assert most.refused / most.requests >= less.refused / less.requests - 0.01
    assert most.slo_met_share <= less.slo_met_share + 0.02
    assert sum(group.requests for group in most.groups) >= 0.94 * sum(
        group.requests for group in less.groups
    )


@pytest.mark.parametrize("scale", [0.5, 1.5, 4.0, 7.0])
def test_it_answers_as_the_exact_simulator_does(scale):
    """Promised: 5 % of SLO and refusals, 15 % of a median, 25 % of a tail, 4 % of busy time."""
    trace = trace_of_demand(scenario().fleet, seed=1, until_s=600.0, scale=scale)
    exactly = report_of(simulate(scenario(), trace), trace="")
    told = fluid(scale, seconds=600.0)
    assert told.slo_met_share == pytest.approx(exactly.slo_met_share, abs=0.05)
    refused = [report.refused / report.requests for report in (told, exactly)]
    assert refused[0] == pytest.approx(refused[1], abs=0.05)
    for one, other in zip(told.tiers, exactly.tiers, strict=True):
        assert one.ttft_s_p50 == pytest.approx(other.ttft_s_p50, rel=0.15)
        assert one.ttft_s_p95 == pytest.approx(other.ttft_s_p95, rel=0.25)
        assert one.tpot_s_p50 == pytest.approx(other.tpot_s_p50, rel=0.15)
    # Its groups are alike, so which of them gets more is chance.
    busy = [sum(group.busy_share for group in report.groups) / 2 for report in (told, exactly)]
    assert busy[0] == pytest.approx(busy[1], abs=0.04)


def test_a_loss_costs_what_it_costs_the_exact_simulator():
    lost = Loss(kind="cloud", name="gcp", at_s=SECONDS / 3)
    trace = trace_of_demand(scenario().fleet, seed=1, until_s=SECONDS, scale=3.0)
    exactly = report_of(simulate(replace(scenario(), losses=(lost,)), trace), trace="")
    told = fluid(3.0, lost)
    assert told.slo_met_share == pytest.approx(exactly.slo_met_share, abs=0.08)
    assert told.refused / told.requests == pytest.approx(
        exactly.refused / exactly.requests, abs=0.05
    )


COUNTS = st.just(0.0) | st.floats(1e-6, 1e6)  # of requests: a denormal has no shares


@given(st.lists(st.lists(COUNTS, min_size=3, max_size=3), min_size=1, max_size=40))
def test_a_mix_lies_near_a_line_between_two_that_are_measured(rows):
    requests = np.array(rows)
    found = mixed(requests)
    made = found.mixes[found.one] * (1 - found.share[:, None])
    made += found.mixes[found.other] * found.share[:, None]
    total = requests.sum(axis=1)
    if requests.sum() == 0 or len(found.mixes) >= 8:
        return
    asked = requests[total > 0] / total[total > 0, None]
    off = np.abs(asked - made[total > 0]).sum(axis=1) / 2
    assert off.max(initial=0.0) <= NEAR + 1e-9
