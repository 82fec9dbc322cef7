"""Many rows in one statement: inserted, put in the place of others, joined to an update.

One statement a page, for executemany gives the interpreter's lock away once a row and waits 5 ms
to get it back from a busy event loop: beside one, 2,000 rows of usage took 3.9 s, and so 0.08 s;
14.7 us of CPU a row became 3.4 (SQLite, 2 cores, November 2026).
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import Column, Connection, Table

from argosy.store import postgresql

ROWS_A_STATEMENT = 500  # times columns stays below the 32,766 values that SQLite takes

_T = TypeVar("_T")
Rows = Sequence[Sequence[object]]


def insert_new(connection: Connection, table: Table, *, columns: Sequence[str], rows: Rows) -> None:
    """Insert the rows whose primary key the table does not hold yet; one statement's worth."""
    _insert(connection, table, columns, rows, "DO NOTHING")


def put_rows(connection: Connection, table: Table, *, columns: Sequence[str], rows: Rows) -> None:
    """Insert the rows, in the place of those with the same primary key; any number."""
    keys = [column.name for column in table.primary_key]
    values = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)
    for page in pages_of(rows):
        _insert(connection, table, columns, page, f"({', '.join(keys)}) DO UPDATE SET {values}")


def rows_sql(
    connection: Connection, columns: Sequence[Column[object]], rows: Rows
) -> tuple[str, tuple[object, ...]]:
    """SQL whose result is the rows, and what goes in the place of its marks.

    Its columns are named column1, column2 and so on.
    """
    if connection.dialect.name == "postgresql":
        return postgresql.rows_sql([column.type for column in columns], rows)
    row = f"({', '.join('?' * len(columns))})"
    return f"VALUES {', '.join([row] * len(rows))}", tuple(itertools.chain.from_iterable(rows))


def mark(connection: Connection) -> str:
    """How the driver spells the place of one value."""
    return "%s" if connection.dialect.name == "postgresql" else "?"


def pages_of(rows: Iterable[_T]) -> Iterator[list[_T]]:
    """As many as one statement takes, again and again."""
    left = iter(rows)
    while page := list(itertools.islice(left, ROWS_A_STATEMENT)):
        yield page


def storable(value: str) -> str:
    """The text without what databases refuse in it: lone surrogates and NUL."""
    if value.isascii() and "\0" not in value:
        return value
    return value.encode("utf-8", "replace").decode().replace("\0", "")


def _insert(
    connection: Connection, table: Table, columns: Sequence[str], rows: Rows, conflict: str
) -> None:
    sql, values = rows_sql(connection, [table.c[name] for name in columns], rows)
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({', '.join(columns)}) {sql} ON CONFLICT {conflict}", values
    )
