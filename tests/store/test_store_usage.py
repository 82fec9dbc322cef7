"""Usage: every record reaches the disk exactly once, and the sums are the records' sums."""

import logging
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from argosy.fleet.messages import Usage
from argosy.store.schema import StoreError, open_store, usage_table, writing
from argosy.store.usage import UsageWriter, insert_records, records, summarise

WRITES_UNTIL_KILLED = """
import sys
import msgspec
from argosy.fleet.messages import Usage
from argosy.store.schema import open_store
from argosy.store.usage import UsageWriter
record = msgspec.json.decode(sys.argv[2], type=Usage)
writer = UsageWriter(open_store(sys.argv[1]))
number = 0
while True:
    number += 1
    writer.write(msgspec.structs.replace(record, request=f"req_{number}"))
    if number % 100 == 0:
        while writer.unwritten:
            pass
        print(number, flush=True)
"""


def wait_until(is_true, timeout_s=10.0):
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.005)


def stored(engine):
    return {record.request for record in records(engine, limit=1_000_000)}


def test_records_are_read_back_as_they_were_written(engine, a_record):
    written = [
        a_record("req_1", at_s=1.5),
        a_record("req_2", at_s=2.5, tenant=None, key=None, tier=None, model=None, replica=None),
        a_record("req_3", at_s=3.5, outcome="cancelled", status=0, reason="left", ttft_s=None),
    ]
    with UsageWriter(engine) as writer:
        for record in written:
            writer.write(record)

    assert records(engine, limit=10) == written[::-1]
    assert records(engine, limit=2) == written[:0:-1]
    assert records(engine, limit=10, tenant="acme") == [written[2], written[0]]


def test_a_record_is_durable_soon_without_a_close(engine, a_record):
    with UsageWriter(engine) as writer:
        writer.write(a_record("req_1"))
        wait_until(lambda: writer.unwritten == 0)
        assert stored(engine) == {"req_1"}


def test_close_writes_what_waits(engine, a_record):
    writer = UsageWriter(engine)
    for number in range(1234):
        writer.write(a_record(f"req_{number}"))
    writer.close()

    assert writer.unwritten == 0
    assert len(stored(engine)) == 1234


def test_a_record_after_the_close_is_a_loud_mistake(engine, a_record):
    writer = UsageWriter(engine)
    writer.close()
    with pytest.raises(RuntimeError, match="req_late"):
        writer.write(a_record("req_late"))


def test_a_locked_store_loses_nothing_and_is_told_once(file_engine, path, a_record, caplog):
    caplog.set_level(logging.INFO, logger="argosy")
    with UsageWriter(file_engine) as writer, closing(sqlite3.connect(path)) as holder:
        holder.isolation_level = None
        holder.execute("BEGIN EXCLUSIVE")
        for number in range(1200):
            writer.write(a_record(f"req_{number}"))
        wait_until(lambda: writer.failures >= 2)
        assert writer.unwritten == 1200
        holder.execute("ROLLBACK")
        wait_until(lambda: writer.unwritten == 0)

    assert len(stored(file_engine)) == 1200
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "1200 wait in memory: the store is locked by another process" in told[0]
    assert "written again" in told[1]


def test_a_full_disk_loses_nothing(file_engine, a_record, caplog):
    pages_max = [1]  # SQLite's own limit, which it treats as a disk without space

    @event.listens_for(file_engine, "checkout")
    def _limit(connection, _entry, _proxy):
        connection.execute(f"PRAGMA max_page_count = {pages_max[0]}")

    with UsageWriter(file_engine) as writer:
        for number in range(2000):
            writer.write(a_record(f"req_{number}"))
        wait_until(lambda: writer.failures >= 2)
        assert writer.unwritten > 0
        pages_max[0] = 1_000_000

    assert writer.unwritten == 0
    assert len(stored(file_engine)) == 2000
    assert "the store cannot grow: the disk is full" in caplog.text


def test_a_batch_whose_commit_was_not_answered_counts_once(engine, a_record):
    failures_left = [2]

    @event.listens_for(engine, "commit")
    def _commit_and_fail(connection):
        if failures_left[0]:
            failures_left[0] -= 1
            connection.connection.driver_connection.execute("COMMIT")
            raise OperationalError("COMMIT", {}, OSError("connection reset"))

    with UsageWriter(engine) as writer:
        for number in range(700):
            writer.write(a_record(f"req_{number}"))

    assert failures_left == [0]
    assert (writer.unwritten, writer.unwritable) == (0, 0)
    (row,) = summarise(engine, since_s=0, until_s=2000, by="tenant")
    assert (row.requests, row.tokens_out) == (700, 700 * 64)


def test_one_record_that_no_database_takes_holds_up_no_other(engine, a_record, caplog):
    with UsageWriter(engine) as writer:
        writer.write(a_record("req_1"))
        writer.write(a_record("req_huge", tokens_in=2**70))
        writer.write(a_record("req_nan", duration_s=float("nan")))
        writer.write(a_record("req_2"))

    assert stored(engine) == {"req_1", "req_2"}
    assert (writer.unwritten, writer.unwritable) == (0, 2)
    assert "req_huge" in caplog.text
    assert "req_nan" in caplog.text


def test_words_that_clients_invent_are_stored_readably(engine, a_record):
    with UsageWriter(engine) as writer:
        writer.write(a_record("req_1", model="a\ud800b\0c", reason="no model '日本' \x1b[31m"))

    (record,) = records(engine, limit=1)
    assert record.model == "a?bc"
    assert record.reason == "no model '日本' \x1b[31m"


def test_too_many_waiting_records_are_an_overload_until_they_are_written(
    file_engine, path, a_record
):
    with (
        UsageWriter(file_engine, backlog_max=10) as writer,
        closing(sqlite3.connect(path)) as holder,
    ):
        holder.isolation_level = None
        holder.execute("BEGIN EXCLUSIVE")
        for number in range(10):
            writer.write(a_record(f"req_{number}"))
        assert not writer.is_overloaded
        writer.write(a_record("req_10"))
        assert writer.is_overloaded
        holder.execute("ROLLBACK")
        wait_until(lambda: not writer.is_overloaded)


def test_a_close_that_cannot_write_ends_in_time_and_says_what_is_lost(
    file_engine, path, a_record, caplog
):
    writer = UsageWriter(file_engine)
    with closing(sqlite3.connect(path)) as holder:
        holder.isolation_level = None
        holder.execute("BEGIN EXCLUSIVE")
        writer.write(a_record("req_1"))
        writer.close(timeout_s=0.3)

    assert writer.unwritten == 1
    assert "1 usage records are lost" in caplog.text


def test_a_writer_that_is_killed_leaves_what_it_called_durable(place, a_record):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            WRITES_UNTIL_KILLED,
            str(place),
            msgspec.json.encode(a_record("x")).decode(),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    durable = [int(process.stdout.readline()) for _ in range(4)][-1]
    process.send_signal(signal.SIGKILL)
    process.communicate()

    engine = open_store(place)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert {f"req_{number}" for number in range(1, durable + 1)} <= stored(engine)
    engine.dispose()


def test_a_row_that_cannot_be_read_is_named(engine, a_record):
    insert_records(engine, [a_record("req_1")])
    with writing(engine) as connection:
        connection.execute(usage_table.update().values(outcome="lost"))

    with pytest.raises(StoreError, match=r"req_1 .*cannot be read.*lost"):
        records(engine, limit=1)


def test_sums_are_of_the_requests_received_in_the_span(engine, a_record):
    insert_records(engine, [a_record(f"req_{at_s}", at_s=float(at_s)) for at_s in range(10)])

    (row,) = summarise(engine, since_s=2.0, until_s=5.0, by="model")
    assert (row.group, row.requests, row.ttft_s_mean) == ("smollm2-135m", 3, 0.25)


def test_sums_put_the_largest_group_first_and_keep_the_nameless_apart(engine, a_record):
    insert_records(
        engine,
        [
            a_record("req_1", tenant="null", ttft_s=None),
            a_record("req_2", tenant=None, outcome="refused"),
            a_record("req_3", tenant=None, outcome="refused"),
        ],
    )

    first, second = summarise(engine, since_s=0, until_s=2000, by="tenant")
    assert (first.group, first.requests, first.refused) == (None, 2, 2)
    assert (second.group, second.finished, second.ttft_s_mean) == ("null", 1, None)


names = st.none() | st.sampled_from(["a", "b", "null", ""])
tokens = st.integers(0, 2**40)
usages = st.builds(
    Usage,
    request=st.sampled_from([f"req_{number}" for number in range(12)]),
    at_s=st.floats(0, 100),
    tenant=names,
    key=names,
    tier=st.sampled_from([None, "batch"]),
    surface=st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    model=names,
    replica=names,
    outcome=st.sampled_from(["finished", "failed", "refused", "cancelled"]),
    status=st.integers(0, 599),
    reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    attempts=st.integers(0, 9),
    tokens_in=tokens,
    tokens_cached=tokens,
    tokens_out=tokens,
    ttft_s=st.none() | st.floats(0, 1e6),
    duration_s=st.floats(0, 1e6),
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    written=st.lists(usages, max_size=20),
    by=st.sampled_from(["tenant", "key", "model", "replica", "outcome"]),
)
def test_the_sums_are_the_sums_of_the_records_each_counted_once(fresh_place, written, by):
    engine = open_store(fresh_place())
    with UsageWriter(engine) as writer:
        for record in written:
            writer.write(record)
    rows = summarise(engine, since_s=0, until_s=101, by=by)
    engine.dispose()

    first_of: dict[str, Usage] = {}
    for record in written:
        first_of.setdefault(record.request, record)
    for row in rows:
        group = [record for record in first_of.values() if getattr(record, by) == row.group]
        ttfts_s = [record.ttft_s for record in group if record.ttft_s is not None]
        assert row.requests == len(group)
        assert row.requests == row.finished + row.failed + row.refused + row.cancelled
        for outcome in ("finished", "failed", "refused", "cancelled"):
            assert getattr(row, outcome) == sum(record.outcome == outcome for record in group)
        for name in ("tokens_in", "tokens_cached", "tokens_out"):
            assert getattr(row, name) == sum(getattr(record, name) for record in group)
        assert row.ttft_s_mean == (pytest.approx(sum(ttfts_s) / len(ttfts_s)) if ttfts_s else None)
    assert sum(row.requests for row in rows) == len(first_of)
