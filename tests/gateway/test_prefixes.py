"""Which replica holds which beginning of a prompt, by example."""

from itertools import pairwise

import pytest

from argosy.gateway.prefixes import BYTES_MAX, PrefixIndex, block_hashes, salt_of


def prompt(kib: int, tail: bytes = b"") -> bytes:
    return b"".join(b"%1023d\n" % number for number in range(kib)) + tail


def index_of(*replicas: str, capacity_bytes: int = 2**20) -> PrefixIndex:
    index = PrefixIndex()
    for replica in replicas:
        index.join(replica, capacity_bytes=capacity_bytes)
    return index


@pytest.mark.parametrize("size", [0, 100, 127])
def test_a_short_prompt_has_no_hashes_and_is_held_by_nobody(size):
    index = index_of("a")
    index.insert(block_hashes(b"x" * size), "a")
    assert index.longest(block_hashes(b"x" * size)) == {}


def test_blocks_grow_with_the_prompt_so_that_a_long_one_stays_cheap():
    assert len(block_hashes(bytes(8_192))) == 32 + 8
    assert len(block_hashes(bytes(100_000))) == 32 + 8 + 28 + 4


def test_a_prompt_is_looked_at_up_to_its_first_mebibyte():
    whole = block_hashes(bytes(BYTES_MAX))
    assert block_hashes(bytes(BYTES_MAX + 100_000)) == whole
    index = index_of("a", capacity_bytes=BYTES_MAX)
    index.insert(whole, "a")
    assert index.longest(whole) == {"a": BYTES_MAX}


def test_another_salt_shares_nothing():
    one, other = salt_of(b"llama", b"[tools]"), salt_of(b"llama", b"[]")
    assert one != other
    assert not set(block_hashes(prompt(4), one)) & set(block_hashes(prompt(4), other))


def test_every_replica_is_named_with_the_bytes_that_it_holds():
    index = index_of("a", "b", "c")
    index.insert(block_hashes(prompt(2)), "a")
    index.insert(block_hashes(prompt(6)), "b")
    assert index.longest(block_hashes(prompt(10))) == {"a": 2_048, "b": 6_144}


def test_the_next_turn_of_a_chat_finds_the_one_before():
    index = index_of("a")
    index.insert(block_hashes(prompt(20, b'"}]}')), "a")
    assert index.longest(block_hashes(prompt(22, b'"}]}'))) == {"a": 20 * 1024}


def test_a_replica_forgets_what_was_sent_to_it_longest_ago():
    index = index_of("a", capacity_bytes=8_192)
    first, second = prompt(4), b"second" + prompt(4)
    for each in (first, second, first, b"third" + prompt(4)):
        index.insert(block_hashes(each), "a")
    assert index.longest(block_hashes(first)) == {"a": 4_096}
    assert index.longest(block_hashes(second)) == {}


def test_the_beginning_that_many_prompts_share_outlives_their_ends():
    index = index_of("a", capacity_bytes=12_288)
    for number in range(20):
        index.insert(block_hashes(prompt(4) + b"%d" % number * 4_096), "a")
    assert index.longest(block_hashes(prompt(4))) == {"a": 4_096}


def test_a_restarted_replica_holds_nothing_and_learns_anew():
    index = index_of("a", "b")
    hashes = block_hashes(prompt(4))
    index.insert(hashes, "a")
    index.insert(hashes, "b")
    index.forget("a")
    assert index.longest(hashes) == {"b": 4_096}
    index.insert(hashes, "a")  # not joined: nothing
    assert index.longest(hashes) == {"b": 4_096}
    index.join("a", capacity_bytes=2**20)
    assert index.longest(hashes) == {"b": 4_096}


def test_a_smaller_cache_than_before_lets_go_at_once():
    index = index_of("a", capacity_bytes=8_192)
    index.insert(block_hashes(prompt(8)), "a")
    index.join("a", capacity_bytes=2_048)
    assert index.longest(block_hashes(prompt(8))) == {"a": 2_048}


def test_all_replicas_together_keep_within_the_entries():
    index = PrefixIndex(entries_max=64)
    for name in "abcd":
        index.join(name, capacity_bytes=2**30)
    for number in range(200):
        index.insert(block_hashes(b"%d" % number + prompt(6)), "abcd"[number % 4])
    assert len(index) == 64


def test_many_replicas_come_and_go_without_a_trace():
    index = PrefixIndex(entries_max=1_000)
    hashes = block_hashes(prompt(6))
    for before, after in pairwise(f"replica-{number}" for number in range(50)):
        index.join(before, capacity_bytes=2**20)
        index.join(after, capacity_bytes=2**20)
        index.insert(hashes, after)
        index.forget(before)
    assert index.longest(hashes) == {"replica-49": 6_144}
