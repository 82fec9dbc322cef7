"""The tables, and the opening of the store that holds them: a file of SQLite's, or PostgreSQL.

What only one of the two understands is in `sqlite.py` and `postgresql.py`; how a store of an older
version is brought to these tables, in `migrations.py`.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy import BigInteger, Column, Connection, Double, Engine, LargeBinary, String, Table
from sqlalchemy.exc import SQLAlchemyError

from argosy.store import postgresql, sqlite
from argosy.store.errors import StoreError
from argosy.store.migrations import MIGRATIONS

log = logging.getLogger(__name__)
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
lease_table = Table(
    "leases",
    METADATA,
    Column("name", String, primary_key=True),
    Column("holder", String),  # None: it was released
    Column("token", BigInteger, nullable=False),  # grows with each change; the row is never deleted
    Column("granted_at_s", Double, nullable=False),
    Column("expires_at_s", Double, nullable=False),
)
record_table = Table(
    "fleet_records",
    METADATA,
    Column("fleet", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("body", LargeBinary, nullable=False),  # the control plane's own; JSON as a rule
)
published_table = Table(
    "replica_tables",
    METADATA,
    Column("fleet", String, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("at_s", Double, nullable=False),
    Column("body", LargeBinary, nullable=False),  # JSON
)
spec_table = Table(
    "fleet_specs",
    METADATA,
    Column("fleet", String, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("applied_by", String, nullable=False),
    Column("sha256", String, nullable=False),
    Column("text", String, nullable=False),
)
decision_table = Table(
    "decisions",
    METADATA,
    Column("fleet", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("inputs", LargeBinary),  # JSON, as it is or deflated
    sqlalchemy.Index("ix_decisions_fleet_at_s", "fleet", "at_s"),
    sqlalchemy.Index("ix_decisions_fleet_subject_seq", "fleet", "subject", "seq"),
)


run_table = Table(
    "runs",
    METADATA,
    Column("run", String, primary_key=True),
    Column("spec", String, nullable=False),  # the run file's text
    Column("state", String, nullable=False),  # training, finishing, finished, stopped
    Column("wanted", String, nullable=False),  # training, stopped: an operator's word
    Column("created_at_s", Double, nullable=False),
    Column("ended_at_s", Double),
    Column("blocks", BigInteger, nullable=False),
    Column("blocks_a_step", BigInteger, nullable=False),
    Column("frontier", BigInteger, nullable=False),  # no block from here on was ever leased
    Column("freed", String, nullable=False),  # JSON: spans before it that are to be leased anew
    Column("blocks_done", BigInteger, nullable=False),
    Column("version", BigInteger),  # None: nobody has sent parameters yet
    Column("seed", String),  # JSON: what version 0 is made of
)
run_island_table = Table(
    "run_islands",
    METADATA,
    Column("run", String, primary_key=True),
    Column("island", String, primary_key=True),
    Column("epoch", BigInteger, nullable=False),  # grows with each life; never goes back
    Column("state", String, nullable=False),  # live, silent, left
    Column("number", BigInteger, nullable=False),  # of this epoch's last contribution
    Column("joined_at_s", Double, nullable=False),
    Column("beat_at_s", Double, nullable=False),
    Column("steps_per_s", Double),
    Column("waited_s", Double, nullable=False),
    Column("blocks_done", BigInteger, nullable=False),  # in all its lives
    Column("bytes_in", BigInteger, nullable=False),  # from it
    Column("bytes_out", BigInteger, nullable=False),
    Column("mfu", Double),
    Column("energy_j_per_million_tokens", Double),
    Column("cost_usd_per_million_tokens", Double),
)
run_lease_table = Table(
    "run_leases",
    METADATA,
    Column("run", String, primary_key=True),
    Column("lease", String, primary_key=True),
    Column("island", String, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("spans", String, nullable=False),  # JSON
    Column("blocks", BigInteger, nullable=False),
    Column("state", String, nullable=False),  # open, done, void
    Column("granted_at_s", Double, nullable=False),
    sqlalchemy.Index("ix_run_leases_run_state", "run", "state"),
)
run_contribution_table = Table(
    "run_contributions",
    METADATA,
    Column("run", String, primary_key=True),
    Column("island", String, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("base_version", BigInteger, nullable=False),
    Column("lease", String, nullable=False),
    Column("steps", BigInteger, nullable=False),
    Column("blocks", BigInteger, nullable=False),
    Column("loss", Double, nullable=False),
    Column("fragments", String, nullable=False),  # JSON: SHA-256 of each
    Column("tokens_sha256", String, nullable=False),
    Column("state", String, nullable=False),  # accepted, merged, refused
    Column("version", BigInteger),  # that it is in
    Column("reason", String, nullable=False),  # why it was refused
    Column("at_s", Double, nullable=False),
    sqlalchemy.Index("ix_run_contributions_run_state", "run", "state"),
)
run_round_table = Table(
    "run_rounds",
    METADATA,
    Column("run", String, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("contributions", String, nullable=False),  # JSON, with their weights, in order
    Column("settings", String, nullable=False),  # JSON: what it is computed with
    Column("reason", String, nullable=False),
    Column("blocks_done", BigInteger, nullable=False),
    Column("at_s", Double, nullable=False),
)
run_point_table = Table(
    "run_points",
    METADATA,
    Column("run", String, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("kind", String, nullable=False),  # training, validation
    Column("island", String, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("blocks_done", BigInteger, nullable=False),
    Column("loss", Double, nullable=False),
)


def open_store(place: Path | str, *, busy_timeout_s: float = 5.0, is_needed: bool = True) -> Engine:
    """The store in that file, or at a URL `postgresql://USER@HOST:PORT/DATABASE`.

    It is created, or brought to this version's schema, if need be. Safe for any number of processes
    at once; each waits at most `busy_timeout_s` for a lock, and PostgreSQL ends a transaction
    that stands idle for as long. The caller disposes of the engine. Raises StoreError; where it is
    not needed now, only what no waiting would mend: else it is tried again with each use.
    """
    if isinstance(place, str) and place.startswith(postgresql.PREFIXES):
        engine = postgresql.engine_for(place, busy_timeout_s)
    else:
        engine = sqlite.engine_for(Path(place), busy_timeout_s)
    try:
        with store_errors(place_of(engine)):
            _bring_up_to_date(engine, busy_timeout_s)
    except StoreError as error:
        if is_needed:
            engine.dispose()
            raise
        log.warning("The store is away, and is used when it is back: %s", error)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction, committed at the end of the block; with SQLite it has the write lock at once.

    SQLite refuses, without waiting, a transaction that read first, was overtaken by another
    writer, and then writes; one that locks at once waits its turn. PostgreSQL locks rows: whoever
    reads to decide what to write reads `with_for_update`, which SQLite needs not and leaves out.
    """
    with engine.connect().execution_options(argosy_writes=True) as connection, connection.begin():
        yield connection


def clock_s(connection: Connection) -> float:
    """Unix time by the database's own clock: one for all hosts that share it."""
    is_postgresql = connection.dialect.name == "postgresql"
    clock = postgresql.CLOCK if is_postgresql else sqlite.CLOCK
    return connection.execute(clock).scalar_one()


def place_of(engine: Engine) -> str:
    """The store's file, or its URL without the password: for messages."""
    if engine.dialect.name == "postgresql":
        return postgresql.name_of(engine.url)
    return engine.url.database or "the store"


@contextmanager
def store_errors(place: Path | str) -> Iterator[None]:
    """What SQLAlchemy and SQLite raise inside becomes a StoreError in words."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise StoreError(f"{place}: {store_fault(error)}") from error


def store_fault(error: BaseException) -> str:
    """What is wrong with the store, and what would work, from what the database raised."""
    cause = getattr(error, "orig", None) or error
    words = sqlite.fault(cause) or postgresql.fault(cause)
    return words or f"failed: {str(cause).strip()}"


def _bring_up_to_date(engine: Engine, busy_timeout_s: float) -> None:
    with engine.connect() as connection:
        version = _version(connection)
    if engine.dialect.name == "sqlite":
        sqlite.switch_to_wal(engine, busy_timeout_s)
    if version < len(MIGRATIONS):
        _migrate(engine)


def _version(connection: Connection) -> int:
    """The schema version of the store, 0 when fresh; StoreError when it is not for this code."""
    place = place_of(connection.engine)
    tables = sqlalchemy.inspect(connection).get_table_names()
    if not tables:
        return 0
    if version_table.name not in tables:
        raise StoreError(
            f"{place}: is a database, but not Argosy's: it holds {', '.join(sorted(tables)[:5])}."
            f" Name another {_kind(connection)}."
        )
    version = connection.execute(sqlalchemy.select(version_table.c.version)).scalar_one()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{place}: has schema version {version}; this Argosy reads up to {len(MIGRATIONS)}."
            " Use the Argosy that wrote it or a newer one, or name another"
            f" {_kind(connection)}."
        )
    return version


def _kind(connection: Connection) -> str:
    return "folder" if connection.dialect.name == "sqlite" else "database"


def _migrate(engine: Engine) -> None:
    """Run what is missing in one transaction; a process that came second finds nothing to do."""
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            postgresql.lock_migrations(connection)
        for migration in MIGRATIONS[_version(connection) :]:
            migration(connection)
        connection.execute(sqlalchemy.update(version_table).values(version=len(MIGRATIONS)))
