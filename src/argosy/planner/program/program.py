"""The mixed-integer program of a problem: its columns, its rows, what each of them is.

First come the columns of the first stage (nodes held of own and reserved supplies, units of
credit), then one block of columns a slot. A row's or column's key says what it is; `binding.py`
turns keys into words. `model.py` writes programs; losses join them as rows later.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from argosy.planner.program.columns import Floats, Outline
from argosy.planner.program.highs import Arrays, Ints

Key = tuple[str | int, ...]
HELD_KINDS = ("own", "reserved")


@dataclass(frozen=True)
class Rows:
    """Rows over all columns, as triplets."""

    lower: Floats
    upper: Floats
    slot: Ints  # that a row belongs to; -1: to several
    key: tuple[Key, ...]  # of each row
    at_row: Ints
    at_col: Ints
    value: Floats

    def joined(self, other: "Rows") -> "Rows":
        """These, then the other's."""
        return Rows(
            lower=np.concatenate([self.lower, other.lower]),
            upper=np.concatenate([self.upper, other.upper]),
            slot=np.concatenate([self.slot, other.slot]),
            key=self.key + other.key,
            at_row=np.concatenate([self.at_row, other.at_row + len(self.lower)]),
            at_col=np.concatenate([self.at_col, other.at_col]),
            value=np.concatenate([self.value, other.value]),
        )


@dataclass(frozen=True)
class Model:
    """The mixed-integer program of a problem. Columns: the first stage, then a block a slot."""

    outline: Outline
    first: dict[Key, int]  # ("nodes", supply), ("units", credit) -> column
    block: dict[Key, int]  # what a slot decides -> place in its block
    cost: Floats
    lower: Floats
    upper: Floats
    rows: Rows

    @property
    def width(self) -> int:
        """Columns of a block."""
        return len(self.block)

    def column(self, slot: int, key: Key) -> int:
        """The column of that decision in that slot."""
        return len(self.first) + slot * self.width + self.block[key]

    def slots_of(self, x: Floats) -> NDArray[np.float64]:
        """A solution by slot and place in the block."""
        return x[len(self.first) :].reshape(len(self.outline.problem.slots), self.width)

    def places(self, kind: str) -> Ints:
        """Places in the block of the columns of that kind."""
        found = [place for key, place in self.block.items() if key[0] == kind]
        return np.array(found, dtype=np.int64)

    def whole_columns(self) -> NDArray[np.bool_]:
        """Columns that count nodes, units or replicas."""
        is_whole = np.zeros(len(self.cost), dtype=bool)
        is_whole[: len(self.first)] = True
        places = np.concatenate([self.places("replicas"), self.places("firm")])
        for slot in range(len(self.outline.problem.slots)):
            is_whole[len(self.first) + slot * self.width + places] = True
        return is_whole

    def first_columns(self) -> NDArray[np.bool_]:
        """Columns that commit money."""
        return np.arange(len(self.cost)) < len(self.first)

    def arrays(self, integer: NDArray[np.bool_] | None = None) -> Arrays:
        """For the solver."""
        rows = self.rows
        return Arrays(
            cost=self.cost,
            lower=self.lower,
            upper=self.upper,
            row_lower=rows.lower,
            row_upper=rows.upper,
            at_row=rows.at_row,
            at_col=rows.at_col,
            value=rows.value,
            integer=integer,
        )

    def with_rows(self, rows: Rows) -> "Model":
        """The same with more rows."""
        return replace(self, rows=self.rows.joined(rows))
