"""The syncer's bytes on a disk that is full, torn or tidied; snapshots that are damaged."""

import contextlib
import hashlib
import os
import resource

import numpy as np
import pytest

from argosy.store.runs import RoundRecord, RoundSettings, Weighed
from argosy.training.inner import Tensor
from argosy.training.outer.codec import encode
from argosy.training.outer.parameters import ParameterMap
from argosy.training.syncer.vault import FullError, TooMuchError, Vault, WrongHashError
from argosy.training.syncer.versions import SNAPSHOT_EVERY, LostError, Versions
from argosy.training.wire import FragmentName

TENSORS = [Tensor(name="w", shape=(3000,))]
BYTES_MAX = 8192


def name_of(content):
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def files_of_at_most(size):
    """As a quota: writing beyond it fails with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path, fragment_bytes_max=BYTES_MAX * 2)


@pytest.fixture
def versions(tmp_path, vault):
    return Versions(tmp_path, vault, fragment_bytes_max=BYTES_MAX)


def put(vault, content):
    vault.put(name_of(content), content)
    return name_of(content)


def test_a_full_disk_is_said_and_the_upload_goes_on_when_there_is_room(vault):
    content = os.urandom(9000)
    upload = vault.open_upload("ann", name_of(content))
    with files_of_at_most(4096):
        with pytest.raises(FullError, match="Free some space; nothing that was acknowledged"):
            upload.write(content)
        upload.close()
    there = vault.offset("ann", name_of(content))
    assert there == 4096
    assert not vault.has(name_of(content))

    again = vault.open_upload("ann", name_of(content))
    assert again.offset == there
    again.write(content[there:])
    again.commit()
    assert vault.read(name_of(content)) == content


def test_bytes_of_another_hash_and_too_many_of_them_are_thrown_away(vault):
    upload = vault.open_upload("ann", "0" * 64)
    upload.write(b"x")
    with pytest.raises(WrongHashError, match="Send them again"):
        upload.commit()
    assert vault.offset("ann", "0" * 64) == 0
    upload = vault.open_upload("ann", "0" * 64)
    with pytest.raises(TooMuchError):
        upload.write(b"x" * (2 * BYTES_MAX + 1))
    assert vault.offset("ann", "0" * 64) == 0


@pytest.mark.parametrize("name", ["", "..", "a/b", "A" * 64, "0" * 65])
def test_a_name_is_a_hash_and_nothing_else(vault, name):
    with pytest.raises(ValueError, match="is no SHA-256"):
        vault.path(name)


def test_what_nobody_names_goes_once_it_is_old(vault):
    kept, old, young = (put(vault, content) for content in (b"kept", b"old", b"young"))
    for name in (kept, old):
        os.utime(vault.path(name), (1.0, 1.0))
    assert vault.keep_only([kept], older_than_s=100.0) == 1
    assert (vault.has(kept), vault.has(old), vault.has(young)) == (True, False, True)


def seed(versions, vault):
    parameter_map = ParameterMap(TENSORS, BYTES_MAX)
    vector = np.random.default_rng(0).normal(size=3000).astype("<f4")
    names = [
        FragmentName(
            index=part.index,
            start=part.start,
            values=part.values,
            sha256=put(vault, part.of(vector).tobytes()),
        )
        for part in parameter_map.fragments
    ]
    versions.seed("ann", TENSORS, names)
    return names


def a_round(vault, version):
    chance = np.random.default_rng(version)
    parameter_map = ParameterMap(TENSORS, BYTES_MAX)
    names = tuple(
        put(vault, encode(chance.normal(size=part.values).astype("f4"), bits=4))
        for part in parameter_map.fragments
    )
    one = Weighed(island="ann", epoch=1, number=version, weight=1.0, fragments=names)
    return RoundRecord(
        version=version,
        contributions=(one,),
        settings=RoundSettings(lr=0.7, momentum=0.9, bits=4),
        reason="all",
        blocks_done=0,
        at_s=0.0,
    )


@pytest.fixture
def history(versions, vault):
    """A run of 20 versions, with its rounds."""
    seed(versions, vault)
    versions.begin(0, lambda _: [])
    rounds = [a_round(vault, version) for version in range(1, 21)]
    for closed in rounds:
        versions.close(closed)
        versions.snapshot_if_due()
    return rounds


def begun(tmp_path, vault, history, version=20):
    again = Versions(tmp_path, vault, fragment_bytes_max=BYTES_MAX)
    again.begin(version, lambda after: [one for one in history if one.version > after])
    return again


def test_a_restart_computes_the_same_bits_from_a_snapshot_and_the_rounds_after_it(
    tmp_path, versions, vault, history
):
    again = begun(tmp_path, vault, history)
    assert np.array_equal(again.published(), versions.published())
    assert again.newest == versions.newest
    assert SNAPSHOT_EVERY == 8
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["16", "8"]


def test_a_damaged_snapshot_is_passed_over_for_the_one_before(tmp_path, versions, vault, history):
    state = tmp_path / "snapshots" / "16" / "state.f32"
    content = bytearray(state.read_bytes())
    content[100] ^= 1
    state.write_bytes(content)
    assert np.array_equal(begun(tmp_path, vault, history).published(), versions.published())

    (tmp_path / "snapshots" / "8" / "manifest.json").write_text("{")
    with pytest.raises(LostError, match="no usable snapshot"):
        begun(tmp_path, vault, history)


def test_a_lost_delta_is_said_in_words(tmp_path, vault, history):
    vault.path(history[18].contributions[0].fragments[0]).unlink()
    with pytest.raises(LostError, match="that the ledger has accepted cannot be read"):
        begun(tmp_path, vault, history)


def test_a_full_disk_leaves_no_torn_snapshot_and_the_round_may_be_tried_again(
    tmp_path, versions, vault, history
):
    before = versions.published()
    closed = a_round(vault, 21)
    with files_of_at_most(100), pytest.raises(FullError):
        versions.close(closed)
    assert np.array_equal(versions.published(), before)
    with files_of_at_most(5000), pytest.raises(FullError):
        versions.snapshot_if_due(always=True)
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["16", "8"]
    versions.close(closed)
    twin = begun(tmp_path, vault, [*history, closed], version=21)
    assert np.array_equal(twin.published(), versions.published())


def test_parameters_that_are_not_finite_are_no_seed(versions, vault):
    parameter_map = ParameterMap(TENSORS, BYTES_MAX)
    vector = np.zeros(3000, "<f4")
    vector[5] = np.nan
    names = [
        FragmentName(
            index=part.index,
            start=part.start,
            values=part.values,
            sha256=put(vault, part.of(vector).tobytes()),
        )
        for part in parameter_map.fragments
    ]
    with pytest.raises(ValueError, match="not finite"):
        versions.seed("ann", TENSORS, names)
