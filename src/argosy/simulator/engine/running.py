"""Who decodes on a replica, by the step of the last token: a binary heap of packed numbers.

A key is `step << SLOT_BITS | slot`, so that those who end together come in order of slot.
"""

import numpy as np

from argosy.simulator.engine.kernels import inlined


@inlined
def push(keys: np.ndarray, at: int, size: int, key: int) -> None:
    """Into the heap of `size` keys that begins at `at`."""
    _rise(keys, at, size, key)


@inlined
def _rise(keys: np.ndarray, at: int, place: int, key: int) -> None:
    while place > 0:
        parent = (place - 1) >> 1
        if keys[at + parent] <= key:
            break
        keys[at + place] = keys[at + parent]
        place = parent
    keys[at + place] = key


@inlined
def remove(keys: np.ndarray, at: int, size: int, place: int) -> None:
    """The key at `place`, of `size` before."""
    size -= 1
    key = keys[at + size]
    if place == size:
        return
    hole = place
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and keys[at + child + 1] < keys[at + child]:
            child += 1
        if keys[at + child] >= key:
            break
        keys[at + hole] = keys[at + child]
        hole = child
    _rise(keys, at, hole, key)
