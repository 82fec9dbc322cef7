"""Opening: modes, faults in words, migrations, and several processes at once."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy

from argosy.store import schema
from argosy.store.keys import list_keys, mint
from argosy.store.schema import METADATA, MIGRATIONS, StoreError, open_store

OPEN_ON_COMMAND = """
import sys
import threading
from argosy.store.keys import list_keys, mint
from argosy.store.schema import open_store
print("ready", flush=True)
sys.stdin.readline()
engine = open_store(sys.argv[1])
mint(engine, tenant="acme", tier="batch", name=sys.argv[2], now_s=1.0)
engine.dispose()
"""


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_fresh_store_is_its_owners_alone(file_engine, path):
    mint(file_engine, tenant="acme", tier="batch", name="n", now_s=1.0)

    assert mode(path.parent) == 0o700
    assert {file.name: mode(file) for file in path.parent.iterdir()} == {
        "argosy.db": 0o600,
        "argosy.db-wal": 0o600,
        "argosy.db-shm": 0o600,
    }


def test_a_store_keeps_what_was_written_when_it_is_opened_again(place):
    first = open_store(place)
    _, key = mint(first, tenant="acme", tier="batch", name="n", now_s=1.0)
    first.dispose()

    second = open_store(place)
    assert list_keys(second) == [key]
    second.dispose()


def test_commits_survive_a_loss_of_power_and_readers_do_not_block_the_writer(file_engine):
    with file_engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        mint(file_engine, tenant="acme", tier="batch", name="n", now_s=1.0)


def test_the_migrations_end_at_the_tables_that_the_code_queries(engine):
    found = sqlalchemy.MetaData()
    found.reflect(engine)

    def columns(metadata):
        return {
            table.name: [
                (column.name, column.type.python_type, column.nullable, column.primary_key)
                for column in table.columns
            ]
            for table in metadata.tables.values()
        }

    def indices(metadata):
        return {
            index.name: [column.name for column in index.columns]
            for table in metadata.tables.values()
            for index in table.indexes
        }

    assert columns(found) == columns(METADATA)
    assert indices(found) == indices(METADATA)


def test_an_older_store_is_brought_up_to_date_and_keeps_its_rows(place, monkeypatch):
    old = open_store(place)
    mint(old, tenant="acme", tier="batch", name="n", now_s=1.0)
    old.dispose()

    def add_a_table(connection):
        connection.execute(sqlalchemy.text("CREATE TABLE extra (name VARCHAR)"))

    monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, add_a_table))
    for _ in range(2):  # the second time there is nothing to do
        new = open_store(place)
        assert "extra" in sqlalchemy.inspect(new).get_table_names()
        assert len(list_keys(new)) == 1
        new.dispose()


def test_a_migration_that_fails_leaves_the_store_as_it_was(place, monkeypatch):
    open_store(place).dispose()

    def fail_halfway(connection):
        connection.execute(sqlalchemy.text("CREATE TABLE extra (name VARCHAR)"))
        connection.execute(sqlalchemy.text("INSERT INTO nowhere VALUES (1)"))

    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, fail_halfway))
        with pytest.raises(StoreError, match="nowhere"):
            open_store(place)

    engine = open_store(place)
    assert "extra" not in sqlalchemy.inspect(engine).get_table_names()
    engine.dispose()


def test_a_store_of_a_newer_version_is_refused_untouched(path):
    engine = open_store(path)
    with schema.writing(engine) as connection:
        connection.execute(sqlalchemy.update(schema.version_table).values(version=99))
    engine.dispose()
    before = path.read_bytes()

    with pytest.raises(
        StoreError, match=rf"argosy\.db: has schema version 99; .* reads up to {len(MIGRATIONS)}\."
    ):
        open_store(path)
    assert path.read_bytes() == before


def test_somebody_elses_database_is_refused_untouched(tmp_path):
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    before = path.read_bytes()

    with pytest.raises(StoreError, match="not Argosy's: it holds recipes"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_untouched(tmp_path):
    path = tmp_path / "argosy.db"
    path.write_text("fleet: example\n" * 100)

    with pytest.raises(StoreError, match="is not a database"):
        open_store(path)
    assert path.read_text() == "fleet: example\n" * 100


def test_a_damaged_store_is_refused_in_words(path):
    open_store(path).dispose()
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * (4096 - 100)  # the first page, after the file's header
    path.write_bytes(content)

    with pytest.raises(StoreError, match="is damaged"):
        open_store(path)


def test_a_folder_in_the_place_of_the_file_is_refused_in_words(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused_in_words(tmp_path):
    (tmp_path / "state").write_text("")

    with pytest.raises(StoreError, match=r"cannot be created: .* you may write to"):
        open_store(tmp_path / "state" / "argosy.db")


@pytest.fixture
def closed_folder(tmp_path):
    tmp_path.chmod(0o500)
    yield tmp_path
    tmp_path.chmod(0o700)


@pytest.fixture
def somebody_without_rights(closed_folder):
    """Root may write everywhere, so a test that is run by root becomes nobody."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    yield
    os.seteuid(was)


@pytest.mark.usefixtures("somebody_without_rights")
def test_a_folder_that_may_not_be_written_is_refused_in_words(closed_folder):
    with pytest.raises(StoreError, match="cannot be created: Permission denied"):
        open_store(closed_folder / "state" / "argosy.db")


def test_a_store_that_cannot_grow_is_refused_in_words(path):
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from argosy.store.schema import StoreError, open_store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try: open_store(Path(sys.argv[1]))\n"
        "except StoreError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "Free some space" in done.stdout


def test_a_store_that_another_process_holds_for_long_is_refused_in_words(tmp_path):
    path = tmp_path / "argosy.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StoreError, match="is locked by another process"):
        open_store(path, busy_timeout_s=0.1)
    holder.close()


@pytest.mark.parametrize("lock", ["DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
def test_a_fresh_store_that_another_process_holds_briefly_is_waited_for(tmp_path, lock):
    path = tmp_path / "argosy.db"
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute(f"BEGIN {lock}")
    holder.execute("SELECT * FROM sqlite_master").fetchall()
    release = threading.Timer(0.2, holder.close)
    release.start()

    open_store(path).dispose()
    release.join()


def test_processes_that_open_a_fresh_store_at_once_all_succeed(place):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_ON_COMMAND, str(place), f"n{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=30)

    assert [process.returncode for process in processes] == [0] * 4
    engine = open_store(place)
    assert {key.name for key in list_keys(engine)} == {"n0", "n1", "n2", "n3"}
    engine.dispose()


def test_threads_that_open_fresh_stores_at_once_all_succeed(tmp_path):
    def open_and_close(path):
        engine = open_store(path)
        assert list_keys(engine) == []
        engine.dispose()

    paths = [tmp_path / f"{number}.db" for number in range(20) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(open_and_close, paths))


def test_a_transaction_that_reads_before_it_writes_is_not_refused_for_being_overtaken(place):
    engine = open_store(place)

    def mint_twenty(thread):
        for number in range(20):
            mint(engine, tenant="acme", tier="batch", name=f"{thread}-{number}", now_s=1.0)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(mint_twenty, range(4)))
    assert len(list_keys(engine)) == 80
    engine.dispose()
