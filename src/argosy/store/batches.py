"""Batches as their clients see them: made, found, listed, cancelled, their results read.

Owns the rows' shape. What the runner does to items is in `batch_work.py`.
"""

from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy
from sqlalchemy import Connection, Engine, Row

from argosy.fleet.batches import (
    BATCH_S_MAX,
    OPEN_STATES,
    Batch,
    BatchApi,
    BatchDraft,
    BatchState,
    ItemOutcome,
    NewItem,
    Page,
)
from argosy.store.errors import StoreError
from argosy.store.files import Piece, fresh_id, is_of, lines_bytes, read_lines, read_page
from argosy.store.rows import insert_new, pages_of, storable
from argosy.store.schema import batch_table, item_table, writing

ALL_OUTCOMES: tuple[ItemOutcome, ...] = ("succeeded", "errored", "canceled", "expired")
_ITEM_COLUMNS = ("batch", "position", "custom_id", "state", "attempts", "body")
_PREFIX: dict[BatchApi, str] = {"openai": "batch_", "anthropic": "msgbatch_"}


class Batches:
    """The batches of all tenants, for their clients."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, draft: BatchDraft, items: Iterable[NewItem] = (), *, now_s: float) -> Batch:
        """A new batch: `in_progress` with its items, or `validating` when it names a file."""
        batch_id = fresh_id(_PREFIX[draft.api], now_s)
        with writing(self._engine) as connection:
            count = 0
            for page in pages_of(items):
                insert_items(connection, batch_id, page, first=count)
                count += len(page)
            batch = Batch(
                id=batch_id,
                tenant=draft.owner.tenant,
                key=draft.owner.key,
                api=draft.api,
                endpoint=draft.endpoint,
                state="validating" if draft.input_file else "in_progress",
                input_file=draft.input_file,
                metadata=draft.metadata,
                created_at_s=now_s,
                expires_at_s=now_s + BATCH_S_MAX,
                started_at_s=None if draft.input_file else now_s,
                items=count,
            )
            connection.execute(sqlalchemy.insert(batch_table), [_row_of(batch)])
        return batch

    def find(self, batch: str, *, tenant: str | None, api: BatchApi) -> Batch | None:
        """That tenant's batch of that id, made through that API."""
        columns = batch_table.c
        query = sqlalchemy.select(batch_table).where(
            columns.id == batch, columns.api == api, is_of(batch_table, tenant)
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else batch_of(row)

    def page(self, tenant: str | None, page: Page, *, api: BatchApi) -> tuple[list[Batch], bool]:
        """A part of that tenant's list, and whether there is more in its direction."""
        columns = batch_table.c
        query = sqlalchemy.select(batch_table).where(columns.api == api, is_of(batch_table, tenant))
        with self._engine.connect() as connection:
            rows, has_more = read_page(connection, query, columns.id, page)
        return [batch_of(row) for row in rows], has_more

    def cancel(self, batch: str, *, now_s: float) -> bool:
        """Ask for its end; False when it has ended, or was asked before.

        One that was not begun has ended with that.
        """
        with writing(self._engine) as connection:
            times = {"cancelling_at_s": now_s, "ended_at_s": now_s}
            if move_batch(connection, batch, ("validating",), state="cancelled", **times):
                connection.execute(sqlalchemy.delete(item_table).where(item_table.c.batch == batch))
                return True
            return move_batch(
                connection, batch, ("in_progress",), state="cancelling", cancelling_at_s=now_s
            )

    def delete(self, batch: str) -> bool:
        """Forget a batch that has ended, and its results; False when it has not."""
        with writing(self._engine) as connection:
            columns = batch_table.c
            gone = connection.execute(
                sqlalchemy.delete(batch_table).where(
                    columns.id == batch, columns.state.not_in(OPEN_STATES)
                )
            ).rowcount
            if gone:
                connection.execute(sqlalchemy.delete(item_table).where(item_table.c.batch == batch))
        return bool(gone)

    def results_bytes(self, batch: str) -> int:
        """How long all result lines are together."""
        with self._engine.connect() as connection:
            return lines_bytes(connection, batch, ALL_OUTCOMES)

    def read_results(self, batch: str, *, after: int) -> list[Piece]:
        """The next result lines behind position `after` (-1: from the start); none at the end."""
        with self._engine.connect() as connection:
            return read_lines(connection, batch, ALL_OUTCOMES, after=after)


def move_batch(
    connection: Connection, batch: str, states: Sequence[BatchState], **values: object
) -> bool:
    """Change the batch if it is in one of these states; whether it was."""
    columns = batch_table.c
    return bool(
        connection.execute(
            sqlalchemy.update(batch_table)
            .where(columns.id == batch, columns.state.in_(states))
            .values(**values)
        ).rowcount
    )


def insert_items(
    connection: Connection, batch: str, items: Sequence[NewItem], *, first: int
) -> None:
    """Items from position `first` on; one that is there already stays as it is."""
    rows = [
        (batch, position, storable(item.custom_id), "pending", 0, item.body)
        for position, item in enumerate(items, first)
    ]
    insert_new(connection, item_table, columns=_ITEM_COLUMNS, rows=rows)


def _row_of(batch: Batch) -> dict[str, object]:
    row: dict[str, object] = msgspec.structs.asdict(batch)
    metadata = batch.metadata
    row["metadata"] = None if metadata is None else msgspec.json.encode(metadata).decode()
    row["faults"] = msgspec.json.encode(batch.faults).decode()
    return row | {"tier": "batch"}


def batch_of(row: Row[tuple[object, ...]]) -> Batch:
    """The row as a value. Raises StoreError."""
    fields: dict[str, object] = {str(name): value for name, value in row._mapping.items()}
    try:
        for name in ("metadata", "faults"):
            if isinstance(text := fields[name], str):
                fields[name] = msgspec.json.decode(text)
        return msgspec.convert(fields, Batch)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise StoreError(f"batch {row.id} in the store cannot be read: {error}") from error
