"""Which replica is chosen: readiness first, then what was not tried, then the load per slot."""

import random

from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.routing import NoRoute, ReplicaView, Route, least_loaded

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
