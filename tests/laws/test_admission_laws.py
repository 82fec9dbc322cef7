"""Whatever comes, leaves and ends: nothing is lost, nothing overtakes, the bounds hold."""

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from argosy.policies.admission.bounds import reservation_tokens
from argosy.policies.admission.fair_queue import FairQueue
from argosy.policies.admission.windows import window_at
from argosy.policies.admission.work import (
    RANKS,
    TIERS,
    AdmissionSettings,
    Admit,
    Queue,
    Shed,
    TenantShare,
    Work,
)

TENANTS = ("a", "b", "c")
TENANT_SHARE, LOWER_SHARE, BATCH_SHARE = 0.75, 0.9, 0.5
costs = st.integers(1, 1000)


class Admission(RuleBasedStateMachine):
    """A queue beside a plain record of what became of each work."""

    @initialize(waiting_max=st.integers(1, 5), slots=st.integers(0, 6), reserved=st.booleans())
    def _begin(self, waiting_max, slots, reserved):
        self.now_s = 0.0
        self.slots: int | None = slots
        self.waiting_max = waiting_max
        self.reserved = {"a"} if reserved else set()
        self.fair = FairQueue(
            AdmissionSettings(
                waiting_max=waiting_max,
                tenant_share_max=TENANT_SHARE,
                lower_share_max=LOWER_SHARE,
                batch_share_max=BATCH_SHARE,
                tenants={
                    "a": TenantShare(reserved_tokens_per_s=50.0 if reserved else None),
                    "b": TenantShare(weight=2.0),
                },
            ),
            now_s=0.0,
        )
        self.offered = 0
        self.waits: dict[str, Work] = {}
        self.runs: dict[str, Work] = {}
        self.ended: dict[str, str] = {}  # the one outcome of a request

    def cap(self, share: float) -> int:
        return max(1, int(self.slots * share + 1e-9)) if self.slots > 1 else self.slots

    def could_start(self, work: Work) -> bool:
        """What the caps say, told a second time and slowly; reserved throughput aside."""
        if self.slots is None:
            return True
        ranks = [RANKS[one.tier] for one in self.runs.values()]
        held = sum(one.tenant == work.tenant for one in self.runs.values())
        return (
            len(ranks) < self.slots
            and held < self.cap(TENANT_SHARE)
            and (RANKS[work.tier] < 1 or sum(r >= 1 for r in ranks) < self.cap(LOWER_SHARE))
            and (RANKS[work.tier] < 2 or sum(r >= 2 for r in ranks) < self.cap(BATCH_SHARE))
        )

    def check_start(self, work: Work) -> None:
        """Before `work` counts as running: it could, and overtook nobody of a higher tier."""
        is_reserved = work.tier == "enterprise" and work.tenant in self.reserved
        assert is_reserved or self.could_start(work)
        for one in self.waits.values():
            if RANKS[one.tier] < RANKS[work.tier]:
                assert not self.could_start(one), "a lower tier went first"
            if (one.tenant, one.tier) == (work.tenant, work.tier):
                assert one.arrived_s >= work.arrived_s, "one tenant's works are first come"
        self.runs[work.request] = work

    def end(self, work: Work, outcome: str) -> None:
        assert work.request not in self.ended
        self.ended[work.request] = outcome

    @rule(
        tenant=st.sampled_from(TENANTS),
        tier=st.sampled_from(TIERS),
        cost=costs,
        wait_s=st.floats(0, 20),
    )
    def offer(self, tenant, tier, cost, wait_s):
        work = Work(
            request=f"req_{self.offered}",
            tenant=tenant,
            tier=tier,
            cost_tokens=cost,
            arrived_s=self.now_s,
            deadline_s=self.now_s + wait_s,
        )
        self.offered += 1
        decision = self.fair.offer(work, self.slots, self.now_s)
        assert decision.reason
        match decision:
            case Admit():
                self.check_start(work)
            case Queue():
                self.waits[work.request] = work
            case Shed(victim=victim):
                self.waits[work.request] = work
                assert self.waits.pop(victim.request) == victim
                assert RANKS[victim.tier] == max(
                    RANKS[one.tier] for one in (victim, *self.waits.values())
                )
                self.end(victim, "refused")

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), tokens=costs)
    def settle(self, data, tokens):
        work = self.runs.pop(data.draw(st.sampled_from(sorted(self.runs))))
        self.fair.settle(work, tokens, self.now_s)
        self.end(work, "served")

    @precondition(lambda self: self.waits)
    @rule(data=st.data())
    def cancel(self, data):
        work = self.waits.pop(data.draw(st.sampled_from(sorted(self.waits))))
        assert self.fair.cancel(work)
        self.end(work, "cancelled")

    @rule()
    def start_those_that_can(self):
        while (start := self.fair.next(self.slots, self.now_s)) is not None:
            assert start.reason
            assert self.waits.pop(start.work.request) == start.work
            self.check_start(start.work)
        assert not any(self.could_start(one) for one in self.waits.values()), "a slot is wasted"

    @rule(seconds=st.floats(0, 10))
    def expire(self, seconds):
        self.now_s += seconds
        for shed in self.fair.expire(self.now_s):
            assert self.waits.pop(shed.victim.request).deadline_s <= self.now_s
            assert shed.retry_after_s is None or 1 <= shed.retry_after_s <= 60
            self.end(shed.victim, "refused")
        assert all(one.deadline_s > self.now_s for one in self.waits.values())

    @rule(slots=st.none() | st.integers(0, 8))
    def change_slots(self, slots):
        self.slots = slots
        if slots is None:  # then offers start at once, past any that wait
            self.start_those_that_can()

    @invariant()
    def every_request_waits_runs_or_has_ended_once(self):
        if not hasattr(self, "fair"):
            return
        assert self.offered == len(self.waits) + len(self.runs) + len(self.ended)
        assert (self.fair.waiting, self.fair.in_flight) == (len(self.waits), len(self.runs))
        assert len(self.waits) <= self.waiting_max
        by_tier = Counter(one.tier for one in self.waits.values())
        assert self.fair.tier_waiting() == tuple(by_tier[tier] for tier in TIERS)

    def teardown(self):
        if not hasattr(self, "fair"):
            return
        self.slots = None
        self.start_those_that_can()
        for work in self.runs.values():
            self.fair.settle(work, 1, self.now_s)
        self.fair.expire(self.now_s)
        assert (self.fair.waiting, self.fair.in_flight) == (0, 0)
        assert self.fair._held == [0, 0, 0]
        assert not self.fair._tenant_in_flight
        assert not any(tier.lanes or tier.waiting_tokens for tier in self.fair._tiers)


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


class Backlogged:
    """Tenants of one tier that always have more to ask than is served."""

    def __init__(self, slots, costs_of, *, true_part=1.0):
        self.fair = FairQueue(AdmissionSettings(), now_s=0.0)
        self.slots = slots
        self.costs_of = {tenant: list(costs) for tenant, costs in costs_of.items()}
        self.true_part = true_part
        self.running: list[Work] = []
        self.served = Counter()
        self.count = 0
        for tenant in costs_of:
            for _ in range(slots + 1):
                self.ask(tenant)

    def ask(self, tenant):
        costs = self.costs_of[tenant]
        work = Work(
            request=f"req_{self.count}",
            tenant=tenant,
            tier="consumer",
            cost_tokens=costs[self.count % len(costs)],
            arrived_s=0.0,
            deadline_s=1e9,
        )
        self.count += 1
        if isinstance(self.fair.offer(work, self.slots, 0.0), Admit):
            self.begun(work)

    def begun(self, work):
        self.running.append(work)
        self.served[work.tenant] += work.cost_tokens * self.true_part

    def step(self, index):
        """One ends, the next starts, and its tenant asks again."""
        work = self.running.pop(index % len(self.running))
        self.fair.settle(work, work.cost_tokens * self.true_part, 0.0)
        while (start := self.fair.next(self.slots, 0.0)) is not None:
            self.begun(start.work)
            self.ask(start.work.tenant)


some_costs = st.lists(costs, min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(1, 4),
    costs_a=some_costs,
    costs_b=some_costs,
    ends=st.lists(st.integers(0, 3), max_size=60),
)
def test_two_backlogged_tenants_stay_within_one_largest_request(slots, costs_a, costs_b, ends):
    both = Backlogged(slots, {"a": costs_a, "b": costs_b})
    largest = max(*costs_a, *costs_b)
    apart_at_first = both.served["a"] - both.served["b"]
    for index in ends:
        both.step(index)
        lanes = both.fair._tiers[1].lanes
        assert abs(lanes["a"].counter - lanes["b"].counter) <= largest
        apart = both.served["a"] - both.served["b"]
        assert abs(apart - apart_at_first) <= 2 * largest  # from within one to within one


@settings(max_examples=40, deadline=None)
@given(
    slots=st.integers(1, 4),
    costs_a=some_costs,
    costs_b=some_costs,
    ends=st.lists(st.integers(0, 3), max_size=60),
    true_part=st.floats(0.05, 1.0),
)
def test_predictions_that_are_too_high_move_tenants_apart_by_no_more_than_what_runs(
    slots, costs_a, costs_b, ends, true_part
):
    both = Backlogged(slots, {"a": costs_a, "b": costs_b}, true_part=true_part)
    largest = max(*costs_a, *costs_b)
    for index in ends:
        both.step(index)
        lanes = both.fair._tiers[1].lanes
        assert abs(lanes["a"].counter - lanes["b"].counter) <= (slots + 1) * largest


sizes = st.none() | st.integers(1, 10_000)


@given(
    body=st.integers(0, 10_000),
    max_tokens=st.none() | st.integers(0, 10_000),
    context=sizes,
    sampling=sizes,
    answers=st.integers(1, 4),
    data=st.data(),
)
def test_no_request_uses_more_than_its_bound(body, max_tokens, context, sampling, answers, data):
    bound = reservation_tokens(
        body,
        max_tokens=max_tokens,
        context_tokens=context,
        sampling_max_tokens=sampling,
        answers=answers,
    )
    limit = max_tokens if max_tokens is not None else sampling
    if limit is None and context is None:
        return
    prompt = data.draw(st.integers(0, body if context is None else min(body, context)))
    room = 10_000 if context is None else context - prompt
    longest = room if limit is None else min(limit, room)
    assert prompt + answers * longest <= bound


@given(st.floats(0, 4e9), st.sampled_from(["minute", "hour", "day", "month", "ever"]))
def test_every_moment_is_in_its_window_and_the_next_one_follows_at_its_end(unix_s, per):
    start_s, end_s = window_at(per, unix_s)
    assert start_s <= unix_s < end_s
    if math.isfinite(end_s):
        assert window_at(per, end_s)[0] == end_s
        assert window_at(per, math.nextafter(end_s, 0)) == (start_s, end_s)
