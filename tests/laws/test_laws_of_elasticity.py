"""Any islands: rations follow speed, rounds close in time, steps count alike, reasons are told."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.elasticity import (
    Close,
    Counted,
    ElasticitySettings,
    IslandSeen,
    RoundView,
    Wait,
    blocks_of_lease,
    closing,
    lr_of,
    momentum_of,
    rations,
    usual_momentum,
    weights,
)

SETTINGS = ElasticitySettings()
NOW_S = 1000.0
speeds = st.none() | st.floats(0.01, 1e4)
some_speeds = st.lists(speeds, min_size=1, max_size=9)


def _islands(of):
    return tuple(IslandSeen(island=f"i{n}", steps_per_s=speed) for n, speed in enumerate(of))


@given(some_speeds, st.integers(1, 500))
def test_rations_grow_with_speed_and_are_one_at_least(of, inner_steps):
    settings = ElasticitySettings(inner_steps=inner_steps)
    steps = rations(_islands(of), settings)
    assert len(steps) == len(of)
    assert min(steps.values()) >= 1
    known = sorted((speed, steps[f"i{n}"]) for n, speed in enumerate(of) if speed is not None)
    assert [ration for _, ration in known] == sorted(ration for _, ration in known)
    total = sum(steps.values())
    assert total <= inner_steps * len(of) + len(of)  # rounding, and one at least


@given(st.lists(st.floats(1.0, 3.9), min_size=1, max_size=9), st.integers(40, 500))
def test_where_no_island_is_far_off_the_mean_is_inner_steps(of, inner_steps):
    steps = rations(_islands(of), ElasticitySettings(inner_steps=inner_steps))
    assert abs(sum(steps.values()) / len(of) - inner_steps) <= 0.5


@given(some_speeds, st.floats(0.95, 1.05))
def test_a_little_faster_or_slower_changes_no_ration(of, factor):
    before = rations(_islands(of), SETTINGS)
    noisy = [
        None if speed is None else speed * (factor if n % 2 else 1) for n, speed in enumerate(of)
    ]
    after = rations(_islands(noisy), SETTINGS, before)
    for name, steps in after.items():
        if before[name] >= 10:
            assert steps == before[name]


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=6), st.integers(1, 64), st.integers(0, 10**6)
)
def test_leases_are_whole_steps_and_never_more_than_is_free(of, batch_blocks, blocks_free):
    total = sum(of)
    for steps in of:
        blocks = blocks_of_lease(
            steps, batch_blocks=batch_blocks, blocks_free=blocks_free, steps_of_all=total
        )
        assert blocks % batch_blocks == 0
        assert 0 <= blocks <= min(blocks_free, steps * batch_blocks)
        assert (blocks > 0) == (blocks_free >= batch_blocks)


@st.composite
def rounds(draw):
    islands = tuple(
        IslandSeen(
            island=f"i{n}",
            steps_per_s=draw(speeds),
            has_contributed=draw(st.booleans()),
            steps_leased=draw(st.none() | st.integers(1, 100)),
            leased_s=draw(st.none() | st.floats(NOW_S - 100, NOW_S)),
        )
        for n in range(draw(st.integers(0, 6)))
    )
    contributed = sum(seen.has_contributed for seen in islands) + draw(st.integers(0, 2))
    return RoundView(
        islands=islands,
        contributed=contributed,
        quorum_s=draw(st.none() | st.floats(NOW_S - 100, NOW_S)) if contributed else None,
        is_last=draw(st.booleans()),
    )


@given(rounds(), st.integers(1, 4), st.floats(0, 60))
def test_a_round_closes_when_all_came_and_with_quorum_in_time(view, quorum, grace_s_max):
    settings = ElasticitySettings(quorum=quorum, grace_s_max=grace_s_max)
    answer = closing(view, settings, NOW_S)
    assert answer.reason
    if view.contributed == 0:
        assert isinstance(answer, Wait)
    elif all(seen.has_contributed for seen in view.islands) and view.contributed >= quorum:
        assert isinstance(answer, Close)
    elif isinstance(answer, Wait) and answer.until_s is not None:
        begun_s = NOW_S if view.quorum_s is None else view.quorum_s
        assert NOW_S < answer.until_s <= begun_s + grace_s_max
        later = closing(view, settings, max(answer.until_s, NOW_S) + grace_s_max)
        if view.quorum_s is not None:
            assert isinstance(later, Close)
    elif isinstance(answer, Wait):
        assert view.contributed < quorum


counted = st.lists(
    st.builds(Counted, tokens=st.integers(1, 10**9), staleness=st.integers(0, 5)),
    min_size=1,
    max_size=8,
)


@given(counted, st.integers(1, 9), st.none() | st.integers(1, 10**10))
def test_fresh_deltas_count_alike_and_the_stale_less(deltas, islands, tokens_full):
    answer = weights(deltas, SETTINGS, islands=islands, tokens_full=tokens_full)
    freshest = min(one.staleness for one in deltas)
    for weight, one in zip(answer.weights, deltas, strict=True):
        assert 0 < weight <= 1 / islands
        assert (weight == 1 / islands) == (one.staleness == freshest)
    assert 0 < answer.share <= 1
    assert momentum_of(0.9, answer.share) <= 1


@given(counted, st.data())
def test_deltas_count_alike_however_the_rounds_close(deltas, data):
    fresh = [msgspec.structs.replace(one, staleness=0) for one in deltas]
    cut = data.draw(st.integers(1, len(fresh)))
    parts = [part for part in (fresh[:cut], fresh[cut:]) if part]
    told = [weights(part, SETTINGS, islands=len(fresh)).weights for part in parts]
    assert sum(told, ()) == weights(fresh, SETTINGS, islands=len(fresh)).weights


@given(
    st.floats(0.1, 1.0),
    st.floats(0.0, 0.95),
    st.lists(st.floats(0.05, 1.0), min_size=1, max_size=6),
)
def test_a_delta_moves_the_parameters_as_far_in_rounds_of_any_size(lr, momentum, shares):
    moved = velocity = 0.0  # as training/outer/step.py has it, of one value
    for number, share in enumerate([*shares, *[1.0] * 500]):
        delta = 1.0 if number == 0 else 0.0
        decay = momentum_of(momentum, share)
        moved += lr_of(lr, momentum, share) * (velocity + (1 + decay) * delta)
        velocity = decay * (velocity + decay * delta)
    assert math.isclose(moved, lr / (1 - momentum), rel_tol=1e-6)


@given(st.integers(1, 1000), st.floats(0.05, 1.0))
def test_with_the_usual_momentum_the_mean_of_k_islands_moves_by_its_root(islands, share):
    momentum = usual_momentum(islands)
    assert 0 <= momentum < 1
    assert (momentum == 0) == (islands == 1)
    spent = lr_of(1.0, momentum, share) / (1 - momentum_of(momentum, share)) if momentum else 1.0
    assert math.isclose(spent, math.sqrt(islands), rel_tol=1e-9)


@given(counted)
def test_the_staler_of_two_equal_deltas_counts_less(deltas):
    stale = Counted(tokens=deltas[0].tokens, staleness=9)
    answer = weights([*deltas, deltas[0], stale], SETTINGS, islands=3)
    assert answer.weights[-1] < answer.weights[-2]


def test_a_round_without_a_token_is_no_round():
    with pytest.raises(ValueError, match="without one token"):
        weights([Counted(tokens=0, staleness=0)], SETTINGS, islands=1)
