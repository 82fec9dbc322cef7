"""A heap of numbers from which anything may leave at any time; of the latest among equals.

What `policies/admission/ranked.py` is live. A pairing heap (Fredman et al. 1986) over rows of one
array, by request: no capacity of its own, and many heaps in the same rows. A heap is its root's
number, NOBODY where it is empty.
"""

import numpy as np

from argosy.simulator.compiled import Rows, compiled, inner

NOBODY = -1  # numbers of requests, replicas and tenants begin at 0
NODE = np.dtype(
    [
        ("number", "f8"),  # the smallest comes first
        ("push", "i8"),  # the largest comes first among equals
        ("child", "i8"),
        ("sibling", "i8"),
        ("before", "i8"),  # the sibling before, or the parent of a first child
    ]
)


@compiled
def push(nodes: Rows, root: int, node: int, number: float, push: int) -> int:
    """The root after `node` came in."""
    entry = nodes[node]
    entry.number = number
    entry.push = push
    entry.child = NOBODY
    entry.sibling = NOBODY
    entry.before = NOBODY
    return _meld(nodes, root, node)


@compiled
def remove(nodes: Rows, root: int, node: int) -> int:
    """The root after `node`, which is in, has left."""
    rest = _meld_all(nodes, nodes[node].child)
    if node == root:
        return rest
    before, after = nodes[node].before, nodes[node].sibling
    if nodes[before].child == node:
        nodes[before].child = after
    else:
        nodes[before].sibling = after
    if after != NOBODY:
        nodes[after].before = before
    return _meld(nodes, root, rest)


@inner
def _meld(nodes: Rows, one: int, other: int) -> int:
    """The root of two heaps made one."""
    if one == NOBODY:
        return other
    if other == NOBODY:
        return one
    first, second = nodes[one], nodes[other]
    if second.number < first.number or (second.number == first.number and second.push > first.push):
        one, other = other, one
    child = nodes[one].child
    nodes[other].sibling = child
    nodes[other].before = one
    if child != NOBODY:
        nodes[child].before = other
    nodes[one].child = other
    nodes[one].sibling = NOBODY
    nodes[one].before = NOBODY
    return one


@inner
def _meld_all(nodes: Rows, child: int) -> int:
    """The root of a row of siblings: in pairs from the left, then all from the right."""
    pairs = NOBODY
    while child != NOBODY:
        other = nodes[child].sibling
        after = NOBODY if other == NOBODY else nodes[other].sibling
        pair = _meld(nodes, child, other)
        nodes[pair].before = NOBODY
        nodes[pair].sibling = pairs
        pairs = pair
        child = after
    root = NOBODY
    while pairs != NOBODY:
        after = nodes[pairs].sibling
        nodes[pairs].sibling = NOBODY
        root = _meld(nodes, root, pairs)
        pairs = after
    return root
