"""A PyTorch island's checkpoint comes back from a peer's memory as it was written."""

import time
from pathlib import Path

from torch_tries import VOCABULARY, a_run, island, some_blocks

from argosy.training.credentials import folder_of, make_credentials
from argosy.training.island.copies import CheckpointCopies
from argosy.training.island.peers import PeerShare
from argosy.training.torch_island.inner import TorchInner
from argosy.training.wire import Peer


class Traffic:
    is_sending = False

    def __init__(self, *peers: Peer) -> None:
        self.peers = peers


def test_a_copy_is_sent_once_it_is_whole_and_trains_on_bit_for_bit(tmp_path: Path) -> None:
    make_credentials(tmp_path / "credentials", "try", ["ann", "bob"], now_s=time.time())
    bob = folder_of(tmp_path / "credentials", "island", "bob")
    ann = folder_of(tmp_path / "credentials", "island", "ann")
    share = PeerShare(bob, "try", copies_bytes_max=2**24)
    copies = CheckpointCopies(ann, "ann")
    traffic = Traffic(Peer(island="bob", url=share.url))
    copies.attach(traffic)
    one = TorchInner(a_run(), island(), vocabulary=VOCABULARY)
    for n in range(3):
        one.step(some_blocks(seed=n), share_done=n / 20)
    saved = tmp_path / "own" / "000001-000000003"
    copies.offer(saved)  # it is not there yet
    one.save(str(saved))
    end_s = time.monotonic() + 30
    while copies.sent is None:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    found = copies.restore(tmp_path / "back", traffic.peers, newer_than=None, bytes_max=2**24)
    assert found is not None
    other = TorchInner(a_run(seed=99), island(), vocabulary=VOCABULARY)
    other.load(str(found))
    for inner in (one, other):
        inner.step(some_blocks(seed=3), share_done=0.2)
    assert other.parameters().tobytes() == one.parameters().tobytes()
    copies.close()
    share.close()
