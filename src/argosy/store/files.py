"""Uploaded files and the results of batches, as files that are read piece by piece.

Owns how bytes lie in the store. An upload is cut into chunks; a results file has no bytes of its
own but is the result lines of its batch, so that finishing a batch copies nothing. What a file
may hold is left to the gateway.
"""

import secrets
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, func

from argosy.fleet.batches import ItemOutcome, Owner, Page, ResultPart, StoredFile, Upload
from argosy.store.errors import StoreError
from argosy.store.rows import insert_new, storable
from argosy.store.schema import chunk_table, file_table, item_table, writing

CHUNK_BYTES = 256 * 1024
LINES_A_READ = 64

OUTCOMES: dict[ResultPart, tuple[ItemOutcome, ...]] = {
    "output": ("succeeded",),
    "error": ("errored", "canceled", "expired"),
}

Piece = tuple[int, bytes]  # its position, to ask for what comes after it, and its bytes
_Rows = TypeVar("_Rows", bound=tuple[object, ...])


class Files:
    """The files of all tenants; each method but `read` asks for one tenant's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, owner: Owner, upload: Upload, *, now_s: float) -> StoredFile:
        """Keep an upload: all of it, or nothing when the process dies."""
        file = StoredFile(
            id=fresh_id("file-", now_s),
            tenant=owner.tenant,
            key=owner.key,
            purpose="batch",
            filename=storable(upload.filename),
            bytes=upload.content.nbytes,
            created_at_s=now_s,
        )
        with writing(self._engine) as connection:
            for position, start in enumerate(range(0, file.bytes, CHUNK_BYTES)):
                insert_new(
                    connection,
                    chunk_table,
                    columns=("file", "position", "content"),
                    rows=[(file.id, position, upload.content[start : start + CHUNK_BYTES])],
                )
            insert_file(connection, file)
        return file

    def find(self, file: str, *, tenant: str | None) -> StoredFile | None:
        """That tenant's file of that id."""
        columns = file_table.c
        query = sqlalchemy.select(file_table).where(columns.id == file, is_of(file_table, tenant))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else _file(row)

    def page(
        self, tenant: str | None, page: Page, *, purpose: str | None = None
    ) -> tuple[list[StoredFile], bool]:
        """A part of that tenant's list, and whether there is more in its direction."""
        query = sqlalchemy.select(file_table).where(is_of(file_table, tenant))
        if purpose is not None:
            query = query.where(file_table.c.purpose == purpose)
        with self._engine.connect() as connection:
            rows, has_more = read_page(connection, query, file_table.c.id, page)
        return [_file(row) for row in rows], has_more

    def delete(self, file: str, *, tenant: str | None) -> bool:
        """Forget the file and its bytes; False when that tenant has none of that id."""
        found = self.find(file, tenant=tenant)
        if found is None:
            return False
        with writing(self._engine) as connection:
            connection.execute(sqlalchemy.delete(file_table).where(file_table.c.id == file))
            connection.execute(sqlalchemy.delete(chunk_table).where(chunk_table.c.file == file))
            if found.batch is not None and found.part is not None:
                connection.execute(
                    sqlalchemy.update(item_table)
                    .where(
                        item_table.c.batch == found.batch,
                        item_table.c.outcome.in_(OUTCOMES[found.part]),
                    )
                    .values(line=None)
                )
        return True

    def read(self, file: StoredFile, *, after: int) -> list[Piece]:
        """The next pieces behind position `after` (-1: from the start); none at the end."""
        with self._engine.connect() as connection:
            if file.batch is not None and file.part is not None:
                return read_lines(connection, file.batch, OUTCOMES[file.part], after=after)
            query = (
                sqlalchemy.select(chunk_table.c.position, chunk_table.c.content)
                .where(chunk_table.c.file == file.id, chunk_table.c.position > after)
                .order_by(chunk_table.c.position)
                .limit(1)
            )
            return [(row.position, row.content) for row in connection.execute(query)]

    def forget_before(self, before_s: float) -> int:
        """Delete the files that were made before then; how many."""
        old = sqlalchemy.select(file_table.c.id).where(file_table.c.created_at_s < before_s)
        with writing(self._engine) as connection:
            connection.execute(sqlalchemy.delete(chunk_table).where(chunk_table.c.file.in_(old)))
            return connection.execute(
                sqlalchemy.delete(file_table).where(file_table.c.created_at_s < before_s)
            ).rowcount


def insert_file(connection: Connection, file: StoredFile) -> None:
    """Its row; its bytes are the caller's business."""
    connection.execute(sqlalchemy.insert(file_table), [msgspec.structs.asdict(file)])


def read_lines(
    connection: Connection, batch: str, outcomes: Sequence[ItemOutcome], *, after: int
) -> list[Piece]:
    """The next result lines of a batch, in the order of its input."""
    columns = item_table.c
    query = (
        sqlalchemy.select(columns.position, columns.line)
        .where(columns.batch == batch, columns.position > after)
        .where(columns.outcome.in_(outcomes), columns.line.is_not(None))
        .order_by(columns.position)
        .limit(LINES_A_READ)
    )
    return [(row.position, row.line) for row in connection.execute(query)]


def lines_bytes(connection: Connection, batch: str, outcomes: Sequence[ItemOutcome]) -> int:
    """How long all those lines are together."""
    columns = item_table.c
    query = sqlalchemy.select(func.coalesce(func.sum(func.length(columns.line)), 0)).where(
        columns.batch == batch, columns.outcome.in_(outcomes)
    )
    return connection.execute(query).scalar_one()


def fresh_id(prefix: str, now_s: float) -> str:
    """The time in milliseconds and chance: later ids sort after earlier ones, nobody guesses one.

    Lists are in the order of ids, so a page needs no look at what stands behind its cursor.
    """
    return f"{prefix}{int(now_s * 1000):012x}{secrets.token_hex(8)}"


def is_of(table: sqlalchemy.Table, tenant: str | None) -> ColumnElement[bool]:
    """The row is that tenant's; without keys there is one, who has no name."""
    return table.c.tenant.is_not_distinct_from(tenant)


def read_page(
    connection: Connection,
    query: Select[_Rows],
    ids: sqlalchemy.Column[str],
    page: Page,
) -> tuple[list[Row[_Rows]], bool]:
    """The rows of the page in the list's order, and whether there is more in its direction."""
    ascending = page.oldest_first != (page.before is not None)
    cursor = page.before if page.before is not None else page.after
    if cursor is not None:
        query = query.where(ids > cursor if ascending else ids < cursor)
    query = query.order_by(ids.asc() if ascending else ids.desc()).limit(page.limit + 1)
    rows = list(connection.execute(query))
    has_more = len(rows) > page.limit
    rows = rows[: page.limit]
    return (rows[::-1] if page.before is not None else rows), has_more


def _file(row: Row[tuple[object, ...]]) -> StoredFile:
    try:
        return msgspec.convert(row, StoredFile, from_attributes=True)
    except msgspec.ValidationError as error:
        raise StoreError(f"file {row.id} in the store cannot be read: {error}") from error
