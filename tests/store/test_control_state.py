"""What a leader leaves for the next: all of it comes back, and only the newest leader writes."""

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.store import control
from argosy.store.control import Fenced, load, published, specs, wanted
from argosy.store.errors import FencedError
from argosy.store.leases import acquire
from argosy.store.schema import open_store


def leader(engine, holder="ann", fleet="example", now_s=None):
    return Fenced(engine, fleet, acquire(engine, fleet, holder, ttl_s=60.0, now_s=now_s).token)


@pytest.fixture
def ann(engine):
    return leader(engine, "ann", now_s=100.0)


@pytest.fixture
def bob(engine, ann):
    """He took over."""
    return leader(engine, "bob", now_s=1000.0)


def test_records_are_saved_changed_and_removed_in_one_go(engine, ann):
    ann.save({"r-1": b"one", "r-2": b"two", "r-3": b"\x00\xff"})
    ann.save({"r-2": b"zwei", "r-4": b""}, removed=["r-1", "never"])
    assert ann.load() == load(engine, "example")
    assert ann.load() == {"r-2": b"zwei", "r-3": b"\x00\xff", "r-4": b""}
    ann.save({})
    assert len(ann.load()) == 3


def test_two_thousand_records_are_one_transaction(engine, ann):
    records = {f"r-{n}": b"x" * 100 for n in range(2000)}
    ann.save(records)
    assert ann.load() == records
    ann.save({}, removed=records)
    assert ann.load() == {}


def test_fleets_and_kinds_do_not_mix(engine, ann):
    other = leader(engine, fleet="other")
    ann.save({"a": b"record"})
    ann.set_wanted("a", b"3")
    ann.keep("a", b"history")
    other.save({"a": b"other"})
    assert (ann.load(), ann.wanted(), ann.kept()) == (
        {"a": b"record"},
        {"a": b"3"},
        {"a": b"history"},
    )
    assert (other.load(), other.wanted(), other.kept()) == ({"a": b"other"}, {}, {})


def test_what_is_wanted_is_said_changed_and_unsaid(engine, ann):
    ann.set_wanted("llama", b'{"replicas":3}')
    ann.set_wanted("llama", b'{"replicas":5}')
    ann.set_wanted("qwen", b'{"replicas":1}')
    assert wanted(engine, "example") == {"llama": b'{"replicas":5}', "qwen": b'{"replicas":1}'}
    ann.set_wanted("llama", None)
    ann.set_wanted("never", None)
    assert ann.wanted() == {"qwen": b'{"replicas":1}'}


def test_the_table_is_read_by_whoever_does_not_know_it_yet(engine, ann):
    assert ann.published() is None
    ann.publish(b"table 1", 1)
    assert published(engine, "example", newer_than=1) is None
    ann.publish(b"table 5", 5)
    table = published(engine, "example", newer_than=1)
    assert (table.version, table.table) == (5, b"table 5")
    assert table == ann.published()
    assert published(engine, "other") is None


def test_a_table_may_be_published_twice_but_never_an_older_or_another_of_its_version(ann):
    ann.publish(b"table 5", 5)
    ann.publish(b"table 5", 5)
    for version, table in ((5, b"another"), (4, b"table 5")):
        with pytest.raises(ValueError, match=r"goes on from published\(\)"):
            ann.publish(table, version)
    assert ann.published().table == b"table 5"


def test_fleet_files_are_kept_in_their_order_each_once_in_a_row(engine, ann, bob):
    first = bob.put_spec("fleet: a", by="ann@laptop")
    assert (first.revision, first.by, first.at_s > 1e9) == (1, "ann@laptop", True)
    assert bob.put_spec("fleet: a", by="somebody else") == first
    bob.put_spec("fleet: b", by="bob")
    third = bob.put_spec("fleet: a", by="bob")
    assert bob.spec() == third
    kept = specs(engine, "example", limit=9)
    assert [spec.text for spec in kept] == ["fleet: a", "fleet: b", "fleet: a"]
    assert [spec.sha256 for spec in kept] == [
        hashlib.sha256(spec.text.encode()).hexdigest() for spec in kept
    ]
    assert specs(engine, "other", limit=9) == []


def test_old_fleet_files_are_forgotten(engine, ann, monkeypatch):
    monkeypatch.setattr(control, "SPECS_MAX", 3)
    for number in range(6):
        ann.put_spec(f"fleet: {number}", by="ann")
    assert [spec.revision for spec in specs(engine, "example", limit=9)] == [6, 5, 4]


def everything_written(fenced):
    return [
        lambda: fenced.save({"a": b"late"}, removed=["b"]),
        lambda: fenced.set_wanted("a", b"late"),
        lambda: fenced.set_wanted("a", None),
        lambda: fenced.keep("a", b"late"),
        lambda: fenced.publish(b"late", 99),
        lambda: fenced.put_spec("late", by="late"),
    ]


def everything_read(fenced):
    return (fenced.load(), fenced.wanted(), fenced.kept(), fenced.published(), fenced.spec())


def test_a_leader_that_was_replaced_writes_nothing_at_all(ann, bob):
    for write in everything_written(bob):
        write()
    bob.set_wanted("a", b"bob's")
    before = everything_read(bob)
    for write in everything_written(ann):
        with pytest.raises(FencedError, match=r"token 1 is over: bob has it now, token 2"):
            write()
    assert everything_read(bob) == everything_read(ann) == before


def test_a_write_that_fails_halfway_leaves_nothing(ann):
    ann.save({"a": b"1"})

    def begin_and_fail():
        with ann.writing() as connection:
            connection.execute(control.record_table.delete())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        begin_and_fail()
    assert ann.load() == {"a": b"1"}


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    saves=st.lists(
        st.tuples(st.dictionaries(names, st.binary(max_size=9), max_size=5), st.sets(names)),
        max_size=6,
    )
)
def test_the_records_are_what_a_dictionary_would_hold(ann, saves):
    ann.save({}, removed=ann.load())
    oracle = {}
    for records, removed in saves:
        ann.save(records, removed)
        oracle |= records
        for name in removed:
            oracle.pop(name, None)
        assert ann.load() == oracle


def test_a_store_from_before_there_was_a_control_plane_gets_its_tables(place, monkeypatch):
    from argosy.store import schema

    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:2])
        open_store(place).dispose()
    engine = open_store(place)
    leader(engine).save({"a": b"1"})
    assert load(engine, "example") == {"a": b"1"}
    engine.dispose()
