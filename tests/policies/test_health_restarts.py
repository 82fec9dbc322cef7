"""Crash loops, and probation."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.health import (
    CrashLoop,
    HealthSettings,
    Healthy,
    RestartDelay,
    RestartState,
    SentBack,
    Suspect,
    became_ready,
    probation,
    put_on_probation,
    restart_delay_s,
    sent_back,
)

SETTINGS = HealthSettings()
SUSPECT = Suspect(reason="no good answer to 1 probe in 1.0 s: HTTP 503")


def restarts(times, *, up_s=None, start_s=0.5, state=None):
    """What is decided on restarts in a row; `up_s` None: it is never ready."""
    state, now_s, decided = state or RestartState(), 1000.0, []
    for _ in range(times):
        now_s += start_s
        if up_s is not None:
            state = became_ready(state, now_s=now_s)
            now_s += up_s
        state, delay = restart_delay_s(state, now_s=now_s, jitter=0.5, settings=SETTINGS)
        now_s += delay.delay_s
        decided.append(delay)
    return decided


def on_probation(now_s=0.0, why="it was killed: no answer"):
    return became_ready(put_on_probation(RestartState(), why=why), now_s=now_s)


def test_many_restarts_in_a_row_are_a_crash_loop_at_the_longest_delay():
    decided = restarts(14)
    assert [type(one) for one in decided] == [RestartDelay] * 9 + [CrashLoop] * 5
    assert {one.delay_s for one in decided[9:]} == {SETTINGS.restart_delay_s_max * 0.75}
    assert decided[-1].restarts == 14
    assert decided[9].reason.startswith("crash loop: 10 restarts in 43 s, none of which lasted")


def test_where_a_start_takes_minutes_a_crash_loop_is_seen_sooner():
    decided = restarts(5, start_s=300.0)
    assert [type(one) for one in decided] == [RestartDelay] * 3 + [CrashLoop] * 2
    assert decided[3].delay_s > decided[2].delay_s


def test_a_life_that_lasts_ends_the_crash_loop():
    state = RestartState(restarts=20, row_since_s=0.0)
    state = became_ready(state, now_s=500.0)
    state, delay = restart_delay_s(state, now_s=561.0, jitter=0.0, settings=SETTINGS)
    assert isinstance(delay, RestartDelay)
    assert state == RestartState(restarts=1, row_since_s=561.0)


def test_a_row_whose_begin_is_not_known_is_no_crash_loop_yet():
    state = RestartState(restarts=50)
    state, delay = restart_delay_s(state, now_s=5.0, jitter=0.0, settings=SETTINGS)
    assert isinstance(delay, RestartDelay)
    _, delay = restart_delay_s(state, now_s=9.0, jitter=0.0, settings=SETTINGS)
    assert isinstance(delay, CrashLoop)


def test_probation_begins_when_it_is_ready_and_ends():
    waiting = put_on_probation(RestartState(), why="its node was repaired")
    assert probation(waiting, now_s=0.0, settings=SETTINGS) is None
    state = became_ready(waiting, now_s=100.0)
    on = probation(state, now_s=101.0, settings=SETTINGS)
    assert on is not None
    assert on.share == SETTINGS.probation_share
    assert on.reason == "on probation for 599 s more: its node was repaired"
    assert probation(state, now_s=on.until_s, settings=SETTINGS) is None


def test_a_single_fault_on_probation_sends_it_back():
    back = sent_back(on_probation(), SUSPECT, now_s=10.0, settings=SETTINGS)
    assert isinstance(back, SentBack)
    assert "it was killed: no answer" in back.reason


def test_nobody_is_sent_back_for_good_probes_or_after_probation():
    state = on_probation()
    well = Healthy(reason="answers its probes")
    assert sent_back(state, well, now_s=10.0, settings=SETTINGS) is None
    assert sent_back(state, SUSPECT, now_s=601.0, settings=SETTINGS) is None
    usual = became_ready(RestartState(), now_s=0.0)
    assert sent_back(usual, SUSPECT, now_s=10.0, settings=SETTINGS) is None


def test_each_fault_on_probation_doubles_the_delay():
    state, now_s, delays_s = on_probation(), 0.0, []
    for _ in range(4):
        now_s += 200.0  # longer than a life that lasts, shorter than probation
        state, delay = restart_delay_s(state, now_s=now_s, jitter=0.0, settings=SETTINGS)
        delays_s.append(delay.delay_s)
        now_s += delay.delay_s
        state = became_ready(state, now_s=now_s)
        assert probation(state, now_s=now_s, settings=SETTINGS) is not None
    assert delays_s[:2] == [5.0, 10.0]
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(delays_s))


def test_one_that_is_killed_for_its_health_comes_back_soon_and_on_probation():
    state = became_ready(RestartState(), now_s=0.0)
    state = put_on_probation(state, why="no answer")
    state, delay = restart_delay_s(state, now_s=3600.0, jitter=0.0, settings=SETTINGS)
    assert delay.delay_s <= SETTINGS.restart_delay_s_first
    state = became_ready(state, now_s=3601.0)
    assert probation(state, now_s=3602.0, settings=SETTINGS) is not None


def test_a_probation_that_was_passed_is_forgotten():
    state, _ = restart_delay_s(on_probation(), now_s=600.0, jitter=0.0, settings=SETTINGS)
    assert state == RestartState(restarts=1, row_since_s=600.0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 2000.0)), max_size=40))
def test_no_delay_is_longer_than_its_cap_whatever_happens(lives):
    state, now_s = RestartState(), 0.0
    for is_killed, up_s in lives:
        state = became_ready(state, now_s=now_s)
        now_s += up_s
        if is_killed:
            state = put_on_probation(state, why="no answer")
        state, delay = restart_delay_s(state, now_s=now_s, jitter=0.9, settings=SETTINGS)
        assert 0.0 < delay.delay_s <= SETTINGS.probation_delay_s_max
        assert delay.reason
        now_s += delay.delay_s
