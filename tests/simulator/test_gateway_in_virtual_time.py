"""The simulated gateway by example. That it decides as the live one: `tests/agreement`."""

import numpy as np
import pytest

from argosy.fleet.config import QueueTimeouts
from argosy.policies.admission.work import AdmissionSettings
from argosy.simulator.gateway import gateway as sim
from argosy.simulator.gateway import router, standing
from argosy.simulator.gateway.queue_rows import queues_of
from argosy.simulator.gateway.state import (
    Gateway,
    GatewayRules,
    Limits,
    SimulatedReplica,
    gateway_of,
)

ASK = sim.Ask(model=0, tenant=0, rank=1, cost_tokens=100, prompt_bytes=400)


def gateway_with(count: int, *, slots: int | None = 2, **rules) -> Gateway:
    """So many replicas of one model, all ready since long."""
    gateway = gateway_of(
        [SimulatedReplica(name=f"r{number}", slots=slots) for number in range(count)],
        tenants=["a", "b"],
        rules=GatewayRules(**rules),
        limits=Limits(requests_max=64),
    )
    for number in range(count):
        standing.replica_joins(gateway, number, 0, 0.0)
    sim.table_changed(gateway, 0.0)
    return gateway


def told(gateway: Gateway) -> list[tuple[str, int, int]]:
    """What happened, to which request, on which replica."""
    return [
        (sim.WORDS[event["kind"]], int(event["request"]), int(event["replica"]))
        for event in gateway.events[: gateway.told[0]]
    ]


def in_flight(gateway: Gateway, replica: int) -> int:
    return int(gateway.views[gateway.replicas[replica]["row"]]["requests_in_flight"])


def test_requests_wait_for_a_slot_and_start_when_one_is_free():
    gateway = gateway_with(1)
    came = [sim.arrive(gateway, request, ASK, 1.0) for request in range(3)]
    assert came == [sim.SENT, sim.SENT, sim.QUEUED]
    sim.first_token(gateway, 0, 1.2)
    assert sim.finished(gateway, 0, (100, 0, 20), 2.0) == 1
    assert told(gateway) == [("sent", 2, 0)]
    assert in_flight(gateway, 0) == 2


def test_who_waits_too_long_is_refused():
    gateway = gateway_with(
        1, queue_timeout_s=QueueTimeouts(enterprise=9.0, consumer=3.0, batch=9.0)
    )
    for request in range(3):
        sim.arrive(gateway, request, ASK, 1.0)
    assert sim.sweep(gateway, 3.9) == 0
    sim.sweep(gateway, 4.0)
    assert told(gateway) == [("expired", 2, -1)]


def test_a_full_queue_refuses_the_largest_of_the_tenant_with_most():
    gateway = gateway_with(1, admission=AdmissionSettings(waiting_max=2))
    for request in range(4):
        sim.arrive(gateway, request, ASK._replace(cost_tokens=100 + request), 1.0)
    what = sim.arrive(gateway, 4, ASK._replace(tenant=1), 1.0)
    assert what == sim.QUEUED
    assert told(gateway) == [("queued", 4, -1), ("no room", 3, -1)]


def test_replicas_that_do_not_say_their_slots_queue_by_themselves():
    gateway = gateway_with(2, slots=None)
    assert {sim.arrive(gateway, request, ASK, 1.0) for request in range(30)} == {sim.SENT}
    assert gateway.queues.lines[0]["in_flight"] == 0
    assert in_flight(gateway, 0) + in_flight(gateway, 1) == 30


def test_each_of_several_processes_has_its_part_of_the_slots():
    for process in (0, 1):
        gateway = gateway_with(1, slots=5, process=process, processes=2)
        came = [sim.arrive(gateway, request, ASK, 1.0) for request in range(5)]
        assert came.count(sim.SENT) == 3 - process


def test_without_replicas_requests_are_stranded_until_one_comes_or_they_are_refused():
    gateway = gateway_with(2, replica_wait_s=5.0)
    for replica in (0, 1):
        standing.replica_leaves(gateway, replica)
    sim.table_changed(gateway, 1.0)
    assert sim.arrive(gateway, 0, ASK, 1.0) == sim.STRANDED
    assert sim.arrive(gateway, 1, ASK, 5.0) == sim.STRANDED
    sim.sweep(gateway, 6.0)
    assert told(gateway) == [("no replica", 0, -1)]
    standing.replica_joins(gateway, 1, 0, 7.0)
    sim.table_changed(gateway, 7.0)
    assert told(gateway) == [("sent", 1, 1)]


def test_a_suspect_replica_is_taken_only_where_none_is_ready_and_one_that_failed_last():
    gateway = gateway_with(3)
    standing.replica_is_suspect(gateway, 1, True)
    sim.table_changed(gateway, 1.0)
    sim.arrive(gateway, 0, ASK, 1.0)
    order = [told(gateway)[0][2]]
    for _ in range(2):
        sim.let_go(gateway, 0)
        sim.again(gateway, 0, 1.0)
        order.append(told(gateway)[0][2])
    assert sorted(order[:2]) == [0, 2]
    assert order[2] != 1  # tried ones come before suspect ones
    for replica in (0, 2):
        standing.replica_leaves(gateway, replica)
    sim.let_go(gateway, 0)
    sim.again(gateway, 0, 1.0)
    assert told(gateway) == [("sent", 0, 1)]


def test_a_replica_that_left_still_forgets_what_ends_there():
    gateway = gateway_with(2)
    for request in range(4):
        sim.arrive(gateway, request, ASK, 1.0)
    standing.replica_leaves(gateway, 0)
    sim.table_changed(gateway, 1.0)
    for request in range(4):
        sim.cancelled(gateway, request, 0, 2.0)
    assert [in_flight(gateway, replica) for replica in (0, 1)] == [0, 0]
    assert gateway.views["prefill_bytes_queued"].sum() == 0
    assert gateway.queues.lines[0]["in_flight"] == 0


def test_stale_views_see_what_ended_at_the_next_refresh():
    gateway = gateway_with(1, slots=8, views="stale")
    for request in range(3):
        sim.arrive(gateway, request, ASK, 1.0)
    assert in_flight(gateway, 0) == 3  # its own sends at once
    sim.first_token(gateway, 0, 1.1)
    sim.finished(gateway, 0, (100, 0, 20), 2.0)
    assert in_flight(gateway, 0) == 3
    router.refresh(gateway)
    assert in_flight(gateway, 0) == 2
    assert gateway.views[0]["prefill_bytes_queued"] == 800


def test_what_a_replica_has_read_draws_the_same_prompt():
    gateway = gateway_with(4, slots=8)
    gateway.replace(blocks=np.arange(10, dtype=np.uint64))
    ask = ASK._replace(prompt_bytes=20_480, blocks_begin=0, blocks_end=10)
    sim.arrive(gateway, 0, ask, 1.0)
    [(_, _, first)] = told(gateway)
    sim.first_token(gateway, 0, 1.5)
    for request in range(1, 4):
        sim.arrive(gateway, request, ask, 2.0)
        assert told(gateway) == [("sent", request, first)]
        assert gateway.placed[request]["to_read_bytes"] == 0


def test_what_is_out_of_order_is_refused_with_the_order_that_would_do():
    replicas = [SimulatedReplica(name=name) for name in ("b", "a")]
    with pytest.raises(ValueError, match="sorted by model and name"):
        gateway_of(replicas, tenants=[], rules=GatewayRules(), limits=Limits(requests_max=1))
    with pytest.raises(ValueError, match=r"\['a', 'b'\] would do"):
        queues_of(AdmissionSettings(), ["b", "a"], models=1, requests_max=1, now_s=0.0)
