"""What the runner of batches writes: items claimed, results taken, batches ended.

Owns that an item has one result, whatever is killed or comes twice: its row is keyed by batch and
position, and only a row that is not done takes a result. When to send an item, and what a result
says, is left to the gateway.
"""

from collections.abc import Sequence

import msgspec
import sqlalchemy
from sqlalchemy import Connection, Engine

from argosy.fleet.batches import (
    OPEN_STATES,
    Batch,
    BatchFault,
    BatchItem,
    BatchState,
    ItemOutcome,
    ItemResult,
    NewItem,
    StoredFile,
)
from argosy.store.batches import ALL_OUTCOMES, batch_of, insert_items, move_batch
from argosy.store.files import OUTCOMES, fresh_id, insert_file, lines_bytes
from argosy.store.rows import mark, pages_of, rows_sql
from argosy.store.schema import batch_table, item_table, writing

_BEFORE_END: dict[BatchState, tuple[BatchState, ...]] = {
    "completed": ("in_progress",),
    "expired": ("in_progress",),
    "cancelled": ("cancelling",),
}


class BatchWork:
    """The batches of all tenants, for their runner."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # The input.

    def list_open(self) -> list[Batch]:
        """All that are not at their end, oldest first."""
        columns = batch_table.c
        query = (
            sqlalchemy.select(batch_table)
            .where(columns.state.in_(OPEN_STATES))
            .order_by(columns.id)
        )
        with self._engine.connect() as connection:
            return [batch_of(row) for row in connection.execute(query)]

    def add_items(self, batch: str, items: Sequence[NewItem], *, first: int) -> bool:
        """Items from position `first` on; one that is there already stays as it is.

        False when the batch is no longer validating: it takes none.
        """
        with writing(self._engine) as connection:
            if not move_batch(connection, batch, ("validating",), state="validating"):
                return False
            for page in pages_of(items):
                insert_items(connection, batch, page, first=first)
                first += len(page)
        return True

    def start(self, batch: str, *, items: int, model: str | None, now_s: float) -> bool:
        """Its input was found good; False when it is no longer validating."""
        with writing(self._engine) as connection:
            return move_batch(
                connection,
                batch,
                ("validating",),
                state="in_progress",
                items=items,
                model=model,
                started_at_s=now_s,
            )

    def fail(self, batch: str, faults: Sequence[BatchFault], *, now_s: float) -> bool:
        """Its input was found wrong: nothing of it is sent."""
        with writing(self._engine) as connection:
            moved = move_batch(
                connection,
                batch,
                ("validating",),
                state="failed",
                faults=msgspec.json.encode(faults).decode(),
                ended_at_s=now_s,
            )
            if moved:
                connection.execute(sqlalchemy.delete(item_table).where(item_table.c.batch == batch))
        return moved

    # The items.

    def reclaim(self, batch: str) -> int:
        """What a run that is over left running is pending again; how many."""
        with writing(self._engine) as connection:
            return connection.execute(
                sqlalchemy.update(item_table)
                .where(item_table.c.batch == batch, item_table.c.state == "running")
                .values(state="pending")
            ).rowcount

    def claim(self, batch: str, *, after: int, limit: int) -> list[BatchItem]:
        """The next pending items behind position `after`, now running, one attempt more each."""
        columns = item_table.c
        pending = (
            sqlalchemy.select(columns.position, columns.custom_id, columns.body, columns.attempts)
            .where(columns.batch == batch, columns.position > after, columns.state == "pending")
            .order_by(columns.position)
            .limit(limit)
            .with_for_update(skip_locked=True)  # what another run claims now is that run's
        )
        with writing(self._engine) as connection:
            items = [
                BatchItem(
                    position=row.position,
                    custom_id=row.custom_id,
                    body=row.body,
                    attempts=row.attempts + 1,
                )
                for row in connection.execute(pending)
            ]
            _attempt(connection, batch, [item.position for item in items])
        return items

    def try_again(self, batch: str, position: int) -> None:
        """One attempt more of an item that runs."""
        with writing(self._engine) as connection:
            _attempt(connection, batch, [position])

    def list_unfinished(self, batch: str, *, limit: int) -> list[tuple[int, str]]:
        """Position and custom id of the first items without a result."""
        columns = item_table.c
        query = (
            sqlalchemy.select(columns.position, columns.custom_id)
            .where(columns.batch == batch, columns.state != "done")
            .order_by(columns.position)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [(row.position, row.custom_id) for row in connection.execute(query)]

    def write_results(self, batch: str, results: Sequence[ItemResult]) -> int:
        """Take the results of items that have none yet; how many those were."""
        written = 0
        with writing(self._engine) as connection:
            _lock(connection, batch)
            for outcome in ALL_OUTCOMES:
                ended_so = [result for result in results if result.outcome == outcome]
                for page in pages_of(ended_so):
                    written += _write_results(connection, batch, outcome, page)
        return written

    # The end.

    def end(self, batch: str, state: BatchState, *, now_s: float) -> bool:
        """Close a batch whose items are all done; its results become files.

        `completed` and `expired` follow on `in_progress`, `cancelled` on `cancelling`. False when
        the batch was not in that state, or an item is left.
        """
        columns = item_table.c
        undone = sqlalchemy.select(columns.position).where(
            columns.batch == batch, columns.state != "done"
        )
        with writing(self._engine) as connection:
            _lock(connection, batch)
            if connection.execute(undone.limit(1)).first() is not None:
                return False
            if not move_batch(connection, batch, _BEFORE_END[state], state=state, ended_at_s=now_s):
                return False
            row = connection.execute(
                sqlalchemy.select(batch_table).where(batch_table.c.id == batch)
            ).one()
            _make_files(connection, batch_of(row), now_s=now_s)
        return True

    def forget_before(self, before_s: float) -> int:
        """Delete the batches that ended before then, with their items; how many."""
        columns = batch_table.c
        old = sqlalchemy.select(columns.id).where(columns.ended_at_s < before_s)
        with writing(self._engine) as connection:
            connection.execute(sqlalchemy.delete(item_table).where(item_table.c.batch.in_(old)))
            return connection.execute(
                sqlalchemy.delete(batch_table).where(columns.ended_at_s < before_s)
            ).rowcount


def _attempt(connection: Connection, batch: str, positions: Sequence[int]) -> None:
    columns = item_table.c
    connection.execute(
        sqlalchemy.update(item_table)
        .where(columns.batch == batch, columns.position.in_(positions), columns.state != "done")
        .values(state="running", attempts=columns.attempts + 1)
    )


def _lock(connection: Connection, batch: str) -> None:
    """Results are taken and the batch ended one after the other, whoever does it."""
    row = sqlalchemy.select(batch_table.c.id).where(batch_table.c.id == batch)
    connection.execute(row.with_for_update())


def _write_results(
    connection: Connection, batch: str, outcome: ItemOutcome, results: Sequence[ItemResult]
) -> int:
    """One statement for all: see `rows.py`."""
    columns = [item_table.c[name] for name in ("position", "status", "request", "line")]
    rows = [(result.position, result.status, result.request, result.line) for result in results]
    listed, values = rows_sql(connection, columns, rows)
    here = mark(connection)
    written = connection.exec_driver_sql(
        f"UPDATE batch_items SET state = 'done', outcome = {here}, status = new.column2,"
        " request = new.column3, line = new.column4, body = NULL"
        f" FROM ({listed}) AS new WHERE batch_items.batch = {here}"
        " AND batch_items.position = new.column1 AND batch_items.state <> 'done'",
        (outcome, *values, batch),
    ).rowcount
    connection.execute(
        sqlalchemy.update(batch_table)
        .where(batch_table.c.id == batch)
        .values({outcome: batch_table.c[outcome] + written})
    )
    return written


def _make_files(connection: Connection, batch: Batch, *, now_s: float) -> None:
    """OpenAI's clients find the results as files; Anthropic's read the lines themselves."""
    if batch.api != "openai":
        return
    counts = {"output": batch.succeeded, "error": batch.items_unserved}
    for part, outcomes in OUTCOMES.items():
        if not counts[part]:
            continue
        file = StoredFile(
            id=fresh_id("file-", now_s),
            tenant=batch.tenant,
            key=batch.key,
            purpose="batch_output",
            filename=f"{batch.id}_{part}.jsonl",
            bytes=lines_bytes(connection, batch.id, outcomes),
            created_at_s=now_s,
            batch=batch.id,
            part=part,
        )
        insert_file(connection, file)
        connection.execute(
            sqlalchemy.update(batch_table)
            .where(batch_table.c.id == batch.id)
            .values({f"{part}_file": file.id})
        )
