"""The order of blocks is a bijection in each epoch, whatever their number, and knows no past."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from argosy.training.data.order import Order

blocks = st.integers(1, 5000) | st.integers(1, 40)
seeds = st.integers(-(2**63), 2**64)

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # splitmix64's: Steele, Lea, Flood 2014


@given(blocks=blocks, seed=seeds, epoch=st.integers(0, 1000))
def test_each_block_stands_once_in_each_epoch(blocks: int, seed: int, epoch: int):
    positions = np.arange(epoch * blocks, (epoch + 1) * blocks)
    assert np.array_equal(np.sort(Order(blocks, seed).index(positions)), np.arange(blocks))


@given(blocks=st.integers(1, 2**40), seed=seeds, position=st.integers(0, 2**45))
def test_the_quick_order_agrees_with_the_plain_one(blocks: int, seed: int, position: int):
    found = Order(blocks, seed).index(np.array([position]))[0]
    assert found == plain_index(blocks, seed, position)
    assert 0 <= found < blocks


@given(blocks=blocks, seed=seeds, data=st.data())
def test_a_position_is_the_same_block_in_whatever_company_it_is_asked(
    blocks: int, seed: int, data: st.DataObject
):
    positions = data.draw(st.lists(st.integers(0, 3 * blocks), min_size=1, max_size=50))
    order = Order(blocks, seed)
    together = order.index(np.array(positions))
    assert together.tolist() == [int(order.index(np.array([one]))[0]) for one in positions]


def plain_index(blocks: int, seed: int, position: int) -> int:
    """What `Order` does, in plain integers, one position at a time."""
    rows = math.isqrt(blocks - 1) + 1
    columns = -(-blocks // rows)
    epoch, number = divmod(position, blocks)
    key = mixed((epoch * GOLDEN + mixed((seed & MASK) ^ GOLDEN)) & MASK)
    while True:
        left, right = divmod(number, columns)
        for step in range(6):
            salted = key ^ ((step + 1) * GOLDEN & MASK)
            if step % 2 == 0:
                left = (left + mixed((right + salted) & MASK) % rows) % rows
            else:
                right = (right + mixed((left + salted) & MASK) % columns) % columns
        number = left * columns + right
        if number < blocks:
            return number


def mixed(value: int) -> int:
    """splitmix64's finalizer."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)
