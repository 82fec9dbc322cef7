"""Keys: what is kept of a secret, who is found by it, and how fast a revocation is seen."""

import re
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.fleet.messages import Key
from argosy.store.keys import (
    KeyRing,
    UnknownKeyError,
    list_keys,
    mint,
    revoke,
    revoke_named,
)
from argosy.store.schema import StoreError, key_table, open_store, writing

IN_ANOTHER_PROCESS = """
import sys
from argosy.store.keys import revoke
from argosy.store.schema import open_store
engine = open_store(sys.argv[1])
revoke(engine, sys.argv[2], now_s=9.0)
engine.dispose()
"""


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    engine = open_store(tmp_path_factory.mktemp("ring") / "argosy.db")
    mint(engine, tenant="acme", tier="batch", name="n", now_s=1.0)
    yield KeyRing(engine)
    engine.dispose()


def minted(engine, name="laptop", **changes):
    fields = {"tenant": "acme", "tier": "enterprise", "now_s": 5.0}
    return mint(engine, name=name, **{**fields, **changes})


def test_a_minted_key_is_found_by_its_secret(engine):
    secret, key = minted(engine)

    assert re.fullmatch(r"argosy-[A-Za-z0-9_-]{43}", secret)
    assert re.fullmatch(r"key_[0-9a-f]{8}", key.id)
    assert (key.tenant, key.tier, key.name, key.created_at_s) == (
        "acme",
        "enterprise",
        "laptop",
        5.0,
    )
    assert KeyRing(engine).find(secret) == key
    assert list_keys(engine) == [key]


def test_a_live_key_is_found_by_its_id_until_it_is_revoked(engine):
    _, key = minted(engine)
    ring = KeyRing(engine)
    assert ring.find_by_id(key.id) == key
    assert ring.find_by_id("key_00000000") is None
    revoke(engine, key.id, now_s=6.0)
    ring.refresh()
    assert ring.find_by_id(key.id) is None


def test_the_secret_is_in_no_file(file_engine, path):
    secret, _ = minted(file_engine)

    for file in path.parent.iterdir():
        assert secret.encode() not in file.read_bytes()
        assert secret.removeprefix("argosy-").encode() not in file.read_bytes()


def test_a_wrong_secret_finds_nothing(engine):
    secret, _ = minted(engine)
    ring = KeyRing(engine)

    last = "A" if secret[-1] != "A" else "B"
    for wrong in ("", secret[:-1], secret + "A", secret[:-1] + last, secret.upper(), f" {secret}"):
        assert ring.find(wrong) is None


@given(secret=st.text(st.characters(exclude_categories=())))
def test_any_text_may_be_asked_for(ring, secret):
    assert ring.find(secret) is None
    assert ring.find(("argosy-" + secret)[:50].ljust(50, "\ud800")) is None


def test_a_text_of_another_length_is_not_even_hashed(ring):
    class Unhashed(str):
        def encode(self, encoding="utf-8", errors="strict"):
            raise AssertionError("was about to be hashed")

    assert ring.find(Unhashed("argosy-" + "x" * 10_000_000)) is None


def test_a_revoked_key_is_gone_after_the_next_refresh(engine):
    secret, key = minted(engine)
    ring = KeyRing(engine)

    revoked = revoke(engine, key.id, now_s=9.0)
    assert ring.refresh() is True
    assert ring.find(secret) is None
    assert revoked.revoked_at_s == 9.0
    assert list_keys(engine) == []
    assert list_keys(engine, include_revoked=True) == [revoked]


def test_a_key_that_another_process_revoked_is_gone_after_the_next_refresh(engine, place):
    secret, key = minted(engine)
    ring = KeyRing(engine)
    assert ring.find(secret) == key

    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, str(place), "laptop"], check=True)
    assert ring.refresh() is True
    assert ring.find(secret) is None


def test_a_refresh_reads_the_keys_only_when_one_changed(engine):
    ring = KeyRing(engine)
    assert ring.refresh() is False

    secret, _ = minted(engine)
    assert ring.refresh() is True
    assert ring.find(secret) is not None
    assert ring.refresh() is False

    assert revoke_named(engine, "nobody", now_s=9.0) == 0
    assert ring.refresh() is False


def test_a_refresh_that_fails_leaves_the_keys_as_they_were(engine):
    secret, key = minted(engine)
    ring = KeyRing(engine)
    with writing(engine) as connection:
        connection.exec_driver_sql("ALTER TABLE revisions RENAME TO gone")

    with pytest.raises(StoreError, match="revisions"):
        ring.refresh()
    assert ring.find(secret) == key


def test_a_key_is_found_without_a_gap_while_others_come_and_go(engine):
    secret, key = minted(engine)
    ring = KeyRing(engine)
    done = threading.Event()
    misses = []

    def look():
        while not done.is_set():
            if ring.find(secret) != key:
                misses.append(1)

    finder = threading.Thread(target=look)
    finder.start()
    for number in range(20):
        minted(engine, name=f"n{number}")
        ring.refresh()
    done.set()
    finder.join()
    assert misses == []


def test_a_key_is_revoked_by_its_name(engine):
    _, key = minted(engine, name="laptop")
    minted(engine, name="phone")

    assert revoke(engine, "laptop", now_s=9.0).id == key.id
    assert [key.name for key in list_keys(engine)] == ["phone"]


def test_a_second_revocation_keeps_the_time_of_the_first(engine):
    _, key = minted(engine)
    revoke(engine, key.id, now_s=9.0)

    assert revoke(engine, key.id, now_s=20.0).revoked_at_s == 9.0


def test_an_unknown_key_is_refused_with_what_comes_near(engine):
    minted(engine, name="laptop")

    with pytest.raises(UnknownKeyError, match=r'"lapt0p".*Did you mean "laptop"'):
        revoke(engine, "lapt0p", now_s=9.0)
    with pytest.raises(UnknownKeyError, match=r"live keys: 1\). List them"):
        revoke(engine, "zzz", now_s=9.0)


def test_a_name_that_two_live_keys_share_revokes_neither(engine):
    ids = {minted(engine, name="same")[1].id for _ in range(2)}

    with pytest.raises(UnknownKeyError, match="2 live keys") as refusal:
        revoke(engine, "same", now_s=9.0)
    assert all(key_id in str(refusal.value) for key_id in ids)
    assert len(list_keys(engine)) == 2


def test_all_keys_of_a_name_are_revoked_together(engine):
    for name in ("up", "up", "laptop"):
        minted(engine, name=name)

    assert revoke_named(engine, "up", now_s=9.0) == 2
    assert revoke_named(engine, "up", now_s=9.0) == 0
    assert [key.name for key in list_keys(engine)] == ["laptop"]


def test_a_row_that_cannot_be_read_is_named(engine):
    _, key = minted(engine)
    with writing(engine) as connection:
        connection.execute(key_table.update().values(tier="platinum"))

    with pytest.raises(StoreError, match=f"{key.id} .*cannot be read.*platinum"):
        list_keys(engine)


def test_keys_are_listed_oldest_first(engine):
    keys = [minted(engine, name=f"n{at_s}", now_s=float(at_s))[1] for at_s in (3, 1, 2)]

    def age(key: Key) -> float:
        return key.created_at_s

    assert list_keys(engine) == sorted(keys, key=age)
