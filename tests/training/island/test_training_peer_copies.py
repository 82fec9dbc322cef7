"""An island's checkpoint in a peer's memory: only its owner's, whole or not at all, bounded."""

import hashlib
import time

import httpx
import msgspec
import numpy as np
import pytest

from argosy.training import credentials
from argosy.training.credentials import folder_of, make_credentials
from argosy.training.inner import CheckpointError
from argosy.training.island import copied_files
from argosy.training.island.copies import CheckpointCopies
from argosy.training.island.held_copies import (
    HeldCopies,
    OffsetError,
    UnlikeError,
    copies_bytes_max,
    fault_of,
)
from argosy.training.island.peers import PeerShare
from argosy.training.island.reference import ReferenceInner, ReferenceSource
from argosy.training.wire import CopiedFile, Copy, CopyRefused, CopyWanted, Peer
from tests.training.syncer.running_run import VOCABULARY, a_run

LABEL = "000001-000000010"


def file_of(content, path="state.npy"):
    return CopiedFile(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def copy_of(*contents, island="ann", label=LABEL):
    files = tuple(file_of(one, f"part-{at}") for at, one in enumerate(contents))
    return Copy(island=island, label=label, files=files)


def fill(held, copy, contents):
    for one in contents:
        held.add(copy.island, file_of(one).sha256, 0, one, now_s=0.0)


def hold(held, *contents, **fields):
    copy = copy_of(*contents, **fields)
    held.begin(copy, now_s=0.0)
    fill(held, copy, contents)
    assert held.begin(copy, now_s=0.0) == {}
    return copy


# In memory.


def test_a_copy_is_held_when_its_last_byte_was_checked_and_not_before():
    held = HeldCopies(100)
    first = hold(held, b"a" * 10, b"")
    second = copy_of(b"b" * 10, label="000001-000000020")
    name = file_of(b"b" * 10).sha256
    assert held.begin(second, now_s=0.0) == {name: 0}
    held.add("ann", name, 0, b"b" * 4, now_s=0.0)
    assert held.begin(second, now_s=0.0) == {name: 4}
    assert held.newest("ann") == first
    with pytest.raises(OffsetError):
        held.add("ann", name, 5, b"b", now_s=0.0)
    with pytest.raises(UnlikeError):
        held.add("ann", name, 4, b"c" * 6, now_s=0.0)
    assert held.begin(second, now_s=0.0) == {name: 0}
    fill(held, second, [b"b" * 10])
    assert held.begin(second, now_s=0.0) == {}
    assert held.newest("ann") == second
    assert bytes(held.content("ann", name)) == b"b" * 10
    assert held.content("ann", file_of(b"a" * 10).sha256) is None
    assert held.bytes_held == 10


def test_what_does_not_fit_is_refused_and_said():
    held = HeldCopies(100)
    hold(held, b"a" * 60, island="ann")
    refused = held.begin(copy_of(b"b" * 41, island="bob"), now_s=0.0)
    assert isinstance(refused, CopyRefused)
    assert (refused.bytes_asked, refused.bytes_free) == (41, 40)
    assert held.newest("ann") is not None
    hold(held, b"b" * 40, island="bob")
    held.drop("ann")
    assert held.bytes_held == 40


def test_a_newer_copy_takes_the_older_ones_room_where_both_do_not_fit():
    held = HeldCopies(100)
    hold(held, b"a" * 60, b"same")
    newer = copy_of(b"b" * 60, b"same", label="000001-000000020")
    assert held.begin(newer, now_s=0.0) == {file_of(b"b" * 60).sha256: 0}
    assert held.newest("ann") is None
    assert held.bytes_held == 64


def test_a_copy_that_nobody_goes_on_with_makes_room():
    held = HeldCopies(100)
    held.begin(copy_of(b"a" * 60, island="ann"), now_s=0.0)
    copy = copy_of(b"b" * 60, island="bob")
    assert isinstance(held.begin(copy, now_s=10.0), CopyRefused)
    assert isinstance(held.begin(copy, now_s=1e4), dict)


@pytest.mark.parametrize(
    "path",
    ["../state", "/state", "a/../b", "", ".", "a//b", "a\n", "a/./b", ".hidden", "a\\b", "x" * 401],
)
def test_a_path_out_of_the_checkpoint_is_refused(path, tmp_path):
    copy = Copy(island="ann", label=LABEL, files=(file_of(b"x", path),))
    assert fault_of(copy) is not None
    with pytest.raises(CheckpointError):
        copied_files.put_back(tmp_path / "of", copy, lambda _: iter([b"x"]))
    assert not (tmp_path / "of").exists()


def test_a_label_or_a_name_that_is_none_is_refused():
    good = copy_of(b"x")
    assert fault_of(good) is None
    replace = msgspec.structs.replace
    assert fault_of(replace(good, label="..")) is not None
    assert fault_of(replace(good, files=())) is not None
    assert fault_of(replace(good, files=good.files * 2)) is not None
    assert fault_of(replace(good, files=(replace(good.files[0], sha256="A" * 64),))) is not None
    nested = (file_of(b"x", "a"), file_of(b"x", "a/b"))
    assert fault_of(replace(good, files=nested)) is not None


def test_copies_take_a_share_of_the_memory():
    assert 2**20 < copies_bytes_max(0.1) < copies_bytes_max(0.2)


# Over the wire.


@pytest.fixture
def folder(tmp_path):
    make_credentials(tmp_path / "credentials", "test", ["ann", "bob", "cid"], now_s=time.time())
    return tmp_path / "credentials"


@pytest.fixture
def share(folder):
    share = PeerShare(folder_of(folder, "island", "bob"), "test", copies_bytes_max=2**20)
    yield share
    share.close()


class Traffic:
    def __init__(self, *shares, names=("bob", "cid")):
        urls = zip(names, shares, strict=False)
        self.peers = tuple(Peer(island=name, url=share.url) for name, share in urls)
        self.is_sending = False


@pytest.fixture
def copies_for(folder):
    made = []

    def make(island="ann"):
        said = []
        copies = CheckpointCopies(folder_of(folder, "island", island), island, say=said.append)
        copies.said = said
        made.append(copies)
        return copies

    yield make
    for copies in made:
        copies.close()


def until(is_so):
    end_s = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.01)


@pytest.fixture
def trained():
    run = a_run()
    inner = ReferenceInner(run, vocabulary=VOCABULARY)
    source = ReferenceSource(run, vocabulary=VOCABULARY)
    for at in range(0, 40, 4):
        inner.step(source.read(at, at + 4), share_done=0.0)
    return inner, source


def client_of(folder, island):
    context = credentials.calling(folder_of(folder, "island", island))
    return httpx.Client(verify=context, trust_env=False)


BOB = {"sni_hostname": credentials.island_host("bob")}


def test_what_comes_back_trains_on_to_the_same_bits(trained, share, copies_for, tmp_path):
    inner, source = trained
    saved = tmp_path / "ann" / LABEL
    inner.save(str(saved))
    copies = copies_for()
    copies.attach(Traffic(share))
    copies.offer(saved)
    until(lambda: copies.sent is not None)
    there = copies_for().restore(
        tmp_path / "elsewhere", Traffic(share).peers, newer_than=None, bytes_max=2**20
    )
    assert there == tmp_path / "elsewhere" / LABEL
    other = ReferenceInner(a_run(), vocabulary=VOCABULARY)
    other.load(str(there))
    for one in (inner, other):
        one.step(source.read(40, 44), share_done=0.1)
    assert np.array_equal(inner.parameters(), other.parameters())
    assert copies.restore(tmp_path, Traffic(share).peers, newer_than=LABEL, bytes_max=9) is None


def test_another_island_neither_fetches_nor_sends_nor_drops_it(folder, share):
    content = b"optimizer"
    copy = copy_of(content)
    name = file_of(content).sha256
    with client_of(folder, "ann") as ann, client_of(folder, "cid") as cid:
        where = f"{share.url}/v1/copy"
        sent = ann.post(where, content=msgspec.json.encode(copy), extensions=BOB)
        assert msgspec.json.decode(sent.content, type=CopyWanted).there == {name: 0}
        of_ann = f"{where}/{name}?island=ann"
        assert cid.put(of_ann, content=content, extensions=BOB).status_code == 403
        assert ann.put(of_ann, content=content, extensions=BOB).status_code == 204
        assert ann.post(where, content=msgspec.json.encode(copy), extensions=BOB).json() == {
            "there": {}
        }
        assert ann.get(of_ann, extensions=BOB).content == content
        assert cid.get(of_ann, extensions=BOB).status_code == 403
        assert cid.get(f"{where}?island=ann", extensions=BOB).status_code == 403
        assert cid.get(f"{where}/{name}?island=cid", extensions=BOB).status_code == 404
        assert cid.delete(f"{where}?island=ann", extensions=BOB).status_code == 403
        posted = cid.post(where, content=msgspec.json.encode(copy), extensions=BOB)
        assert posted.status_code == 403
        assert ann.delete(f"{where}?island=ann", extensions=BOB).status_code == 204
        assert ann.get(of_ann, extensions=BOB).status_code == 404


def test_what_is_no_copy_is_refused(folder, share):
    with client_of(folder, "ann") as ann:
        where = f"{share.url}/v1/copy"
        bad = msgspec.structs.replace(copy_of(b"x"), label="../x")
        assert ann.post(where, content=b"{}", extensions=BOB).status_code == 400
        answer = ann.post(where, content=msgspec.json.encode(bad), extensions=BOB)
        assert answer.status_code == 400
        name = file_of(b"x").sha256
        url = f"{where}/{name}?island=ann"
        assert ann.put(url, content=b"x", extensions=BOB).status_code == 404
        ann.post(where, content=msgspec.json.encode(copy_of(b"x")), extensions=BOB)
        assert ann.put(url, content=b"y", extensions=BOB).status_code == 422
        beyond = ann.put(url, content=b"x", headers={"upload-offset": "9"}, extensions=BOB)
        assert (beyond.status_code, beyond.headers["upload-offset"]) == (409, "0")
        assert ann.put(url, content=bytes(9 * 2**20), extensions=BOB).status_code == 413


def test_a_torn_copy_is_never_put_in_place(share, copies_for, tmp_path):
    content = bytes(range(256)) * 16
    saved = tmp_path / "ann" / LABEL
    saved.mkdir(parents=True)
    (saved / "state.npy").write_bytes(content)
    copies = copies_for()
    copies.attach(Traffic(share))
    copies.offer(saved)
    until(lambda: copies.sent is not None)
    held = share._copies._whole["ann"].contents[file_of(content).sha256]
    back = tmp_path / "back"

    def restored():
        return copies.restore(back, Traffic(share).peers, newer_than=None, bytes_max=2**20)

    held.bytes[100] ^= 1
    assert restored() is None
    held.bytes[100] ^= 1
    whole, held.bytes = held.bytes, held.bytes[:-1]
    assert restored() is None
    assert list(back.iterdir()) == []
    held.bytes = whole
    assert copies.restore(back, Traffic(share).peers, newer_than=None, bytes_max=9) is None
    assert (restored() / "state.npy").read_bytes() == content


def test_a_full_peer_refuses_and_the_next_one_takes_it(folder, share, copies_for, tmp_path):
    saved = tmp_path / "ann" / LABEL
    saved.mkdir(parents=True)
    (saved / "state.npy").write_bytes(bytes(3 * 2**20))
    copies = copies_for()
    copies.attach(Traffic(share))
    copies.offer(saved)
    until(lambda: copies._in_vain is not None)
    assert copies.said == [{"event": "copy refused", "label": LABEL, "peer": "bob", "free": 2**20}]
    other = PeerShare(folder_of(folder, "island", "cid"), "test", copies_bytes_max=2**23)
    try:
        copies.attach(Traffic(share, other))
        copies.offer(saved)
        until(lambda: copies.sent is not None)
        assert copies.sent.peer.island == "cid"
        assert copies.sent.bytes == 3 * 2**20
    finally:
        copies.close()
        other.close()


def test_when_its_holder_is_gone_another_gets_it(folder, share, copies_for, tmp_path):
    saved = tmp_path / "ann" / LABEL
    saved.mkdir(parents=True)
    (saved / "state.npy").write_bytes(bytes(1000))
    copies = copies_for()
    copies.attach(Traffic(share))
    copies.offer(saved)
    until(lambda: copies.sent is not None)
    other = PeerShare(folder_of(folder, "island", "cid"), "test", copies_bytes_max=2**20)
    copies.attach(Traffic(other, names=("cid",)))
    until(lambda: copies.sent.peer.island == "cid")
    until(lambda: share._copies.newest("ann") is None)
    copies.close()
    other.close()


def test_a_peer_elsewhere_is_asked_before_one_on_this_machine(folder):
    copies = CheckpointCopies(
        folder_of(folder, "island", "bob"),
        "bob",
        url="https://10.0.0.1:1",
        pools={"ann": "h100", "bob": "h100", "cid": "h100", "dan": "mi300", "eva": "mi300"},
    )
    hosts = {"ann": 2, "cid": 1, "dan": 1, "eva": 3, "bob": 1}
    peers = [Peer(island=name, url=f"https://10.0.0.{host}:2") for name, host in hosts.items()]
    assert [one.island for one in copies.in_order(peers)] == ["eva", "ann", "dan", "cid"]
    copies.close()
