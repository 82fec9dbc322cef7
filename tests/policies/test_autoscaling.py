"""What the autoscaling rule decides, case by case."""

import math

import pytest

from argosy.policies.autoscaling import Event, Settings, forecast, loads
from argosy.policies.autoscaling.forecast import Loads
from tests.policies.scaled_world import (
    OUTPUT_TOKENS,
    PER_S,
    PROMPT_TOKENS,
    SUSTAINS,
    World,
    demand_of,
    deployment,
)

MINUTE_S, HOUR_S = 60.0, 3600.0
SPARE = Settings().utilisation_max


def test_load_is_how_many_replicas_a_demand_keeps_busy():
    work = loads.Work(prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS)
    demand = demand_of([600] * 5, MINUTE_S)
    assert loads.load_of(demand, 0, 5, work, SUSTAINS) == pytest.approx(600 / MINUTE_S / PER_S)
    assert loads.batch_load_of(demand, 0, 5, work, SUSTAINS) == 0.0


def test_a_steady_demand_gets_its_replicas_and_a_little_to_spare():
    world = World(deployment(ready=6))
    world.run(45.0, 2 * HOUR_S)
    last = world.told[-1].decision
    assert last.load_now == pytest.approx(4.5)
    assert last.load_forecast == pytest.approx(4.5, rel=0.01)
    assert world.replicas[-1] == math.ceil(4.5 / SPARE)


def test_what_ends_in_silence_says_why_in_words():
    world = World(deployment(ready=2, min=0))
    world.run(10.0, 600.0)
    reason = world.told[-1].decision.targets[0].reason
    assert "replicas' load now" in reason
    assert "headroom" in reason
    world.run(0.0, 2000.0)
    assert world.replicas[-1] == 0
    assert "nobody asked" in world.told[-1].decision.targets[0].reason


def test_the_last_replica_stays_while_somebody_asked_lately():
    world = World(deployment(ready=2, min=0))
    world.run(10.0, 600.0)
    told = world.run(0.0, Settings().idle_s - 60.0)
    assert min(one.decision.targets[0].replicas for one in told) >= 1


def test_from_zero_a_request_that_waits_brings_one_back():
    world = World(deployment(ready=0, min=0))
    world.run(0.0, 2000.0)
    assert world.replicas[-1] == 0
    world.view["queued"] = 1
    world.run(0.0, 10.0)
    assert world.replicas[-1] >= 1


def test_a_spike_is_met_at_the_tick_that_sees_it():
    world = World(deployment(ready=3))
    world.run(20.0, HOUR_S)
    before = world.replicas[-1]
    world.run(100.0, 30.0)
    assert before < 5
    assert world.replicas[-1] >= math.ceil(100.0 / PER_S)
    assert world.told[-1].decision.is_panic


def test_replicas_are_there_before_a_rise_that_came_every_day():
    day = [1200] * 240 + [3600] * 120 + [1200] * 1080  # requests by minute
    before = day * 2 + [1200] * 200
    world = World(deployment(ready=4, start_s_p95=600.0), before=before)
    world.run(20.0, 39.5 * MINUTE_S)
    there = world.deployments[0]  # half a minute before it comes
    assert there.ready >= 5 > math.ceil(2.0 / SPARE)
    assert there.ready + len(there.pending) >= 6


def test_an_event_of_the_calendar_is_provided_for_before_it_begins():
    world = World(deployment(ready=3), settings=Settings())
    world.run(20.0, HOUR_S)
    quiet = world.replicas[-1]
    world.view["events"] = (
        Event(name="launch", from_s=HOUR_S + 90.0, until_s=3 * HOUR_S, times=3.0),
    )
    world.run(20.0, 30.0)
    assert world.replicas[-1] >= 2 * quiet


def test_what_batch_work_uses_is_the_headroom_and_is_not_added_to_it():
    alone, shared = World(deployment(ready=8)), World(deployment(ready=8))
    for world, batch in ((alone, 0.0), (shared, 20.0)):
        for _ in range(3):
            world.run(30.0, 1200.0, batch_per_s=batch)
            world.run(50.0, 300.0, batch_per_s=batch)
    # The jump of two replicas is there anyway; two replicas of batch work live in it.
    assert shared.told[-100].decision.headroom == pytest.approx(
        alone.told[-100].decision.headroom, rel=0.2
    )
    assert max(shared.replicas[-300:]) <= max(alone.replicas[-300:]) + 1


def test_batch_work_beyond_the_headroom_gets_replicas_of_its_own():
    world = World(deployment(ready=8))
    world.run(30.0, HOUR_S, batch_per_s=60.0)
    assert world.replicas[-1] == math.ceil((3.0 + 6.0) / SPARE)


def test_a_domain_that_is_to_be_survived_is_there_twice_over():
    near = deployment("chat@near", ready=3, domains=(("cloud", "aws"),))
    far = deployment("chat@far", ready=3, domains=(("cloud", "gcp"),))
    plain, safe = World(near, far), World(near, far, survive=("cloud",))
    for world in (plain, safe):
        world.run(40.0, HOUR_S)
    of_plain = [one.replicas for one in plain.told[-1].decision.targets]
    of_safe = [one.replicas for one in safe.told[-1].decision.targets]
    assert sum(of_plain) == 5
    assert min(of_safe) >= 4  # either of them alone carries the load


def test_the_cheapest_deployment_grows_and_the_dearest_shrinks():
    cheap = deployment("chat@cheap", ready=1, price_usd_per_hour=2.0, max=6)
    dear = deployment("chat@dear", ready=5, price_usd_per_hour=9.0)
    world = World(cheap, dear)
    world.run(50.0, 600.0)
    world.run(90.0, HOUR_S)
    assert [one.replicas for one in world.told[-1].decision.targets] == [6, 4]
    world.run(40.0, 2 * HOUR_S)
    counts = [one.replicas for one in world.told[-1].decision.targets]
    assert counts[1] == 1


def test_replicas_that_never_come_expire_and_the_next_deployment_is_asked():
    gone = deployment("chat@gone", ready=1, price_usd_per_hour=1.0)
    there = deployment("chat@there", ready=1, price_usd_per_hour=5.0)
    world = World(gone, there, fails=["chat@gone"])
    world.run(60.0, HOUR_S)
    assert world.deployments[1].ready >= 5
    assert not world.deployments[0].pending or world.deployments[0].pending[0] > HOUR_S - 400.0


def test_pending_replicas_count_so_that_none_is_asked_for_twice():
    world = World(deployment(ready=2, start_s_p95=300.0))
    world.run(20.0, 1200.0)
    world.run(80.0, 250.0)
    assert max(world.replicas) <= math.ceil(8.0 * 1.1 / SPARE) + 1


def test_a_week_ago_says_more_than_yesterday():
    day = [1.0] * 700 + [3.0] * 740  # minutes: busy from 11:40 on
    sunday = [1.0] * 1440
    values = (sunday + 6 * day) * 2
    known = Loads(step_s=MINUTE_S, until_s=len(values) * MINUTE_S, values=tuple(values))
    at_step = len(values) + 695  # a Sunday, five minutes before the week days' rise
    longer = Loads(step_s=MINUTE_S, until_s=at_step * MINUTE_S, values=known.values + (1.0,) * 695)
    assert forecast.points(longer, at_step=at_step, ahead_steps=15)[3] == pytest.approx(1.0)
    busy = Loads(step_s=MINUTE_S, until_s=0.0, values=known.values[: 10 * 1440 + 695])
    ahead = forecast.points(busy, at_step=10 * 1440 + 695, ahead_steps=15)[3]
    assert ahead > 2.0


def test_the_way_that_did_best_is_believed():
    rising = [10.0 + 0.5 * minute for minute in range(120)]
    known = Loads(step_s=MINUTE_S, until_s=0.0, values=tuple(rising))
    steps = range(40, 120)
    made = [forecast.points(known, at_step=step - 5, ahead_steps=5) for step in steps]
    way = forecast.believed(made, [rising[step] for step in steps], 0.9, 1)
    assert forecast.WAYS[way] == "their line"


def test_a_quantile_covers_its_share_of_the_errors():
    errors = [place / 100 for place in range(-50, 51)]
    assert forecast.quantile_of(errors, 0.9) == pytest.approx(0.4)
    assert forecast.quantile_of([], 0.95) > 0.2  # until errors were seen, they are assumed
