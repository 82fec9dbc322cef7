"""Which replica is chosen: readiness first, then what was not tried, then the load per slot."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.routing import (
    POLICIES,
    NoRoute,
    ReplicaView,
    RequestShape,
    Route,
    least_loaded,
    power_of_two,
    round_robin,
)

names = st.sampled_from([f"r{number}" for number in range(6)])
views = st.builds(
    ReplicaView,
    replica=names,
    is_ready=st.booleans(),
    requests_in_flight=st.integers(0, 20),
    slots=st.none() | st.integers(1, 8),
)
fleets = st.lists(views, min_size=1, max_size=6, unique_by=lambda view: view.replica)
tried_sets = st.frozensets(names)


def load(view: ReplicaView) -> float:
    return view.requests_in_flight / (view.slots or 1)


def chosen(replicas: list[ReplicaView], tried: frozenset[str] = frozenset()) -> ReplicaView:
    match least_loaded(replicas, tried=tried):
        case Route(replica=name, reason=reason):
            assert reason
            return next(view for view in replicas if view.replica == name)
        case NoRoute():
            raise AssertionError("there were replicas")


def test_without_a_replica_there_is_no_route_and_a_time_to_come_back():
    decision = least_loaded([])
    assert isinstance(decision, NoRoute)
    assert decision.retry_after_s > 0
    assert "0 replicas" in decision.reason


@given(fleets, tried_sets)
def test_a_suspect_replica_is_chosen_only_where_none_is_ready(replicas, tried):
    best = chosen(replicas, tried)
    assert best.is_ready or not any(view.is_ready for view in replicas)


@given(fleets, tried_sets)
def test_a_tried_replica_is_chosen_only_where_all_as_ready_were_tried(replicas, tried):
    best = chosen(replicas, tried)
    as_ready = [view for view in replicas if view.is_ready == best.is_ready]
    assert best.replica not in tried or all(view.replica in tried for view in as_ready)


@given(fleets, tried_sets)
def test_no_equal_replica_has_less_to_do_for_each_slot(replicas, tried):
    best = chosen(replicas, tried)
    equals = [
        view
        for view in replicas
        if (view.is_ready, view.replica in tried) == (best.is_ready, best.replica in tried)
    ]
    assert load(best) == min(map(load, equals))
    assert best.replica == min(view.replica for view in equals if load(view) == load(best))


@given(fleets, tried_sets, st.randoms(use_true_random=False))
def test_the_order_of_the_views_decides_nothing(replicas, tried, chance: random.Random):
    before = least_loaded(replicas, tried=tried)
    chance.shuffle(replicas)
    assert least_loaded(replicas, tried=tried) == before


def test_slots_weigh_the_load():
    large = ReplicaView(replica="large", is_ready=True, requests_in_flight=6, slots=8)
    small = ReplicaView(replica="small", is_ready=True, requests_in_flight=1, slots=1)
    assert chosen([small, large]).replica == "large"


@given(st.integers(1, 5), st.integers(0, 60))
def test_requests_that_stay_are_spread_evenly(count, requests):
    in_flight = {f"r{number}": 0 for number in range(count)}
    for _ in range(requests):
        replicas = [
            ReplicaView(replica=name, is_ready=True, requests_in_flight=busy, slots=4)
            for name, busy in in_flight.items()
        ]
        in_flight[chosen(replicas).replica] += 1
    assert max(in_flight.values()) - min(in_flight.values()) <= 1


# In turn, and the less loaded of two.

POLICY = st.sampled_from(list(POLICIES.values()))


def idle(count: int) -> list[ReplicaView]:
    return [
        ReplicaView(replica=f"r{number}", is_ready=True, requests_in_flight=0, slots=4)
        for number in range(count)
    ]


def name_of(decision: Route | NoRoute) -> str:
    assert isinstance(decision, Route)
    return decision.replica


def test_round_robin_takes_each_in_turn_by_name():
    replicas = idle(3)[::-1]
    turns = [name_of(round_robin(replicas, request=RequestShape(turn=turn))) for turn in range(6)]
    assert turns == ["r0", "r1", "r2", "r0", "r1", "r2"]


def test_equal_replicas_share_what_least_loaded_gives():
    chosen = Counter(
        name_of(least_loaded(idle(3), request=RequestShape(turn=turn))) for turn in range(300)
    )
    assert all(90 <= count <= 110 for count in chosen.values())


@pytest.mark.parametrize("step", [2, 3, 4])
def test_equal_replicas_share_where_only_every_nth_request_finds_them_equal(step):
    chosen = Counter(
        name_of(least_loaded(idle(2), request=RequestShape(turn=turn * step)))
        for turn in range(200)
    )
    assert all(90 <= count <= 110 for count in chosen.values())


@given(st.integers(2, 6), st.floats(0, 1, exclude_max=True))
def test_power_of_two_never_takes_the_most_loaded_alone(count, chance):
    replicas = idle(count)
    replicas[1].requests_in_flight = 5
    assert name_of(power_of_two(replicas, request=RequestShape(chance=chance))) != "r1"


def test_power_of_two_draws_every_pair_alike():
    draws = [RequestShape(chance=number / 1200) for number in range(1200)]
    chosen = Counter(name_of(power_of_two(idle(4), request=draw)) for draw in draws)
    assert set(chosen.values()) == {300}


@given(POLICY, fleets, tried_sets)
def test_every_policy_says_why(policy, replicas, tried):
    route = policy(replicas, tried=tried)
    assert f"of {route.candidates}" in route.reason


@given(POLICY)
def test_no_policy_finds_a_replica_where_there_is_none(policy):
    assert isinstance(policy([]), NoRoute)
