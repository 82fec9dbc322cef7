"""What the engines of a fleet remember between two events: arrays, one record a replica.

Owns the layout of the state and nothing that happens in it. All replicas of all groups share the
arrays; a replica's record says where its parts begin. A slot holds one request while it is alive;
the driver chooses slots and may use one again once its request has ended.
"""

from typing import Any, TypeAlias

import numpy as np

from argosy.simulator.engine.kernels import kernel
from argosy.simulator.handle import Handle, field

IDLE, DUE, STEPPING, DEAD = 0, 1, 2, 3  # a replica: no work, at a boundary, in steps, killed
FREE, WAITING, READING, DECODING = 0, 1, 2, 3  # a slot: nobody, queued, prefill, past prefill
NOBODY = -1
SLOT_BITS = 26  # of a running request's key; the step of its last token has the other 37
SLOT_MASK = (1 << SLOT_BITS) - 1
HEAP_SIZE, QUEUE_HEAD, QUEUE_TAIL = 0, 1, 2  # places in `State.marks`

Replica: TypeAlias = Any  # a record of REPLICA; no type checker knows its fields
Request: TypeAlias = Any  # a record of REQUEST
Records: TypeAlias = Any  # an array of one of these
Numbers: TypeAlias = Any  # an array of one type

REPLICA = np.dtype(
    [
        # the step or steps in flight
        ("start_s", "f8"),
        ("end_s", "f8"),  # the boundary they end at; at a boundary: now; idle: inf
        ("step_s", "f8"),  # the first of them
        ("growth_s", "f8"),  # by which each takes longer than the one before
        ("steps", "i8"),
        ("phase", "i8"),
        ("chunk_tokens", "i8"),  # of prompts, computed in this step
        ("chunk_pairs", "i8"),  # token and token attended to
        # those who decode
        ("decoding", "i8"),
        ("decode_steps", "i8"),  # done since the start: the clock of contexts and last tokens
        ("contexts", "i8"),  # tokens that they attend to in the next step
        ("running_at", "i8"),
        # those whose prompt is being read; at most one is left partly read: the newest
        ("reading", "i8"),
        ("partial", "i8"),
        ("ending_first", "i8"),  # read to the end by this step, in order of admission
        ("ending_last", "i8"),
        ("admissions", "i8"),
        # those who wait
        ("waiting", "i8"),
        ("waiting_first", "i8"),
        ("waiting_last", "i8"),
        ("unread_tokens", "i8"),  # of prompts, running and waiting
        ("leaving", "i8"),  # cancelled while they ran: they go at the next boundary
        # KV blocks
        ("blocks_free", "i8"),  # of no request; those of the prefix cache alone count as free
        ("blocks_taken", "i8"),  # by the decodes of the first of the steps in flight
        ("blocks", "i8"),
        ("blocks_watermark", "i8"),
        ("block_tokens", "i8"),
        ("phases_at", "i8"),
        # settings
        ("slowness", "f8"),  # 1 / speed
        ("requests_max", "i8"),
        ("step_tokens_max", "i8"),
        ("linear_at", "i8"),
        ("context_s_per_token", "f8"),
        ("pair_s", "f8"),
        ("group", "i8"),
        # the prefix cache
        ("entry_blocks", "i8"),  # KV blocks of one hash block; 0: no prefix cache
        ("entries_at", "i8"),
        ("entries_max", "i8"),
        ("buckets_at", "i8"),
        ("buckets_mask", "i8"),
        ("unreferenced", "i8"),
        ("oldest", "i8"),  # of the unreferenced
        ("newest", "i8"),
        ("unused", "i8"),  # first of the entries that hold nothing
        # accounts, since the start
        ("busy_s", "f8"),
        ("batch_s", "f8"),  # integral of the running requests over time
        ("steps_done", "i8"),
        ("tokens_prefilled", "i8"),
        ("tokens_decoded", "i8"),  # by decode steps: each prompt's end gives one more
        ("tokens_spared", "i8"),
        ("prompts_read", "i8"),  # ends of a prefill: first tokens, and those after a preemption
        ("preemptions", "i8"),
        ("submitted", "i8"),
        ("refused", "i8"),
        ("finished", "i8"),
        ("cancelled", "i8"),
        ("killed", "i8"),
    ],
    align=True,
)

REQUEST = np.dtype(
    [
        ("last_token_s", "f8"),  # when it was preempted: the wait counts into its ITL
        ("context_base", "i8"),  # tokens in its KV cache less its replica's decode steps
        ("admitted", "i8"),  # its replica's how many-eth admission: the newest is preempted first
        ("hash_from", "i8"),  # into State.hashes
        ("hash_count", "i4"),  # whole hash blocks of the prompt
        ("hashes_held", "i4"),  # of them, how many it references in the cache
        ("replica", "i4"),
        ("next", "i4"),
        ("previous", "i4"),
        ("prompt", "i4"),
        ("output", "i4"),
        ("generated", "i4"),  # while it decodes: as of its last prefill
        ("total", "i4"),  # to prefill: the prompt and, after a preemption, what was generated
        ("done", "i4"),  # of them, prefilled
        ("phase", "i1"),
        ("is_leaving", "i1"),
    ],
    align=True,
)

EVENT = np.dtype([("time_s", "f8"), ("kind", "i8"), ("replica", "i8"), ("slot", "i8")])

HEAP_ENTRY = np.dtype([("time_s", "f8"), ("order", "i8")])  # order: replica, higher when due

# One hash block in one replica's prefix cache. Doubly linked by age while unreferenced.
CACHE_ENTRY = np.dtype(
    [("name", "u8"), ("chain", "i4"), ("references", "i4"), ("older", "i4"), ("newer", "i4")],
    align=True,
)


class State(Handle):
    """Of all engines. Built by `build`; changed in place by the functions of this package."""

    replicas: Records = field(REPLICA)
    requests: Records = field(REQUEST)  # by slot
    # A heap for each replica, of the last token's step << SLOT_BITS | slot.
    running: Numbers = field(np.int64)
    # Of each replica, how many decode with context_base mod block_tokens.
    phases: Numbers = field(np.int32)
    # Of each kind of replica, StepTime's linear part by tokens.
    linear_s: Numbers = field(np.float64)
    heap: Records = field(HEAP_ENTRY)  # replicas with work, by the time of their next boundary
    places: Numbers = field(np.int32)  # where each replica is in the heap
    marks: Numbers = field(np.int64)  # sizes of the heap and the queue
    queue: Records = field(EVENT)  # those of the boundary that was settled last
    entries: Records = field(CACHE_ENTRY)
    buckets: Numbers = field(np.int32)  # first entries of the prefix cache's chains
    hashes: Numbers = field(np.uint64)  # the driver's; ranges of it name requests' prefixes
    hash_tokens: Numbers = field(np.int64)  # one number, of a hash block; 0: no prefix cache
    itl_counts: Numbers = field(np.int64, 2)  # [group, bin]
    bin_edges_s: Numbers = field(np.float64)  # bin b holds edges[b] <= gap < edges[b + 1]


@kernel
def reset_replica(state: State, replica: int) -> None:
    """Empty and idle, with its accounts as they are."""
    it = state.replicas[replica]
    it.start_s = 0.0
    it.end_s = np.inf
    it.phase = IDLE
    it.steps = it.chunk_tokens = it.chunk_pairs = it.blocks_taken = 0
    it.decoding = it.contexts = it.reading = it.waiting = it.unread_tokens = it.leaving = 0
    it.partial = it.ending_first = it.ending_last = NOBODY
    it.waiting_first = it.waiting_last = NOBODY
    it.blocks_free = it.blocks
    state.phases[it.phases_at : it.phases_at + it.block_tokens] = 0
    if it.entry_blocks > 0:
        _empty_cache(state, it)


@kernel
def _empty_cache(state: State, it: Replica) -> None:
    state.buckets[it.buckets_at : it.buckets_at + it.buckets_mask + 1] = NOBODY
    it.unreferenced = 0
    it.oldest = it.newest = NOBODY
    it.unused = it.entries_at
    for entry in range(it.entries_at, it.entries_at + it.entries_max):
        state.entries[entry].chain = entry + 1
    state.entries[it.entries_at + it.entries_max - 1].chain = NOBODY
