"""Generators and transforms: rates, burstiness, lengths and shared prefixes are as asked."""

from itertools import pairwise

import numpy as np
import pytest

from argosy.simulator.traces import (
    Chats,
    Diurnal,
    LengthTable,
    Lognormal,
    Lognormals,
    Spike,
    Stream,
    Trace,
    TraceError,
    Window,
    assign,
    demand,
    length_table,
    limit,
    merge,
    scale,
    until,
    without_blocks,
)

SHORT = LengthTable(prompt_tokens=(64,), output_tokens=(16,))


def one_window(trace: Trace) -> Window:
    (window,) = trace.windows(10**7)
    return window


def test_poisson_arrivals_have_their_rate_and_gaps_as_long_as_they_vary() -> None:
    window = one_window(demand([Stream(rate=50.0, lengths=SHORT)], seed=3, until_s=4000.0))
    gaps = np.diff(window.arrival_s)
    assert window.rows == pytest.approx(200_000, rel=0.01)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("cv", [0.0, 0.5, 3.0])
def test_bursty_arrivals_have_the_cv_and_still_the_rate(cv: float) -> None:
    stream = Stream(rate=50.0, lengths=SHORT, cv=cv)
    gaps = np.diff(one_window(demand([stream], seed=3, until_s=4000.0)).arrival_s)
    assert 1 / gaps.mean() == pytest.approx(50.0, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03, abs=1e-6)


def test_bursty_arrivals_do_not_begin_with_a_burst() -> None:
    stream = Stream(rate=1.0, lengths=SHORT, cv=5.0)
    counts = [
        sum(w.rows for w in demand([stream], seed=seed, until_s=20.0).pieces())
        for seed in range(400)
    ]
    assert np.mean(counts) == pytest.approx(20.0, rel=0.2)  # 32 if it began with one


def test_a_day_follows_its_hourly_rates_at_the_clock_of_its_region() -> None:
    hourly = tuple(float(10 + 8 * (hour == 20)) for hour in range(24))
    for offset, peak_hour in ((0.0, 20), (-8.0, 4), (5.75, 14)):
        rate = Diurnal(requests_per_s=hourly, utc_offset_hours=offset)
        trace = demand([Stream(rate=rate, lengths=SHORT)], seed=1, until_s=86_400.0 * 2)
        hours = (one_window(trace).arrival_s // 3600).astype(int)
        counts = np.bincount(hours, minlength=48)
        assert counts.sum() == pytest.approx(2 * 3600 * sum(hourly), rel=0.005)
        assert int(counts[:24].argmax()) == peak_hour
        assert int(counts[24:].argmax()) == peak_hour


def test_a_spike_climbs_holds_and_falls() -> None:
    rate = Spike(base_requests_per_s=10, peak_requests_per_s=200, at_s=100, ramp_s=50, hold_s=100)
    trace = demand([Stream(rate=rate, lengths=SHORT)], seed=2, until_s=1000.0)
    arrival_s = one_window(trace).arrival_s
    counts = np.histogram(arrival_s, [0, 100, 150, 250, 300, 1000])[0]
    assert counts.tolist() == pytest.approx([1000, 5250, 20_000, 5250, 7000], rel=0.1)


def test_a_rate_that_falls_to_nothing_ends_the_trace() -> None:
    rate = Spike(base_requests_per_s=0, peak_requests_per_s=50, at_s=10, hold_s=10)
    window = one_window(demand([Stream(rate=rate, lengths=SHORT)], seed=2))
    assert window.rows == pytest.approx(500, rel=0.2)
    assert 10 <= window.arrival_s[0] <= window.arrival_s[-1] <= 20.001


def test_lognormal_lengths_have_their_mean_and_p95() -> None:
    prompt = Lognormal(tokens_mean=1200, tokens_p95=4000)
    output = Lognormal(tokens_mean=200, tokens_p95=200)
    stream = Stream(rate=100.0, lengths=Lognormals(prompt=prompt, output=output))
    window = one_window(demand([stream], seed=3, until_s=4000.0))
    assert window.prompt_tokens.mean() == pytest.approx(1200, rel=0.02)
    assert np.quantile(window.prompt_tokens, 0.95) == pytest.approx(4000, rel=0.02)
    assert set(window.output_tokens.tolist()) == {200}


def test_lengths_that_no_lognormal_has_are_refused() -> None:
    lengths = Lognormals(
        prompt=Lognormal(tokens_mean=100, tokens_p95=900),
        output=Lognormal(tokens_mean=9, tokens_p95=9),
    )
    with pytest.raises(TraceError, match=r"1 to 3\.87 times the mean"):
        demand([Stream(rate=1.0, lengths=lengths)], seed=1)


def test_a_table_keeps_prompts_with_their_answers() -> None:
    table = LengthTable(prompt_tokens=(10, 20, 30), output_tokens=(1, 2, 3))
    window = one_window(demand([Stream(rate=100.0, lengths=table)], seed=3, until_s=50.0))
    assert (window.prompt_tokens == 10 * window.output_tokens).all()
    again = length_table(demand([Stream(rate=100.0, lengths=table)], seed=3), rows_max=100)
    assert again.prompt_tokens == tuple(window.prompt_tokens[:100].tolist())


def test_turns_of_a_chat_go_on_from_all_that_was_said() -> None:
    chats = Chats(system_tokens=100, turns_mean=4, pause_s_mean=20)
    stream = Stream(rate=20.0, lengths=SHORT, chats=chats)
    window = one_window(demand([stream], seed=4, until_s=2000.0, block_tokens=16))
    assert window.rows == pytest.approx(40_000, rel=0.05)  # the rate counts turns
    early = (window.arrival_s < 200).sum()
    assert early == pytest.approx(4000, rel=0.1)  # chats are under way from the first second
    late = window.session[(window.arrival_s > 500) & (window.prompt_tokens == 164)]
    for session in late[:50]:
        mine = np.flatnonzero(window.session == session)
        turns = np.arange(mine.size)
        assert window.prompt_tokens[mine].tolist() == (164 + 80 * turns).tolist()
        names = [block_names(window, row) for row in mine]
        for before, after in pairwise(names):
            assert after[: len(before)] == before
        assert names[0][:6] == block_names(window, 0)[:6]  # the system prompt's 96 tokens
        assert names[0][6] != block_names(window, int(mine[0]) - 1)[6]


def block_names(window: Window, row: int) -> list[int]:
    assert window.block_offsets is not None
    assert window.block_hashes is not None
    start, stop = window.block_offsets[row : row + 2]
    return window.block_hashes[start:stop].tolist()


def test_a_longer_trace_begins_as_a_shorter_one() -> None:
    streams = [
        Stream(rate=20.0, lengths=SHORT, chats=Chats(turns_mean=3), model=f"m{index}")
        for index in range(3)
    ]
    short = one_window(demand(streams, seed=4, until_s=100.0))
    long = one_window(demand(streams, seed=4, until_s=1000.0))
    assert np.array_equal(long.arrival_s[: short.rows], short.arrival_s)
    assert np.array_equal(long.session[: short.rows], short.session)


def test_shares_are_as_asked_and_a_session_has_one_of_each() -> None:
    stream = Stream(rate=100.0, lengths=SHORT, chats=Chats(turns_mean=2, pause_s_mean=5))
    trace = assign(
        demand([stream], seed=4, until_s=300.0),
        seed=8,
        tiers={"batch": 1, "enterprise": 3},
        origins={"aws/eu-west-1": 1, "gcp/us-east5": 0, "own/oslo": 1},
    )
    window = one_window(trace)
    assert trace.origins == ("aws/eu-west-1", "gcp/us-east5", "own/oslo")
    assert set(window.origin.tolist()) == {0, 2}
    assert (window.tier == 0).mean() == pytest.approx(0.75, abs=0.02)
    assert set(window.tier.tolist()) == {0, 2}
    tiers = {}
    for session, tier in zip(window.session.tolist(), window.tier.tolist(), strict=True):
        assert tiers.setdefault(session, tier) == tier


def test_merged_traces_share_names_and_no_prefixes() -> None:
    stream = Stream(
        rate=10.0, lengths=SHORT, chats=Chats(system_tokens=32, turns_mean=2), model="a"
    )
    one = demand([stream], seed=4, until_s=50.0, block_tokens=16)
    merged = merge([one, assign(one, seed=1, models={"b": 1, "a": 1})])
    window = one_window(merged)
    assert merged.models == ("a", "b")
    assert window.rows == 2 * one_window(one).rows
    assert (window.model == 0).mean() == pytest.approx(0.75, abs=0.05)
    names = set(window.block_hashes.tolist())
    assert len(names) == 2 * len(set(one_window(one).block_hashes.tolist()))
    with pytest.raises(TraceError, match="different prefix blocks"):
        merge([one, without_blocks(one)])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda trace: scale(trace, 0, seed=1), "cannot be scaled by 0"),
        (lambda trace: scale(trace, float("nan"), seed=1), "cannot be scaled by nan"),
        (lambda trace: scale(trace, 2, seed=1, jitter_s=-1), "put later by -1"),
        (lambda trace: assign(trace, seed=1, tiers={"gold": 1}), '"gold" is not a tier'),
        (lambda trace: assign(trace, seed=1, models={"a": 0}), "at least one above"),
        (lambda trace: merge([]), "no traces to merge"),
        (lambda trace: demand([], seed=1), "no streams"),
        (lambda trace: demand([Stream(rate=0.0, lengths=SHORT)], seed=1), "is 0"),
        (lambda trace: demand([Stream(rate=-1.0, lengths=SHORT)], seed=1), "finite numbers"),
        (lambda trace: until(trace, 0.0), "cannot end at 0"),
        (lambda trace: until(trace, float("nan")), "cannot end at nan"),
        (lambda trace: limit(trace, -5), "the least is 1"),
        (lambda trace: demand([Stream(rate=1.0, lengths=SHORT, cv=-1)], seed=1), "cv of -1"),
        (lambda trace: demand([Stream(rate=1.0, lengths=SHORT)], seed=1, until_s=0), "at 0 s"),
        (lambda trace: list(until(trace, 1e-9)), "there is no request in it"),
        (lambda trace: list(scale(limit(trace, 1), 1e-9, seed=1)), "there is no request in it"),
    ],
)
def test_what_makes_no_trace_is_refused(wrong, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        wrong(demand([Stream(rate=5.0, lengths=SHORT)], seed=1, until_s=10.0))


def test_memory_does_not_grow_with_the_trace() -> None:
    import tracemalloc

    trace = scale(demand([Stream(rate=1000.0, lengths=SHORT)], seed=1), 2, seed=2)
    peaks = []
    for rows in (200_000, 1_000_000):
        tracemalloc.start()
        for _ in limit(trace, rows).windows():
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_copies_of_a_request_come_each_at_a_time_of_its_own() -> None:
    trace = demand([Stream(rate=20.0, lengths=SHORT)], seed=1, until_s=50.0)
    window = one_window(scale(trace, 4, seed=2))
    assert window.rows == 4 * one_window(trace).rows
    assert len(set(window.arrival_s.tolist())) == window.rows
