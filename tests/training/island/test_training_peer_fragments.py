"""What islands give each other: fragments by name, to islands of their own run alone."""

import time

import httpx
import numpy as np
import pytest

from argosy.training import credentials
from argosy.training.credentials import folder_of, make_credentials
from argosy.training.inner import Tensor
from argosy.training.island import fragments
from argosy.training.island.link import Link
from argosy.training.island.peers import PeerShare
from argosy.training.outer.parameters import ParameterMap
from argosy.training.wire import Peer


@pytest.fixture
def folder(tmp_path):
    make_credentials(tmp_path, "test", ["ann", "bob"], now_s=time.time())
    return tmp_path


@pytest.fixture
def vector():
    return np.random.default_rng(0).normal(size=5000).astype(np.float32)


@pytest.fixture
def named(vector):
    parameter_map = ParameterMap([Tensor(name="w", shape=(5000,))], 8192)
    return parameter_map, [name for name, _ in fragments.named(parameter_map, vector)]


@pytest.fixture
def share(folder):
    share = PeerShare(folder_of(folder, "island", "bob"), "test")
    yield share
    share.close()


def test_a_joiner_fetches_from_a_peer_and_the_syncer_is_not_asked(folder, share, named, vector):
    parameter_map, names = named
    share.offer(parameter_map, vector, tuple(names))
    link = Link("https://127.0.0.1:1", folder_of(folder, "island", "ann"), away_s_max=0.0)
    sizes = {name.sha256: 4 * name.values for name in names}
    came = link.fetch(sizes, peers=[Peer(island="bob", url=share.url)])
    assert np.array_equal(fragments.joined(parameter_map, names, came), vector)
    assert share.given == len(names)
    link.close()


def test_a_stranger_gets_nothing_of_a_peer(tmp_path, share, named, vector):
    make_credentials(tmp_path / "other", "test", ["ann"], now_s=time.time())
    stranger = folder_of(tmp_path / "other", "island", "ann")
    (stranger / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    parameter_map, names = named
    share.offer(parameter_map, vector, tuple(names))
    context = credentials.calling(stranger)
    host = {"sni_hostname": credentials.island_host("bob")}
    with (
        httpx.Client(verify=context, trust_env=False) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get(f"{share.url}/v1/fragments/{names[0].sha256}", extensions=host)


def test_a_peer_that_gives_other_bytes_wastes_a_try_and_no_more(folder, share, named, vector):
    parameter_map, names = named
    share.offer(parameter_map, vector + 1, tuple(names))
    link = Link("https://127.0.0.1:1", folder_of(folder, "island", "ann"), away_s_max=0.0)
    peer = Peer(island="bob", url=share.url)
    assert link._from_peer(peer, names[0].sha256, 4 * names[0].values) is None
    impostor = Peer(island="ann", url=share.url)
    assert link._from_peer(impostor, names[0].sha256, 4 * names[0].values) is None
    link.close()
