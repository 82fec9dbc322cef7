"""Each replica's prefix cache: hash blocks of prompts, kept by last use when no request needs them.

A prompt's whole hash blocks enter when its prefill ends; from then on its request holds them by
reference, and the first of two alike gives its blocks to both. A released block stays until its KV
blocks are needed, the least recently released first, and of one request the deepest first: a
prefix is useless without its beginning. What is generated is not cached: it has no hashes.
"""

import numpy as np

from argosy.simulator.engine.kernels import kernel
from argosy.simulator.engine.state import NOBODY, Replica, Request, State

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing


@kernel
def _bucket(it: Replica, name: int) -> int:
    mixed = np.uint64(name) * _GOLDEN
    return it.buckets_at + (np.int64(mixed >> np.uint64(32)) & it.buckets_mask)


@kernel
def find(state: State, it: Replica, name: int) -> int:
    """The entry of a hash block, or NOBODY."""
    entry = state.buckets[_bucket(it, name)]
    while entry != NOBODY and state.entries[entry].name != name:
        entry = state.entries[entry].chain
    return entry


@kernel
def match(state: State, it: Replica, request: Request) -> tuple[int, int]:
    """How many of a prompt's first hash blocks are cached, and how many of those unreferenced."""
    hits = idle = 0
    while hits < request.hash_count:
        entry = find(state, it, state.hashes[request.hash_from + hits])
        if entry == NOBODY:
            break
        hits += 1
        if state.entries[entry].references == 0:
            idle += 1
    return hits, idle


@kernel
def hold(state: State, it: Replica, request: Request, hits: int) -> None:
    """Reference the first `hits` hash blocks of the prompt, all of them cached."""
    for place in range(hits):
        _reference(state, it, find(state, it, state.hashes[request.hash_from + place]))
    request.hashes_held = hits


@kernel
def _reference(state: State, it: Replica, entry: int) -> None:
    record = state.entries[entry]
    if record.references == 0:
        _unlink(state, it, entry)
        it.blocks_free -= it.entry_blocks
    record.references += 1


@kernel
def insert(state: State, it: Replica, request: Request) -> None:
    """The prompt was read: its own blocks of whole hash blocks are the cache's now."""
    for place in range(request.hashes_held, request.hash_count):
        name = state.hashes[request.hash_from + place]
        entry = find(state, it, name)
        if entry == NOBODY:
            _add(state, it, name)
        else:  # another read the same meanwhile
            _reference(state, it, entry)
            it.blocks_free += it.entry_blocks
    request.hashes_held = request.hash_count


@kernel
def _add(state: State, it: Replica, name: int) -> None:
    entry = it.unused  # there is one: entries_max is what the KV blocks can hold
    record = state.entries[entry]
    it.unused = record.chain
    bucket = _bucket(it, name)
    record.name = name
    record.references = 1
    record.chain = state.buckets[bucket]
    state.buckets[bucket] = entry


@kernel
def release(state: State, it: Replica, request: Request) -> None:
    """The request leaves: what nobody else holds becomes evictable, its deepest block first."""
    for place in range(request.hashes_held - 1, -1, -1):
        entry = find(state, it, state.hashes[request.hash_from + place])
        record = state.entries[entry]
        record.references -= 1
        if record.references == 0:
            _append(state, it, entry)
            it.blocks_free += it.entry_blocks
    request.hashes_held = 0


@kernel
def _append(state: State, it: Replica, entry: int) -> None:
    record = state.entries[entry]
    record.older = it.newest
    record.newer = NOBODY
    if it.newest == NOBODY:
        it.oldest = entry
    else:
        state.entries[it.newest].newer = entry
    it.newest = entry
    it.unreferenced += 1


@kernel
def _unlink(state: State, it: Replica, entry: int) -> None:
    record = state.entries[entry]
    if record.older == NOBODY:
        it.oldest = record.newer
    else:
        state.entries[record.older].newer = record.newer
    if record.newer == NOBODY:
        it.newest = record.older
    else:
        state.entries[record.newer].older = record.older
    it.unreferenced -= 1


@kernel
def evict(state: State, it: Replica) -> None:
    """Until the blocks that are free hold all that nobody references."""
    while it.unreferenced * it.entry_blocks > it.blocks_free:
        entry = it.oldest
        _unlink(state, it, entry)
        _unchain(state, it, entry)
        state.entries[entry].chain = it.unused
        it.unused = entry


@kernel
def _unchain(state: State, it: Replica, entry: int) -> None:
    bucket = _bucket(it, state.entries[entry].name)
    if state.buckets[bucket] == entry:
        state.buckets[bucket] = state.entries[entry].chain
        return
    before = state.buckets[bucket]
    while state.entries[before].chain != entry:
        before = state.entries[before].chain
    state.entries[before].chain = state.entries[entry].chain
