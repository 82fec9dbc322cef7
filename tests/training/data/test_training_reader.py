"""Reading a dataset: what comes out, and what is said where it is not whole."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from argosy.training.data.ahead import read_ahead
from argosy.training.data.manifest import CorruptShardError, DatasetError, decode, encode
from argosy.training.data.order import Order
from argosy.training.data.reader import Dataset, Reader, TokensHash
from tests.training.data.made import dataset


def test_an_epoch_is_every_block_but_those_held_back(tmp_path: Path):
    opened = Dataset.open(dataset(tmp_path, blocks=50))
    read = Reader.of(opened, seed=3, held_back=7).read(0, 43)
    validation = opened.validation_blocks(7)
    every = opened.take(np.arange(50))
    assert read.dtype == np.int64
    assert read.shape == (43, opened.block_tokens)
    assert _rows(read) | _rows(validation) == _rows(every)
    assert not _rows(read) & _rows(validation)


def test_many_shards_read_as_one(tmp_path: Path):
    one = Dataset.open(dataset(tmp_path / "one", blocks=60))
    many = Dataset.open(dataset(tmp_path / "many", blocks=60, shards=7))
    index = Order(60, 5).index(np.arange(60))
    assert np.array_equal(one.take(index), many.take(index))
    assert np.array_equal(one.take_boundaries(index), many.take_boundaries(index))


def test_large_vocabularies_take_four_bytes(tmp_path: Path):
    opened = Dataset.open(dataset(tmp_path, blocks=10, vocab=100_000))
    assert opened.manifest.dtype == "uint32"
    assert opened.take(np.arange(10)).max() > 2**16


def test_boundaries_begin_each_block(tmp_path: Path):
    reader = Reader.of(Dataset.open(dataset(tmp_path)), seed=0)
    boundaries = reader.boundaries(0, 100)
    assert boundaries.shape == reader.read(0, 100).shape
    assert boundaries[:, 0].all()
    assert 0.05 < boundaries[:, 1:].mean() < 0.2


def test_reading_in_pieces_gives_what_reading_at_once_gives(tmp_path: Path):
    opened = Dataset.open(dataset(tmp_path))
    whole, pieces = TokensHash(), TokensHash()
    whole.add(Reader.of(opened, seed=1).read(40, 350))
    reader = Reader.of(opened, seed=1)
    for start in range(40, 350, 31):
        pieces.add(reader.read(start, start + 31))
    assert pieces.hexdigest() == whole.hexdigest()


def test_reading_ahead_gives_the_same_blocks_and_ends_its_thread(tmp_path: Path):
    opened = Dataset.open(dataset(tmp_path))
    spans = [(0, 10), (50, 53)]
    found = [*read_ahead(Reader.of(opened, seed=1), spans, blocks=4)]
    assert [len(one) for one in found] == [4, 4, 2, 3]
    plain = Reader.of(opened, seed=1)
    assert np.array_equal(np.concatenate(found), np.concatenate([plain.read(*s) for s in spans]))
    early = read_ahead(Reader.of(opened, seed=1), [(0, 1000)], blocks=1)
    next(early)
    early.close()  # returns: nobody waits for what nobody takes


def test_what_fails_while_reading_ahead_is_raised_where_the_blocks_are_wanted(tmp_path: Path):
    reader = Reader.of(Dataset.open(dataset(tmp_path)), seed=1)
    with pytest.raises(ValueError, match="positions -1"):
        next(read_ahead(reader, [(-1, 1)], blocks=2))


def test_a_truncated_shard_is_refused_at_once(tmp_path: Path):
    dataset(tmp_path)
    shard = next(tmp_path.glob("*.u16"))
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(CorruptShardError, match=r"shard-00000.*3,398 bytes.*says 3,400"):
        Dataset.open(tmp_path)


def test_a_changed_byte_is_found_and_named(tmp_path: Path):
    dataset(tmp_path, shards=3)
    shard = sorted(tmp_path.glob("*.u16"))[1]
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    opened = Dataset.open(tmp_path)
    with pytest.raises(CorruptShardError) as told:
        opened.verify()
    wanted = opened.manifest.shards[1]
    assert wanted.file in str(told.value)
    assert wanted.sha256 in str(told.value)
    assert "argosy data prepare" in str(told.value)


def test_a_whole_dataset_verifies(tmp_path: Path):
    opened = Dataset.open(dataset(tmp_path, shards=2))
    assert opened.verify() == 100 * (17 * 2 + 3)


def test_no_dataset_is_told_from_a_broken_one(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"manifest\.json cannot be read: No such file"):
        Dataset.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DatasetError, match="is no manifest"):
        Dataset.open(tmp_path)


def test_a_manifest_that_leads_out_of_its_folder_is_refused(tmp_path: Path):
    manifest = Dataset.open(dataset(tmp_path)).manifest
    outside = msgspec.structs.replace(manifest.shards[0], file="../../etc/passwd")
    altered = msgspec.structs.replace(manifest, shards=(outside,))
    with pytest.raises(DatasetError, match="plain name"):
        decode(encode(altered), source="manifest.json")


def test_a_manifest_of_another_format_or_sum_is_refused(tmp_path: Path):
    manifest = Dataset.open(dataset(tmp_path)).manifest
    for change, told in (({"format_version": 2}, "format 2"), ({"blocks": 99}, "contradicts")):
        altered = msgspec.structs.replace(manifest, **change)
        with pytest.raises(DatasetError, match=told):
            decode(encode(altered), source="manifest.json")


def test_wrong_orders_and_too_many_held_back_say_what_would_work(tmp_path: Path):
    opened = Dataset.open(dataset(tmp_path))
    with pytest.raises(DatasetError, match=r"it takes Order\(90, seed\)"):
        Reader(opened, Order(100, 0), held_back=10)
    with pytest.raises(DatasetError, match="none is left"):
        Reader.of(opened, seed=0, held_back=100)
    with pytest.raises(DatasetError, match="keep back fewer"):
        opened.validation_blocks(100)


def _rows(blocks: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in blocks}
