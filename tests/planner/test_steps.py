"""The size of an engine's steps: chosen where nobody says, and what is simulated then."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from argosy.fleet.config import VllmEngine
from argosy.perf.engine_settings import settings_of
from argosy.perf.step_time import StepTime
from argosy.planner.capacity.candidates import STEP_TOKENS
from argosy.planner.capacity.steps import Cost, chosen, is_less, largest_within
from argosy.planner.replay.cells import Replicas
from tests.planner.played import ground, problem

STEP = StepTime(
    knots_tokens=(1.0, 8192.0), knots_s=(0.0, 0.32), context_s_per_token=0.0, pair_s=0.0
)


def of(replicas: Sequence[float]):
    """By what each size takes."""

    def cost(size: int) -> Cost:
        return 0.0, replicas[STEP_TOKENS.index(size)]

    return lambda one, other: is_less(cost(one), cost(other))


# Of 256, 512, ... 8192 tokens: what the demand takes in replicas.
@pytest.mark.parametrize(
    ("replicas", "within", "best"),
    [
        ([9, 6, 4, 30, 25, 20], 1024, 1024),  # the largest that is within the promise
        ([9, 4, 8, 30, 25, 20], 1024, 512),  # with what it decodes besides, one less is
        ([9, 8, 7, 4, 25, 20], 1024, 2048),  # so few prompts that one more is
        ([50, 40, 60, 30, 25, 20], 1024, 8192),  # few long steps
        ([5, 4, 3.9, 4, 4.1, 4.2], None, 1024),  # all alike
        ([5, 4, 3.9, 3.5, 3.2, 3], None, 8192),
        ([9, 8, 7, 6, 5, 4], 8192, 8192),
        ([4, 5, 6, 7, 8, 9], 256, 256),
    ],
)
def test_of_two_peaks_over_the_size_of_steps_the_higher_is_found(replicas, within, best):
    assert chosen(STEP_TOKENS, within, of(replicas)) == best


def test_what_serves_all_kinds_of_requests_goes_before_what_takes_fewer_replicas():
    assert is_less((0.0, 10.0), (5.0, 1.0))
    assert not is_less((5.0, 1.0), (0.0, 10.0))


def test_a_size_of_the_operators_own_is_the_only_one():
    assert chosen((700,), 512, lambda *_: True) == 700


def test_the_largest_step_within_a_promise_is_smaller_where_steps_are_slower():
    # 0.039 ms a token: 1,024 take 40 ms, at 1.5 times as long 60 ms.
    assert largest_within(STEP_TOKENS, STEP, 0.05, 1.0) == 1024
    assert largest_within(STEP_TOKENS, STEP, 0.05, 1.5) == 512
    assert largest_within(STEP_TOKENS, STEP, 0.001, 1.0) == 256
    assert largest_within(STEP_TOKENS, STEP, None, 1.0) is None


def test_an_engine_whose_steps_nobody_set_has_8192_tokens_where_nothing_chooses():
    assert VllmEngine().prefill_tokens_max is None
    assert settings_of(VllmEngine()).prefill_tokens_max == 8192
    assert settings_of(VllmEngine(prefill_tokens_max=512)).prefill_tokens_max == 512


def test_the_replay_has_the_steps_that_the_plan_believed():
    asked, replicas = problem(), Replicas(ground())
    option = asked.options[0]
    _, as_set = replicas.of(asked, option)
    perf, chosen_ = replicas.of(asked, replace(option, prefill_tokens_max=512))
    assert as_set.prefill_tokens_max == 8192
    assert chosen_.prefill_tokens_max == 512
    wide, _ = replicas.of(asked, option)
    assert perf.kv_tokens > wide.kv_tokens  # shorter steps leave it more memory
