"""Everything that only SQLite understands: the file, pragmas, locks, error codes, its clock.

The file is on a disk of this host: SQLite's locks do not hold over a network.
"""

import sqlite3
import time
from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.pool import ConnectionPoolEntry

from argosy.store.errors import StoreError

# Unix time in milliseconds, by the clock of the host. (`unixepoch('subsec')` came with 3.42.)
CLOCK = text("SELECT (julianday('now') - 2440587.5) * 86400.0")

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


def engine_for(path: Path, busy_timeout_s: float) -> Engine:
    """The file, made if need be. Raises StoreError."""
    _create_file(path)
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": busy_timeout_s},
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def switch_to_wal(engine: Engine, busy_timeout_s: float) -> None:
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


def fault(error: BaseException) -> str | None:
    """What is wrong with the file, and what would work; None: not SQLite's error, or unknown."""
    name = getattr(error, "sqlite_errorname", None) or ""
    return next((words for prefix, words in _FAULTS.items() if name.startswith(prefix)), None)


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
