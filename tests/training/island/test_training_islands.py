"""An island's parts alone: its reference inside, joining, checkpoints, what it fetches."""

import random

import numpy as np
import pytest

from argosy.training.inner import CheckpointError, Tensor
from argosy.training.island import fragments
from argosy.training.island.reference import ReferenceInner, ReferenceSource
from argosy.training.outer.parameters import ParameterMap
from tests.training.syncer.running_run import VOCABULARY, a_run


@pytest.fixture
def run():
    return a_run()


@pytest.fixture
def inner(run):
    return ReferenceInner(run, vocabulary=VOCABULARY)


@pytest.fixture
def source(run):
    return ReferenceSource(run, vocabulary=VOCABULARY)


def test_the_reference_gradient_is_that_of_the_loss(inner, source):
    blocks = source.read(0, 4)
    _, gradient = inner._gradient(blocks)
    chance = np.random.default_rng(0)
    for at in chance.choice(gradient.size, 20, replace=False):
        step = np.zeros_like(gradient)
        step[at] = 1e-2
        inner.add(0, step)
        above = inner.loss(blocks)
        inner.add(0, -2 * step)
        below = inner.loss(blocks)
        inner.add(0, step)
        assert (above - below) / 2e-2 == pytest.approx(gradient[at], abs=2e-4)


def test_the_reference_island_learns(inner, source):
    before = inner.loss(source.read(1000, 1016))
    for at in range(0, 400, 4):
        inner.step(source.read(at, at + 4), share_done=0.0)
    assert inner.loss(source.read(1000, 1016)) < before - 0.3


def test_blocks_are_the_same_whoever_reads_them(source, run):
    other = ReferenceSource(run, vocabulary=VOCABULARY)
    parts = [other.read(at, at + 1) for at in range(8)]
    random.Random(0).shuffle(parts)
    assert np.array_equal(source.read(2, 5), np.concatenate([other.read(2, 3), other.read(3, 5)]))


def test_an_island_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(
    inner, source, run, tmp_path
):
    for at in range(0, 40, 4):
        inner.step(source.read(at, at + 4), share_done=0.0)
    inner.save(str(tmp_path / "1"))
    other = ReferenceInner(run, vocabulary=VOCABULARY)
    other.load(str(tmp_path / "1"))
    for each in (inner, other):
        each.step(source.read(40, 44), share_done=0.1)
    assert np.array_equal(inner.parameters(), other.parameters())


def test_a_torn_checkpoint_is_refused(inner, run, tmp_path):
    inner.save(str(tmp_path / "1"))
    (tmp_path / "1" / "state.npy").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ReferenceInner(run, vocabulary=VOCABULARY).load(str(tmp_path / "1"))


def test_old_checkpoints_go(inner, run, tmp_path):
    for number in range(5):
        inner.save(str(tmp_path / f"{number:06d}"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "000004"]


def test_fragments_come_together_to_the_same_bits():
    parameter_map = ParameterMap([Tensor(name="w", shape=(5000,))], 8192)
    vector = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    named = fragments.named(parameter_map, vector)
    names = [name for name, _ in named]
    contents = {name.sha256: content for name, content in named}
    assert np.array_equal(fragments.joined(parameter_map, names, contents), vector)
    assert fragments.unlike(parameter_map, vector, names) == []
    other = vector.copy()
    other[-1] += 1
    assert fragments.unlike(parameter_map, other, names) == [2]
    with pytest.raises(ValueError, match="others"):
        fragments.joined(parameter_map, names[:-1], contents)
    contents[names[0].sha256] = b"\0" * 8
    with pytest.raises(ValueError, match="another length"):
        fragments.joined(parameter_map, names, contents)
