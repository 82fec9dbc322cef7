"""Admission: who starts, who waits, who goes next, who is refused, and what may be reserved."""

import itertools
import math
from datetime import UTC, datetime

import pytest

from argosy.policies.admission.bounds import ANSWER_TOKENS_ASSUMED, reservation_tokens
from argosy.policies.admission.fair_queue import RETRY_AFTER_S_MAX, FairQueue
from argosy.policies.admission.rates import DRAIN_S, RESERVED_BURST_S, DrainRate, TokenBucket
from argosy.policies.admission.windows import window_at
from argosy.policies.admission.work import (
    AdmissionSettings,
    Admit,
    Queue,
    Shed,
    TenantShare,
    Work,
)

_ids = itertools.count()


def work(tenant="a", tier="consumer", cost=100, *, deadline_s=30.0, arrived_s=0.0) -> Work:
    return Work(
        request=f"req_{next(_ids)}",
        tenant=tenant,
        tier=tier,
        cost_tokens=cost,
        arrived_s=arrived_s,
        deadline_s=deadline_s,
    )


def queue(**settings) -> FairQueue:
    return FairQueue(AdmissionSettings(**settings), now_s=0.0)


def filled(slots: int, tenant="z", **settings) -> tuple[FairQueue, list[Work]]:
    """A queue all of whose slots are held by one consumer tenant."""
    fair = queue(**settings)
    running = [work(tenant) for _ in range(slots)]
    for one in running:
        assert isinstance(fair.offer(one, slots, 0.0), Admit)
    return fair, running


def started(fair: FairQueue, slots: int | None, now_s: float = 0.0) -> list[Work]:
    starts = iter(lambda: fair.next(slots, now_s), None)
    return [start.work for start in starts]


def order(fair: FairQueue, running: list[Work], slots: int, now_s: float = 0.0) -> list[str]:
    """Who starts as one slot after the other comes free."""
    names = []
    for one in running:
        fair.settle(one, one.cost_tokens, now_s)
        for start in started(fair, slots, now_s):
            names.append(start.tenant)
            running.append(start)
    return names


# Slots.


def test_a_request_starts_at_once_where_a_slot_is_free():
    assert queue().offer(work(), 1, 0.0) == Admit("a slot is free and nobody waits")


def test_where_the_slots_are_unknown_everything_starts():
    fair = queue(tenant_share_max=0.5)
    assert all(isinstance(fair.offer(work(), None, 0.0), Admit) for _ in range(100))
    assert (fair.in_flight, fair.waiting) == (100, 0)


def test_where_no_replica_is_ready_everything_waits_until_one_is():
    fair = queue()
    first = work()
    assert isinstance(fair.offer(first, 0, 0.0), Queue)
    assert fair.next(0, 0.0) is None
    assert started(fair, 1) == [first]


def test_those_that_wait_start_when_slots_become_unknown():
    fair, _ = filled(1, tenant_share_max=0.5)
    waiting = [work("z"), work("z")]
    for one in waiting:
        fair.offer(one, 1, 0.0)
    assert started(fair, None) == waiting
    assert isinstance(fair.offer(work(), 3, 0.0), Queue)  # the caps hold again


def test_a_full_model_says_why_a_request_waits():
    fair, _ = filled(2)
    decision = fair.offer(work(), 2, 0.0)
    assert decision.reason == "2 requests hold the 2 slots, 1 wait"


def test_fewer_slots_stop_nothing_that_runs():
    fair, running = filled(4)
    fair.offer(work(), 4, 0.0)
    assert started(fair, 2) == []
    assert order(fair, running[:2], 2) == []
    assert order(fair, running[2:3], 2) == ["a"]


# Shares.


@pytest.mark.parametrize(("slots", "held"), [(1, 1), (2, 1), (3, 2), (4, 3), (16, 12)])
def test_one_tenant_holds_its_share_of_the_slots_and_at_least_one(slots, held):
    fair = queue(tenant_share_max=0.75)
    decisions = [fair.offer(work("flood"), slots, 0.0) for _ in range(20)]
    assert sum(isinstance(one, Admit) for one in decisions) == held


def test_a_newcomer_starts_at_once_though_another_floods():
    fair = queue(tenant_share_max=0.75)
    decisions = [fair.offer(work("flood"), 4, 0.0) for _ in range(20)]
    assert decisions[-1].reason == "1 of 4 slots are kept for others, 17 wait"
    assert isinstance(fair.offer(work("newcomer"), 4, 0.0), Admit)


def test_lower_tiers_leave_slots_to_those_above():
    fair = queue(lower_share_max=0.75, batch_share_max=0.25)
    held = dict.fromkeys(("batch", "consumer", "enterprise"), 0)
    for tier in held:
        for _ in range(8):
            held[tier] += isinstance(fair.offer(work(tier, tier), 8, 0.0), Admit)
    assert held == {"batch": 2, "consumer": 4, "enterprise": 2}


def test_shares_are_not_thrown_off_by_rounding():
    fair = queue(tenant_share_max=0.29)
    decisions = [fair.offer(work(), 100, 0.0) for _ in range(100)]
    assert sum(isinstance(one, Admit) for one in decisions) == 29


# The order of those that wait.


def test_a_higher_tier_goes_first_and_one_tenant_in_the_order_of_arrival():
    fair, running = filled(1)
    for tenant, tier in (("night", "batch"), ("web", "consumer"), ("acme", "enterprise")):
        for _ in range(2):
            fair.offer(work(tenant, tier), 1, 0.0)
    assert order(fair, running, 1) == ["acme", "acme", "web", "web", "night", "night"]


def test_inside_a_tenant_the_first_to_come_is_the_first_to_start():
    fair, running = filled(1)
    waiting = [work(cost=cost) for cost in (500, 1, 30)]
    for one in waiting:
        fair.offer(one, 1, 0.0)
    order(fair, running, 1)
    assert running[1:] == waiting


def test_tenants_of_a_tier_get_equal_tokens_and_not_equal_requests():
    fair, running = filled(1)
    for _ in range(10):
        fair.offer(work("long", cost=400), 1, 0.0)
        fair.offer(work("short", cost=100), 1, 0.0)
    assert order(fair, running, 1)[:10].count("short") == 8


def test_twice_the_weight_gets_twice_the_tokens():
    tenants = {"two": TenantShare(weight=2.0)}
    fair, running = filled(1, tenants=tenants)
    for _ in range(20):
        fair.offer(work("two"), 1, 0.0)
        fair.offer(work("one"), 1, 0.0)
    assert order(fair, running, 1)[:15].count("two") == 10


def test_what_a_tenant_did_not_use_while_it_was_away_is_no_credit():
    fair, running = filled(1, "busy")
    for _ in range(40):
        fair.offer(work("busy"), 1, 0.0)
    for _ in range(20):
        fair.settle(running.pop(), 100, 0.0)
        running += started(fair, 1)
    for _ in range(10):
        fair.offer(work("back"), 1, 0.0)
    assert order(fair, running, 1)[:10].count("back") in (5, 6)


def test_a_tenant_that_used_idle_slots_is_not_punished_for_it():
    fair = queue()
    for _ in range(1000):
        one = work("early")
        fair.offer(one, 1, 0.0)
        fair.settle(one, 100, 0.0)
    running = [work("late")]
    fair.offer(running[0], 1, 0.0)
    for _ in range(10):
        fair.offer(work("late"), 1, 0.0)
        fair.offer(work("early"), 1, 0.0)
    assert 4 <= order(fair, running, 1)[:10].count("early") <= 6


def test_a_prediction_that_was_too_high_is_corrected_when_the_work_ends():
    fair, running = filled(1)
    for _ in range(8):
        fair.offer(work("modest", cost=1000), 1, 0.0)  # predicted; in truth 100
        fair.offer(work("exact", cost=100), 1, 0.0)
    names = []
    while fair.waiting:
        one = running.pop()
        fair.settle(one, 100, 0.0)
        running += started(fair, 1)
        names.append(running[-1].tenant)
    assert names[:10].count("modest") == 5


def test_reserved_throughput_goes_before_all_until_it_is_used_up():
    tenants = {"acme": TenantShare(reserved_tokens_per_s=100.0), "big": TenantShare(weight=100.0)}
    fair, running = filled(1, tenants=tenants)
    for _ in range(15):
        fair.offer(work("big", "enterprise"), 1, 0.0)
        fair.offer(work("acme", "enterprise"), 1, 0.0)
    names = order(fair, running, 1)
    burst = int(100.0 * RESERVED_BURST_S / 100)
    assert names[:burst] == ["acme"] * burst
    assert names[burst] == "big"


def test_reserved_throughput_is_not_bound_by_the_share_of_a_tenant():
    tenants = {"acme": TenantShare(reserved_tokens_per_s=100.0), "web": TenantShare()}
    fair = queue(tenants=tenants, tenant_share_max=0.5)
    for _ in range(20):
        fair.offer(work("acme", "enterprise"), 20, 0.0)
    assert fair.in_flight == 10  # 1,000 tokens of burst are used up, and it has its half
    assert len(started(fair, 20, 1.5)) == 2  # 150 tokens more
    assert len(started(fair, 20, 1.6)) == 0


# Refusals.


def test_a_full_queue_refuses_the_lowest_tier_and_there_the_largest_prediction():
    fair, _ = filled(1, waiting_max=3)
    small, large = work("night", "batch", 10), work("night", "batch", 900)
    for one in (small, large, work("web", "consumer", 5000)):
        fair.offer(one, 1, 0.0)
    shed = fair.offer(work("acme", "enterprise", 9999), 1, 0.0)
    assert isinstance(shed, Shed)
    assert (shed.victim, shed.kind) == (large, "no_replica")
    assert fair.offer(work("web"), 1, 0.0).victim == small
    assert fair.tier_waiting() == (1, 2, 0)


def test_the_tenant_that_fills_the_queue_is_the_one_that_is_refused():
    tenants = {"flood": TenantShare(), "web": TenantShare()}
    fair, _ = filled(1, waiting_max=4, tenants=tenants)
    for _ in range(4):
        fair.offer(work("flood"), 1, 0.0)
    shed = fair.offer(work("web", cost=300), 1, 0.0)
    assert (shed.victim.tenant, shed.kind) == ("flood", "rate_limited")
    assert shed.reason == "5 requests wait already, 4 of them yours"


def test_among_equals_the_one_that_came_last_is_refused():
    fair, _ = filled(1, waiting_max=2)
    fair.offer(work(), 1, 0.0)
    fair.offer(work(), 1, 0.0)
    last = work()
    assert fair.offer(last, 1, 0.0).victim == last


def test_a_request_that_waited_too_long_is_refused_at_its_deadline():
    fair, _ = filled(1)
    fair.offer(work(deadline_s=5.0), 1, 0.0)
    fair.offer(work(deadline_s=2.0), 1, 0.0)
    assert fair.expire(1.9) == ()
    (shed,) = fair.expire(2.0)
    assert (shed.victim.deadline_s, shed.kind, shed.retry_after_s) == (2.0, "no_replica", None)
    assert shed.reason == "no slot came free in 2.0 s; 2 requests wait"
    assert fair.waiting == 1


def test_retry_after_is_how_long_those_ahead_take_at_the_rate_served_lately():
    fair, running = filled(1, waiting_max=20)
    for _ in range(20):
        fair.offer(work(), 1, 0.0)
    for second in range(1, 11):  # one of 100 tokens a second
        one = running.pop()
        fair.settle(one, 100, float(second))
        running += started(fair, 1, float(second))
    for _ in range(10):
        fair.offer(work(), 1, 10.0)
    shed = fair.offer(work(), 1, 10.0)
    assert shed.retry_after_s == pytest.approx(2100 / 100, rel=0.2)  # the first ended at once
    assert fair.offer(work("acme", "enterprise"), 1, 10.0).victim.tenant == "a"
    assert fair.offer(work(cost=10**9), 1, 10.0).retry_after_s == RETRY_AFTER_S_MAX


def test_a_client_that_left_waits_no_more():
    fair, running = filled(1)
    gone, stays = work(), work()
    fair.offer(gone, 1, 0.0)
    fair.offer(stays, 1, 0.0)
    assert (fair.holds(running[0]), fair.holds(gone)) == (True, False)
    assert fair.cancel(gone)
    assert not fair.cancel(gone)
    assert not fair.cancel(running[0])
    assert fair.waiting == 1
    fair.settle(running[0], 1, 0.0)
    assert started(fair, 1) == [stays]


def test_a_work_that_is_offered_or_settled_twice_is_a_loud_mistake():
    fair, running = filled(1)
    with pytest.raises(ValueError, match="holds a slot already"):
        fair.offer(running[0], 2, 0.0)
    waiting = work()
    fair.offer(waiting, 1, 0.0)
    with pytest.raises(ValueError, match="waits already"):
        fair.offer(waiting, 1, 0.0)
    fair.settle(running[0], 1, 0.0)
    with pytest.raises(KeyError):
        fair.settle(running[0], 1, 0.0)


# Memory and changes.


def test_tenants_that_are_idle_are_forgotten():
    fair = queue()
    for number in range(1000):
        one = work(f"tenant-{number}")
        fair.offer(one, 1, 0.0)
        fair.settle(one, 100, 0.0)
    fair.expire(1.0)
    assert sum(len(tier.lanes) for tier in fair._tiers) == 0


def test_ids_of_works_that_left_do_not_pile_up():
    fair, _ = filled(1)
    for _ in range(5000):
        one = work()
        fair.offer(one, 1, 0.0)
        fair.cancel(one)
    assert len(fair._deadlines._heap) < 100


def test_new_settings_hold_for_those_that_wait_already():
    fair = queue(tenant_share_max=0.5)
    for _ in range(4):
        fair.offer(work(), 4, 0.0)
    assert started(fair, 4) == []
    fair.configure(AdmissionSettings(), now_s=0.0)
    assert len(started(fair, 4)) == 2


def test_a_reservation_that_is_changed_keeps_what_was_used_of_it():
    bucket = TokenBucket(10.0, now_s=0.0)
    bucket.take(99.0, 0.0)
    bucket.set_rate(1000.0, 0.0)
    bucket.take(2.0, 0.0)
    assert not bucket.has_tokens(0.0)
    assert bucket.has_tokens(0.01)


def test_the_drain_rate_is_right_from_the_start_and_forgets():
    rate = DrainRate()
    assert rate.tokens_per_s(0.0) is None
    for tenth in range(50):
        rate.add(10, tenth / 10)
    assert rate.tokens_per_s(5.0) == pytest.approx(100, rel=0.1)
    assert rate.tokens_per_s(5.0 + 5 * DRAIN_S) < 1


# What is reserved of a budget.


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ({"max_tokens": 10, "context_tokens": None}, 110),
        ({"max_tokens": None, "context_tokens": 64}, 64),
        ({"max_tokens": None, "context_tokens": 8192}, 8192),
        ({"max_tokens": 10, "context_tokens": 8192, "sampling_max_tokens": 5}, 110),
        ({"max_tokens": None, "context_tokens": 8192, "sampling_max_tokens": 5}, 105),
        ({"max_tokens": 9999, "context_tokens": 50, "answers": 3}, 150),
        ({"max_tokens": 10, "context_tokens": 8192, "answers": 3}, 130),
        ({"max_tokens": 0, "context_tokens": None}, 100),
        ({"max_tokens": None, "context_tokens": None}, 100 + ANSWER_TOKENS_ASSUMED),
    ],
)
def test_a_reservation_is_the_body_and_the_longest_answer_within_the_context(told, tokens):
    assert reservation_tokens(100, **told) == tokens


def test_a_reservation_is_never_nothing():
    assert reservation_tokens(0, max_tokens=0, context_tokens=None) == 1


# The calendar.


def unix_s(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("per", "start", "end"),
    [
        ("minute", "2028-02-29T12:34:00", "2028-02-29T12:35:00"),
        ("hour", "2028-02-29T12:00:00", "2028-02-29T13:00:00"),
        ("day", "2028-02-29T00:00:00", "2028-03-01T00:00:00"),
        ("month", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
    ],
)
def test_windows_are_those_of_the_utc_calendar(per, start, end):
    assert window_at(per, unix_s("2028-02-29T12:34:56.5")) == (unix_s(start), unix_s(end))
    assert window_at(per, unix_s(start))[0] == unix_s(start)
    assert window_at(per, unix_s(end))[0] == unix_s(end)


def test_december_ends_with_the_year_and_ever_never():
    assert window_at("month", unix_s("2026-12-31T23:59:59"))[1] == unix_s("2027-01-01T00:00:00")
    assert window_at("ever", 5.0) == (0, math.inf)
