"""Everything that only PostgreSQL understands: its address, sessions, types, error codes, clock.

A connection that PostgreSQL ended is found out before it is used (`pool_pre_ping`) and made again,
so that a restart costs what ran in it and nothing after it. Passwords come in the URL, or better
from libpq's own places: PGPASSWORD, ~/.pgpass.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import URL, Connection, Double, Engine, LargeBinary, String, event, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeEngine

from argosy.store.errors import StoreError

PREFIXES = ("postgresql://", "postgres://")
CLOCK = text("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)")

_MIGRATION_LOCK = 0x4172676F73790001  # "Argosy" and a number: who opens a store holds it
_MIGRATION_IDLE_MS_MAX = 60_000
_KEEPALIVES = {  # a host that is gone without a word is noticed after about 11 s
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
}

_UNREACHABLE = "cannot be reached. Start PostgreSQL there, or mend host and port in the URL."
_STOPPED = "is stopping or starting. Try again when it is up."
_PASSWORD = "refuses the user or the password. Mend them in the URL, or set PGPASSWORD."
_NO_DATABASE = "has no database of that name. Make it (createdb), or mend the URL."
_READ_ONLY = (
    "cannot be written: it is read-only, as a standby is. Name the primary, or allow writes."
)
_FULL = "cannot grow: its disk is full. Free some space on PostgreSQL's host."
_BUSY = "has no connection left. Raise its max_connections, or stop what holds them."
_LOCKED = "is locked by another transaction. Try again when that one is done."
_CUT = "lost the connection while it was used. Try again."

_BY_STATE = {  # SQLSTATE, or how it begins: PostgreSQL's manual, appendix A; the longest wins
    "08": _CUT,
    "28": _PASSWORD,
    "25006": _READ_ONLY,
    "25P03": "ended a transaction that stood idle for too long. Try again.",
    "3D000": _NO_DATABASE,
    "3F000": "names no schema that exists. Make it, or mend search_path in the URL.",
    "40": "put another transaction first. Try again.",
    "42501": "forbids this user to do that. Grant it the rights on the schema and its tables.",
    "53100": _FULL,
    "53200": "is out of memory. Give it some, or try again.",
    "53300": _BUSY,
    "55P03": _LOCKED,
    "57014": "took longer than it allows. Raise its statement_timeout, or try again.",
    "57P": _STOPPED,
    "58": "cannot read or write its files: its disk failed. Look into PostgreSQL's log.",
    "XX001": "is damaged. Restore a backup.",
    "XX002": "is damaged. Restore a backup.",
}
_BY_WORDS = {  # a connection that was never made has no SQLSTATE; English words, most telling first
    "authentication failed": _PASSWORD,
    "no password supplied": _PASSWORD,
    "no pg_hba.conf entry": _PASSWORD,
    "role ": _PASSWORD,
    "database system is": _STOPPED,
    "connection slots": _BUSY,
    "too many clients": _BUSY,
    "does not exist": _NO_DATABASE,
    "refused": _UNREACHABLE,
    "No such file": _UNREACHABLE,
    "resolve": _UNREACHABLE,
    "timeout expired": _UNREACHABLE,
    "unreachable": _UNREACHABLE,
    "No route": _UNREACHABLE,
    "closed": _CUT,
    "connection is lost": _CUT,
    "terminating": _STOPPED,
}


def engine_for(url: str, busy_timeout_s: float) -> Engine:
    """Connections to the database of that URL, none of them made yet. Raises StoreError."""
    try:
        parsed = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
        settings = _KEEPALIVES | {"connect_timeout": max(2, math.ceil(busy_timeout_s))}
        engine = sqlalchemy.create_engine(
            parsed,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            pool_use_lifo=True,
            connect_args={name: settings[name] for name in settings if name not in parsed.query},
        )
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{url.partition(':')[0]}: needs psycopg, which is not installed."
            " Install it: pip install 'argosy[postgresql]'"
        ) from error
    except (ArgumentError, ValueError):
        raise StoreError(
            "the store's URL cannot be read. It is like postgresql://USER@HOST:5432/DATABASE"
        ) from None  # the cause would quote the password
    limit_ms = max(1, round(busy_timeout_s * 1000))

    def on_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:  # noqa: ANN401  psycopg's
        # An idle transaction is a process that was stopped inside it: its locks would hold up
        # everyone, the next leader too. A commit that was answered is on disk, whatever the
        # database's default: usage is billing data, and a token must never come twice.
        connection.autocommit = True
        connection.execute(
            f"SET lock_timeout = {limit_ms};"
            f" SET idle_in_transaction_session_timeout = {limit_ms};"
            " SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.autocommit = False

    event.listen(engine, "connect", on_connect)
    return engine


def name_of(url: URL) -> str:
    """The URL for people: without its password and its driver."""
    named = URL.create("postgresql", url.username, None, url.host, url.port, url.database)
    return named.render_as_string()


def fault(error: BaseException) -> str | None:
    """What is wrong with the database, and what would work; None: not its error, or unknown."""
    if type(error).__module__.partition(".")[0] != "psycopg":
        return None
    state = getattr(error, "sqlstate", None) or ""
    for prefix in (state, state[:3], state[:2]):
        if prefix and prefix in _BY_STATE:
            return _BY_STATE[prefix]
    if state:
        return None
    told = str(error)
    return next((words for sign, words in _BY_WORDS.items() if sign in told), None)


def lock_migrations(connection: Connection) -> None:
    """Until the end of the transaction: who opens the store at the same time waits here.

    And gives up after its `lock_timeout`; ours is not to be ended for a stall of seconds.
    """
    connection.execute(
        text(f"SET LOCAL idle_in_transaction_session_timeout = {_MIGRATION_IDLE_MS_MAX}")
    )
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})


def spelt(statement: str) -> str:
    """A migration's SQL with this database's types; texts sort by their bytes, as in SQLite."""
    return statement.replace("VARCHAR", 'VARCHAR COLLATE "C"').replace("BLOB", "BYTEA")


def rows_sql(
    types: Sequence[TypeEngine[Any]], rows: Sequence[Sequence[object]]
) -> tuple[str, tuple[object, ...]]:
    """SQL whose result is the rows, as column1 and so on, and what goes in the place of its marks.

    One text of JSON, and an array for each column of bytes. The driver turns values into their
    text in Python, one by one, msgspec in C: 18 us of CPU a row of usage became 2.7 (psycopg
    3.3, November 2026).
    """
    bytes_at = [n for n, kind in enumerate(types) if isinstance(kind, LargeBinary)]
    others_at = [n for n in range(len(types)) if n not in bytes_at]
    values = [f"listed.bytes{n}" if n in bytes_at else "" for n in range(len(types))]
    for place, n in enumerate(others_at):
        values[n] = f"(listed.json->>{place})::{_name(types[n])}"
    columns = ", ".join(f"{value} AS column{n}" for n, value in enumerate(values, 1))
    functions = ", ".join(
        ["jsonb_array_elements(%s::jsonb)", *["unnest(%s::bytea[])"] * len(bytes_at)]
    )
    names = ", ".join(["json", *(f"bytes{n}" for n in bytes_at)])
    others = [[row[n] for n in others_at] for row in rows] if bytes_at else rows
    arrays = ([row[n] for row in rows] for n in bytes_at)
    sql = f"SELECT {columns} FROM ROWS FROM ({functions}) AS listed ({names})"
    return sql, (msgspec.json.encode(others).decode(), *arrays)


def _name(column_type: TypeEngine[Any]) -> str:
    match column_type:
        case String():
            return "varchar"
        case Double():
            return "double precision"
        case _:
            return "bigint"
