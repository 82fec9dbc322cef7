"""PostgreSQL as it fails: faults in words, restarts survived, and what two do at once."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy

from argosy.fleet.batches import BatchDraft, ItemResult, NewItem, Owner
from argosy.store.batch_work import BatchWork
from argosy.store.batches import Batches
from argosy.store.keys import KeyRing, list_keys, mint
from argosy.store.schema import StoreError, open_store, place_of, store_fault
from argosy.store.usage import UsageWriter, records


@pytest.fixture
def url(postgresql):
    return postgresql.fresh_url()


@pytest.fixture
def engine(url):
    """PostgreSQL's alone, that does not wait for locks."""
    engine = open_store(url, busy_timeout_s=0.2)
    yield engine
    engine.dispose()


def wait_until(is_true, timeout_s=15.0):
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.005)


# What people are told.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong"}, "refuses the user or the password"),
        ({"user": "nobody"}, "refuses the user or the password"),
        ({"database": "nowhere"}, "/nowhere: has no database of that name"),
        ({"port": 1}, "127.0.0.1:1/postgres: cannot be reached"),
    ],
)
def test_a_database_that_cannot_be_entered_is_refused_in_words(postgresql, changes, words):
    with pytest.raises(StoreError, match=words) as refusal:
        open_store(postgresql.tcp_url(**changes), busy_timeout_s=1.0)
    assert "hunter2" not in str(refusal.value)
    assert "wrong" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["postgresql://a:hunter2@h:port/d", "postgresql://a:hunter2@[::/d"]
)
def test_an_address_that_is_none_is_refused_without_its_password(text):
    with pytest.raises(StoreError, match="is like postgresql://USER@HOST") as refusal:
        open_store(text)
    assert "hunter2" not in str(refusal.value)


def test_a_schema_that_is_not_there_is_refused_in_words(postgresql):
    with pytest.raises(StoreError, match="names no schema that exists"):
        open_store(postgresql.url(search_path="nowhere"))


def test_somebody_elses_tables_are_refused_untouched(postgresql, url):
    schema = url.partition("search_path%3D")[2].partition("&")[0]
    postgresql.sql(f"CREATE TABLE {schema}.recipes (name TEXT)")
    with pytest.raises(StoreError, match=r"it holds recipes. Name another database\."):
        open_store(url)


def test_a_store_that_psycopg_is_missing_for_says_what_to_install():
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from argosy.store.schema import StoreError, open_store\n"
        "try: open_store('postgresql://h/d')\n"
        "except StoreError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'argosy[postgresql]'" in done.stdout


def test_a_file_needs_no_psycopg(tmp_path):
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from argosy.store.schema import open_store\n"
        "open_store(sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.db")], check=True)


def test_a_standby_that_takes_no_writes_is_told_in_words(engine):
    with engine.connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = on")
        connection.commit()
    with pytest.raises(sqlalchemy.exc.SQLAlchemyError) as refusal:
        mint(engine, tenant="acme", tier="batch", name="n", now_s=1.0)
    assert "it is read-only, as a standby is" in store_fault(refusal.value)


def test_a_user_without_rights_is_told_in_words(postgresql, engine):
    postgresql.sql("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    postgresql.sql("CREATE SCHEMA closed")
    url = postgresql.tcp_url(user="guest", password="guest")
    with pytest.raises(StoreError, match="forbids this user to do that"):
        open_store(url)


def test_the_place_has_no_password(postgresql):
    url = postgresql.tcp_url(database="postgres")
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    assert place_of(engine) == f"postgresql://argosy@127.0.0.1:{postgresql.port}/postgres"


# What happens to usage.


def test_a_full_disk_loses_nothing(engine, a_record, caplog):
    def run(statement):
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)

    # What PostgreSQL raises then, for a disk of its own to fill needs root.
    run(
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    )
    run("CREATE TRIGGER full_disk BEFORE INSERT ON usage EXECUTE FUNCTION fill()")
    with UsageWriter(engine) as writer:
        for number in range(1200):
            writer.write(a_record(f"req_{number}"))
        wait_until(lambda: writer.failures >= 2)
        assert writer.unwritten == 1200
        run("DROP TRIGGER full_disk ON usage")
    assert (writer.unwritten, writer.unwritable) == (0, 0)
    assert len(records(engine, limit=9999)) == 1200
    assert "the store cannot grow: its disk is full" in caplog.text


def test_a_locked_table_loses_nothing(engine, a_record, caplog):
    with UsageWriter(engine) as writer:
        with engine.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE usage IN ACCESS EXCLUSIVE MODE")
            writer.write(a_record("req_1"))
            for _ in range(5):  # not idle, or it would be ended
                time.sleep(0.1)
                connection.exec_driver_sql("SELECT 1")
        wait_until(lambda: writer.unwritten == 0)
    assert len(records(engine, limit=9)) == 1
    assert "the store is locked by another transaction" in caplog.text


@pytest.mark.parametrize("crash", [False, True])
def test_restarts_under_a_stream_of_records_lose_none_and_write_none_twice(
    own_postgresql, a_record, crash
):
    """A crash may cut a commit before its answer: then the record is written again, not twice."""
    engine = open_store(own_postgresql.fresh_url())
    with UsageWriter(engine) as writer:
        done = threading.Event()
        written = []

        def write():
            while not done.is_set():
                written.append(f"req_{len(written)}")
                writer.write(a_record(written[-1]))
                time.sleep(0.0002)

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(2):
            time.sleep(0.3)
            own_postgresql.restart(crash=crash)
        wait_until(lambda: writer.failures == 0)
        done.set()
        thread.join()
    assert (writer.unwritten, writer.unwritable) == (0, 0)
    assert len(written) > 200
    stored = [record.request for record in records(engine, limit=1_000_000)]
    assert sorted(stored) == sorted(written)
    engine.dispose()


def test_after_a_restart_the_first_question_is_answered(own_postgresql):
    engine = open_store(own_postgresql.fresh_url())
    secret, key = mint(engine, tenant="acme", tier="batch", name="n", now_s=1.0)
    ring = KeyRing(engine)
    own_postgresql.restart()
    assert ring.refresh() is False
    assert ring.find(secret) == key
    own_postgresql.stop()
    with pytest.raises(StoreError, match="the keys: cannot be reached"):
        ring.refresh()
    assert ring.find(secret) == key, "known keys stay"
    own_postgresql.start()
    assert list_keys(engine) == [key]
    engine.dispose()


# What two do at once.


def test_many_that_open_a_fresh_database_at_once_all_succeed(postgresql):
    for _ in range(3):
        url = postgresql.fresh_url()

        def open_and_mint(number, url=url):
            engine = open_store(url)
            mint(engine, tenant="acme", tier="batch", name=f"n{number}", now_s=1.0)
            engine.dispose()

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(open_and_mint, range(6)))
        engine = open_store(url)
        assert len(list_keys(engine)) == 6
        engine.dispose()


def begun(engine, count):
    draft = BatchDraft(
        owner=Owner(tenant="acme", key="key_1"), api="anthropic", endpoint="/v1/messages"
    )
    items = [NewItem(custom_id=f"id-{i}", body=b"{}") for i in range(count)]
    return Batches(engine).create(draft, items, now_s=1000.0)


def test_no_item_is_claimed_by_two(url):
    engine = open_store(url)
    batch = begun(engine, 400)

    def claim_all(_):
        claimed = []
        while page := BatchWork(engine).claim(batch.id, after=-1, limit=7):
            claimed += [item.position for item in page]
        return claimed

    with ThreadPoolExecutor(4) as threads:
        claimed = [position for each in threads.map(claim_all, range(4)) for position in each]
    assert sorted(claimed) == list(range(400))
    engine.dispose()


def test_results_that_come_twice_at_once_count_once(url):
    engine = open_store(url)
    batch = begun(engine, 300)

    def write(serial):
        results = [
            ItemResult(position=n, outcome="succeeded", line=b"%d\n" % serial, status=200)
            for n in (range(300) if serial % 2 else range(299, -1, -1))
        ]
        return BatchWork(engine).write_results(batch.id, results)

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(write, range(4))) == 300
    found = Batches(engine).find(batch.id, tenant="acme", api="anthropic")
    assert found.succeeded == 300
    assert BatchWork(engine).end(batch.id, "completed", now_s=1001.0)
    engine.dispose()


def test_texts_sort_by_their_bytes_as_in_a_file(engine):
    for name in ("b", "A", "a", "_", "B"):
        mint(engine, tenant="acme", tier="batch", name=name, now_s=1.0)
    with engine.connect() as connection:
        names = connection.exec_driver_sql("SELECT name FROM keys ORDER BY name").scalars().all()
    assert names == ["A", "B", "_", "a", "b"]
