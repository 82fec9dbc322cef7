"""Which replica is next: a heap by time of next boundary, four children a node.

Ties: ends of steps before boundaries at which a step is still to be planned, then the lower
replica. So all that happens at an instant is seen by each step that starts at it.
"""

import numpy as np

from argosy.simulator.engine.kernels import inlined, merged
from argosy.simulator.engine.state import DUE, HEAP_SIZE, NOBODY, State

_CHILDREN = 4
_DUE = 1 << 32  # in an entry's order: above all replicas'


@inlined
def _is_before(one_s: float, one: int, other_s: float, other: int) -> bool:
    return one_s < other_s or (one_s == other_s and one < other)


@inlined
def _put(state: State, place: int, time_s: float, order: int) -> None:
    entry = state.heap[place]
    entry.time_s = time_s
    entry.order = order
    state.places[replica_of(order)] = place


@inlined
def replica_of(order: int) -> int:
    """Of an entry of the heap."""
    return order & (_DUE - 1)


@inlined
def is_due(order: int) -> bool:
    """Whether the replica stands at its boundary and has its next step to plan."""
    return order >= _DUE


@merged
def _settle_in(state: State, place: int) -> None:
    """The entry at `place` rises or sinks to where it belongs."""
    heap = state.heap
    time_s, order = heap[place].time_s, heap[place].order
    while place > 0:
        parent = (place - 1) // _CHILDREN
        above_s, above = heap[parent].time_s, heap[parent].order
        if not _is_before(time_s, order, above_s, above):
            break
        _put(state, place, above_s, above)
        place = parent
    while place * _CHILDREN + 1 < state.marks[HEAP_SIZE]:
        best = _first_child(state, place)
        below_s, below = heap[best].time_s, heap[best].order
        if _is_before(time_s, order, below_s, below):
            break
        _put(state, place, below_s, below)
        place = best
    _put(state, place, time_s, order)


@merged
def _first_child(state: State, place: int) -> int:
    heap = state.heap
    best = place * _CHILDREN + 1
    for child in range(best + 1, min(best + _CHILDREN, state.marks[HEAP_SIZE])):
        entry = heap[child]
        if _is_before(entry.time_s, entry.order, heap[best].time_s, heap[best].order):
            best = child
    return best


@inlined
def reschedule(state: State, replica: int) -> None:
    """Its next boundary has changed: into the heap, to its new place, or out when there is none."""
    it = state.replicas[replica]
    place = np.int64(state.places[replica])
    if place == NOBODY:
        if it.end_s == np.inf:
            return
        place = state.marks[HEAP_SIZE]
        state.marks[HEAP_SIZE] += 1
    if it.end_s < np.inf:
        _put(state, place, it.end_s, replica + (_DUE if it.phase == DUE else 0))
    else:  # the last takes its place
        state.places[replica] = NOBODY
        state.marks[HEAP_SIZE] -= 1
        last = state.heap[state.marks[HEAP_SIZE]]
        if place == state.marks[HEAP_SIZE]:
            return
        _put(state, place, last.time_s, last.order)
    _settle_in(state, place)
