"""Which block stands at a position of a run: a keyed permutation of the blocks for each epoch.

A pure function of (seed, position), so that nothing needs to be remembered or agreed upon: any
number of readers at any speed, each with its own spans of positions, read each block of an epoch
exactly once between them. The permutation is a generalized Feistel network on a rectangle of
a x b >= n numbers (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): the halves
live modulo a and modulo b, so that less than one number in sqrt(n) falls outside and is permuted
again. No table: a few bytes whatever n; about 80 ns a position in numpy, in bulk.
"""

import math

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]

_ROUNDS = 6
_MASK = (1 << 64) - 1
# splitmix64's increment and multipliers: Steele, Lea, Flood 2014
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_A = 0xBF58476D1CE4E5B9
_MIX_B = 0x94D049BB133111EB


class Order:
    """The blocks 0 .. blocks - 1: all of them in each epoch, in an order of seed and epoch."""

    def __init__(self, blocks: int, seed: int) -> None:
        if blocks < 1:
            raise ValueError(f"an order of {blocks} blocks was asked for; it takes at least 1")
        self.blocks = blocks
        self.seed = seed
        self._rows = math.isqrt(blocks - 1) + 1  # a: the root, rounded up
        self._columns = -(-blocks // self._rows)  # b: so that a x b >= n

    def index(self, positions: Positions) -> Positions:
        """The block at each position (>= 0, any epoch); alike in shape."""
        flat = np.asarray(positions, dtype=np.int64).ravel()
        if flat.size and int(flat.min()) < 0:
            raise ValueError(f"position {int(flat.min())} was asked for; the first is 0")
        epochs, places = np.divmod(flat, self.blocks)
        keys = _mixed(epochs.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(self._key()))
        numbers = self._permuted(places, keys)
        outside = np.flatnonzero(numbers >= self.blocks)
        while outside.size:  # walks its cycle until it is back inside: still a bijection
            numbers[outside] = self._permuted(numbers[outside], keys[outside])
            outside = outside[numbers[outside] >= self.blocks]
        return numbers.reshape(np.shape(positions))

    def epoch(self, position: int) -> int:
        """How often all blocks have been read before that position."""
        return position // self.blocks

    def _key(self) -> int:
        return _mixed_int((self.seed & _MASK) ^ _GOLDEN)

    def _permuted(self, numbers: Positions, keys: NDArray[np.uint64]) -> Positions:
        """One pass of the network over [0, a x b)."""
        rows, columns = np.uint64(self._rows), np.uint64(self._columns)
        left, right = np.divmod(numbers.astype(np.uint64), columns)
        for step in range(_ROUNDS):
            salt = np.uint64((step + 1) * _GOLDEN & _MASK)
            if step % 2 == 0:
                left = (left + _mixed(right + (keys ^ salt)) % rows) % rows
            else:
                right = (right + _mixed(left + (keys ^ salt)) % columns) % columns
        return (left * columns + right).astype(np.int64)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer: each bit of the input moves about half of the output's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_MIX_A)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_MIX_B)
    return values ^ (values >> np.uint64(31))


def _mixed_int(value: int) -> int:
    value = ((value ^ (value >> 30)) * _MIX_A) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_B) & _MASK
    return value ^ (value >> 31)
