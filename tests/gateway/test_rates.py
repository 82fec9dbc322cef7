"""What is learned of replicas from their answers: the true rates, soon, and nothing absurd."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.gateway.rates import PoolRates
from argosy.gateway.replicas import Watch
from argosy.policies.rates import DEFAULT, Learned
from argosy.policies.routing import ReplicaView, Route, predicted

FAST = Learned(base_s=0.03, prefill_s_per_byte=2e-5, service_s=1.5, token_s=0.01)
SLOW = Learned(base_s=0.12, prefill_s_per_byte=9e-5, service_s=5.0, token_s=0.04)


def view(name: str) -> ReplicaView:
    return ReplicaView(replica=name, is_ready=True, requests_in_flight=0, slots=4)


def rates_of(*names: str) -> tuple[PoolRates, dict[str, ReplicaView]]:
    rates, views = PoolRates(), {name: view(name) for name in names}
    for each in views.values():
        rates.join(each)
    return rates, views


def serve(rates: PoolRates, name: str, true: Learned, chance: random.Random) -> None:
    """One answered stream of a replica with these rates, give or take a fifth."""
    prompt_bytes = int(chance.expovariate(1 / 8_000))
    ttft_s = true.base_s + prompt_bytes * true.prefill_s_per_byte
    ttft_s *= chance.lognormvariate(-0.02, 0.2)  # of mean 1
    tokens = chance.randrange(2, 200)
    duration_s = ttft_s + (tokens - 1) * true.token_s
    rates.first_token(name, ttft_s=ttft_s, prompt_bytes=prompt_bytes)
    rates.finished(name, duration_s=duration_s, tokens_out=tokens, ttft_s=ttft_s)


def test_before_any_answer_a_replica_is_like_the_default():
    rates, views = rates_of("a")
    assert rates.learned("a") == DEFAULT
    fresh = views["a"]
    assert (fresh.base_s, fresh.service_s) == (DEFAULT.base_s, DEFAULT.service_s)
    assert fresh.prefill_s_per_byte == DEFAULT.prefill_s_per_byte
    assert Watch("b").view.base_s == DEFAULT.base_s


def test_a_pool_that_nobody_has_tried_looks_faster_than_one_that_is_known():
    known, views = rates_of("a")
    chance = random.Random(5)
    for _ in range(20):
        serve(known, "a", FAST, chance)
    _, untried = rates_of("b")
    assert isinstance(predicted([views["a"], untried["b"]]), Route)
    assert predicted([views["a"], untried["b"]]).replica == "b"


@pytest.mark.parametrize("seed", range(5))
def test_two_unlike_replicas_of_a_pool_are_told_apart(seed):
    rates, views = rates_of("fast", "slow")
    chance = random.Random(seed)
    for _ in range(400):
        serve(rates, "fast", FAST, chance)
        serve(rates, "slow", SLOW, chance)
    for name, true in (("fast", FAST), ("slow", SLOW)):
        learned = rates.learned(name)
        assert learned.prefill_s_per_byte == pytest.approx(true.prefill_s_per_byte, rel=0.15)
        assert learned.base_s == pytest.approx(true.base_s, rel=0.25)
        assert learned.token_s == pytest.approx(true.token_s, rel=0.1)
        assert views[name].prefill_s_per_byte == learned.prefill_s_per_byte
        assert views[name].service_s == learned.service_s


def test_a_replica_that_was_never_seen_is_believed_to_be_like_its_pool():
    rates, _ = rates_of("seen")
    chance = random.Random(1)
    for _ in range(200):
        serve(rates, "seen", FAST, chance)
    new = view("new")
    rates.join(new)
    assert new.prefill_s_per_byte == pytest.approx(FAST.prefill_s_per_byte, rel=0.15)
    assert rates.learned("stranger").base_s == pytest.approx(FAST.base_s, rel=0.3)


def test_one_answer_moves_a_belief_and_does_not_make_it():
    rates, _ = rates_of("a")
    rates.first_token("a", ttft_s=8.0, prompt_bytes=10_000)
    expected_s = rates.learned("a").base_s + 10_000 * rates.learned("a").prefill_s_per_byte
    assert 0.55 < expected_s < 4.0


def test_prompts_of_one_length_are_still_predicted():
    rates, views = rates_of("a")
    for _ in range(300):
        rates.first_token("a", ttft_s=0.9, prompt_bytes=4_000)
    assert views["a"].base_s + 4_000 * views["a"].prefill_s_per_byte == pytest.approx(0.9, rel=0.05)


def test_a_replica_that_slows_down_is_noticed_within_two_half_lives():
    rates, views = rates_of("a")
    chance = random.Random(3)
    for true in (FAST, SLOW):
        for _ in range(250):
            serve(rates, "a", true, chance)
    assert views["a"].prefill_s_per_byte == pytest.approx(SLOW.prefill_s_per_byte, rel=0.3)


def test_a_pause_of_a_minute_hardly_moves_what_is_believed():
    rates, views = rates_of("a")
    chance = random.Random(4)
    for _ in range(200):
        serve(rates, "a", FAST, chance)
    before = views["a"].prefill_s_per_byte
    rates.first_token("a", ttft_s=60.0, prompt_bytes=8_000)
    assert views["a"].prefill_s_per_byte == pytest.approx(before, rel=0.2)


def test_a_first_token_that_waited_for_a_slot_says_nothing_about_reading():
    rates, _ = rates_of("a")
    rates.first_token("a", ttft_s=30.0, prompt_bytes=1_000, turns_waited=0.5)
    assert rates.learned("a") == DEFAULT


def test_a_wait_is_not_counted_as_service():
    rates, views = rates_of("a")
    for _ in range(300):
        rates.finished("a", duration_s=9.0, tokens_out=10, ttft_s=None, turns_waited=2.0)
    assert views["a"].service_s == pytest.approx(3.0, rel=0.05)


def test_a_replica_that_once_looked_slow_is_tried_again_when_its_pool_has_gone_on():
    rates, views = rates_of("unlucky", "other")
    chance = random.Random(5)
    for _ in range(30):
        serve(rates, "unlucky", SLOW, chance)
    for _ in range(200):
        serve(rates, "other", FAST, chance)
    assert views["unlucky"].prefill_s_per_byte > 3 * views["other"].prefill_s_per_byte
    for _ in range(2_000):
        rates.first_token("other", ttft_s=0.13, prompt_bytes=5_000)
    predicted_s = views["unlucky"].base_s + 5_000 * views["unlucky"].prefill_s_per_byte
    assert predicted_s < 0.2


def test_who_has_left_teaches_nothing_and_is_forgotten():
    rates, views = rates_of("a")
    rates.first_token("a", ttft_s=1.0, prompt_bytes=100)
    rates.leave("a")
    before = views["a"].base_s
    rates.first_token("a", ttft_s=5.0, prompt_bytes=100)
    rates.finished("a", duration_s=5.0, tokens_out=3, ttft_s=5.0)
    rates.join(view("a"))
    assert rates.learned("a").observations == 0.0  # only its pool remembers
    assert views["a"].base_s == before


wild = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1e4)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), wild, st.integers(-5, 2**40) | st.integers(0, 9_000), wild
        ),
        max_size=60,
    )
)
def test_no_observation_makes_a_belief_absurd(observed):
    rates, views = rates_of("a", "b")
    for name, ttft_s, count, duration_s in observed:
        rates.first_token(name, ttft_s=ttft_s, prompt_bytes=count)
        rates.finished(name, duration_s=duration_s, tokens_out=count, ttft_s=None)
        rates.finished(name, duration_s=duration_s, tokens_out=count, ttft_s=ttft_s)
    for name in views:
        learned = rates.learned(name)
        for value in (
            learned.base_s,
            learned.prefill_s_per_byte,
            learned.service_s,
            learned.token_s,
        ):
            assert math.isfinite(value)
            assert value >= 0


def test_a_replica_whose_long_prompts_came_early_does_not_seem_to_read_for_nothing():
    pool, views = PoolRates(), [view("a"), view("b")]
    for each in views:
        pool.join(each)
    for count in range(60):  # b: as any; a: its long prompts met an idle replica, its short a busy
        prompt_bytes = 40_000 if count % 2 else 1_000
        pool.first_token("b", ttft_s=0.05 + prompt_bytes * 1e-5, prompt_bytes=prompt_bytes)
        pool.first_token("a", ttft_s=0.1 if count % 2 else 0.4, prompt_bytes=prompt_bytes)
    a, b = views
    assert 0 < b.prefill_s_per_byte < 2e-5
    assert a.prefill_s_per_byte >= 0.2 * pool.learned("a stranger").prefill_s_per_byte > 0
