"""Whatever is asked and whatever fails: bounds, removals, panics, and nobody is lost."""

import math

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.policies.autoscaling import ModelView, ScaleState, Settings, Sustains, scale
from argosy.simulator.engine.state import DEAD
from argosy.simulator.outcomes import UNSERVED
from argosy.simulator.scaling import PolicyScaler
from argosy.simulator.scenario import Loss
from argosy.simulator.serving import Run
from tests.policies.scaled_world import PER_S, World, deployment
from tests.simulator.small_fleet import TEXT, small_scenario, trace_of_rows

RULE = Settings()
spells = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 3.0, 9.0, 30.0, 120.0, 700.0]),  # requests a second
        st.sampled_from([30.0, 200.0, 900.0]),  # for so long
        st.sampled_from([0.0, 0.0, 25.0]),  # of the batch tier beside them
    ),
    min_size=1,
    max_size=4,
)
places = st.lists(
    st.builds(
        lambda low, more, start_s, ready, price, cloud: deployment(
            min=low, max=max(1, low + more), ready=min(max(ready, low), max(1, low + more)),
            start_s_p95=start_s, price_usd_per_hour=price, domains=(("cloud", cloud),),
        ),
        st.integers(0, 3), st.integers(0, 12), st.sampled_from([15.0, 120.0, 600.0]),
        st.integers(0, 15), st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from(["aws", "gcp"]),
    ),
    min_size=1,
    max_size=3,
)  # fmt: skip
worlds = st.builds(
    lambda views, fails, survive: World(
        *(msgspec.structs.replace(view, name=f"chat@{place}") for place, view in enumerate(views)),
        fails=[f"chat@{place}" for place in fails],
        survive=("cloud",) if survive else (),
    ),
    places,
    st.sets(st.integers(0, 2), max_size=1),
    st.booleans(),
)


def run(world: World, asked) -> World:
    for per_s, seconds, batch in asked:
        world.run(per_s, seconds, batch_per_s=batch)
    return world


@settings(max_examples=15, deadline=None)
@given(world=worlds, asked=spells)
def test_no_target_is_ever_beyond_its_bounds(world, asked):
    for told in run(world, asked).told:
        for view, target in zip(told.view.deployments, told.decision.targets, strict=True):
            assert view.min <= target.replicas <= view.max
            assert target.reason


@settings(max_examples=15, deadline=None)
@given(world=worlds, asked=spells)
def test_no_more_than_the_cap_is_removed_in_an_interval(world, asked):
    """Of ready replicas; one at least may go. What waits and has expired is nobody's loss."""
    ticks = run(world, asked).told
    for place in range(len(ticks[0].view.deployments)):
        gone: list[tuple[float, int]] = []
        for told in ticks:
            view, target = told.view.deployments[place], told.decision.targets[place]
            since_s = told.view.now_s - RULE.removal_interval_s
            gone = [one for one in gone if one[0] > since_s]
            before = view.ready + sum(count for _, count in gone)
            gone.append((told.view.now_s, max(0, view.ready - target.replicas)))
            most = max(1, math.floor(RULE.removal_share_max * before))
            assert sum(count for _, count in gone) <= most


@settings(max_examples=15, deadline=None)
@given(world=worlds, asked=spells)
def test_a_panic_never_lowers(world, asked):
    for told in run(world, asked).told:
        if not told.decision.is_panic:
            continue
        for view, target in zip(told.view.deployments, told.decision.targets, strict=True):
            assert target.replicas >= view.ready


@settings(max_examples=6, deadline=None)
@given(
    per_s=st.floats(0.3, 300.0),
    start_s=st.sampled_from([15.0, 120.0, 600.0]),
    ready=st.integers(1, 60),
    quantile=st.sampled_from([0.5, 0.9, 0.99]),
)
def test_constant_demand_is_served_by_a_constant_number(per_s, start_s, ready, quantile):
    world = World(
        deployment(ready=ready, start_s_p95=start_s, max=60), settings=Settings(quantile=quantile)
    )
    world.run(per_s, 5400.0)  # of an hour, errors are assumed
    counted = round(per_s * 10.0) / 10.0  # whole requests a tick
    settled = world.replicas[-120:]
    assert len(set(settled)) == 1
    assert settled[0] == min(60, max(1, math.ceil(counted / PER_S / RULE.utilisation_max - 1e-3)))


@settings(max_examples=10, deadline=None)
@given(world=worlds, asked=spells)
def test_views_read_back_from_json_lead_to_the_same_decisions(world, asked):
    """What live records is enough to decide again: nothing else is looked at, nothing is drawn."""
    state = ScaleState()
    for told in run(world, asked).told[:200]:
        view = msgspec.json.decode(msgspec.json.encode(told.view), type=ModelView)
        state = msgspec.json.decode(msgspec.json.encode(state), type=ScaleState)
        state, decision = scale(state, view, world.settings)
        assert decision == told.decision


# In the simulator.

SCALED = (
    TEXT.replace("nodes: {max: 9}", "nodes: {max: 9}, start_s: 7")
    .replace("pool: near, replicas: 2,", "pool: near, replicas: 2, autoscale: {min: 0, max: 4},")
    .replace("pool: far, replicas: 2,", "pool: far, replicas: 1, autoscale: {min: 1, max: 3},")
)
NEAR = Sustains(prefill_tokens_per_s=9000.0, decode_tokens_per_s=600.0)
QUICK = Settings(
    decision_s=2.0, burst_s=10.0, down_s_min=10.0, down_s_max=10.0, removal_interval_s=4.0,
    panic_hold_s=4.0, idle_s=60.0,
)  # fmt: skip
demands = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.01, 0.1, 1.0, 20.0]),  # gap
        st.sampled_from([1, 64, 700, 3000]),
        st.sampled_from([1, 16, 250]),
        st.integers(0, 1),  # enterprise, consumer
    ),
    min_size=1,
    max_size=50,
)
losses = st.lists(
    st.builds(
        lambda cloud, at_s, for_s: Loss(
            kind="cloud", name=cloud, at_s=at_s, until_s=None if for_s is None else at_s + for_s
        ),
        st.sampled_from(["aws", "gcp"]),
        st.sampled_from([0.0, 5.0, 33.0]),
        st.none() | st.sampled_from([3.0, 40.0]),
    ),
    max_size=2,
)


def simulated(asked, lost, *, rows: int = 65_536):
    scenario = msgspec.structs.replace(small_scenario(SCALED), losses=tuple(lost))
    arrival_s = np.cumsum([one[0] for one in asked])
    trace = trace_of_rows(
        arrival_s, [one[1] for one in asked], [one[2] for one in asked], [one[3] for one in asked]
    )
    scaler = PolicyScaler({group.name: NEAR for group in scenario.groups}, QUICK)
    run_ = Run(scenario, trace, scaler=scaler)
    for window in trace.windows(rows):
        run_.feed(window)
    return run_, run_.finish()


@settings(max_examples=10, deadline=None)
@given(asked=demands, lost=losses)
def test_with_scaling_too_each_request_has_one_outcome_and_nothing_is_left_over(asked, lost):
    run_, ran = simulated(asked, lost)
    assert int(ran.tally.outcomes.sum()) == len(asked) == ran.requests
    assert not ran.tally.outcomes[:, :, UNSERVED].any()
    engine, gateway, book = run_.sim
    assert int(book.marks[0]["alive"]) == 0
    assert not gateway.queues.lines["waiting"].any()
    assert not gateway.queues.lines["in_flight"].any()
    assert not gateway.views["requests_in_flight"].any()
    assert not gateway.views["prefill_bytes_queued"].any()
    alive = engine.replicas["phase"] != DEAD
    assert (engine.replicas["blocks_free"] == engine.replicas["blocks"]).all()
    assert gateway.models[0]["listening"] <= alive.sum()
    assert ran.scaled is not None
    for group, scaled in zip(ran.scenario.groups, ran.scaled, strict=True):
        assert 0.0 <= scaled.replica_s <= group.replicas * ran.fed_s + 1e-6
        for one in scaled.course:
            assert one.up + one.starting + one.draining <= group.replicas
        if not lost:
            assert all(one.up + one.starting >= group.autoscale.min for one in scaled.course)


@settings(max_examples=5, deadline=None)
@given(asked=demands, lost=losses)
def test_with_scaling_too_windows_change_nothing(asked, lost):
    told = [
        (
            ran.tally.outcomes.tolist(),
            ran.tally.ttft.tobytes(),
            msgspec.json.encode(ran.scaled),
            ran.end_s,
        )
        for ran in (simulated(asked, lost, rows=rows)[1] for rows in (65_536, 65_536, 7, 1))
    ]
    assert told[0] == told[1] == told[2] == told[3]
