"""A replica's lists of slots: who waits, whose prompt ends, who decodes; and the events' queue.

Waiting is doubly linked through the requests, so that the cancelled leave from its middle.
"""

from argosy.simulator.engine import running
from argosy.simulator.engine.kernels import inlined, kernel
from argosy.simulator.engine.state import (
    NOBODY,
    QUEUE_HEAD,
    QUEUE_TAIL,
    SLOT_BITS,
    SLOT_MASK,
    WAITING,
    Replica,
    State,
)


@inlined
def wait_last(state: State, replica: int, slot: int) -> None:
    """A new request queues."""
    it = state.replicas[replica]
    request = state.requests[slot]
    request.phase = WAITING
    request.next = NOBODY
    request.previous = it.waiting_last
    if it.waiting_last == NOBODY:
        it.waiting_first = slot
    else:
        state.requests[it.waiting_last].next = slot
    it.waiting_last = slot
    it.waiting += 1


@kernel
def wait_first(state: State, replica: int, slot: int) -> None:
    """A preempted request queues before all others."""
    it = state.replicas[replica]
    request = state.requests[slot]
    request.phase = WAITING
    request.previous = NOBODY
    request.next = it.waiting_first
    if it.waiting_first == NOBODY:
        it.waiting_last = slot
    else:
        state.requests[it.waiting_first].previous = slot
    it.waiting_first = slot
    it.waiting += 1


@inlined
def leave_waiting(state: State, replica: int, slot: int) -> None:
    """It is admitted, or cancelled."""
    it = state.replicas[replica]
    request = state.requests[slot]
    if request.previous == NOBODY:
        it.waiting_first = request.next
    else:
        state.requests[request.previous].next = request.next
    if request.next == NOBODY:
        it.waiting_last = request.previous
    else:
        state.requests[request.next].previous = request.previous
    it.waiting -= 1


@inlined
def end_after_step(state: State, replica: int, slot: int) -> None:
    """The step that is being planned reads its prompt to the end."""
    it = state.replicas[replica]
    state.requests[slot].next = NOBODY
    if it.ending_first == NOBODY:
        it.ending_first = slot
    else:
        state.requests[it.ending_last].next = slot
    it.ending_last = slot


@inlined
def drop_ending(state: State, it: Replica) -> None:
    """The first of those whose prompt ends is no longer being read."""
    it.reading -= 1
    it.ending_first = state.requests[it.ending_first].next


@inlined
def add_running(state: State, it: Replica, slot: int) -> None:
    """It decodes from the next step on."""
    request = state.requests[slot]
    ends = it.decode_steps + request.output - request.generated
    running.push(state.running, it.running_at, it.decoding, (ends << SLOT_BITS) | slot)
    it.decoding += 1


@inlined
def remove_running(state: State, it: Replica, place: int) -> None:
    """Whoever is at `place` of the heap no longer decodes."""
    running.remove(state.running, it.running_at, it.decoding, place)
    it.decoding -= 1


@kernel
def place_of(state: State, it: Replica, slot: int) -> int:
    """Where in the heap of those who decode; NOBODY: nowhere."""
    for place in range(it.decoding):
        if state.running[it.running_at + place] & SLOT_MASK == slot:
            return place
    return NOBODY


@kernel
def lowest_leaving(state: State, it: Replica) -> int:
    """The lowest slot of those who were cancelled while they ran."""
    lowest = SLOT_MASK
    if it.partial != NOBODY and state.requests[it.partial].is_leaving:
        lowest = it.partial
    for place in range(it.decoding):
        slot = state.running[it.running_at + place] & SLOT_MASK
        if state.requests[slot].is_leaving and slot < lowest:
            lowest = slot
    return lowest


@inlined
def emit(state: State, replica: int, kind: int, slot: int) -> None:
    """Queue an event of the boundary that is being settled, by slot and then kind."""
    place = state.marks[QUEUE_TAIL]
    state.queue[place].time_s = state.replicas[replica].end_s
    state.queue[place].replica = replica
    while place > state.marks[QUEUE_HEAD]:
        before = state.queue[place - 1]
        if before.slot < slot or (before.slot == slot and before.kind < kind):
            break
        state.queue[place].slot = before.slot
        state.queue[place].kind = before.kind
        place -= 1
    state.queue[place].slot = slot
    state.queue[place].kind = kind
    state.marks[QUEUE_TAIL] += 1
