"""One replica's steps: what starts at a boundary, and what has happened when it ends.

vLLM v1's continuous batching. At a boundary each request past its prefill decodes a token, first
of all; the rest of the step's token budget goes to the prompt that is partly read, then to those
who wait, in order. A decode that finds no KV block free preempts the newest request, which is read
again later; a step that preempts admits nobody. While no prompt is read and none can be admitted,
steps differ only by their contexts: k of them are one arithmetic series, planned and settled as
one (`steps` > 1), and cut when something comes from outside.
"""

import numpy as np

from argosy.simulator.engine import blocks, prefix, queues
from argosy.simulator.engine.histogram import bin_of, count_series
from argosy.simulator.engine.kernels import inlined, kernel, merged
from argosy.simulator.engine.state import (
    DECODING,
    DUE,
    FREE,
    IDLE,
    NOBODY,
    READING,
    SLOT_BITS,
    SLOT_MASK,
    STEPPING,
    Replica,
    State,
)

FIRST_TOKEN, FINISHED, CANCELLED = 1, 2, 3


@merged
def plan(state: State, replica: int) -> None:
    """At the boundary `end_s`: start the next step or steps, or become idle."""
    it = state.replicas[replica]
    if it.leaving > 0:
        _drop_leaving(state, replica)
    has_preempted = False
    it.blocks_taken = 0
    if it.decoding > 0:
        has_preempted = _make_room(state, replica)
    it.chunk_tokens = it.chunk_pairs = 0
    if it.partial != NOBODY or it.waiting > 0:
        _read_prompts(state, replica, has_preempted)
    it.start_s = it.end_s
    if it.chunk_tokens == 0 and it.decoding == 0:
        it.phase = IDLE
        it.end_s = np.inf
        return
    it.phase = STEPPING
    it.steps = 1
    linear_s = state.linear_s[it.linear_at + it.decoding + it.chunk_tokens]
    attention_s = it.context_s_per_token * it.contexts + it.pair_s * it.chunk_pairs
    it.step_s = (linear_s + attention_s) * it.slowness
    it.growth_s = 0.0
    if it.chunk_tokens == 0:
        it.growth_s = it.context_s_per_token * it.decoding * it.slowness
        if not has_preempted:
            it.steps = _steps_alike(state, it)
    it.end_s = end_of(it, it.steps)


@merged
def _steps_alike(state: State, it: Replica) -> int:
    """Until a last token, or until the KV blocks are out.

    Nobody can be admitted meanwhile: free blocks only get fewer. After a step that preempts, and so
    admits nobody, that does not hold: the prefix cache may by now have a part of the preempted.
    """
    until_last = (state.running[it.running_at] >> SLOT_BITS) - it.decode_steps
    return blocks.steps_with_blocks(state, it, until_last)


@inlined
def end_of(it: Replica, steps: int) -> float:
    """When so many of the steps in flight have been done."""
    return it.start_s + (it.step_s * steps + it.growth_s * (0.5 * steps * (steps - 1)))


@kernel
def steps_until(it: Replica, at_s: float) -> int:
    """How many of the steps in flight end at the first boundary at or after `at_s`; at least 1."""
    if it.steps == 1 or at_s >= it.end_s:
        return it.steps
    ahead_s = at_s - it.start_s
    if ahead_s <= it.step_s:
        return 1
    half = it.step_s - 0.5 * it.growth_s  # the root of growth/2 n^2 + half n = ahead
    guess = int(2.0 * ahead_s / (half + np.sqrt(half * half + 2.0 * it.growth_s * ahead_s)))
    guess = max(1, min(guess, it.steps))
    while guess > 1 and end_of(it, guess - 1) >= at_s:
        guess -= 1
    while guess < it.steps and end_of(it, guess) < at_s:
        guess += 1
    return guess


@inlined
def cut(it: Replica, at_s: float) -> bool:
    """Stop at the first boundary at or after `at_s`; whether that is earlier than planned."""
    if it.phase != STEPPING or it.steps == 1:
        return False
    steps = steps_until(it, at_s)
    if steps == it.steps:
        return False
    it.steps = steps
    it.end_s = end_of(it, steps)
    return True


@kernel
def _drop_leaving(state: State, replica: int) -> None:
    """Those cancelled while they ran, in order of slot."""
    it = state.replicas[replica]
    while it.leaving > 0:
        slot = queues.lowest_leaving(state, it)
        if slot == it.partial:
            stop_reading(state, replica, slot)
        else:
            stop_decoding(state, replica, queues.place_of(state, it, slot))
        it.leaving -= 1
        it.cancelled += 1
        state.requests[slot].phase = FREE
        queues.emit(state, replica, CANCELLED, slot)


@merged
def _make_room(state: State, replica: int) -> bool:
    """Give the next step's decodes their blocks; preempt the newest until they suffice.

    Whether anyone was preempted.
    """
    it = state.replicas[replica]
    needed_at = it.phases_at + blocks.phase_of_step(it)
    has_preempted = False
    while state.phases[needed_at] > it.blocks_free:
        _preempt_newest(state, replica)
        has_preempted = True
    it.blocks_taken = state.phases[needed_at]
    blocks.take(state, it, it.blocks_taken)
    return has_preempted


@kernel
def _preempt_newest(state: State, replica: int) -> None:
    it = state.replicas[replica]
    it.preemptions += 1
    if it.partial != NOBODY:
        slot = it.partial
        stop_reading(state, replica, slot)
    else:
        place = 0
        for other in range(1, it.decoding):
            if _admitted(state, it, other) > _admitted(state, it, place):
                place = other
        slot = stop_decoding(state, replica, place)
        state.requests[slot].last_token_s = it.end_s
    request = state.requests[slot]
    request.total = request.prompt + request.generated
    it.unread_tokens += request.total
    queues.wait_first(state, replica, slot)


@kernel
def _admitted(state: State, it: Replica, place: int) -> int:
    return state.requests[state.running[it.running_at + place] & SLOT_MASK].admitted


@kernel
def stop_reading(state: State, replica: int, slot: int) -> None:
    """The prompt that is partly read no longer is; its blocks are free."""
    it = state.replicas[replica]
    request = state.requests[slot]
    it.partial = NOBODY
    it.reading -= 1
    it.unread_tokens -= request.total - request.done
    blocks.give_back(state, it, request)


@inlined
def stop_decoding(state: State, replica: int, place: int) -> int:
    """The request at `place` of the running heap leaves it; its slot."""
    it = state.replicas[replica]
    key = state.running[it.running_at + place]
    slot = key & SLOT_MASK
    queues.remove_running(state, it, place)
    request = state.requests[slot]
    request.generated = request.output - ((key >> SLOT_BITS) - it.decode_steps)
    it.contexts -= request.context_base + it.decode_steps + 1
    state.phases[it.phases_at + request.context_base % it.block_tokens] -= 1
    blocks.give_back(state, it, request)
    return slot


@merged
def _read_prompts(state: State, replica: int, has_preempted: bool) -> None:
    """Spend the budget that decodes leave on prompts."""
    it = state.replicas[replica]
    budget = it.step_tokens_max - it.decoding
    if it.partial != NOBODY and budget > 0:
        slot = it.partial
        it.partial = NOBODY
        budget -= _read_chunk(state, replica, slot, budget)
    if has_preempted:
        return
    while budget > 0 and it.waiting > 0 and it.decoding + it.reading < it.requests_max:
        slot = it.waiting_first
        if not _admit(state, replica, slot):
            return
        budget -= _read_chunk(state, replica, slot, budget)


@inlined
def _admit(state: State, replica: int, slot: int) -> bool:
    """Give it the blocks of all it has to read, if they are free and the watermark is kept."""
    it = state.replicas[replica]
    request = state.requests[slot]
    hits = idle = 0
    if request.hash_count > 0:
        hits, idle = prefix.match(state, it, request)
    own = blocks.blocks_for(request.total, it.block_tokens) - hits * it.entry_blocks
    kept = it.blocks_watermark if it.decoding + it.reading > 0 else 0
    if own + idle * it.entry_blocks + kept > it.blocks_free:
        return False
    if hits > 0:
        prefix.hold(state, it, request, hits)
    blocks.take(state, it, own)
    queues.leave_waiting(state, replica, slot)
    request.done = min(hits * state.hash_tokens[0], request.total - 1)
    it.tokens_spared += request.done
    it.unread_tokens -= request.done
    request.phase = READING
    request.admitted = it.admissions
    it.admissions += 1
    it.reading += 1
    return True


@inlined
def _read_chunk(state: State, replica: int, slot: int, budget: int) -> int:
    """As much of the prompt as the budget allows; how many tokens that is."""
    it = state.replicas[replica]
    request = state.requests[slot]
    before = np.int64(request.done)
    tokens = min(budget, request.total - before)
    after = before + tokens
    request.done = after
    it.chunk_tokens += tokens
    it.chunk_pairs += (after * (after + 1) - before * (before + 1)) // 2
    if after == request.total:
        queues.end_after_step(state, replica, slot)
    else:
        it.partial = slot
    return tokens


@merged
def settle(state: State, replica: int) -> None:
    """The steps in flight have ended: tokens are out, those who are done leave. Queues events."""
    it = state.replicas[replica]
    count_steps(state, replica, it.steps, it.end_s)
    it.tokens_prefilled += it.chunk_tokens
    it.unread_tokens -= it.chunk_tokens
    it.phase = DUE
    ends = (it.decode_steps + 1) << SLOT_BITS
    while it.decoding > 0 and state.running[it.running_at] < ends:
        slot = stop_decoding(state, replica, 0)
        _finish(state, replica, slot)
    while it.ending_first != NOBODY:
        _end_prompt(state, replica)


@inlined
def count_steps(state: State, replica: int, steps: int, until_s: float) -> None:
    """So many of the steps in flight are done: contexts grow, blocks are taken, accounts kept."""
    it = state.replicas[replica]
    took_s = until_s - it.start_s
    it.busy_s += took_s
    it.batch_s += took_s * (it.decoding + it.reading)
    it.steps_done += steps
    if it.decoding == 0 or steps == 0:
        return
    blocks.take(state, it, blocks.blocks_of_steps(state, it, steps) - it.blocks_taken)
    it.blocks_taken = 0
    it.decode_steps += steps
    it.contexts += steps * it.decoding
    it.tokens_decoded += steps * it.decoding
    series = (it.step_s, it.growth_s)
    count_series(state.itl_counts[it.group], state.bin_edges_s, series, steps, it.decoding)


@inlined
def _finish(state: State, replica: int, slot: int) -> None:
    it = state.replicas[replica]
    request = state.requests[slot]
    request.phase = FREE
    it.leaving -= request.is_leaving  # cancelled too late
    it.finished += 1
    queues.emit(state, replica, FINISHED, slot)


@merged
def _end_prompt(state: State, replica: int) -> None:
    """The last chunk was computed: a token is out, and the request decodes from now on."""
    it = state.replicas[replica]
    slot = it.ending_first
    queues.drop_ending(state, it)
    request = state.requests[slot]
    it.prompts_read += 1
    if request.hash_count > 0:
        prefix.insert(state, it, request)
    if request.generated == 0:
        queues.emit(state, replica, FIRST_TOKEN, slot)
    else:
        gap_s = it.end_s - request.last_token_s
        state.itl_counts[it.group, bin_of(state.bin_edges_s, gap_s)] += 1
    request.generated += 1
    if request.generated == request.output:
        blocks.give_back(state, it, request)
        _finish(state, replica, slot)
        return
    request.phase = DECODING
    request.context_base = request.total - it.decode_steps
    it.contexts += request.total + 1
    state.phases[it.phases_at + request.context_base % it.block_tokens] += 1
    queues.add_running(state, it, slot)
