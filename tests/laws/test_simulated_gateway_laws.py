"""What the simulator compiles decides as the live code does, whatever comes, leaves and ends."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.gateway.prefixes import BLOCK_BYTES, PrefixIndex
from argosy.policies.admission.fair_queue import FairQueue
from argosy.policies.admission.work import (
    TIERS,
    AdmissionSettings,
    Admit,
    Queue,
    Shed,
    TenantShare,
    Work,
)
from argosy.policies.routing import ReplicaView, places
from argosy.simulator.gateway import prefixes, queue, table
from argosy.simulator.gateway.queue_rows import queues_of

# The fair queue.

TENANTS = ("a", "b", "c")
shares = st.builds(
    TenantShare,
    weight=st.sampled_from([0.5, 1.0, 3.0]),
    reserved_tokens_per_s=st.none() | st.sampled_from([10.0, 200.0]),
)
queue_settings = st.builds(
    AdmissionSettings,
    waiting_max=st.integers(1, 6),
    tenant_share_max=st.sampled_from([0.29, 0.75, 1.0]),
    lower_share_max=st.sampled_from([0.5, 0.9, 1.0]),
    batch_share_max=st.sampled_from([0.3, 1.0]),
    tenants=st.dictionaries(st.sampled_from(TENANTS), shares, max_size=3),
)
queue_steps = st.lists(
    st.tuples(
        st.just("offer"),
        st.sampled_from(TENANTS),
        st.integers(0, 2),
        st.integers(1, 500),
        st.sampled_from([0.5, 4.0, 20.0]),
    )
    | st.tuples(st.just("settle"), st.integers(0, 20), st.integers(0, 800))
    | st.tuples(st.just("cancel"), st.integers(0, 20))
    | st.tuples(st.just("next"))
    | st.tuples(st.just("pass"), st.floats(0, 5))
    | st.tuples(st.just("expire"))
    | st.tuples(st.just("slots"), st.none() | st.integers(0, 9)),
    min_size=20,
    max_size=60,
)


class BothQueues:
    """The live queue and the compiled one, told the same."""

    def __init__(self, told: AdmissionSettings, slots: int | None) -> None:
        self.now_s, self.slots = 1.0, slots
        self.live = FairQueue(told, now_s=self.now_s)
        self.sim = queues_of(told, TENANTS, models=1, requests_max=5_000, now_s=self.now_s)
        self.works: list[Work] = []
        self.running: list[int] = []
        self.count_shed = 0
        self.waiting: list[int] = []

    @property
    def sim_slots(self) -> int:
        return queue.UNKNOWN if self.slots is None else self.slots

    def offer(self, tenant: str, rank: int, cost: int, wait_s: float) -> None:
        number = len(self.works)
        work = Work(
            request=str(number),
            tenant=tenant,
            tier=TIERS[rank],
            cost_tokens=cost,
            arrived_s=self.now_s,
            deadline_s=self.now_s + wait_s,
        )
        self.works.append(work)
        row = self.sim.works[number]
        row["tenant"], row["rank"], row["cost_tokens"] = TENANTS.index(tenant), rank, cost
        row["arrived_s"], row["deadline_s"] = work.arrived_s, work.deadline_s
        decided = self.live.offer(work, self.slots, self.now_s)
        code, victim, asks_most, retry_s = queue.offer(self.sim, number, self.sim_slots, self.now_s)
        match decided:
            case Admit():
                assert code == queue.ADMITTED
                self.running.append(number)
            case Queue():
                assert code == queue.QUEUED
                self.waiting.append(number)
            case Shed():
                assert code == queue.SHED
                self.waiting.append(number)
                self.shed(decided, victim, asks_most, retry_s)

    def shed(self, live: Shed, victim: int, asks_most: bool, retry_s: float) -> None:
        assert live.victim.request == str(victim)
        assert live.kind == ("rate_limited" if asks_most else "no_replica")
        assert live.retry_after_s == (None if math.isnan(retry_s) else retry_s)
        self.waiting.remove(victim)
        self.count_shed += 1

    def settle(self, index: int, tokens: int) -> None:
        if not self.running:
            return
        number = self.running.pop(index % len(self.running))
        assert queue.holds(self.sim, number)
        self.live.settle(self.works[number], tokens, self.now_s)
        queue.settle(self.sim, number, tokens, self.now_s)

    def cancel(self, index: int) -> None:
        if self.works:
            number = index % len(self.works)
            is_out = self.live.cancel(self.works[number])
            assert queue.cancel(self.sim, number) == is_out
            if is_out:
                self.waiting.remove(number)

    def next(self) -> None:
        while True:
            start = self.live.next(self.slots, self.now_s)
            number = queue.next_start(self.sim, 0, self.sim_slots, self.now_s)
            assert (None if start is None else start.work.request) == (
                None if number == queue.NOBODY else str(number)
            )
            if start is None:
                return
            self.waiting.remove(number)
            self.running.append(number)

    def expire(self) -> None:
        for shed in self.live.expire(self.now_s):
            self.shed(shed, *queue.expire_one(self.sim, 0, self.now_s))
        assert queue.expire_one(self.sim, 0, self.now_s)[0] == queue.NOBODY
        queue.forget_idle(self.sim, 0)

    def step(self, what: str, *rest) -> None:
        match what:
            case "pass":
                self.now_s += rest[0]
            case "slots":
                self.slots = rest[0]
            case _:
                getattr(self, what)(*rest)
        self.compare()

    def compare(self) -> None:
        live, line = self.live, self.sim.lines[0]
        assert (live.waiting, live.in_flight) == (line["waiting"], line["in_flight"])
        assert live._held == list(line["held"])
        for rank, tier in enumerate(live._tiers):
            row = self.sim.tiers[0, rank]
            assert (tier.level, tier.largest) == (row["level"], row["largest"])
            assert tier.waiting_tokens == row["waiting_tokens"]
            for number, tenant in enumerate(TENANTS):
                lane = self.sim.lanes[0, rank, number]
                assert (tenant in tier.lanes) == lane["is_known"]
                if tenant in tier.lanes:
                    assert tier.lanes[tenant].counter == lane["counter"]
                    assert tier.lanes[tenant].waiting_tokens == lane["waiting_tokens"]
        for tenant, bucket in live._buckets.items():
            assert bucket.tokens == self.sim.buckets[0, TENANTS.index(tenant)]["tokens"]


@settings(max_examples=80, deadline=None)
@given(queue_settings, st.none() | st.integers(0, 9), queue_steps)
def test_the_compiled_queue_decides_as_the_live_one(told, slots, steps):
    both = BothQueues(told, slots)
    for step in steps:
        both.step(*step)


@pytest.mark.parametrize("seed", range(4))
def test_they_decide_alike_for_thousands_of_steps_of_a_crowded_model(seed):
    """What Hypothesis's short lists hardly reach: long lines, much shed, lanes forgotten."""
    chance = random.Random(seed)
    shares = {
        "a": TenantShare(reserved_tokens_per_s=150.0),
        "b": TenantShare(weight=chance.choice([1.0, 3.0])),
    }
    told = AdmissionSettings(
        waiting_max=25,
        tenant_share_max=chance.choice([0.5, 1.0]),
        lower_share_max=0.9,
        batch_share_max=0.5,
        tenants=shares,
    )
    both = BothQueues(told, 8)
    for _ in range(4_000):
        both.step(*_crowded(chance))
    assert both.count_shed > 100


def _crowded(chance: random.Random) -> tuple:
    """A step; more come than can be served."""
    match chance.choices(range(7), [50, 20, 2, 20, 30, 6, 1])[0]:
        case 0:
            tenant, rank = chance.choice(TENANTS), chance.randrange(3)
            return "offer", tenant, rank, chance.randrange(1, 400), chance.choice([2.0, 9.0, 60.0])
        case 1:
            return "settle", chance.randrange(99), chance.randrange(600)
        case 2:
            return "cancel", chance.randrange(5_000)
        case 3:
            return ("next",)
        case 4:
            return "pass", chance.expovariate(8.0)
        case 5:
            return ("expire",)
        case _:
            return "slots", chance.choice([0, 1, 4, 8, 12, None])


# What replicas have read.

REPLICAS = 70  # of the second model: their bits are in two words
OTHERS = 3  # of the first
replicas = st.sampled_from([0, 1, 2, 63, 64, 69])
prompts = st.lists(st.integers(0, 2), max_size=6)
prefix_steps = st.lists(
    st.tuples(st.sampled_from(["insert", "insert", "insert", "forget", "join"]), replicas, prompts),
    min_size=10,
    max_size=60,
)


def hashes_of(prompt: list[int]) -> list[int]:
    """Of each beginning."""
    return [hash(tuple(prompt[: end + 1])) & 0xFFFFFFFFFFFFFFFF for end in range(len(prompt))]


def sim_longest(index: prefixes.Prefixes, hashes: list[int]) -> dict[str, int]:
    names, held = np.zeros(REPLICAS, np.int64), np.zeros(REPLICAS, np.int64)
    blocks = np.array(hashes, np.uint64)
    count = prefixes.longest(index, 1, blocks, names, held)
    return {
        f"r{name - OTHERS}": int(size)
        for name, size in zip(names[:count], held[:count], strict=True)
    }


@settings(max_examples=60, deadline=None)
@given(prefix_steps, st.integers(6, 30), st.integers(0, 1_500), prompts)
def test_the_compiled_prefix_index_is_the_live_one(steps, entries_max, capacity_bytes, asked):
    live = PrefixIndex(entries_max)
    model_of = np.repeat([0, 1], [OTHERS, REPLICAS])
    sim = prefixes.prefixes_of(
        model_of, block_bytes=BLOCK_BYTES, blocks_max=8, entries_max=entries_max
    )
    for what, replica, prompt in steps:
        hashes = hashes_of(prompt)
        match what:
            case "insert":
                live.insert(hashes, f"r{replica}")
                prefixes.insert(sim, OTHERS + replica, np.array(hashes, np.uint64))
            case "join":
                live.join(f"r{replica}", capacity_bytes=capacity_bytes)
                prefixes.join(sim, OTHERS + replica, capacity_bytes)
            case _:
                live.forget(f"r{replica}")
                prefixes.forget(sim, OTHERS + replica)
        for known in (hashes, hashes_of(asked)):
            assert sim_longest(sim, known) == live.longest(known)
        assert sim.held["blocks"].sum() == len(live)
        assert (sim.block_table["row"] != table.NOWHERE).sum() == live.blocks


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40))))
def test_a_table_of_rows_is_a_dict(steps):
    rows, known = table.table_of(8), {}
    for is_put, number in steps:
        key = number * 2**58 % 2**64 + number  # alike in their upper or lower bits
        if is_put and key not in known and len(known) < 8:
            table.put(rows, np.uint64(key), number)
            known[key] = number
        elif not is_put and key in known:
            table.drop(rows, np.uint64(key))
            del known[key]
        for each in known:
            assert table.row_of(rows, np.uint64(each)) == known[each]
        assert (rows["row"] != table.NOWHERE).sum() == len(known)


# Equals.


@given(st.lists(st.sampled_from([0, 2]), min_size=1), st.integers(0, 2**40), st.randoms())
def test_equals_take_the_same_turns_in_any_order(in_flight, turn, chance):
    """The simulator's places stand by name; the live policies' need not."""
    views = [
        ReplicaView(replica=f"r{number:03}", is_ready=True, requests_in_flight=count, slots=4)
        for number, count in enumerate(in_flight)
    ]

    def chosen(able: list[ReplicaView]) -> str:
        loads = [0.0] * len(able)
        choice = places.least_loaded_place(able, loads)
        place = places.turn_by_name(able, loads, loads, choice, turn)
        if able == views:
            assert place == places.its_turn(loads, loads, choice, turn)
        return able[place].replica

    assert chosen(chance.sample(views, len(views))) == chosen(views)
