"""The live autoscaler and the simulator's take the same decisions from the same hour.

An hour of a recorded trace in three tiers, two clouds one of which is lost for a while, replicas
that come and go, and a gateway process that dies. An alteration of one side alone must show.
"""

import pytest
from msgspec.structs import replace
from scaling_hour import SUSTAINS, Hour, Told, live_fleet, simulated

from argosy.control.scaling import demands
from argosy.fleet.demand import Nodes
from argosy.policies.autoscaling import Decision, ModelView, Settings
from argosy.simulator import seen


@pytest.fixture(scope="module")
def hour() -> Hour:
    return simulated()


@pytest.fixture(scope="module")
def told(hour) -> Told:
    return Told(hour).run()


@pytest.fixture(scope="module")
def begin(hour) -> Hour:
    """Its first twenty minutes: what is altered shows soon."""
    return Hour(hour.arrivals, hour.looks[:120])


def said(hour: Hour) -> list[Decision]:
    return [look.decision for look in hour.looks]


def comparable(view: ModelView) -> ModelView:
    """Without what nobody tells live, and what the policy reads but once."""
    deployments = tuple(replace(one, kv_used_share=None) for one in view.deployments)
    history = view.history
    late = {name: getattr(history, name)[-demands.RECENT_STEPS :] for name in demands.WHAT}
    return replace(view, deployments=deployments, history=replace(history, **late))


def test_an_hour_is_decided_alike(hour, told):
    assert told.decisions == said(hour)
    assert len(told.decisions) > 340
    targets = [tuple(one.replicas for one in decision.targets) for decision in told.decisions]
    assert len(set(targets)) > 7  # it had something to decide
    assert any(decision.is_panic for decision in told.decisions)


def test_both_are_told_the_same(hour, told):
    for live, look in zip(told.views, hour.looks, strict=True):
        assert comparable(live) == comparable(look.view)


def test_another_control_plane_that_takes_over_decides_as_the_first_would(begin):
    assert Told(begin).run(restart=70).decisions == said(begin)


def test_times_are_cut_alike():
    assert demands.STEP_S == seen.RECENT_STEP_S
    assert demands.RECENT_STEPS == seen.RECENT_STEPS
    assert demands.MINUTE_S == seen.HISTORY_STEP_S
    assert seen.Seen.WHAT == demands.WHAT


# An alteration of one side shows.


def cheaper(**changes):
    fleet = live_fleet()
    return replace(fleet, pools=tuple(replace(pool, **changes) for pool in fleet.pools))


@pytest.mark.parametrize(
    "altered",
    [
        {"settings": Settings(quantile=0.95)},
        {"settings": Settings(decision_s=20.0)},
        {"fleet": cheaper(start_s=90.0)},
        {"fleet": cheaper(region="aws/us-east-1")},
        {"fleet": cheaper(nodes=Nodes(max=1, chips_per_node=4))},
        {"sustains": {**SUSTAINS, "chat@far": SUSTAINS["chat@near"]}},
        {"forgets_the_dead": True},
        {"every": 2},
    ],
    ids=[
        "quantile",
        "decision_s",
        "start_s",
        "region",
        "chips",
        "sustains",
        "the dead",
        "every other",
    ],
)
def test_an_alteration_of_the_live_side_shows(begin, altered):
    assert Told(begin, **altered).run().decisions != said(begin)


def test_an_alteration_of_the_simulation_shows(begin):
    other = simulated(3000, Settings(backlog_s=30.0))
    assert said(other)[:50] != said(begin)[:50]
    assert Told(other).run().decisions != said(other)
