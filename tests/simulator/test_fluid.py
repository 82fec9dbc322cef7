"""Parts of the fluid simulator: cells, flows, mixes, the course of a system that fills."""

import numpy as np
import pytest

from argosy.fleet import load
from argosy.simulator.engine import Account
from argosy.simulator.fluid.cell import cell_of
from argosy.simulator.fluid.course import Stretch, course_of
from argosy.simulator.fluid.flow import flow_of_demand, flow_of_trace
from argosy.simulator.fluid.mixes import mixed
from argosy.simulator.fluid.running import simulate_fluid
from argosy.simulator.fluid.surface import Point, Surface, blended, place_of, surface_of
from argosy.simulator.scenario import ScenarioError, scenario_of
from argosy.simulator.tally import BUCKETS
from argosy.simulator.traces import Diurnal, Lognormal, Lognormals, Stream, demand
from tests.simulator.small_fleet import TEXT, small_scenario

ASKED = """
demand:
  - model: chat
    origin: aws/us-east-1
    requests_per_s: 10
    hourly: [0, 1, 2, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    prompt_tokens: {mean: 500}
    output_tokens: {mean: 50}
"""


def test_a_cell_keeps_the_proportions_of_its_groups():
    text = TEXT.replace("replicas: 2", "replicas: 300", 1).replace("replicas: 2", "replicas: 100")
    scenario = scenario_of(load.parse(text.replace("max: 9", "max: 999"), source="many.yaml"))
    cell = cell_of(scenario, model=0, gone=frozenset(), replicas_max=64)
    assert cell is not None
    counts = [group.replicas for group in cell.scenario.groups]
    by_cloud = sorted(counts)
    assert by_cloud[1] == 3 * by_cloud[0]
    assert sum(counts) <= 64
    assert cell.times == pytest.approx(400 / sum(counts))
    assert cell.scenario.fleet.gateway.waiting_max == round(1024 / cell.times)


def test_a_small_fleet_is_its_own_cell_and_one_without_replicas_is_none():
    scenario = small_scenario()
    cell = cell_of(scenario, model=0, gone=frozenset({1}))
    assert cell is not None
    assert cell.times == 1.0
    assert cell.places == (0,)
    assert cell_of(scenario, model=0, gone=frozenset({0, 1})) is None


def test_a_flow_of_demand_counts_what_the_generator_draws_on_average():
    fleet = load.parse(TEXT + ASKED, source="asked.yaml")
    day = flow_of_demand(fleet, until_s=86_400.0, scale=2.0)
    assert day.requests.sum() == pytest.approx(2 * 10 * 9 * 3600, rel=1e-3)
    hour = flow_of_demand(fleet, until_s=3600.0, from_hour=3)
    assert hour.requests.sum() == pytest.approx(10 * 3600 * 2.75, rel=1e-3)


def test_a_flow_of_a_trace_keeps_all_its_requests_their_lengths_and_its_bursts():
    lengths = Lognormals(
        prompt=Lognormal(tokens_mean=400, tokens_p95=900),
        output=Lognormal(tokens_mean=50, tokens_p95=90),
    )
    rate = Diurnal(requests_per_s=tuple(float(20 + hour) for hour in range(24)))
    calm = Stream(rate=rate, lengths=lengths, tier="batch")
    bursty = Stream(rate=20.0, cv=4.0, lengths=lengths)
    trace = demand([calm, bursty], seed=1, until_s=2000.0)
    flow = flow_of_trace(trace, scale=3.0)
    rows = sum(window.rows for window in trace.windows())
    assert flow.requests.sum() == pytest.approx(3 * rows)
    assert {stream.tier for stream in flow.streams} == {"batch", "consumer"}
    by_tier = {stream.tier: stream for stream in flow.streams}
    assert by_tier["batch"].cv == pytest.approx(1.0, abs=0.1)
    assert by_tier["consumer"].cv == pytest.approx(4.0, rel=0.4)
    assert len(flow.edges_s) == len(flow.requests) + 1 <= BUCKETS * 64


def test_two_mixes_are_measured_where_all_others_lie_between():
    share = np.linspace(0.2, 0.4, 21)
    found = mixed(np.stack([share, 1 - share], axis=1) * 100)
    assert len(found.mixes) == 2
    assert mixed(np.array([[3.0, 1.0], [6.0, 2.0]])).mixes == pytest.approx(
        np.array([[0.75, 0.25]])
    )


def linear_surface(service_s: float, capacity: float) -> Surface:
    """Requests take `service_s` each, up to `capacity` a second; beyond it they are refused."""
    fields, bins = len(Account.__struct_fields__), 8

    def point(rate: float) -> Point:
        served = min(rate, capacity)
        is_full = rate > capacity
        return Point(
            requests_per_s=rate,
            in_system=served * service_s + 10.0 * is_full,
            queued=10.0 * is_full,
            outcomes=np.zeros((3, 6)),
            met=np.zeros(3),
            in_time=np.zeros(3),
            tokens_in=np.zeros(3),
            tokens_out=np.zeros(3),
            waited_s=np.zeros(3),
            ttft=np.zeros((3, bins)),
            tpot=np.zeros((3, bins)),
            accounts=np.zeros((1, fields)),
            standing=np.zeros((1, 3)),
            itl=np.zeros((1, bins)),
            accepted_share=served / rate,
        )

    return surface_of([point(rate) for rate in (1.0, 5.0, 10.0, 20.0, 40.0)])


def test_a_system_fills_to_what_its_rate_holds_and_empties_after_the_last():
    surface = linear_surface(service_s=4.0, capacity=10.0)
    blend = blended(surface, surface, 0.0, 2.0)
    rows = [Stretch(float(second), 1.0, 10.0, blend) for second in range(40)]
    course = course_of(rows)
    settled = place_of(blend.requests_per_s, 10.0)
    assert (np.diff(course.place_of_work[:40]) >= -1e-9).all()
    assert course.place_of_work[39] == pytest.approx(settled, rel=1e-3)
    # A fluid gathers as 1 - exp(-t / 4 s).
    assert course.place_of_work[3] == pytest.approx(
        place_of(blend.in_system, 40.0 * (1 - np.exp(-3.5 / 4.0))), rel=0.05
    )
    assert len(course.stretches) > 40
    assert course.place_of_work[-1] < 0.5
    assert course.lost_share.max() == 0.0


def test_an_empty_fleet_loses_what_it_was_answering():
    surface = linear_surface(service_s=4.0, capacity=10.0)
    blend = blended(surface, surface, 0.0, 1.0)
    rows = [
        Stretch(float(second), 1.0, 5.0, blend if second < 20 else None) for second in range(30)
    ]
    course = course_of(rows)
    assert course.lost_share.sum() * 5.0 == pytest.approx(20.0, rel=0.15)  # in the system then


def test_a_model_that_the_fleet_does_not_have_is_refused():
    fleet = load.parse(TEXT + ASKED, source="asked.yaml")
    flow = flow_of_demand(fleet, until_s=60.0)
    stranger = type(flow)(
        streams=tuple(
            type(one)(rate=1.0, lengths=one.lengths, model="other") for one in flow.streams
        ),
        edges_s=flow.edges_s,
        requests=flow.requests,
        found="",
        block_tokens=None,
    )
    with pytest.raises(ScenarioError, match="asks for other; this fleet has chat"):
        simulate_fluid(small_scenario(), stranger)
