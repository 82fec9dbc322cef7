"""A spike between two ticks: what waits, and how fast that grows, before its ten seconds end."""

import pytest
from msgspec.structs import replace
from scaled_world import PER_S, World, deployment

from argosy.policies.autoscaling import Decision, ModelView, scale

SLOTS = 4


def calm(start_s: float) -> World:
    """Twenty minutes at half of what its one replica sustains."""
    world = World(deployment(start_s_p95=start_s), before=[300] * 20)
    world.run(5.0, 60.0)
    return world


def crowded(world: World, after_s: float, queued: int, **changes: object) -> ModelView:
    """So many wait, so long after the last tick; the replica's slots are full."""
    last = world.told[-1].view
    full = replace(last.deployments[0], in_flight=SLOTS, slots=SLOTS, **changes)
    return replace(last, now_s=last.now_s + after_s, queued=queued, deployments=(full,))


def decided(world: World, *looks: tuple[float, int]) -> Decision:
    """The last of these looks: seconds after the tick, and how many waited."""
    state = world.state
    for after_s, queued in looks:
        state, decision = scale(state, crowded(world, after_s, queued), world.settings)
    return decision


def test_where_replicas_come_fast_what_waits_is_worked_off_sooner():
    fast, slow = (decided(calm(start_s), (10.0, 40)) for start_s in (4.0, 300.0))
    assert slow.load_now == pytest.approx(0.5 + 40 / PER_S / 60.0)
    assert fast.load_now == pytest.approx(0.5 + 40 / PER_S / 15.0, rel=0.05)


def test_what_waits_growing_tells_the_load_before_its_step_has_ended():
    world = calm(4.0)
    coming = 30.0  # a second: three replicas' load, two of which wait
    looks = [(t, round((coming - PER_S) * t)) for t in (1.0, 2.0, 3.0, 4.0)]
    told = decided(world, *looks)
    backlog = looks[-1][1] / PER_S / told.horizon_s
    assert told.load_now == pytest.approx(coming / PER_S + backlog, rel=0.02)
    assert told.targets[0].replicas >= 4


def test_a_second_or_two_tell_nothing_for_that_may_be_chance():
    world = calm(4.0)
    told = decided(world, (1.0, 20), (2.0, 40))
    assert told.load_now == pytest.approx(0.5 + 40 / PER_S / told.horizon_s)


def test_from_tick_to_tick_steps_alone_tell_as_they_did():
    told = decided(calm(4.0), (10.0, 0), (20.0, 100))
    assert told.load_now == pytest.approx(0.5 + 100 / PER_S / told.horizon_s)


def test_where_replicas_take_minutes_some_seconds_tell_nothing():
    told = decided(calm(300.0), (4.0, 0), (8.0, 100))
    assert told.load_now == pytest.approx(0.5 + 100 / PER_S / 60.0)


def test_replicas_whose_slots_come_into_use_are_not_counted_as_full():
    world = calm(4.0)
    views = [
        crowded(world, after_s, round(10.0 * after_s), ready=5) for after_s in (1.0, 2.0, 4.0, 5.0)
    ]
    state = world.state
    for view in views:
        state, told = scale(state, view, world.settings)
    backlog = 50 / PER_S / told.horizon_s
    assert told.load_now == pytest.approx(2.0 + backlog, rel=0.02)  # one is served, one waits
