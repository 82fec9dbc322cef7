"""The decision log: each decision once and in order, by one leader at a time, and bounded."""

import itertools
import json
import logging
import os

import msgspec
import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from argosy.store import decisions
from argosy.store.control import Fenced
from argosy.store.decisions import (
    Decision,
    DecisionLog,
    Retention,
    decision_json,
    decision_schema,
    read,
)
from argosy.store.leases import acquire
from argosy.store.schema import StoreError, decision_table, writing


def leader(engine, holder="ann", now_s=100.0):
    return Fenced(
        engine, "example", acquire(engine, "example", holder, ttl_s=60.0, now_s=now_s).token
    )


def decision(at_s=1.0, kind="scale", subject="llama", reason="more is asked", inputs=None):
    return Decision(at_s=at_s, kind=kind, subject=subject, reason=reason, inputs=inputs)


def logged(engine, taken, **settings):
    with DecisionLog(leader(engine), **settings) as log:
        log.append(taken)
    assert log.unwritten == 0
    return log


def seqs(engine, **which):
    return [row.seq for row in read(engine, "example", limit=100_000, **which)]


def test_decisions_are_read_as_they_were_taken_newest_first(engine):
    logged(engine, [decision(at_s=float(n), reason=f"reason {n}") for n in range(1200)])
    rows = read(engine, "example", limit=1200)
    assert [row.seq for row in rows] == list(range(1200, 0, -1))
    assert [row.reason for row in rows] == [f"reason {n}" for n in range(1199, -1, -1)]
    assert {row.token for row in rows} == {1}
    assert read(engine, "other", limit=9) == []


def test_decisions_are_found_by_time_subject_and_kind(engine):
    logged(
        engine,
        [
            decision(1.0, "scale", "llama"),
            decision(2.0, "start", "llama-1"),
            decision(3.0, "scale", "qwen"),
            decision(4.0, "scale", "llama"),
        ],
    )
    assert seqs(engine, since_s=2.0, until_s=4.0) == [3, 2]
    assert seqs(engine, subject="llama") == [4, 1]
    assert seqs(engine, kind="scale", since_s=2.0, until_s=9.0) == [4, 3]
    assert seqs(engine, subject="llama", kind="start") == []
    assert [row.seq for row in read(engine, "example", limit=2)] == [4, 3]


def test_who_follows_the_log_misses_none_and_sees_none_twice(engine):
    logged(engine, [decision() for _ in range(7)])
    seen, after = [], 0
    while page := read(engine, "example", after_seq=after, limit=3):
        seen += [row.seq for row in page]
        after = seen[-1]
    assert seen == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("size", [0, 10, 511, 512, 100_000])
def test_what_a_decision_rests_on_comes_back_byte_by_byte(engine, size):
    inputs = msgspec.json.encode({"rates": os.urandom(size // 2).hex()})
    logged(engine, [decision(inputs=inputs), decision(inputs=None)])
    without, with_inputs = read(engine, "example", limit=2)
    assert (with_inputs.inputs, without.inputs) == (inputs, None)


def test_inputs_beyond_all_measure_are_left_out_and_said_to_be(engine, monkeypatch):
    monkeypatch.setattr(decisions, "INPUTS_BYTES_MAX", 1000)
    logged(engine, [decision(inputs=msgspec.json.encode(os.urandom(2000).hex()))])
    (row,) = read(engine, "example", limit=1)
    assert row.inputs == b'{"left_out_bytes":4002}'


def test_for_machines_inputs_are_json_and_not_text(engine):
    logged(engine, [decision(inputs=b'{"asked":[1,2.5]}'), decision()])
    without, with_inputs = read(engine, "example", limit=2)
    assert json.loads(decision_json(with_inputs)) == {
        "seq": 1,
        "at_s": 1.0,
        "token": 1,
        "kind": "scale",
        "subject": "llama",
        "reason": "more is asked",
        "inputs": {"asked": [1, 2.5]},
    }
    assert json.loads(decision_json(without))["inputs"] is None


def test_the_schema_is_stable():
    schema = decision_schema()["$defs"]["LoggedDecision"]
    types = {name: kind.get("type") for name, kind in schema["properties"].items()}
    assert types == {
        "seq": "integer",
        "at_s": "number",
        "token": "integer",
        "kind": "string",
        "subject": "string",
        "reason": "string",
        "inputs": None,  # anything
    }
    assert schema["required"] == ["seq", "at_s", "token", "kind", "subject", "reason"]


def test_a_new_leader_goes_on_where_the_last_one_ended_and_shuts_it_out(engine, caplog):
    caplog.set_level(logging.WARNING, logger="argosy")
    old = DecisionLog(leader(engine, "ann", now_s=100.0))
    old.append([decision(subject="by ann")])
    while old.unwritten:
        pass
    new = DecisionLog(leader(engine, "bob", now_s=1000.0))
    old.append([decision(subject="too late")])
    new.append([decision(subject="by bob")])
    old.close()
    new.close()

    assert [(row.seq, row.token, row.subject) for row in read(engine, "example", limit=9)] == [
        (2, 2, "by bob"),
        (1, 1, "by ann"),
    ]
    assert (old.is_fenced, new.is_fenced, old.unwritten) == (True, False, 0)
    assert "decision records are written no more, 1 dropped: the lease of example" in caplog.text


def test_a_commit_that_was_not_answered_logs_no_decision_twice(engine):
    commits = itertools.count(1)
    fenced = leader(engine)

    @event.listens_for(engine, "commit")
    def _commit_and_fail(connection):
        if next(commits) in (2, 4):  # the first finds out where the log ends
            connection.connection.driver_connection.execute("COMMIT")
            raise OperationalError("COMMIT", {}, OSError("connection reset"))

    with DecisionLog(fenced) as log:
        log.append([decision(reason=str(n)) for n in range(700)])
    assert next(commits) > 5
    assert [row.reason for row in read(engine, "example", limit=999)][::-1] == [
        str(n) for n in range(700)
    ]


def test_rows_and_ages_and_inputs_are_bounded(engine):
    fenced = leader(engine)
    keep = Retention(age_s=1e9, rows=100, rows_inputs=10)
    with DecisionLog(fenced, retention=keep) as log:
        log.append([decision(float(n), inputs=b"{}") for n in range(900)])
    rows = read(engine, "example", limit=999)
    assert [row.seq for row in rows] == list(range(900, 800, -1))
    assert [row.inputs for row in rows] == [b"{}"] * 10 + [None] * 90

    with DecisionLog(fenced, retention=Retention(age_s=50.0)) as log:
        log.append([decision(900.0) for _ in range(60)])  # forgets twice as many at the most
    assert min(row.at_s for row in read(engine, "example", limit=999)) == 850.0


def test_one_decision_that_no_database_takes_holds_up_no_other(engine):
    log = logged(
        engine,
        [decision(), decision(at_s=float("nan")), decision(subject="a\0b\ud800"), decision()],
    )
    assert log.lost == 1
    assert [row.subject for row in read(engine, "example", limit=9)] == ["llama", "ab?", "llama"]


def test_a_store_that_takes_none_costs_inputs_first_and_then_decisions(file_engine, path):
    fenced = leader(file_engine)
    log = DecisionLog(fenced, backlog_max=10, inputs_bytes_max=1000)
    with writing(file_engine):
        log.append([decision(inputs=b'"' + b"x" * 298 + b'"') for _ in range(12)])
        assert (log.unwritten, log.lost) == (10, 2)
    log.close()
    rows = read(file_engine, "example", limit=99)[::-1]
    assert [len(row.inputs) for row in rows[:4]] == [300, 300, 300, 22]
    assert len(rows) == 10
    with DecisionLog(fenced, inputs_bytes_max=1000) as log:
        log.append([decision(inputs=b'"%s"' % (b"x" * 900))])
        while log.unwritten:
            pass
        log.append([decision(inputs=b'"%s"' % (b"x" * 900))])
    assert [len(row.inputs) for row in read(file_engine, "example", limit=2)] == [902, 902]


def test_a_row_that_cannot_be_read_is_named(engine):
    logged(engine, [decision()])
    with writing(engine) as connection:
        connection.execute(sqlalchemy.update(decision_table).values(inputs=b"x is not deflated"))
    with pytest.raises(StoreError, match="decision 1 in the store cannot be read"):
        read(engine, "example", limit=1)
