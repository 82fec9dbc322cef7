"""Where the row of a 64-bit key is: open addressing over one array, without graves.

Rows are found, put and dropped in a few steps while at most half of the places are taken, which is
the caller's to keep.
"""

import numpy as np

from argosy.simulator.compiled import Bits, Rows, compiled, inner

NOWHERE = -1
ENTRY = np.dtype([("key", "u8"), ("row", "i8")])
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads keys that are near


def table_of(rows_max: int) -> Rows:
    """An empty table for so many keys."""
    places = 1 << max(4, (2 * rows_max - 1).bit_length())
    table = np.zeros(places, ENTRY)
    table["row"] = NOWHERE
    return table


@compiled
def row_of(table: Rows, key: Bits) -> int:
    """The row of a key (u64), or NOWHERE."""
    place = _begin(table, key)
    last = len(table) - 1
    while table[place].row != NOWHERE:
        if table[place].key == key:
            return table[place].row
        place = (place + 1) & last
    return NOWHERE


@compiled
def put(table: Rows, key: Bits, row: int) -> None:
    """A key that is not in it."""
    place = _begin(table, key)
    last = len(table) - 1
    while table[place].row != NOWHERE:
        place = (place + 1) & last
    table[place].key = key
    table[place].row = row


@compiled
def drop(table: Rows, key: Bits) -> None:
    """A key that is in it; those that stood behind it close up."""
    last = len(table) - 1
    hole = _begin(table, key)
    while table[hole].key != key or table[hole].row == NOWHERE:
        hole = (hole + 1) & last
    place = hole
    while True:
        place = (place + 1) & last
        if table[place].row == NOWHERE:
            break
        begin = _begin(table, table[place].key)
        if ((place - begin) & last) >= ((place - hole) & last):
            table[hole].key = table[place].key
            table[hole].row = table[place].row
            hole = place
    table[hole].row = NOWHERE


@inner
def _begin(table: Rows, key: Bits) -> Bits:
    """Where its search begins."""
    mixed = np.uint64(key) * _GOLDEN
    return np.int64((mixed >> np.uint64(32)) & np.uint64(len(table) - 1))
