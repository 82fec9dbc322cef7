"""Traces made of traces: more users, fewer, cut short, merged, assigned to models and tenants.

All stream, and treat a row alike however the trace is cut into windows. Rows are conserved: what
each adds or leaves out is said in its first line.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from argosy.policies.admission.work import RANKS
from argosy.simulator.traces.chance import hashes, key, mixed, uniforms
from argosy.simulator.traces.interleave import interleaved
from argosy.simulator.traces.window import (
    WINDOW_ROWS,
    Trace,
    TraceError,
    Window,
    in_order,
    joined,
    part,
    take,
)

NAMES_MAX = 2**15 - 1  # models, tenants or origins: their columns hold 16 bits
Shares = Mapping[str, float]
_ROW, _SESSION = 0x52, 0x53  # so that row 7 and session 7 have chances of their own


def scale(trace: Trace, factor: float, *, seed: int, jitter_s: float = 1.0) -> Trace:
    """As if `factor` times the users had come: each request so often, on average.

    The first copy is the request itself; each further one comes up to `jitter_s` later, so bursts
    longer than that keep their shape. Copies are other people: sessions and prefix blocks of their
    own. A fraction (also below 1) is drawn by session, or by row where there is none.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise TraceError(f"a trace cannot be scaled by {factor}; any number above 0 would do")
    _check_delay(jitter_s)
    copies = math.ceil(factor)
    draw, delay = key(seed, "scale"), key(seed, "jitter")
    salts = np.array([0, *(key(seed, "copy", copy) for copy in range(1, copies))], np.uint64)

    def copied(window: Window, ids: NDArray[np.uint64]) -> Window:
        drawn = uniforms(hashes(draw, ids)) < factor - (copies - 1)
        counts = np.where(drawn, copies, copies - 1)
        index = np.repeat(np.arange(window.rows), counts)
        copy = np.arange(index.size) - np.repeat(np.cumsum(counts) - counts, counts)
        later = uniforms(mixed(hashes(delay, ids[index]) ^ salts[copy])) * jitter_s
        made = take(window, index)
        return _as_copies(made, copy, copies, salts)._replace(
            arrival_s=made.arrival_s + np.where(copy > 0, later, 0.0)
        )

    rows = max(1, WINDOW_ROWS // copies)
    return replace(
        trace,
        pieces=lambda: _delayed(trace, copied, rows),
        found=f"{trace.found}, scaled by {factor:g} (seed {seed})",
    )


def spread(trace: Trace, seconds: float, *, seed: int) -> Trace:
    """Every request up to `seconds` later, at random: for records that know whole seconds only.

    Requests of one session are delayed alike, so none overtakes another.
    """
    _check_delay(seconds)
    delay = key(seed, "spread")

    def delayed(window: Window, ids: NDArray[np.uint64]) -> Window:
        later = uniforms(hashes(delay, ids)) * seconds
        return window._replace(arrival_s=window.arrival_s + later)

    return replace(
        trace,
        pieces=lambda: _delayed(trace, delayed, WINDOW_ROWS),
        found=f"{trace.found}, spread over {seconds:g} s (seed {seed})",
    )


def until(trace: Trace, seconds: float) -> Trace:
    """The requests that arrive before this second; later ones are left out."""
    if not seconds > 0:
        raise TraceError(f"a trace cannot end at {seconds} s; any number above 0 would do")

    def pieces() -> Iterator[Window]:
        for window in trace.pieces():
            stop = int(np.searchsorted(window.arrival_s, seconds))
            yield part(window, 0, stop)
            if stop < window.rows:
                return

    return replace(trace, pieces=pieces, found=f"{trace.found}, its first {seconds:g} s")


def limit(trace: Trace, rows: int) -> Trace:
    """The first so many requests; later ones are left out."""
    if rows < 1:
        raise TraceError(f"a trace cannot have {rows} requests; the least is 1")

    def pieces() -> Iterator[Window]:
        left = rows
        for window in trace.pieces():
            yield part(window, 0, min(left, window.rows))
            left -= window.rows
            if left <= 0:
                return

    return replace(trace, pieces=pieces, found=f"{trace.found}, its first {rows} requests")


def merge(traces: Sequence[Trace]) -> Trace:
    """All requests of all; sessions and prefix blocks of one are nothing to the others.

    Equal names of models, tenants and origins are the same model, tenant and origin. TraceError if
    the traces cut prefixes into blocks of different sizes, or only some of them do.
    """
    if not traces:
        raise TraceError("no traces to merge; give at least one")
    sizes = {trace.block_tokens for trace in traces}
    if len(sizes) > 1:
        said = ", ".join(f"{trace.found}: {trace.block_tokens}" for trace in traces)
        raise TraceError(
            f"the traces to merge have different prefix blocks, in tokens ({said}); "
            "drop them with without_blocks(trace), or merge traces that agree"
        )
    names = {field: _union(traces, field) for field in ("models", "tenants", "origins")}
    salts = np.array([0, *(key(index, "merge") for index in range(1, len(traces)))], np.uint64)

    def renamed(index: int) -> Iterator[Window]:
        trace = traces[index]
        maps = {field: _places(getattr(trace, field), names[field]) for field in names}
        for window in trace.pieces():
            copy = np.full(window.rows, index)
            yield _as_copies(window, copy, len(traces), salts)._replace(
                model=maps["models"][window.model],
                tenant=maps["tenants"][window.tenant],
                origin=maps["origins"][window.origin],
            )

    return replace(
        traces[0],
        pieces=lambda: interleaved([renamed(index) for index in range(len(traces))]),
        found=" + ".join(trace.found for trace in traces),
        starts_at_s=None,
        **names,
    )


def without_blocks(trace: Trace) -> Trace:
    """The same requests, sharing no prefixes."""

    def pieces() -> Iterator[Window]:
        for window in trace.pieces():
            yield window._replace(block_offsets=None, block_hashes=None)

    return replace(trace, pieces=pieces, block_tokens=None)


def assign(
    trace: Trace,
    *,
    seed: int,
    models: Shares | None = None,
    tiers: Shares | None = None,
    tenants: Shares | None = None,
    origins: Shares | None = None,
) -> Trace:
    """Names drawn by relative shares, as in `models={"a": 3, "b": 1}`; None leaves the kind as is.

    All requests of a session get the same; each kind is drawn on its own.
    """
    kinds = {"models": models, "tiers": tiers, "tenants": tenants, "origins": origins}
    wanted = {kind: shares for kind, shares in kinds.items() if shares is not None}
    for kind, shares in wanted.items():
        _check_shares(kind, shares)
    steps = [
        (kind.removesuffix("s"), key(seed, kind), _cumulative(shares), _codes(kind, shares))
        for kind, shares in wanted.items()
    ]

    def pieces() -> Iterator[Window]:
        row = 0
        for window in trace.pieces():
            ids = _ids(window, row)
            row += window.rows
            drawn = {
                column: codes[np.searchsorted(bounds, uniforms(hashes(of, ids)), "right")]
                for column, of, bounds, codes in steps
            }
            yield window._replace(**drawn)

    names = {kind: tuple(shares) for kind, shares in wanted.items() if kind != "tiers"}
    return replace(trace, pieces=pieces, **names)


def _delayed(
    trace: Trace, change: Callable[[Window, NDArray[np.uint64]], Window], rows: int
) -> Iterator[Window]:
    """Rows that `change` makes of rows and may put later, in order again.

    Holds `rows` changed rows, and those that were put later than the last one read.
    """
    row = 0
    waiting: list[Window] = []
    for piece in trace.pieces():
        for start in range(0, piece.rows, rows):
            window = part(piece, start, start + rows)
            made = in_order(joined([*waiting, change(window, _ids(window, row))]))
            row += window.rows
            stop = int(made.arrival_s.searchsorted(window.arrival_s[-1]))
            yield part(made, 0, stop)
            waiting = [part(made, stop, made.rows)]
    yield from waiting


def _ids(window: Window, row: int) -> NDArray[np.uint64]:
    """What chance goes by: the session, or the row's place in the trace where there is none."""
    rows = hashes(_ROW, np.arange(row, row + window.rows))
    if not window.rows or window.session.max() < 0:
        return rows
    return np.where(window.session >= 0, hashes(_SESSION, window.session), rows)


def _as_copies(
    window: Window, copy: NDArray[np.int64], copies: int, salts: NDArray[np.uint64]
) -> Window:
    """Rows with sessions and prefix blocks that no row of another copy shares."""
    session = window.session
    if session.size and int(session.max()) >= 2**63 // copies - 1:
        raise TraceError(
            f"session {int(session.max())} cannot be told apart in {copies} copies with 64 bits; "
            "number the sessions from 0"
        )
    window = window._replace(session=np.where(session >= 0, session * copies + copy, -1))
    if window.block_offsets is None or window.block_hashes is None or copies == 1:
        return window
    salt = np.repeat(salts[copy], np.diff(window.block_offsets))
    return window._replace(block_hashes=window.block_hashes ^ salt)


def _check_delay(seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds >= 0):
        raise TraceError(f"requests cannot be put later by {seconds} s; 0 or more would do")


def _union(traces: Sequence[Trace], field: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for trace in traces for name in getattr(trace, field)))
    if len(names) > NAMES_MAX:
        raise TraceError(f"{len(names)} {field} in the merged trace; {NAMES_MAX} is the most")
    return names


def _places(names: Sequence[str], among: Sequence[str]) -> NDArray[np.int16]:
    place = {name: index for index, name in enumerate(among)}
    return np.array([place[name] for name in names], np.int16)


def _check_shares(field: str, shares: Shares) -> None:
    said = ", ".join(f"{name}: {share:g}" for name, share in shares.items())
    usable = all(math.isfinite(share) and share >= 0 for share in shares.values())
    if not usable or not sum(shares.values()) > 0:
        raise TraceError(f"shares of {field} are ({said}); give numbers >= 0, at least one above")
    if len(shares) > NAMES_MAX:
        raise TraceError(f"{len(shares)} {field}; {NAMES_MAX} is the most")
    strange = [name for name in shares if field == "tiers" and name not in RANKS]
    if strange:
        raise TraceError(f'"{strange[0]}" is not a tier; the tiers are {", ".join(RANKS)}')


def _cumulative(shares: Shares) -> NDArray[np.float64]:
    """Upper bounds of each name's part of [0, 1); the last is past any draw."""
    bounds = np.cumsum(np.array(list(shares.values()), np.float64))
    bounds /= bounds[-1]
    bounds[bounds == 1.0] = 2.0
    return bounds


def _codes(field: str, shares: Shares) -> NDArray[np.generic]:
    if field == "tiers":
        return np.array([RANKS[name] for name in shares], np.int8)
    return np.arange(len(shares), dtype=np.int16)
