"""What a driver of the engines sees: events, refusals, faults, queries, the replay."""

import numpy as np
import pytest

from argosy.perf.engine_settings import EngineSettings
from argosy.perf.step_time import StepTime
from argosy.simulator import engine
from argosy.simulator.engine import EngineRefusedError, ReplicaGroup
from argosy.simulator.engine.histogram import bin_edges_s, bin_of, count_series
from argosy.simulator.engine.replay import Arrivals, Replay, replay

FLAT = StepTime(
    knots_tokens=(1.0, 1025.0), knots_s=(0.0625, 1.0625), context_s_per_token=0.0, pair_s=0.0
)


def group(count=1, kv_tokens=4096, **settings):
    return ReplicaGroup(
        count=count, step_time=FLAT, kv_tokens=kv_tokens, settings=EngineSettings(**settings)
    )


def events(state, until_s=np.inf):
    popped = []
    while (event := engine.pop_event(state, until_s))[1] != engine.NOTHING:
        popped.append(event)
    return popped


def test_a_lone_request_has_its_first_token_after_the_prefill_and_then_one_a_step():
    state = engine.build([group()])
    assert engine.submit(state, 0, 7, 65, 3, 1.0) == engine.ACCEPTED
    assert events(state) == [
        (1.125, engine.FIRST_TOKEN, 0, 7),  # 65 tokens: 0.0625 s and 64/1024 s
        (1.25, engine.FINISHED, 0, 7),
    ]
    assert engine.next_event_s(state) == np.inf


def test_what_comes_at_one_instant_starts_in_one_step():
    state = engine.build([group()])
    for slot in range(3):
        engine.pop_event(state, 2.0)
        engine.submit(state, 0, slot, 10, 1, 2.0)
    assert {event[0] for event in events(state)} == {2.0 + FLAT.step_s(tokens=30)}


def test_an_arrival_waits_for_the_end_of_the_step_in_flight():
    state = engine.build([group()])
    engine.submit(state, 0, 0, 1, 100, 0.0)
    assert events(state, 1.03) == [(0.0625, engine.FIRST_TOKEN, 0, 0)]
    engine.submit(state, 0, 1, 1, 1, 1.03)
    time_s, kind, _, slot = engine.pop_event(state, np.inf)
    assert (kind, slot) == (engine.FIRST_TOKEN, 1)
    assert time_s == pytest.approx(1.0625 + FLAT.step_s(tokens=2))


def test_events_of_one_instant_come_by_replica_and_then_by_slot():
    state = engine.build([group(count=2)])
    for replica, slot in [(1, 0), (0, 3), (0, 2)]:
        engine.submit(state, replica, slot, 8, 1, 0.0)
    engine.submit(state, 1, 1, 8, 1, 0.0)
    assert [event[2:] for event in events(state)][::2] == [(0, 2), (0, 3), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("slot", "prompt", "output", "at_s", "code"),
    [
        (1, 4000, 97, 0.0, engine.NEVER_FITS),
        (1, 4000, 96, 0.0, engine.ACCEPTED),
        (1, 0, 5, 0.0, engine.NOT_A_REQUEST),
        (1, 5, 0, 0.0, engine.NOT_A_REQUEST),
        (0, 5, 5, 0.0, engine.SLOT_TAKEN),
        (1, 5, 5, 9.0, engine.BEHIND),
    ],
)
def test_what_cannot_be_taken_is_refused_with_a_code(slot, prompt, output, at_s, code):
    state = engine.build([group()])
    engine.submit(state, 0, 0, 5, 5, 0.0)
    assert engine.submit(state, 0, slot, prompt, output, at_s) == code
    assert engine.account(state).refused == (code != engine.ACCEPTED)


def test_a_killed_replica_says_what_it_had_and_refuses_until_it_is_revived():
    state = engine.build([group(requests_max=1)])
    engine.submit(state, 0, 0, 1, 100, 0.0)
    engine.submit(state, 0, 1, 1, 100, 0.0)
    events(state, 0.2)
    out = np.zeros((8, 2), np.int64)
    assert engine.kill(state, 0, 0.2, out) == 2
    assert out[:2].tolist() == [[0, 3], [1, 0]]  # boundaries at 1/16, 2/16, 3/16 s
    assert engine.submit(state, 0, 0, 1, 1, 0.3) == engine.REPLICA_DEAD
    engine.revive(state, 0)
    assert engine.submit(state, 0, 0, 1, 1, 0.3) == engine.ACCEPTED
    assert engine.account(state, 0).busy_s == pytest.approx(0.2)


def test_a_cancelled_request_leaves_at_the_next_boundary_and_a_waiting_one_at_once():
    state = engine.build([group(requests_max=1)])
    engine.submit(state, 0, 0, 1, 100, 0.0)
    engine.submit(state, 0, 1, 1, 100, 0.0)
    events(state, 0.2)
    assert engine.cancel(state, 0, 1, 0.2) == engine.GONE
    assert engine.cancel(state, 0, 0, 0.2) == engine.LEAVING
    assert engine.cancel(state, 0, 0, 0.2) == engine.NOT_HERE
    assert events(state) == [(0.25, engine.CANCELLED, 0, 0)]


def test_a_slowed_replica_takes_longer_from_the_next_step_on():
    state = engine.build([group()])
    engine.submit(state, 0, 0, 1, 4, 0.0)
    events(state, 0.07)
    engine.set_speed(state, 0, 0.5, 0.07)
    assert events(state)[-1][0] == 0.125 + 2 * 0.125


def test_free_kv_tokens_are_counted_to_the_step_in_flight():
    state = engine.build([group(kv_tokens=160)])
    engine.submit(state, 0, 0, 16, 40, 0.0)
    prefill_s = FLAT.step_s(tokens=16)
    events(state, prefill_s)
    free = []
    for steps in range(39):
        now_s = prefill_s + 0.0625 * (steps + 0.5)
        events(state, now_s)
        free.append(engine.kv_tokens_free(state, 0, now_s))
    assert free == [160 - 16 * (2 + steps // 16) for steps in range(39)]


def test_a_router_reads_running_waiting_and_unread_prompts():
    state = engine.build([group(requests_max=2, prefill_tokens_max=16)])
    for slot in range(3):
        engine.submit(state, 0, slot, 20, 5, 0.0)
    events(state, 0.01)
    assert engine.requests_running(state, 0) == 1
    assert engine.requests_waiting(state, 0) == 2
    assert engine.prompt_tokens_unread(state, 0) == 60
    events(state, 0.1)
    assert engine.prompt_tokens_unread(state, 0) == 44


def test_a_cached_prefix_is_not_read_again_but_its_last_token_is():
    state = engine.build([group()], hash_tokens=32, hashes=np.array([5, 6], np.uint64))
    for slot in range(2):
        at_s = float(slot * 10)
        events(state, at_s)
        engine.submit_hashed(state, 0, slot, (64, 1), at_s, (0, 2))
    assert engine.prefix_tokens_cached(state, 0, 0, 2) == 64
    times_s = [event[0] for event in events(state)]
    assert times_s == [10 + FLAT.step_s(tokens=1)] * 2
    assert engine.account(state).tokens_spared == 63


def test_the_newest_is_preempted_when_kv_blocks_run_out_and_all_finish():
    state = engine.build([group(kv_tokens=128)])
    for slot in range(3):
        engine.submit(state, 0, slot, 20, 60, 0.0)
    finished = [event[3] for event in events(state) if event[1] == engine.FINISHED]
    assert finished == [0, 1, 2]
    assert engine.account(state).preemptions > 0
    assert engine.account(state).tokens_out == 180


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"requests_max": 64, "prefill_tokens_max": 32}, "prefill_tokens_max 32 is below"),
        ({"block_tokens": 24}, "not whole KV blocks of 24"),
        ({"block_tokens": 8192}, "not one block"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_group(settings, words):
    with pytest.raises(EngineRefusedError, match=words):
        engine.build([group(), group(**settings)], hash_tokens=512)


def arrivals(count, rate, seed=3):
    chance = np.random.default_rng(seed)
    return Arrivals(
        np.cumsum(chance.exponential(1 / rate, count)),
        chance.integers(1, 400, count).astype(np.int32),
        chance.integers(1, 60, count).astype(np.int32),
    )


@pytest.mark.parametrize("window", [1 << 20, 97])
def test_a_replay_by_replica_and_in_windows_is_the_replay_by_event(window):
    asked = arrivals(1000, 40)
    one = replay(engine.build([group(count=5)]), asked, is_by_event=True)
    state = engine.build([group(count=5)], requests_max_alive=4)
    two = replay(state, asked, window=window)
    assert np.array_equal(one.ttft_s, two.ttft_s)
    assert np.array_equal(one.finish_s, two.finish_s)
    assert (one.finish_s > asked.at_s + one.ttft_s - 1e-9).all()


def test_a_refused_request_is_told_and_the_slots_of_a_replay_are_bounded():
    run = Replay(engine.build([group(count=2, kv_tokens=256)], requests_max_alive=8))
    ended = 0
    for window in range(50):
        asked = arrivals(40, 20, seed=window)
        asked = asked._replace(at_s=asked.at_s + window * 10.0)
        answers = run.feed(Arrivals(np.sort(asked.at_s), *asked[1:]))
        assert np.isnan(answers.ttft_s).sum() == np.isnan(answers.finish_s).sum()
        ended += answers.request.size
    ended += run.drain().request.size
    assert ended == 2000
    assert engine.account(run.state).refused > 0
    assert run.state.requests.size < 1000


def test_arrivals_out_of_order_are_refused():
    asked = arrivals(10, 10)
    with pytest.raises(ValueError, match="order of time"):
        Replay(engine.build([group()])).feed(asked._replace(at_s=asked.at_s[::-1].copy()))


@pytest.mark.parametrize("growth", [0.0, 1e-7, 3e-3, 5.0])
@pytest.mark.parametrize("first", [1e-7, 3e-3, 0.5, 9999.0])
def test_a_series_is_counted_as_each_of_its_times_would_be(first, growth):
    edges_s = bin_edges_s()
    counts = np.zeros(edges_s.size - 1, np.int64)
    count_series(counts, edges_s, (first, growth), 500, 3)
    plain = np.zeros_like(counts)
    for step in range(500):
        plain[bin_of(edges_s, first + growth * step)] += 3
    assert np.array_equal(counts, plain)


def test_quantiles_of_gaps_are_right_to_a_bin():
    state = engine.build([group()])
    engine.submit(state, 0, 0, 1, 100, 0.0)
    events(state)
    assert engine.itl_s(state, 0.5) == pytest.approx(0.0625, rel=0.01)
    assert engine.itl_s(engine.build([group()]), 0.5) is None
