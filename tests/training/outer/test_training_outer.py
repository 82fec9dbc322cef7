"""Fragments, the outer step, and refusals of the arithmetic between islands."""

import numpy as np
import pytest

from argosy.training.inner import Tensor
from argosy.training.outer.adopt import LocalState, UnknownNumberError
from argosy.training.outer.codec import DamagedError, NotFiniteError, encode
from argosy.training.outer.parameters import ParameterMap
from argosy.training.outer.step import (
    OuterSettings,
    close,
    close_fragment,
    first_fragment,
    first_state,
)

TENSORS = (
    Tensor(name="a", shape=(40, 50)),
    Tensor(name="b", shape=()),
    Tensor(name="c", shape=(7,)),
)


def test_fragments_cover_the_vector_once():
    parts = ParameterMap(TENSORS, fragment_bytes_max=4096).fragments
    assert [(part.start, part.stop) for part in parts] == [(0, 1024), (1024, 2008)]
    assert ParameterMap(TENSORS, fragment_bytes_max=1).fragments == parts
    assert len(ParameterMap(TENSORS, fragment_bytes_max=2**20).fragments) == 1


def test_views_of_tensors_write_to_the_vector():
    parameters = ParameterMap(TENSORS, fragment_bytes_max=4096)
    vector = np.zeros(parameters.values, np.float32)
    for tensor, view in parameters.views(vector):
        assert view.shape == tensor.shape
        view[...] = 1
    assert vector.sum() == parameters.values
    with pytest.raises(ValueError, match="2008 values"):
        list(parameters.views(vector[1:]))


def test_other_tensors_have_another_name():
    one = ParameterMap(TENSORS, 4096).tensors_sha256
    assert one == ParameterMap(TENSORS, 2**20).tensors_sha256
    assert one != ParameterMap(TENSORS[:2], 4096).tensors_sha256


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ((), "nothing to train"),
        ((TENSORS[0], TENSORS[0]), "a name each"),
        ((Tensor(name="a", shape=(0,)),), ">= 1"),
    ],
)
def test_tensors_that_make_no_vector_are_refused(tensors, says):
    with pytest.raises(ValueError, match=says):
        ParameterMap(tensors, 4096)


def test_the_step_is_nesterov_of_the_weighted_sum():
    chance = np.random.default_rng(0)
    start, one, two = (chance.standard_normal(70_000).astype(np.float32) for _ in range(3))
    settings = OuterSettings(lr=0.7, momentum=0.9, bits=4)
    fragment = first_fragment(start)
    parameters, momentum = start.astype(np.float64), np.zeros(70_000)
    for _ in range(3):
        fragment, _ = close_fragment(fragment, [(one, 0.25), (two, 0.75)], settings)
        gradient = one * 0.25 + two * 0.75
        momentum = 0.9 * momentum + gradient
        parameters = parameters - 0.7 * (gradient + 0.9 * momentum)
    assert np.allclose(fragment.parameters, parameters, atol=1e-5)
    step = np.abs(fragment.parameters - start).max() / 7.5
    assert np.abs(fragment.published - fragment.parameters).max() < step


def test_a_damaged_delta_closes_no_round():
    parameters = ParameterMap(TENSORS, 4096)
    state = first_state(np.zeros(parameters.values, np.float32), parameters)
    delta = [encode(np.ones(part.values, np.float32), bits=4) for part in parameters.fragments]
    with pytest.raises(DamagedError):
        close(state, [((delta[0], delta[0]), 1.0)], OuterSettings(lr=1, momentum=0, bits=4))
    with pytest.raises(NotFiniteError):
        close(state, [(delta, 1e38)], OuterSettings(lr=1, momentum=0, bits=4))


def test_a_damaged_update_changes_nothing():
    parameters = ParameterMap(TENSORS, 4096)
    start = np.ones(parameters.values, np.float32)
    state = LocalState(parameters, start, version=3)
    update = [encode(np.ones(part.values, np.float32), bits=8) for part in parameters.fragments]
    with pytest.raises(DamagedError):
        state.adopt(4, (update[0], update[1][:-1]), number=None)
    with pytest.raises(ValueError, match="one by one"):
        state.adopt(5, update, number=None)
    assert state.version == 3
    assert np.array_equal(state.published, start)
    movement = state.adopt(4, update, number=None)
    assert np.allclose(movement, -1, atol=0.01)


def test_what_is_refused_must_have_been_sent():
    parameters = ParameterMap(TENSORS, 4096)
    state = LocalState(parameters, np.ones(parameters.values, np.float32), version=0)
    with pytest.raises(UnknownNumberError, match="pending: none"):
        state.refused(1)
    delta = [encode(np.ones(part.values, np.float32), bits=8) for part in parameters.fragments]
    state.sent(1, delta)
    with pytest.raises(ValueError, match="numbers grow"):
        state.sent(1, delta)
    with pytest.raises(ValueError, match="there are 2"):
        state.sent(2, delta[:1])
    assert np.array_equal(state.restart(), state.published)
    assert state.pending == ()
