"""Laws of traces: order, conservation, the same whatever the windows, the same for a seed."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.simulator.traces import (
    Chats,
    Diurnal,
    LengthTable,
    Lognormal,
    Lognormals,
    Spike,
    Stream,
    Trace,
    Window,
    assign,
    demand,
    limit,
    merge,
    scale,
    spread,
    until,
)
from argosy.simulator.traces.window import offsets_of, part, window_of

LENGTHS = Lognormals(
    prompt=Lognormal(tokens_mean=300, tokens_p95=900),
    output=Lognormal(tokens_mean=60, tokens_p95=200),
)


def whole(trace: Trace, rows: int = 65_536) -> list[np.ndarray]:
    """All columns of all windows of so many rows, each in one piece; offsets as counts."""
    windows = list(trace.windows(rows))
    columns = [np.concatenate(parts) for parts in zip(*(w[:8] for w in windows), strict=True)]
    if trace.block_tokens is not None:
        columns.append(np.concatenate([np.diff(w.block_offsets) for w in windows]))
        columns.append(np.concatenate([w.block_hashes for w in windows]))
    return columns


def alike(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def cut_at(window: Window, places: Sequence[int]) -> Trace:
    """The window as a trace whose pieces end at these places, some of them empty."""
    bounds = [0, *sorted(places), window.rows]

    def pieces() -> Iterator[Window]:
        for start, stop in pairwise(bounds):
            yield part(window, start, stop)

    return Trace(pieces=pieces, found="test", block_tokens=16)


@st.composite
def cut_windows(draw: st.DrawFn) -> tuple[Trace, Trace]:
    """The same rows, many arriving together, in one piece and cut anyhow."""
    gaps = draw(st.lists(st.sampled_from([0.0, 0.0, 0.25, 1.0, 40.0]), min_size=1, max_size=40))
    rows = len(gaps)
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = chance.integers(0, 4, rows)
    window = window_of(
        {
            "arrival_s": np.cumsum(gaps),
            "prompt_tokens": np.arange(1, rows + 1),
            "output_tokens": chance.integers(1, 9, rows),
            "session": chance.integers(-1, 5, rows),
            "block_offsets": offsets_of(counts),
            "block_hashes": chance.integers(0, 50, counts.sum()).astype(np.uint64),
        },
        rows=rows,
    )
    places = draw(st.lists(st.integers(0, rows), max_size=6))
    return cut_at(window, []), cut_at(window, places)


streams = st.lists(
    st.builds(
        Stream,
        rate=st.one_of(
            st.floats(0.5, 50.0),
            st.builds(
                Diurnal,
                requests_per_s=st.lists(st.floats(0, 9), min_size=24, max_size=24).map(
                    lambda rates: (*rates[:-1], rates[-1] + 1.0)
                ),
                utc_offset_hours=st.sampled_from([-8.0, 0.0, 5.5]),
            ),
            st.builds(
                Spike,
                base_requests_per_s=st.floats(0.1, 5),
                peak_requests_per_s=st.floats(0, 50),
                at_s=st.floats(0, 60),
                ramp_s=st.floats(0, 60),
                hold_s=st.floats(0, 60),
            ),
        ),
        lengths=st.sampled_from(
            [LENGTHS, LengthTable(prompt_tokens=(1, 2, 40), output_tokens=(3, 2, 1))]
        ),
        cv=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
        chats=st.sampled_from(
            [None, Chats(system_tokens=40), Chats(turns_mean=3, pause_s_mean=5, system_tokens=20)]
        ),
        tenant=st.sampled_from(["acme", "consumers"]),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=15, deadline=None)
@given(streams, st.integers(0, 2**64), st.sampled_from([1, 7, 1000]))
def test_generated_demand_is_in_order_and_the_same_for_a_seed_whatever_the_windows(
    kinds: list[Stream], seed: int, rows: int
) -> None:
    def made() -> Trace:
        return limit(demand(kinds, seed=seed, block_tokens=16), 1500)

    once = whole(made(), rows)
    assert alike(once, whole(made()))
    assert (np.diff(once[0]) >= 0).all()
    assert once[0][0] >= 0
    assert once[1].min() >= 1
    assert once[2].min() >= 1
    assert (once[8] == once[1] // 16).all()  # every full block is named


@settings(max_examples=30, deadline=None)
@given(cut_windows(), st.integers(1, 6), st.sampled_from([0.0, 0.5, 30.0]), st.integers(0, 99))
def test_a_whole_factor_makes_so_many_copies_of_each_request_and_no_other(
    traces: tuple[Trace, Trace], factor: int, jitter_s: float, seed: int
) -> None:
    one = whole(scale(traces[0], factor, seed=seed, jitter_s=jitter_s))
    assert alike(one, whole(scale(traces[1], factor, seed=seed, jitter_s=jitter_s), rows=3))
    before = whole(traces[0])
    assert (np.diff(one[0]) >= 0).all()
    # Prompts number the rows: each comes as often, at its time or up to jitter_s later.
    assert (np.bincount(one[1])[1:] == factor).all()
    later = one[0] - before[0][one[1] - 1]
    assert later.min() >= 0
    assert later.max() <= jitter_s + 1e-9
    assert one[8].sum() == factor * before[8].sum()


@settings(max_examples=30, deadline=None)
@given(cut_windows(), st.integers(2, 5), st.integers(0, 99))
def test_copies_share_neither_sessions_nor_prefixes(
    traces: tuple[Trace, Trace], factor: int, seed: int
) -> None:
    before = whole(traces[0])
    after = whole(scale(traces[0], factor, seed=seed))
    for place, missing in ((7, {-1}), (9, set())):
        known = set(before[place].tolist()) - missing
        assert len(set(after[place].tolist()) - missing) == factor * len(known)


@settings(max_examples=30, deadline=None)
@given(cut_windows(), st.floats(0.05, 3.0), st.integers(0, 99))
def test_a_fraction_keeps_sessions_whole_and_windows_do_not_matter(
    traces: tuple[Trace, Trace], factor: float, seed: int
) -> None:
    kept = [limit(scale(trace, factor, seed=seed), 10**6) for trace in traces]
    windows = [list(trace.pieces()) for trace in kept]
    rows = [sum(window.rows for window in made) for made in windows]
    assert rows[0] == rows[1]
    if not rows[0]:
        return
    after, before = whole(kept[0]), whole(traces[0])
    assert alike(after, whole(kept[1], rows=2))
    copies = np.ceil(factor)
    for session in set(after[7].tolist()) - {-1}:
        of_old = before[1][before[7] == session // copies]
        assert sorted(after[1][after[7] == session]) == sorted(of_old)


@settings(max_examples=30, deadline=None)
@given(cut_windows(), st.integers(0, 99))
def test_transforms_treat_a_row_alike_however_the_trace_is_cut(
    traces: tuple[Trace, Trace], seed: int
) -> None:
    def changed(trace: Trace) -> Trace:
        shares = {"a": 1.0, "b": 2.0}
        named = assign(spread(trace, 2.0, seed=seed), seed=seed, models=shares, tenants=shares)
        return merge([named, trace])

    one, other = whole(changed(traces[0])), whole(changed(traces[1]), rows=5)
    assert alike(one, other)
    assert one[0].size == 2 * whole(traces[0])[0].size
    assert (np.diff(one[0]) >= 0).all()


@settings(max_examples=30, deadline=None)
@given(cut_windows(), st.integers(1, 50), st.floats(0.1, 50.0))
def test_a_shortened_trace_is_the_beginning_of_the_whole(
    traces: tuple[Trace, Trace], rows: int, seconds: float
) -> None:
    before = whole(traces[0])
    first = whole(limit(traces[1], rows))
    assert np.array_equal(first[1], before[1][:rows])
    stop = int((before[0] < seconds).sum())
    early = [window.prompt_tokens for window in until(traces[1], seconds).pieces()]
    assert np.array_equal(np.concatenate(early), before[1][:stop])
