"""Which replica has read which beginning of a prompt, as `gateway/prefixes.py` knows it, on arrays.

A trace tells a prompt as block hashes that continue one another (u64, equal where all tokens so far
are), all blocks of one length; live they are of several. The bounds and what goes first are the
same. A block's holders are bits, 64 to a word, of the replicas of its model; what a replica holds
is a chain, the least recently sent first.
"""

import numpy as np

from argosy.simulator.compiled import Bits, Numbers, Rows, compiled, inner
from argosy.simulator.gateway.table import ENTRY, NOWHERE, drop, put, row_of, table_of
from argosy.simulator.handle import Handle, field

ENTRIES_MAX = 65_536  # (block, replica) pairs of a model, as live
BYTES_MAX = 2**20  # of a prompt that are looked at, as live

INDEX = np.dtype(  # of a model
    [("entries_max", "i8"), ("share", "i8"), ("joined", "i8"), ("first_replica", "i8")]
)
HELD = np.dtype(  # by a replica
    [
        ("model", "i8"),
        ("bytes", "i8"),
        ("bytes_max", "i8"),
        ("blocks", "i8"),
        ("oldest", "i8"),  # pairs
        ("newest", "i8"),
        ("is_joined", "?"),
    ]
)
BLOCK = np.dtype([("key", "u8"), ("holders", "i8")])
PAIR = np.dtype([("key", "u8"), ("block", "i8"), ("before", "i8"), ("after", "i8")])
FREE = np.dtype([("blocks", "i8"), ("pairs", "i8")])  # first unused rows, chained


class Prefixes(Handle):
    """The indexes of a gateway's models. About 150 B an entry of all of them together."""

    block_bytes: Numbers = field(np.int64)  # [0]
    indexes: Rows = field(INDEX)  # [model]
    held: Rows = field(HELD)  # [replica]
    block_table: Rows = field(ENTRY)
    blocks: Rows = field(BLOCK)
    masks: Numbers = field(np.uint64, 2)  # [block, word]
    pair_table: Rows = field(ENTRY)
    pairs: Rows = field(PAIR)
    free: Rows = field(FREE)  # [0]
    mask: Numbers = field(np.uint64)  # [word], scratch


def prefixes_of(
    model_of: Numbers, *, block_bytes: int, blocks_max: int, entries_max: int = ENTRIES_MAX
) -> Prefixes:
    """Empty indexes of replicas whose models are `model_of`, in one piece each.

    `blocks_max` are those of the longest prompt.
    """
    models = int(model_of.max(initial=-1)) + 1
    counts = np.bincount(model_of, minlength=models)
    words = -(-int(counts.max(initial=1)) // 64)
    rows = models * entries_max + blocks_max
    prefixes = Prefixes(
        block_bytes=np.array([block_bytes]),
        indexes=np.zeros(models, INDEX),
        held=np.zeros(len(model_of), HELD),
        block_table=table_of(rows),
        blocks=np.zeros(rows, BLOCK),
        masks=np.zeros((rows, words), np.uint64),
        pair_table=table_of(rows),
        pairs=np.zeros(rows, PAIR),
        free=np.zeros(1, FREE),
        mask=np.zeros(words, np.uint64),
    )
    prefixes.indexes["entries_max"] = prefixes.indexes["share"] = entries_max
    prefixes.indexes["first_replica"] = np.concatenate([[0], np.cumsum(counts)[:-1]])
    prefixes.held["model"] = model_of
    prefixes.held["oldest"] = prefixes.held["newest"] = NOWHERE
    following = np.append(np.arange(1, rows), NOWHERE)
    prefixes.blocks["holders"] = prefixes.pairs["after"] = following
    return prefixes


@compiled
def join(prefixes: Prefixes, replica: int, bytes_max: int) -> None:
    """A replica whose cache holds so many prompt bytes; one that is known keeps its blocks."""
    held = prefixes.held[replica]
    index = prefixes.indexes[held.model]
    held.bytes_max = bytes_max
    if held.is_joined:
        _trim(prefixes, replica)
        return
    held.is_joined = True
    index.joined += 1
    index.share = index.entries_max // index.joined
    for other in range(len(prefixes.held)):
        if prefixes.held[other].model == held.model:
            _trim(prefixes, other)


@compiled
def forget(prefixes: Prefixes, replica: int) -> None:
    """It was restarted or left: its cache is empty. Nothing, where it is not known."""
    held = prefixes.held[replica]
    if not held.is_joined:
        return
    while held.oldest != NOWHERE:
        _let_go(prefixes, replica, held.oldest)
    held.is_joined = False
    index = prefixes.indexes[held.model]
    index.joined -= 1
    index.share = index.entries_max // max(1, index.joined)


@compiled
def longest(
    prefixes: Prefixes, model: int, hashes: Numbers, replicas: Numbers, held_bytes: Numbers
) -> int:
    """How many replicas hold a part of a prompt: which, and how many bytes of it, are filled in."""
    if len(hashes) == 0:
        return 0
    block = row_of(prefixes.block_table, _key(model, hashes[0]))
    if block == NOWHERE:
        return 0
    mask, masks = prefixes.mask, prefixes.masks
    for word in range(len(mask)):  # a copy of arrays would bring in all of numba's error texts
        mask[word] = masks[block, word]
    first_replica = prefixes.indexes[model].first_replica
    found, blocks = 0, 1
    for place in range(1, len(hashes)):
        block = row_of(prefixes.block_table, _key(model, hashes[place]))
        is_any = False
        for word in range(len(mask)):
            both = mask[word] & masks[block, word] if block != NOWHERE else np.uint64(0)
            lost = mask[word] & ~both
            if lost:
                end = place * prefixes.block_bytes[0]
                base = first_replica + 64 * word
                found = _name(lost, base, end, replicas, held_bytes, found)
            mask[word] = both
            is_any = is_any or both != 0
        if not is_any:
            return found
        blocks += 1
    for word in range(len(mask)):
        end = blocks * prefixes.block_bytes[0]
        found = _name(mask[word], first_replica + 64 * word, end, replicas, held_bytes, found)
    return found


@compiled
def insert(prefixes: Prefixes, replica: int, hashes: Numbers) -> None:
    """The replica was sent this prompt. Nothing, where it has not joined."""
    held = prefixes.held[replica]
    if not held.is_joined:
        return
    for place in range(len(hashes) - 1, -1, -1):  # the beginning last: it is to stay longest
        block = _block(prefixes, _key(held.model, hashes[place]))
        pair = row_of(prefixes.pair_table, _pair_key(prefixes, block, replica))
        if pair == NOWHERE:
            pair = _take_up(prefixes, replica, block)
        else:
            _unchain(prefixes, replica, pair)
        _chain(prefixes, replica, pair)
    _trim(prefixes, replica)


@inner
def _key(model: int, block: Bits) -> Bits:
    return np.uint64(block) + np.uint64(model) * np.uint64(0xD1B54A32D192ED03)


@inner
def _pair_key(prefixes: Prefixes, block: int, replica: int) -> Bits:
    return np.uint64(block * len(prefixes.held) + replica)


@inner
def _name(
    bits: Bits, base: int, end: int, replicas: Numbers, held_bytes: Numbers, found: int
) -> int:
    """Write down the replicas of these bits; how many there are now."""
    replica = base
    while bits:
        if bits & np.uint64(1):
            replicas[found] = replica
            held_bytes[found] = end
            found += 1
        bits >>= np.uint64(1)
        replica += 1
    return found


@inner
def _block(prefixes: Prefixes, key: Bits) -> int:
    """Its row, a new one without holders if need be."""
    block = row_of(prefixes.block_table, key)
    if block == NOWHERE:
        block = prefixes.free[0].blocks
        prefixes.free[0].blocks = prefixes.blocks[block].holders
        prefixes.blocks[block].key = key
        prefixes.blocks[block].holders = 0
        put(prefixes.block_table, key, block)
    return block


@inner
def _take_up(prefixes: Prefixes, replica: int, block: int) -> int:
    """A new pair, not yet in its replica's chain."""
    held = prefixes.held[replica]
    pair = prefixes.free[0].pairs
    prefixes.free[0].pairs = prefixes.pairs[pair].after
    prefixes.pairs[pair].block = block
    key = _pair_key(prefixes, block, replica)
    prefixes.pairs[pair].key = key
    put(prefixes.pair_table, key, pair)
    bit = replica - prefixes.indexes[held.model].first_replica
    prefixes.masks[block, bit // 64] |= np.uint64(1) << np.uint64(bit % 64)
    prefixes.blocks[block].holders += 1
    held.bytes += prefixes.block_bytes[0]
    held.blocks += 1
    return pair


@inner
def _trim(prefixes: Prefixes, replica: int) -> None:
    """Let go of what was sent longest ago until both bounds hold."""
    held = prefixes.held[replica]
    share = prefixes.indexes[held.model].share
    while held.blocks > 0 and (held.bytes > held.bytes_max or held.blocks > share):
        _let_go(prefixes, replica, held.oldest)


@inner
def _let_go(prefixes: Prefixes, replica: int, pair: int) -> None:
    held = prefixes.held[replica]
    _unchain(prefixes, replica, pair)
    block = prefixes.pairs[pair].block
    drop(prefixes.pair_table, prefixes.pairs[pair].key)
    prefixes.pairs[pair].after = prefixes.free[0].pairs
    prefixes.free[0].pairs = pair
    bit = replica - prefixes.indexes[held.model].first_replica
    prefixes.masks[block, bit // 64] &= ~(np.uint64(1) << np.uint64(bit % 64))
    prefixes.blocks[block].holders -= 1
    if prefixes.blocks[block].holders == 0:
        drop(prefixes.block_table, prefixes.blocks[block].key)
        prefixes.blocks[block].holders = prefixes.free[0].blocks
        prefixes.free[0].blocks = block
    held.bytes -= prefixes.block_bytes[0]
    held.blocks -= 1


@inner
def _chain(prefixes: Prefixes, replica: int, pair: int) -> None:
    """At the end: sent now."""
    held, row = prefixes.held[replica], prefixes.pairs[pair]
    row.before, row.after = held.newest, NOWHERE
    if held.newest == NOWHERE:
        held.oldest = pair
    else:
        prefixes.pairs[held.newest].after = pair
    held.newest = pair


@inner
def _unchain(prefixes: Prefixes, replica: int, pair: int) -> None:
    held, row = prefixes.held[replica], prefixes.pairs[pair]
    if row.before == NOWHERE:
        held.oldest = row.after
    else:
        prefixes.pairs[row.before].after = row.after
    if row.after == NOWHERE:
        held.newest = row.before
    else:
        prefixes.pairs[row.after].before = row.before
