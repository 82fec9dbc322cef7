"""The tables, how they came to be, and the opening of the file that holds them.

Owns everything that only SQLite understands: pragmas, locks, error codes. What is asked of the
tables is left to `keys.py`, `usage.py`, `files.py` and `batches.py`.
"""

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    LargeBinary,
    String,
    Table,
    event,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

METADATA = sqlalchemy.MetaData()

version_table = Table(
    "schema_version",
    METADATA,
    Column("version", BigInteger, nullable=False),  # one row
)
revision_table = Table(
    "revisions",
    METADATA,
    Column("name", String, primary_key=True),
    Column("revision", BigInteger, nullable=False),  # grows with each change of what `name` names
)
key_table = Table(
    "keys",
    METADATA,
    Column("id", String, primary_key=True),
    Column("sha256", String, nullable=False, unique=True),
    Column("tenant", String, nullable=False),
    Column("tier", String, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("revoked_at_s", Double),
)
usage_table = Table(
    "usage",
    METADATA,
    Column("request", String, primary_key=True),
    Column("at_s", Double, nullable=False, index=True),
    Column("tenant", String),
    Column("key", String),  # no foreign key: usage outlives whatever becomes of the key
    Column("tier", String),
    Column("surface", String, nullable=False),
    Column("model", String),
    Column("replica", String),
    Column("outcome", String, nullable=False),
    Column("status", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_cached", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("ttft_s", Double),
    Column("duration_s", Double, nullable=False),
    sqlalchemy.Index("ix_usage_tenant_at_s", "tenant", "at_s"),
)
file_table = Table(
    "files",
    METADATA,
    Column("id", String, primary_key=True),  # later ids sort after earlier ones
    Column("tenant", String),
    Column("key", String),
    Column("purpose", String, nullable=False),
    Column("filename", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("batch", String),  # its content is that batch's result lines, else it is in chunks
    Column("part", String),
    sqlalchemy.Index("ix_files_tenant_id", "tenant", "id"),
)
chunk_table = Table(
    "file_chunks",
    METADATA,
    Column("file", String, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
batch_table = Table(
    "batches",
    METADATA,
    Column("id", String, primary_key=True),  # later ids sort after earlier ones
    Column("tenant", String),
    Column("key", String),
    Column("tier", String, nullable=False),
    Column("api", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("model", String),
    Column("input_file", String),
    Column("output_file", String),
    Column("error_file", String),
    Column("metadata", String),  # JSON
    Column("faults", String, nullable=False),  # JSON
    Column("created_at_s", Double, nullable=False),
    Column("expires_at_s", Double, nullable=False),
    Column("started_at_s", Double),
    Column("cancelling_at_s", Double),
    Column("ended_at_s", Double),
    Column("items", BigInteger, nullable=False),
    Column("succeeded", BigInteger, nullable=False),
    Column("errored", BigInteger, nullable=False),
    Column("canceled", BigInteger, nullable=False),
    Column("expired", BigInteger, nullable=False),
    sqlalchemy.Index("ix_batches_tenant_id", "tenant", "id"),
)
item_table = Table(
    "batch_items",
    METADATA,
    Column("batch", String, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("custom_id", String, nullable=False),
    Column("state", String, nullable=False),  # pending, running, done
    Column("attempts", BigInteger, nullable=False),
    Column("outcome", String),
    Column("status", BigInteger),
    Column("request", String),
    Column("body", LargeBinary),  # gone once it is done
    Column("line", LargeBinary),  # of the results, once it is done
)


class StoreError(Exception):
    """The store cannot be used as it is; the message says why and what would work."""


def open_store(path: Path, *, busy_timeout_s: float = 5.0) -> Engine:
    """The store in the file `path`, created or brought to this version's schema if need be.

    Safe for any number of processes at once; each waits at most `busy_timeout_s` for a lock.
    The caller disposes of the engine. Raises StoreError.
    """
    _create_file(path)
    with store_errors(path):
        engine = _engine(path, busy_timeout_s)
        try:
            version = _checked_version(engine, path)
            _switch_to_wal(engine, busy_timeout_s)
            if version < len(MIGRATIONS):
                _migrate(engine, path)
        except BaseException:
            engine.dispose()
            raise
        return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that takes the write lock at its start, committed at the end of the block.

    SQLite refuses, without waiting, a transaction that read first, was overtaken by another
    writer, and then writes; one that locks at once waits its turn.
    """
    with engine.connect().execution_options(argosy_writes=True) as connection, connection.begin():
        yield connection


def insert_new(
    connection: Connection,
    table: Table,
    *,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> None:
    """Insert the rows whose primary key the table does not hold yet: 32,766 values at most.

    One statement, for executemany gives the interpreter's lock away once a row and waits 5 ms to
    get it back from a busy event loop: beside one, 2,000 rows of usage took 3.9 s, and so 0.08 s;
    14.7 us of CPU a row became 3.4 (2 cores, November 2026). PostgreSQL reads the same SQL, but
    its driver spells the question marks in another way.
    """
    row = f"({', '.join('?' * len(columns))})"
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES {', '.join([row] * len(rows))}"
        " ON CONFLICT DO NOTHING",
        tuple(itertools.chain.from_iterable(rows)),
    )


@contextmanager
def store_errors(path: Path | str) -> Iterator[None]:
    """What SQLAlchemy and SQLite raise inside becomes a StoreError in words."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise StoreError(f"{path}: {store_fault(error)}") from error


def store_fault(error: BaseException) -> str:
    """What is wrong with the store, and what would work, from what the database raised."""
    cause = getattr(error, "orig", None) or error
    name = getattr(cause, "sqlite_errorname", None) or ""
    for prefix, words in _FAULTS.items():
        if name.startswith(prefix):
            return words
    return f"failed: {cause}"


_FAULTS = {
    "SQLITE_NOTADB": "is not a database. Move it away, or name another folder.",
    "SQLITE_CORRUPT": "is damaged. Move it away and restore a backup, or start a new one.",
    "SQLITE_BUSY": "is locked by another process. Try again when that one is done.",
    "SQLITE_READONLY": "cannot be written. Make the file and its folder writable to you.",
    "SQLITE_PERM": "cannot be written. Make the file and its folder writable to you.",
    "SQLITE_CANTOPEN": "cannot be opened. Make the file and its folder writable to you.",
    "SQLITE_FULL": "cannot grow: the disk is full. Free some space, or name a folder elsewhere.",
    "SQLITE_IOERR": "cannot be read or written: the disk failed or a quota is used up. Free some"
    " space, or name a folder elsewhere.",
}


def _create_file(path: Path) -> None:
    """Keys and usage are their owner's alone; SQLite gives its -wal and -shm the file's mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be created: {error.strerror}. Name a folder that you may write to."
        ) from error


def _engine(path: Path, busy_timeout_s: float) -> Engine:
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": busy_timeout_s},
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # _on_begin says BEGIN; the driver's own covers no DDL
    connection.execute("PRAGMA foreign_keys = ON")
    # FULL, not NORMAL: usage is billing data, and NORMAL may lose commits when power fails. One
    # fsync a batch is paid by the writer's thread, never by a request: 0.16 ms against 0.02 ms a
    # commit, measured on a cloud disk; a 10 ms disk still takes 100 batches of 500 a second.
    connection.execute("PRAGMA synchronous = FULL")


def _on_begin(connection: Connection) -> None:
    is_writing = connection.get_execution_options().get("argosy_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _switch_to_wal(engine: Engine, busy_timeout_s: float) -> None:
    """Readers and the writer do not stop each other; the file remembers the mode.

    SQLite does not wait for the lock that the change takes, so a process that opens a fresh file
    beside this one is waited for here.
    """
    pause_s = 0.02
    connection = engine.raw_connection()
    try:
        for tries_left in reversed(range(max(1, round(busy_timeout_s / pause_s)))):
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if tries_left == 0 or error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                time.sleep(pause_s)
            else:
                return
    finally:
        connection.close()


def _checked_version(engine: Engine, path: Path) -> int:
    with engine.connect() as connection:
        return _version(connection, path)


def _version(connection: Connection, path: Path) -> int:
    """The schema version of the file, 0 when fresh; StoreError when it is not for this code."""
    tables = sqlalchemy.inspect(connection).get_table_names()
    if not tables:
        return 0
    if version_table.name not in tables:
        raise StoreError(
            f"{path}: is a database, but not Argosy's: it holds {', '.join(sorted(tables)[:5])}."
            " Name another folder."
        )
    version = connection.execute(sqlalchemy.select(version_table.c.version)).scalar_one()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: has schema version {version}; this Argosy reads up to {len(MIGRATIONS)}."
            " Use the Argosy that wrote it or a newer one, or name another folder."
        )
    return version


def _migrate(engine: Engine, path: Path) -> None:
    """Run what is missing in one transaction; a process that came second finds nothing to do."""
    with writing(engine) as connection:
        for migration in MIGRATIONS[_version(connection, path) :]:
            migration(connection)
        connection.execute(sqlalchemy.update(version_table).values(version=len(MIGRATIONS)))


def _create_keys_and_usage(connection: Connection) -> None:
    for statement in (
        "CREATE TABLE schema_version (version BIGINT NOT NULL)",
        "INSERT INTO schema_version (version) VALUES (0)",
        "CREATE TABLE revisions (name VARCHAR NOT NULL PRIMARY KEY, revision BIGINT NOT NULL)",
        "INSERT INTO revisions (name, revision) VALUES ('keys', 0)",
        "CREATE TABLE keys (id VARCHAR NOT NULL PRIMARY KEY, sha256 VARCHAR NOT NULL UNIQUE,"
        " tenant VARCHAR NOT NULL, tier VARCHAR NOT NULL, name VARCHAR NOT NULL,"
        " created_at_s DOUBLE PRECISION NOT NULL, revoked_at_s DOUBLE PRECISION)",
        "CREATE TABLE usage (request VARCHAR NOT NULL PRIMARY KEY,"
        " at_s DOUBLE PRECISION NOT NULL, tenant VARCHAR, key VARCHAR, tier VARCHAR,"
        " surface VARCHAR NOT NULL, model VARCHAR, replica VARCHAR, outcome VARCHAR NOT NULL,"
        " status BIGINT NOT NULL, reason VARCHAR NOT NULL, attempts BIGINT NOT NULL,"
        " tokens_in BIGINT NOT NULL, tokens_cached BIGINT NOT NULL, tokens_out BIGINT NOT NULL,"
        " ttft_s DOUBLE PRECISION, duration_s DOUBLE PRECISION NOT NULL)",
        "CREATE INDEX ix_usage_at_s ON usage (at_s)",
        "CREATE INDEX ix_usage_tenant_at_s ON usage (tenant, at_s)",
    ):
        connection.execute(text(statement))


def _create_batches(connection: Connection) -> None:
    for statement in (
        "CREATE TABLE files (id VARCHAR NOT NULL PRIMARY KEY, tenant VARCHAR, key VARCHAR,"
        " purpose VARCHAR NOT NULL, filename VARCHAR NOT NULL, bytes BIGINT NOT NULL,"
        " created_at_s DOUBLE PRECISION NOT NULL, batch VARCHAR, part VARCHAR)",
        "CREATE INDEX ix_files_tenant_id ON files (tenant, id)",
        "CREATE TABLE file_chunks (file VARCHAR NOT NULL, position BIGINT NOT NULL,"
        " content BLOB NOT NULL, PRIMARY KEY (file, position))",
        "CREATE TABLE batches (id VARCHAR NOT NULL PRIMARY KEY, tenant VARCHAR, key VARCHAR,"
        " tier VARCHAR NOT NULL, api VARCHAR NOT NULL, endpoint VARCHAR NOT NULL,"
        " state VARCHAR NOT NULL, model VARCHAR, input_file VARCHAR, output_file VARCHAR,"
        " error_file VARCHAR, metadata VARCHAR, faults VARCHAR NOT NULL,"
        " created_at_s DOUBLE PRECISION NOT NULL, expires_at_s DOUBLE PRECISION NOT NULL,"
        " started_at_s DOUBLE PRECISION, cancelling_at_s DOUBLE PRECISION,"
        " ended_at_s DOUBLE PRECISION, items BIGINT NOT NULL, succeeded BIGINT NOT NULL,"
        " errored BIGINT NOT NULL, canceled BIGINT NOT NULL, expired BIGINT NOT NULL)",
        "CREATE INDEX ix_batches_state ON batches (state)",
        "CREATE INDEX ix_batches_tenant_id ON batches (tenant, id)",
        "CREATE TABLE batch_items (batch VARCHAR NOT NULL, position BIGINT NOT NULL,"
        " custom_id VARCHAR NOT NULL, state VARCHAR NOT NULL, attempts BIGINT NOT NULL,"
        " outcome VARCHAR, status BIGINT, request VARCHAR, body BLOB, line BLOB,"
        " PRIMARY KEY (batch, position))",
    ):
        connection.execute(text(statement))


# The n-th brings a store from version n - 1 to n. One that was released never changes, so it
# spells its SQL out instead of reading the tables above; a test holds the two together.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _create_keys_and_usage,
    _create_batches,
)
