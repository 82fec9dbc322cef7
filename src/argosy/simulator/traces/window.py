"""What a trace is: demand as columns of numbers, in windows, in the order of arrival.

Owns the columns, their types, how rows are cut, joined and reordered, and the refusal of a trace
without requests. Where the rows come from is left to the loaders and generators beside this file.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from argosy.policies.admission.work import RANKS, TIERS

WINDOW_ROWS = 65_536  # about 2.5 MB without prefix blocks
UNNAMED = "unnamed"  # the model, tenant or origin of a trace that does not say
CONSUMER = RANKS["consumer"]  # the tier of a request that does not say
TOKENS_MAX = 2**31 - 1  # of a prompt or an answer: the columns hold 32 bits

Column = NDArray[np.generic]


class TraceError(ValueError):
    """A trace that cannot be read or made; the message says where, what it says, what would do."""


class Window(NamedTuple):
    """Consecutive requests of a trace, one column each; `rows` (not `len`) counts them.

    Prefix blocks, where the trace has them: row i names its prompt's blocks of `block_tokens`
    tokens in `block_hashes[block_offsets[i]:block_offsets[i + 1]]`. Equal hashes are the same block
    after the same prefix. Every full block is named; of a last one that is not full, no other
    request can use the KV, whether it is named (as Mooncake does) or not.
    """

    arrival_s: NDArray[np.float64]  # since the trace's second 0; never falls
    prompt_tokens: NDArray[np.int32]  # at least 1
    output_tokens: NDArray[np.int32]  # at least 1: prefill makes the first
    model: NDArray[np.int16]  # index into the trace's models
    tier: NDArray[np.int8]  # index into TIERS: 0 enterprise, 1 consumer, 2 batch
    tenant: NDArray[np.int16]  # index into the trace's tenants
    origin: NDArray[np.int16]  # index into the trace's origins: the region it comes from
    session: NDArray[np.int64]  # requests of one chat share it; -1: of none
    block_offsets: NDArray[np.int64] | None = None  # rows + 1
    block_hashes: NDArray[np.uint64] | None = None

    @property
    def rows(self) -> int:
        """How many requests."""
        return self.arrival_s.size


COLUMN_DTYPES = {
    "arrival_s": np.float64,
    "prompt_tokens": np.int32,
    "output_tokens": np.int32,
    "model": np.int16,
    "tier": np.int8,
    "tenant": np.int16,
    "origin": np.int16,
    "session": np.int64,
}
_DEFAULTS = {"model": 0, "tier": CONSUMER, "tenant": 0, "origin": 0, "session": -1}


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Demand to replay: names, and windows that are made anew whenever somebody iterates."""

    pieces: Callable[[], Iterator[Window]]  # of any size; read `windows` instead
    found: str  # what it is and where it is from, for people
    models: tuple[str, ...] = (UNNAMED,)
    tiers: tuple[str, ...] = TIERS
    tenants: tuple[str, ...] = (UNNAMED,)
    origins: tuple[str, ...] = (UNNAMED,)
    block_tokens: int | None = None  # None: nothing is known of shared prefixes
    starts_at_s: float | None = None  # Unix time of second 0; None: not recorded

    def windows(self, rows: int = WINDOW_ROWS) -> Iterator[Window]:
        """The whole trace, `rows` at a time (the last: the rest); TraceError if it has none."""
        if rows < 1:
            raise ValueError(f"a window of {rows} rows was asked for; the least is 1")
        empty = True
        for window in recut(self.pieces(), rows):
            empty = False
            yield window
        if empty:
            raise TraceError(f"{self.found}: there is no request in it; a trace has at least one")

    def __iter__(self) -> Iterator[Window]:
        return self.windows()


def window_of(columns: dict[str, object], *, rows: int) -> Window:
    """A window of these columns (arrays, or one value for all); what is missing has its default."""
    made: dict[str, Column] = {}
    for name, dtype in COLUMN_DTYPES.items():
        value = columns.get(name, _DEFAULTS.get(name))
        if isinstance(value, np.ndarray):
            made[name] = value.astype(dtype, copy=False)
        else:
            made[name] = np.full(rows, value, dtype)
    for name in ("block_offsets", "block_hashes"):
        blocks = columns.get(name)
        if isinstance(blocks, np.ndarray):
            made[name] = blocks
    return Window(**made)  # type: ignore[arg-type]


def part(window: Window, start: int, stop: int) -> Window:
    """Rows [start, stop), without copying all but the offsets."""
    columns = [column[start:stop] for column in window[:8]]
    offsets, hashes = window.block_offsets, window.block_hashes
    if offsets is None or hashes is None:
        return Window(*columns)  # type: ignore[arg-type]
    kept = offsets[start : max(start, stop) + 1]
    return Window(*columns, kept - kept[0], hashes[kept[0] : kept[-1]])  # type: ignore[arg-type]


def take(window: Window, index: NDArray[np.int64]) -> Window:
    """The rows at these places, in this order; a place may come several times."""
    columns = [column[index] for column in window[:8]]
    offsets, hashes = window.block_offsets, window.block_hashes
    if offsets is None or hashes is None:
        return Window(*columns)  # type: ignore[arg-type]
    counts = np.diff(offsets)[index]
    made = offsets_of(counts)
    places = np.repeat(offsets[:-1][index] - made[:-1], counts) + np.arange(made[-1])
    return Window(*columns, made, hashes[places])  # type: ignore[arg-type]


def joined(windows: Sequence[Window]) -> Window:
    """The rows of one after those of the other; all have blocks, or none has."""
    if len(windows) == 1:
        return windows[0]
    columns = [np.concatenate(parts) for parts in zip(*(w[:8] for w in windows), strict=True)]
    if windows[0].block_offsets is None:
        return Window(*columns)  # type: ignore[arg-type]
    counts = np.concatenate([np.diff(w.block_offsets) for w in windows])  # type: ignore[arg-type]
    hashes = np.concatenate([w.block_hashes for w in windows])  # type: ignore[arg-type]
    return Window(*columns, offsets_of(counts), hashes)  # type: ignore[arg-type]


def in_order(window: Window) -> Window:
    """The rows by arrival; those that arrive together stay as they were."""
    arrival_s = window.arrival_s
    if arrival_s.size < 2 or bool((arrival_s[1:] >= arrival_s[:-1]).all()):
        return window
    return take(window, np.argsort(arrival_s, kind="stable"))


def offsets_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run of so many begins, and at last where all end."""
    offsets = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def recut(pieces: Iterator[Window], rows: int) -> Iterator[Window]:
    """The same rows in windows of exactly `rows`, the last one shorter."""
    held: list[Window] = []
    count = 0
    for piece in pieces:
        start = 0
        while piece.rows - start >= rows - count:
            stop = start + rows - count
            held.append(piece if stop - start == piece.rows else part(piece, start, stop))
            yield joined(held)
            held, count, start = [], 0, stop
        if start < piece.rows:
            held.append(part(piece, start, piece.rows) if start else piece)
            count += piece.rows - start
    if held:
        yield joined(held)
