"""Where the runner of batches finds its gateway, and whose key a batch goes on with."""

import pytest

from argosy.cli.batching import own_url, owner_finder
from argosy.cli.state import UP_KEY_NAME
from argosy.store.keys import KeyRing, mint, revoke, revoke_named
from argosy.store.schema import open_store


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("http://[::]:8000", "http://[::1]:8000"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://10.0.0.5:8000", "http://10.0.0.5:8000"),
        ("http://[fd00::1]:8000", "http://[fd00::1]:8000"),
    ],
)
def test_a_gateway_bound_to_every_address_is_found_on_loopback(url, own):
    assert own_url(url) == own


def test_a_batch_outlives_the_key_of_its_run_but_no_other_revoked_key(tmp_path):
    store = open_store(tmp_path / "argosy.db")

    def run(tenant: str):
        revoke_named(store, UP_KEY_NAME, now_s=2.0)
        return mint(store, tenant=tenant, tier="consumer", name=UP_KEY_NAME, now_s=2.0)[1]

    lasting, revoked = (
        mint(store, tenant="acme", tier="batch", name=name, now_s=1.0)[1] for name in "ab"
    )
    revoke(store, revoked.id, now_s=1.5)
    first, others = run("acme"), run("other")
    current = run("acme")
    find = owner_finder(store, KeyRing(store), current)
    assert find(first.id) == find(current.id) == current
    assert find(lasting.id) == lasting
    assert find(revoked.id) is None
    assert find(others.id) is None, "another tenant paid for that run"
    store.dispose()
