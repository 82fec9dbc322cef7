"""Datasets in an object store, through fsspec: fetched once, checked, kept under a cap."""

from pathlib import Path

import fsspec
import numpy as np
import pytest

from argosy.training.data.manifest import CorruptShardError, DatasetError
from argosy.training.data.reader import Dataset, Reader
from tests.training.data.made import dataset


@pytest.fixture
def far(tmp_path: Path):
    """A dataset of five shards in memory, and what it is here."""
    near = dataset(tmp_path / "near", blocks=100, shards=5)
    memory = fsspec.filesystem("memory")
    for path in near.iterdir():
        memory.pipe_file(f"/bucket/docs/{path.name}", path.read_bytes())
    yield memory, near
    memory.rm("/bucket", recursive=True)


def test_a_far_dataset_reads_as_a_near_one(far, tmp_path: Path):
    _, near = far
    opened = Dataset.open("memory://bucket/docs", cache=tmp_path / "cache")
    there, here = Reader.of(opened, seed=2), Reader.of(Dataset.open(near), seed=2)
    assert np.array_equal(there.read(0, 150), here.read(0, 150))
    assert np.array_equal(there.boundaries(0, 150), here.boundaries(0, 150))
    assert opened.verify() > 0


def test_a_shard_is_fetched_when_it_is_wanted_and_then_never_again(far, tmp_path: Path):
    memory, _ = far
    cache = tmp_path / "cache"
    opened = Dataset.open("memory://bucket/docs", cache=cache)
    assert not cache.exists()
    opened.take(np.array([0]))
    assert len([*cache.iterdir()]) == 1
    memory.rm_file(f"/bucket/docs/{opened.manifest.shards[0].file}")
    again = Dataset.open("memory://bucket/docs", cache=cache)
    assert np.array_equal(again.take(np.array([3])), opened.take(np.array([3])))


def test_a_far_shard_of_other_bytes_is_refused_and_not_kept(far, tmp_path: Path):
    memory, _ = far
    opened = Dataset.open("memory://bucket/docs", cache=tmp_path / "cache")
    shard = opened.manifest.shards[2]
    memory.pipe_file(f"/bucket/docs/{shard.file}", bytes(shard.bytes))
    with pytest.raises(CorruptShardError, match=rf"{shard.file} is corrupt.*{shard.sha256}"):
        opened.take(np.array([50]))
    assert [*(tmp_path / "cache").iterdir()] == []


def test_the_cache_keeps_under_its_cap_and_gives_up_the_oldest(far, tmp_path: Path):
    _, near = far
    shard_bytes = Dataset.open(near).manifest.shards[0].bytes
    opened = Dataset.open(
        "memory://bucket/docs", cache=tmp_path / "cache", cache_bytes_max=2 * shard_bytes
    )
    for block in (0, 20, 40, 60, 80):
        opened.take(np.array([block]))
        kept = [path.stat().st_size for path in (tmp_path / "cache").iterdir()]
        assert sum(kept) <= 2 * shard_bytes
    # What was given up is still mapped, and comes again when it is asked for anew.
    assert np.array_equal(
        opened.take(np.array([0, 99])), Dataset.open(near).take(np.array([0, 99]))
    )


def test_a_place_that_is_none_says_so(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"manifest\.json cannot be read"):
        Dataset.open("memory://nothing/here", cache=tmp_path)
    with pytest.raises(DatasetError, match="cannot be reached"):
        Dataset.open("nowhere://bucket/docs", cache=tmp_path)


def test_a_file_url_is_a_folder(tmp_path: Path):
    assert Dataset.open(f"file://{dataset(tmp_path)}").blocks == 100
