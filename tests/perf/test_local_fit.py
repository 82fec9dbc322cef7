"""The fit of a replica's steps: what was put in comes out, whatever pauses there were."""

import numpy as np
import pytest
from msgspec.structs import replace

from argosy.perf.local_fit import (
    StepSample,
    TooFewSamplesError,
    fit,
    non_negative_least_squares,
)
from argosy.perf.step_time import StepTime

TRUE = StepTime(
    knots_tokens=(1.0, 2.0, 3.0, 4.0, 12.0, 1024.0),
    knots_s=(0.008, 0.020, 0.030, 0.033, 0.060, 4.6),
    context_s_per_token=8e-6,
    pair_s=2e-6,
)


def test_the_steps_that_were_measured_are_found_again() -> None:
    found = fit(_samples(slowdown=1.4))
    for tokens, contexts, pairs in ((1, 300, 0), (4, 900, 0), (60, 0, 1830), (700, 0, 245_350)):
        wanted_s = TRUE.step_s(tokens=tokens, contexts=contexts, pairs=pairs)
        got_s = found.step_time.step_s(tokens=tokens, contexts=contexts, pairs=pairs)
        assert got_s == pytest.approx(wanted_s, rel=0.03)
    assert found.slowdown == pytest.approx(1.4, rel=0.02)
    assert found.residuals.median < 0.01


def test_pauses_in_a_tenth_of_the_steps_change_little() -> None:
    samples = _samples(slowdown=1.4, paused_every=10)
    found = fit(samples)
    for tokens, pairs in ((60, 1830), (700, 245_350)):
        wanted_s = TRUE.step_s(tokens=tokens, pairs=pairs)
        assert found.step_time.step_s(tokens=tokens, pairs=pairs) == pytest.approx(
            wanted_s, rel=0.05
        )
    assert found.interval.ttft_low <= 1.0 <= found.interval.ttft_high


def test_the_mean_of_all_rounds_says_how_long_the_steps_of_the_fastest_take() -> None:
    fastest = _samples(slowdown=1.0)
    slower = [replace(one, seconds=one.seconds * (1.8 if one.is_busy else 1.2)) for one in fastest]
    found = fit(fastest, [*fastest, *slower])
    assert found.pace == pytest.approx(1.1, rel=0.01)
    assert found.slowdown == pytest.approx(1.4 / 1.1, rel=0.01)
    wanted_s = 1.1 * TRUE.step_s(tokens=60, pairs=1830)
    assert found.step_time.step_s(tokens=60, pairs=1830) == pytest.approx(wanted_s, rel=0.03)
    assert found.interval.ttft_low < 0.95
    assert found.interval.ttft_high > 1.05


def test_one_replica_alone_has_no_slowdown() -> None:
    alone = [one for one in _samples(slowdown=1.0) if not one.is_busy]
    assert fit(alone).slowdown == 1.0


def test_steps_that_only_decode_are_refused() -> None:
    decoding = [one for one in _samples(slowdown=1.0) if one.pairs == 0]
    with pytest.raises(TooFewSamplesError, match="0 of reading ones"):
        fit(decoding)


def test_nothing_negative_comes_out_and_no_better_fit_is_near() -> None:
    chance = np.random.default_rng(3)
    matrix = chance.random((30, 6))
    wanted = matrix @ np.array([1.0, 0.0, 2.0, 0.0, 0.5, 0.0]) - 0.3 * matrix[:, 1]
    found = non_negative_least_squares(matrix, wanted)
    assert (found >= 0).all()
    gain = matrix.T @ (wanted - matrix @ found)
    assert (gain <= 1e-8).all()  # no column would help that is at 0
    assert np.abs(gain[found > 0]).max() < 1e-8


def _samples(*, slowdown: float, paused_every: int = 0) -> list[StepSample]:
    shapes = [(batch, context * batch, 0) for batch in (1, 2, 3, 4) for context in (60, 300)]
    shapes += [(read, 0, read * (read + 1) // 2) for read in (12, 32, 67, 127, 250, 490)]
    found = []
    for is_busy in (False, True):
        for repeat in range(3):
            for tokens, contexts, pairs in shapes:
                seconds = TRUE.step_s(tokens=tokens, contexts=contexts, pairs=pairs)
                seconds *= slowdown if is_busy else 1.0
                if paused_every and (len(found) + repeat) % paused_every == 0:
                    seconds *= 1.6
                found.append(
                    StepSample(
                        tokens=tokens,
                        contexts=contexts,
                        pairs=pairs,
                        seconds=seconds,
                        is_busy=is_busy,
                    )
                )
    return found
