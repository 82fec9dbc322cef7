"""What holds for every routing policy, whatever the fleet; and for the prefix index."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.gateway.prefixes import BLOCK_BYTES, PrefixIndex, block_hashes
from argosy.policies.routing import (
    POLICIES,
    Decision,
    NoRoute,
    ReplicaView,
    RequestShape,
    Route,
    Tuning,
    decision,
    note,
    predicted,
    replay,
    scores,
)

NAMES = [f"r{number}" for number in range(6)]
names = st.sampled_from(NAMES)
rates = st.floats(1e-7, 1e-3)
views = st.builds(
    ReplicaView,
    replica=names,
    is_ready=st.booleans(),
    requests_in_flight=st.integers(0, 20),
    slots=st.none() | st.integers(1, 8),
    ready_since_s=st.none() | st.floats(0, 20),
    prefill_bytes_queued=st.integers(0, 10**6),
    prefill_s_per_byte=rates,
    base_s=st.floats(0, 2),
    service_s=st.floats(0, 100),
    price_usd_per_hour=st.floats(0, 50),
)
fleets = st.lists(views, min_size=1, max_size=6, unique_by=lambda view: view.replica)
tried_sets = st.frozensets(names, max_size=3)
requests = st.builds(
    RequestShape,
    prompt_bytes=st.integers(0, 10**6),
    cached=st.dictionaries(names, st.integers(0, 2 * 10**6), max_size=6),
    home=st.none() | names,
    turn=st.integers(0, 2**40),
    chance=st.floats(0, 1, exclude_max=True),
    now_s=st.floats(20, 30),
)
tunings = st.builds(
    Tuning, price_weight_s_per_usd=st.sampled_from([0.0, 100.0]), affinity_load_max=st.floats(0, 2)
)
policy_names = st.sampled_from(list(POLICIES))


@given(policy_names, fleets, requests, tried_sets, tunings)
def test_the_choice_is_the_best_kind_that_was_given(name, fleet, request_, tried, tuning):
    route = POLICIES[name](fleet, request=request_, tried=tried, tuning=tuning)
    assert isinstance(route, Route)
    (best,) = [view for view in fleet if view.replica == route.replica]
    kinds = [(view.is_ready, view.replica not in tried) for view in fleet]
    assert (best.is_ready, best.replica not in tried) == max(kinds)
    assert route.candidates == kinds.count(max(kinds))


@given(policy_names, fleets, requests, tried_sets, tunings, st.randoms(use_true_random=False))
def test_the_order_of_the_views_changes_no_choice(
    name, fleet, request_, tried, tuning, chance: random.Random
):
    before = POLICIES[name](fleet, request=request_, tried=tried, tuning=tuning)
    shuffled = chance.sample(fleet, len(fleet))
    assert POLICIES[name](shuffled, request=request_, tried=tried, tuning=tuning) == before


@given(policy_names, st.just([]) | fleets, requests, tried_sets, tunings)
def test_a_stored_decision_replays_to_the_same_answer(name, fleet, request_, tried, tuning):
    answer = POLICIES[name](fleet, request=request_, tried=tried, tuning=tuning)
    noted = note(name, fleet, request=request_, tried=tried, tuning=tuning)
    for view in fleet:
        view.requests_in_flight += 1
    stored = msgspec.json.decode(msgspec.json.encode(decision(noted)), type=Decision)
    assert replay(stored) == answer
    assert stored.reason == answer.reason
    assert stored.chosen == (None if isinstance(answer, NoRoute) else answer.replica)


@given(fleets, requests, tried_sets, tunings)
def test_the_fast_prediction_is_the_plain_one(fleet, request_, tried, tuning):
    route = predicted(fleet, request=request_, tried=tried, tuning=tuning)
    plain = {
        score.replica: score
        for score in scores(fleet, request=request_, tried=tried, tuning=tuning)
    }
    best = plain[route.replica]
    assert route.score_s == pytest.approx(best.total_s, abs=1e-9)
    assert route.spared_bytes == best.spared_bytes
    near = min(score.total_s for score in plain.values()) * 1.05 + 0.001
    assert best.total_s <= near + 1e-6
    clearly_as_near = [score for score in plain.values() if score.total_s < near - 1e-6]
    assert all(best.load <= score.load for score in clearly_as_near)


@given(fleets, requests, tried_sets, tunings)
def test_nothing_is_spared_past_the_bound_over_the_least_loaded(fleet, request_, tried, tuning):
    plain = scores(fleet, request=request_, tried=tried, tuning=tuning)
    least = min(score.load for score in plain)
    route = predicted(fleet, request=request_, tried=tried, tuning=tuning)
    (best,) = [score for score in plain if score.replica == route.replica]
    assert route.spared_bytes == 0 or best.load <= least + tuning.affinity_load_max


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(1, 8), requests, tunings)
def test_among_like_replicas_affinity_never_passes_the_bound(loads, slots, request_, tuning):
    fleet = [
        ReplicaView(replica=name, is_ready=True, requests_in_flight=load, slots=slots)
        for name, load in zip(NAMES, loads, strict=False)
    ]
    route = predicted(fleet, request=request_, tuning=tuning)
    bound = min(loads) / slots + tuning.affinity_load_max
    assert route.requests_in_flight / slots <= bound


# Prefixes.

SALT = 7
prompts = st.lists(st.sampled_from([b"a", b"b"]), max_size=6).map(
    lambda blocks: b"".join(block * BLOCK_BYTES for block in blocks) + b"rest"
)
steps = st.lists(
    st.tuples(st.just("insert"), names, prompts)
    | st.tuples(st.just("forget"), names, st.just(b""))
    | st.tuples(st.just("join"), names, st.just(b"")),
    max_size=40,
)


class NaiveIndex:
    """Every replica's blocks as a list of prompt beginnings, the least recently sent first."""

    def __init__(self, entries_max: int, capacity_bytes: int) -> None:
        self.entries_max, self.capacity_bytes = entries_max, capacity_bytes
        self.held: dict[str, list[bytes]] = {}

    def join(self, replica: str) -> None:
        self.held.setdefault(replica, [])
        self.trim()

    def insert(self, prompt: bytes, replica: str) -> None:
        blocks = self.held[replica]
        for end in range(len(prompt) // BLOCK_BYTES * BLOCK_BYTES, 0, -BLOCK_BYTES):
            if prompt[:end] in blocks:
                blocks.remove(prompt[:end])
            blocks.append(prompt[:end])
        self.trim()

    def trim(self) -> None:
        most = min(self.capacity_bytes // BLOCK_BYTES, self.entries_max // max(1, len(self.held)))
        for blocks in self.held.values():
            del blocks[: max(0, len(blocks) - most)]

    def longest(self, prompt: bytes) -> dict[str, int]:
        found: dict[str, int] = {}
        for replica, blocks in self.held.items():
            end = 0
            while end + BLOCK_BYTES <= len(prompt) and prompt[: end + BLOCK_BYTES] in blocks:
                end += BLOCK_BYTES
            if end:
                found[replica] = end
        return found


@given(steps, st.integers(6, 30), st.integers(0, 1_500), prompts)
def test_the_prefix_index_agrees_with_a_naive_one(doings, entries_max, capacity_bytes, asked):
    index, naive = PrefixIndex(entries_max), NaiveIndex(entries_max, capacity_bytes)
    for doing, replica, prompt in doings:
        if doing == "forget":
            index.forget(replica)
            naive.held.pop(replica, None)
        elif doing == "join":
            index.join(replica, capacity_bytes=capacity_bytes)
            naive.join(replica)
        else:
            index.insert(block_hashes(prompt, SALT), replica)
            if replica in naive.held:
                naive.insert(prompt, replica)
        for known in (prompt, asked):
            assert index.longest(block_hashes(known, SALT)) == naive.longest(known)
        assert len(index) == sum(map(len, naive.held.values())) <= entries_max


@given(steps, st.integers(6, 30))
def test_a_prefix_index_whose_replicas_all_left_holds_nothing(doings, entries_max):
    index = PrefixIndex(entries_max)
    for doing, replica, prompt in doings:
        index.join(replica, capacity_bytes=1_024)
        if doing == "insert":
            index.insert(block_hashes(prompt), replica)
    for replica in NAMES:
        index.forget(replica)
    assert len(index) == index.blocks == 0


@given(st.binary(max_size=2_000), st.binary(max_size=2_000), st.binary(max_size=1_500))
def test_prompts_share_hashes_exactly_as_far_as_they_share_blocks(begin, one, other):
    first, second = begin + one, begin + other
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    hashes, others = block_hashes(first, SALT), block_hashes(second, SALT)
    alike = [a == b for a, b in zip(hashes, others, strict=False)]
    assert alike == sorted(alike, reverse=True)
    assert sum(alike) == min(shared // BLOCK_BYTES, len(hashes), len(others))
