"""Two processes inside an island: as one, and what is said when one dies."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch_tries import VOCABULARY, a_run, island, some_blocks

from argosy.training.torch_island.checkpoint import MANIFEST
from argosy.training.torch_island.inner import TorchInner
from argosy.training.torch_island.ranks import RankDied


@pytest.fixture(scope="module")
def two() -> Iterator[TorchInner]:
    one = TorchInner(a_run(), island(processes=2), vocabulary=VOCABULARY)
    yield one
    one.close()


def stepped(one: TorchInner, first: int, last: int) -> list[float]:
    return [one.step(some_blocks(seed=n), share_done=n / 20).loss for n in range(first, last)]


def wait_written(folder: Path) -> None:
    """A save goes on in the background."""
    until_s = time.monotonic() + 60
    while not (folder / MANIFEST).exists():
        assert time.monotonic() < until_s, f"{folder} was not written"
        time.sleep(0.01)


def test_two_ranks_train_as_one_does(two: TorchInner, tmp_path: Path) -> None:
    one = TorchInner(a_run(), island(), vocabulary=VOCABULARY)
    assert two.tensors() == one.tensors()
    assert two.parameters().tobytes() == one.parameters().tobytes()
    assert stepped(two, 0, 5) == pytest.approx(stepped(one, 0, 5), rel=1e-5)
    np.testing.assert_allclose(two.parameters(), one.parameters(), atol=2e-5)
    assert two.loss(some_blocks(5)) == pytest.approx(one.loss(some_blocks(5)), rel=1e-5)

    vector = np.random.default_rng(0).standard_normal(one.parameters().size).astype(np.float32)
    two.set_parameters(vector)
    two.add(31, vector[31:4000])
    vector[31:4000] += vector[31:4000].copy()
    assert two.parameters().tobytes() == vector.tobytes()

    vector /= 30
    two.set_parameters(vector)
    two.save(str(tmp_path / "of-two"))
    going_on = stepped(two, 5, 7)
    wait_written(tmp_path / "of-two")
    two.load(str(tmp_path / "of-two"))
    assert two.parameters().tobytes() == vector.tobytes()
    assert stepped(two, 5, 7) == going_on
    one.load(str(tmp_path / "of-two"))  # by another number of ranks
    assert one.parameters().tobytes() == vector.tobytes()
    assert stepped(one, 5, 7) == pytest.approx(going_on, rel=1e-5)

    one.save(str(tmp_path / "of-one"))
    one.close()
    two.load(str(tmp_path / "of-one"))
    assert two.parameters().tobytes() == one.parameters().tobytes()

    assert two._ranks is not None
    rank = two._ranks._processes[0]
    os.kill(rank.pid, signal.SIGKILL)
    with pytest.raises(RankDied, match=r"island a: rank 1 \(process \d+\) ended with -9"):
        stepped(two, 7, 9)


def test_a_batch_that_ranks_cannot_share_alike_is_refused() -> None:
    with pytest.raises(ValueError, match="a multiple of 3"):
        TorchInner(a_run(), island(processes=3), vocabulary=VOCABULARY)
