"""Laws of `policies/health.py`."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.health import (
    HealthSettings,
    HealthState,
    Healthy,
    Probe,
    RestartState,
    Suspect,
    Unresponsive,
    became_ready,
    judge,
    restart_delay_s,
)

SETTINGS = HealthSettings()
GOOD = Probe(ok=True, seconds=0.01, detail="HTTP 200")
BAD = Probe(ok=False, seconds=1.0, detail="no answer within 1.0 s")

probes = st.sampled_from([GOOD, BAD])
gaps_s = st.floats(0.01, 5.0)
jitters = st.floats(0.0, 1.0, exclude_max=True)


def judged(sequence, *, settings=SETTINGS):
    """The verdicts on (gap, probe) pairs, one after the other, with the time of each."""
    state, now_s = HealthState(), 100.0
    for gap_s, probe in sequence:
        now_s += gap_s + probe.seconds
        state, verdict = judge(state, probe, now_s=now_s, settings=settings)
        yield now_s, verdict


def delays_s(jitters_row, *, up_s=None):
    """The delays of restarts in a row, each life of which lasted `up_s` (None: never ready)."""
    state, now_s = RestartState(), 100.0
    for jitter in jitters_row:
        if up_s is not None:
            state = became_ready(state, now_s=now_s)
            now_s += up_s
        state, delay = restart_delay_s(state, now_s=now_s, jitter=jitter, settings=SETTINGS)
        now_s += delay.delay_s
        yield delay.delay_s


@given(st.lists(gaps_s, min_size=1))
def test_a_replica_with_only_good_probes_is_never_suspect(gaps):
    assert all(isinstance(v, Healthy) for _, v in judged((gap, GOOD) for gap in gaps))


@given(st.lists(st.tuples(gaps_s, probes)))
def test_one_good_probe_makes_any_replica_healthy(history):
    *_, (_, verdict) = judged([*history, (0.5, GOOD)])
    assert verdict == Healthy(reason="answers its probes")


@given(st.lists(st.tuples(gaps_s, probes)))
def test_a_failed_probe_makes_any_replica_suspect_or_worse(history):
    *_, (_, verdict) = judged([*history, (0.5, BAD)])
    assert not isinstance(verdict, Healthy)


@given(st.lists(st.tuples(gaps_s, probes)), st.lists(gaps_s, min_size=2, max_size=40))
def test_unresponsive_is_what_failed_two_probes_over_unresponsive_s_and_nothing_else(old, gaps):
    failing = [(gap, BAD) for gap in gaps]
    verdicts = list(judged([*old, (0.5, GOOD), *failing]))[len(old) + 1 :]
    first_sent_s = verdicts[0][0] - BAD.seconds
    for n, (now_s, verdict) in enumerate(verdicts, start=1):
        overdue = n >= 2 and now_s - first_sent_s >= SETTINGS.unresponsive_s
        assert isinstance(verdict, Unresponsive if overdue else Suspect)


def test_one_probe_that_failed_for_a_minute_condemns_nobody():
    late = Probe(ok=False, seconds=60.0, detail="no answer within 1.0 s")
    ((_, verdict),) = judged([(0.5, late)])
    assert isinstance(verdict, Suspect)


def test_a_verdict_says_how_many_probes_failed_in_what_time_and_how():
    *_, (_, verdict) = judged([(0.5, BAD), (0.1, BAD)])
    assert verdict.reason == "no good answer to 2 probes in 2.1 s: no answer within 1.0 s"


def test_the_patience_before_suspicion_is_a_setting():
    settings = HealthSettings(probes_failed_suspect=3)
    kinds = [type(v) for _, v in judged([(0.5, BAD)] * 3, settings=settings)]
    assert kinds == [Healthy, Healthy, Suspect]


@given(st.lists(jitters, min_size=1, max_size=100))
def test_the_back_off_never_exceeds_its_cap(row):
    assert all(0 < delay <= SETTINGS.restart_delay_s_max for delay in delays_s(row))


@given(st.lists(jitters, min_size=2, max_size=20))
def test_below_its_cap_the_back_off_never_shrinks_whatever_the_jitter(row):
    for earlier, later in itertools.pairwise(delays_s(row)):
        assert later >= min(earlier, SETTINGS.restart_delay_s_max / 2)


@given(jitters)
def test_the_back_off_doubles_until_its_cap(jitter):
    delays = list(delays_s([jitter] * 12))
    assert delays[:9] == pytest.approx([delays[0] * 2**n for n in range(9)])
    assert delays[9:] == pytest.approx([SETTINGS.restart_delay_s_max * (0.5 + jitter / 2)] * 3)


@given(st.lists(jitters, min_size=1, max_size=20), st.floats(60.01, 1e6))
def test_a_replica_that_lasted_is_restarted_as_if_for_the_first_time(row, up_s):
    assert all(delay <= SETTINGS.restart_delay_s_first for delay in delays_s(row, up_s=up_s))


@given(st.lists(jitters, min_size=10, max_size=20), st.floats(0.0, 59.0))
def test_a_replica_that_was_ready_but_did_not_last_backs_off_all_the_same(row, up_s):
    assert list(delays_s(row, up_s=up_s)) == pytest.approx(list(delays_s(row)))


def test_ten_thousand_restarts_in_a_row_overflow_nothing():
    state = RestartState(restarts=10_000)
    _, delay = restart_delay_s(state, now_s=0.0, jitter=0.0, settings=SETTINGS)
    assert delay.delay_s == SETTINGS.restart_delay_s_max / 2
    assert delay.reason == "restart in 15 s, number 10001 in a row"
