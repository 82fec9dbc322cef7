"""The recurrence of a load test against sums done by hand, and its laws."""

import numpy as np
import pytest

from argosy.perf.closed_loop import Limits, Load, PrefillPool, mixed_loop, split_loop

KNOTS = (np.array([1.0, 1e6]), np.array([0.01, 0.01]), 0.0, 0.0)  # every step takes 10 ms
RISING = (
    np.array([2.0**power for power in range(15)]),
    np.array([0.005 + 1e-5 * 2.0**power for power in range(15)]),
    2e-9,
    1e-10,
)


def load(clients: int, output: float = 100.0, input_tokens: float = 1000.0) -> Load:
    return Load(clients, input_tokens, output, 0.0, clients * 10, 0)


def limits(*, step: float = 8192.0, kv: float = 1e12, mixes: bool = True) -> Limits:
    return Limits(step, 4096, kv, mixes)


def test_one_client_waits_for_its_prefill_and_then_a_step_a_token() -> None:
    ttft_s, tpot_s = mixed_loop(KNOTS, load(1), limits())
    assert ttft_s == pytest.approx(0.01)
    assert tpot_s == pytest.approx(0.01)


def test_a_prompt_longer_than_a_step_takes_several() -> None:
    ttft_s, _ = mixed_loop(KNOTS, load(1, input_tokens=1000.0), limits(step=250.0))
    assert ttft_s == pytest.approx(0.04)


def test_prefill_steps_of_their_own_hold_decoding_up() -> None:
    _, mixed_s = mixed_loop(RISING, load(8), limits())
    _, apart_s = mixed_loop(RISING, load(8), limits(mixes=False))
    assert mixed_s > RISING[1][3]
    assert apart_s > RISING[1][3]


@pytest.mark.parametrize("mixes", [True, False])
def test_more_clients_never_decode_faster(mixes: bool) -> None:
    tpots = [mixed_loop(RISING, load(count), limits(mixes=mixes))[1] for count in (1, 4, 16, 64)]
    assert tpots == sorted(tpots)


def test_longer_prompts_never_come_sooner() -> None:
    ttfts = [
        mixed_loop(RISING, load(16, input_tokens=size), limits())[0] for size in (10, 100, 1e3, 1e4)
    ]
    assert ttfts == sorted(ttfts)


def test_little_memory_queues_requests_instead_of_losing_them() -> None:
    free_s, _ = mixed_loop(RISING, load(32), limits())
    tight_s, _ = mixed_loop(RISING, load(32), limits(kv=5000.0))
    assert tight_s > 2 * free_s


def test_prefill_elsewhere_leaves_decoding_alone() -> None:
    pool = PrefillPool(0.1, 0.1, 0.0, 1.0, 0.0)
    ttft_s, tpot_s = split_loop(KNOTS, load(1), limits(), pool)
    assert ttft_s == pytest.approx(0.1)
    assert tpot_s == pytest.approx(0.01)


def test_a_second_prefill_replica_halves_a_queue() -> None:
    one = split_loop(KNOTS, load(64), limits(), PrefillPool(0.1, 0.1, 0.0, 1.0, 0.0))[0]
    two = split_loop(KNOTS, load(64), limits(), PrefillPool(0.1, 0.1, 0.0, 2.0, 0.0))[0]
    assert two < 0.6 * one
