"""`data.is_document_masked` from the run file to the model's attention."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from argosy.fleet.runs import Data
from argosy.training.island.process import IslandSpec, _torch
from tests.training.data.made import dataset
from tests.training.torch_island.torch_tries import CONTEXT, VOCABULARY, a_run


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_loss_depends_on_the_document_before_unless_it_is_masked(
    tmp_path: Path, is_masked: bool
) -> None:
    path = dataset(tmp_path / "data", vocab=VOCABULARY, context_tokens=CONTEXT)
    data = Data(path=str(path), is_document_masked=is_masked)
    run = replace(a_run(), data=data)
    parts = _torch(IslandSpec(run=run, island="a", url="none", credentials="none"), run.islands[0])
    try:
        blocks = parts.source.read(0, 2)
        blocks[blocks == 0] = 1
        blocks[:, 8:10] = (0, 1)  # the end token, and what it is to foretell
        other = blocks.copy()
        other[:, :7] = 2
        both = parts.inner.loss(blocks) - parts.inner.loss(other)
        blocks[:, 10:] = other[:, 10:] = 1
        first = parts.inner.loss(blocks) - parts.inner.loss(other)  # of what is up to there
        assert (abs(both - first) < 1e-6) == is_masked
    finally:
        parts.inner.close()
