"""What a driver calls: requests in, events out, and faults, in global order of time.

A driver calls `pop_event(state, now_s)` until it answers NOTHING before it does anything at
`now_s`; then whatever it submits is seen by each step that starts at `now_s` or later. Work that is
in flight is not interrupted: a step that has begun ends. Events of one instant come by replica,
then by slot, then by kind; those of steps that end before those of cancelling. A slot is free
again after FINISHED or CANCELLED, a `cancel` that answers GONE, or `kill`.
"""

import numpy as np

from argosy.simulator.engine import blocks, queues, steps
from argosy.simulator.engine.heap import is_due, replica_of, reschedule
from argosy.simulator.engine.kernels import inlined, kernel, merged
from argosy.simulator.engine.state import (
    DEAD,
    DUE,
    FREE,
    HEAP_SIZE,
    IDLE,
    NOBODY,
    QUEUE_HEAD,
    QUEUE_TAIL,
    SLOT_BITS,
    SLOT_MASK,
    STEPPING,
    WAITING,
    Replica,
    State,
    reset_replica,
)

NOTHING = 0  # kinds of events; the others are FIRST_TOKEN, FINISHED, CANCELLED of `steps`
ACCEPTED, NEVER_FITS, REPLICA_DEAD, BEHIND, NOT_A_REQUEST, SLOT_TAKEN = 0, 1, 2, 3, 4, 5
GONE, LEAVING, NOT_HERE = 0, 1, 2  # what `cancel` answers


@kernel
def submit(
    state: State, replica: int, slot: int, prompt_tokens: int, output_tokens: int, at_s: float
) -> int:
    """A request reaches a replica; ACCEPTED, or why not: the slot stays free then.

    NEVER_FITS: prompt and output are beyond the replica's KV blocks. BEHIND: events before `at_s`
    have not been popped.
    """
    return submit_hashed(state, replica, slot, (prompt_tokens, output_tokens), at_s, (0, 0))


@inlined
def submit_hashed(
    state: State,
    replica: int,
    slot: int,
    tokens: tuple[int, int],
    at_s: float,
    hashes: tuple[int, int],
) -> int:
    """As `submit`, of (prompt, output) tokens, with the range of State.hashes that names it."""
    it = state.replicas[replica]
    before_s = it.end_s
    code = enqueue(state, replica, slot, tokens, at_s, hashes)
    if it.end_s != before_s:
        reschedule(state, replica)
    return code


@inlined
def enqueue(
    state: State,
    replica: int,
    slot: int,
    tokens: tuple[int, int],
    at_s: float,
    hashes: tuple[int, int],
) -> int:
    """`submit_hashed` for a driver that keeps time replica by replica, without the heap."""
    it = state.replicas[replica]
    code = _refusal(state, it, slot, tokens, at_s)
    it.submitted += 1
    if code != ACCEPTED:
        it.refused += 1
        return code
    request = state.requests[slot]
    request.replica = replica
    request.prompt = tokens[0]
    request.output = tokens[1]
    request.total = request.prompt
    request.generated = request.done = request.is_leaving = request.hashes_held = 0
    request.hash_from = hashes[0]
    request.hash_count = 0
    if it.entry_blocks > 0:
        request.hash_count = min(hashes[1] - hashes[0], tokens[0] // state.hash_tokens[0])
    it.unread_tokens += request.prompt
    queues.wait_last(state, replica, slot)
    if it.phase == IDLE:
        it.phase = DUE
        it.end_s = at_s
    else:
        cut_for_arrival(it, at_s)
    return ACCEPTED


@merged
def cut_for_arrival(it: Replica, at_s: float) -> None:
    """Steps of decoding alone stop at the next boundary, unless nobody could be admitted there."""
    if it.decoding + it.reading < it.requests_max and it.waiting == 1:
        steps.cut(it, at_s)


@merged
def _refusal(state: State, it: Replica, slot: int, tokens: tuple[int, int], at_s: float) -> int:
    if it.phase == DEAD:
        return REPLICA_DEAD
    if at_s > it.end_s:
        return BEHIND
    if tokens[0] < 1 or tokens[1] < 1:
        return NOT_A_REQUEST
    if state.requests[slot].phase != FREE:
        return SLOT_TAKEN
    if blocks.blocks_for(tokens[0] + tokens[1], it.block_tokens) > it.blocks:
        return NEVER_FITS
    return ACCEPTED


@kernel
def next_event_s(state: State) -> float:
    """The soonest boundary: no event comes before it; inf when all is idle."""
    if state.marks[QUEUE_HEAD] < state.marks[QUEUE_TAIL]:
        return state.queue[state.marks[QUEUE_HEAD]].time_s
    if state.marks[HEAP_SIZE] == 0:
        return np.inf
    return state.heap[0].time_s


@inlined
def pop_event(state: State, until_s: float) -> tuple[float, int, int, int]:
    """The next event: (time_s, kind, replica, slot); of kind NOTHING if none is up to `until_s`.

    What starts at `until_s` itself is not planned yet, so that it sees what is submitted then.
    """
    while True:
        head = state.marks[QUEUE_HEAD]
        if head < state.marks[QUEUE_TAIL]:
            event = state.queue[head]
            state.marks[QUEUE_HEAD] += 1
            return event.time_s, event.kind, event.replica, event.slot
        state.marks[QUEUE_HEAD] = state.marks[QUEUE_TAIL] = 0
        if state.marks[HEAP_SIZE] == 0:
            break
        soonest = state.heap[0]
        if soonest.time_s > until_s or (soonest.time_s == until_s and is_due(soonest.order)):
            break
        replica = replica_of(soonest.order)
        advance(state, replica)
        reschedule(state, replica)
    return np.inf, NOTHING, NOBODY, NOBODY


@inlined
def advance(state: State, replica: int) -> None:
    """One change of phase: steps in flight end, or at a boundary the next ones start."""
    if state.replicas[replica].phase == STEPPING:
        steps.settle(state, replica)
    else:
        steps.plan(state, replica)


@kernel
def cancel(state: State, replica: int, slot: int, at_s: float) -> int:
    """Take a request back: GONE now if it waited, else LEAVING: it ends at the next boundary.

    By CANCELLED, or by FINISHED if the step in flight gave its last token.
    """
    it = state.replicas[replica]
    request = state.requests[slot]
    if request.phase == FREE or request.replica != replica or request.is_leaving:
        return NOT_HERE
    if request.phase == WAITING:
        queues.leave_waiting(state, replica, slot)
        it.unread_tokens -= request.total
        it.cancelled += 1
        request.phase = FREE
        if it.waiting > 0:  # the next may fit where this one did not
            _cut_and_reschedule(state, replica, at_s)
        return GONE
    request.is_leaving = 1
    it.leaving += 1
    _cut_and_reschedule(state, replica, at_s)
    return LEAVING


@kernel
def _cut_and_reschedule(state: State, replica: int, at_s: float) -> None:
    if steps.cut(state.replicas[replica], at_s):
        reschedule(state, replica)


@kernel
def set_speed(state: State, replica: int, factor: float, at_s: float) -> None:
    """Steps that start from now on run at `factor` of the replica's own speed, above 0."""
    state.replicas[replica].slowness = 1.0 / factor
    _cut_and_reschedule(state, replica, at_s)


@kernel
def kill(state: State, replica: int, at_s: float, out: np.ndarray) -> int:
    """The replica is gone at once, with its caches; how many requests it had.

    `out` is int64 [requests, 2], with a row for each: slot, tokens generated; those running by
    age, then those waiting in order. The step in flight is lost. A boundary at `at_s` was reached.
    """
    it = state.replicas[replica]
    if it.phase == STEPPING:
        _count_partly(state, replica, at_s)
    count = _list_running(state, it, out)
    slot = it.waiting_first
    while slot != NOBODY:
        count = _list(state, out, count, slot, state.requests[slot].generated)
        slot = state.requests[slot].next
    it.killed += count
    reset_replica(state, replica)
    it.phase = DEAD
    reschedule(state, replica)
    return count


@kernel
def _count_partly(state: State, replica: int, at_s: float) -> None:
    it = state.replicas[replica]
    done = steps.steps_until(it, at_s)
    if steps.end_of(it, done) > at_s:
        done -= 1
    steps.count_steps(state, replica, done, at_s)


@kernel
def _list_running(state: State, it: Replica, out: np.ndarray) -> int:
    count = 0
    for place in range(it.decoding):
        key = state.running[it.running_at + place]
        request = state.requests[key & SLOT_MASK]
        generated = request.output - ((key >> SLOT_BITS) - it.decode_steps)
        count = _list_by_age(state, out, count, key & SLOT_MASK, generated)
    slot = it.ending_first
    while slot != NOBODY:
        count = _list_by_age(state, out, count, slot, state.requests[slot].generated)
        slot = state.requests[slot].next
    if it.partial != NOBODY:
        count = _list_by_age(state, out, count, it.partial, state.requests[it.partial].generated)
    for row in range(count):
        state.requests[out[row, 0]].phase = FREE
    return count


@kernel
def _list_by_age(state: State, out: np.ndarray, count: int, slot: int, generated: int) -> int:
    row = count
    while row > 0 and state.requests[out[row - 1, 0]].admitted > state.requests[slot].admitted:
        out[row, 0] = out[row - 1, 0]
        out[row, 1] = out[row - 1, 1]
        row -= 1
    out[row, 0] = slot
    out[row, 1] = generated
    return count + 1


@kernel
def _list(state: State, out: np.ndarray, count: int, slot: int, generated: int) -> int:
    out[count, 0] = slot
    out[count, 1] = generated
    state.requests[slot].phase = FREE
    return count + 1


@kernel
def revive(state: State, replica: int) -> None:
    """A killed replica takes requests again, with empty caches and at full speed."""
    if state.replicas[replica].phase == DEAD:
        reset_replica(state, replica)
        state.replicas[replica].slowness = 1.0
