"""What requests cost: written behind the requests by one thread, summed for bills and operators.

Each record reaches the disk exactly once, however often the database fails. What is recorded, and
what to do when records pile up, is left to the gateway.
"""

import random
from collections.abc import Sequence
from functools import partial
from typing import Literal, Self

import msgspec
import sqlalchemy
from sqlalchemy import BigInteger, ColumnElement, Engine, Row, case, func

from argosy.fleet.messages import Usage
from argosy.store.behind import WriterBehind
from argosy.store.errors import StoreError
from argosy.store.rows import insert_new, storable
from argosy.store.schema import usage_table, writing

UsageGroup = Literal["tenant", "key", "model", "replica", "outcome"]


class UsageWriter:
    """Takes records at no cost to the caller; a thread of its own makes them durable.

    A record that the database refuses for the time being waits in memory; `close` writes all.
    """

    def __init__(
        self, engine: Engine, *, backlog_max: int = 100_000, chance: random.Random | None = None
    ) -> None:
        self._backlog_max = backlog_max
        self._behind: WriterBehind[Usage] = WriterBehind(
            partial(insert_records, engine), noun="usage", chance=chance
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, record: Usage) -> None:
        """Take the record: no I/O, no waiting. RuntimeError after `close`."""
        self._behind.write(record)

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Write what waits and stop the thread; what cannot be written in time is logged as lost.

        One attempt more than `timeout_s` may be under way: add the store's busy timeout.
        """
        self._behind.close(timeout_s=timeout_s)

    @property
    def unwritten(self) -> int:
        """Records that are not yet durable."""
        return self._behind.unwritten

    @property
    def unwritable(self) -> int:
        """Records that no database would take; each was logged in full."""
        return self._behind.unwritable

    @property
    def failures(self) -> int:
        """Attempts in a row that failed."""
        return self._behind.failures

    @property
    def is_overloaded(self) -> bool:
        """Too many records wait: new work would be work that may never be billed."""
        return self._behind.unwritten > self._backlog_max


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of one group of requests."""

    group: str | None  # the tenant, key, model, replica or outcome; None: the requests had none
    requests: int
    finished: int
    failed: int
    refused: int
    cancelled: int
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    ttft_s_mean: float | None  # of the requests that have one


def summarise(engine: Engine, *, since_s: float, until_s: float, by: UsageGroup) -> list[UsageRow]:
    """Sums of the requests received in [since_s, until_s), the largest group first."""
    columns = usage_table.c
    group = columns[by].label("group")

    def ended(outcome: str) -> ColumnElement[int]:
        return func.count(case((columns.outcome == outcome, 1))).label(outcome)

    query = (
        sqlalchemy.select(
            group,
            func.count().label("requests"),
            *(ended(outcome) for outcome in ("finished", "failed", "refused", "cancelled")),
            _whole_sum(columns.tokens_in).label("tokens_in"),
            _whole_sum(columns.tokens_cached).label("tokens_cached"),
            _whole_sum(columns.tokens_out).label("tokens_out"),
            func.avg(columns.ttft_s).label("ttft_s_mean"),
        )
        .where(columns.at_s >= since_s, columns.at_s < until_s)
        .group_by(columns[by])
    )
    with engine.connect() as connection:
        rows = [
            msgspec.convert(row, UsageRow, from_attributes=True)
            for row in connection.execute(query)
        ]
    return sorted(rows, key=lambda row: (-row.requests, row.group or ""))


def records(
    engine: Engine, *, limit: int, tenant: str | None = None, since_s: float | None = None
) -> list[Usage]:
    """The last records, newest first; of all tenants and times unless one is named."""
    query = sqlalchemy.select(usage_table).order_by(
        usage_table.c.at_s.desc(), usage_table.c.request
    )
    if tenant is not None:
        query = query.where(usage_table.c.tenant == tenant)
    if since_s is not None:
        query = query.where(usage_table.c.at_s >= since_s)
    with engine.connect() as connection:
        return [_usage(row) for row in connection.execute(query.limit(limit))]


def spent_since(engine: Engine, tenant: str, since_s: float) -> tuple[int, int]:
    """Tokens and requests that count against a tenant's budgets, of those received since then.

    Prompt and answer tokens, cached ones too. A request counts when it finished or reached a
    replica; a refused one does not, whoever refused it.
    """
    columns = usage_table.c
    counts = sqlalchemy.or_(columns.outcome == "finished", columns.attempts > 0)
    query = sqlalchemy.select(
        func.coalesce(_whole_sum(columns.tokens_in + columns.tokens_out), 0), func.count()
    ).where(columns.tenant == tenant, columns.at_s >= since_s, columns.outcome != "refused", counts)
    with engine.connect() as connection:
        tokens, requests = connection.execute(query).one()
    return tokens, requests


def insert_records(engine: Engine, batch: list[Usage]) -> None:
    """All of the batch in one transaction, less what is there already.

    A commit whose reply was lost is tried again, so a record may come twice; its id tells.
    """
    rows = [_row(record) for record in batch]
    with writing(engine) as connection:
        insert_new(connection, usage_table, columns=Usage.__struct_fields__, rows=rows)


def _row(record: Usage) -> Sequence[object]:
    # A reason may quote a client or a replica; the rest is the fleet file's, or ours. Most have
    # none, and what is done here is done while the gateway's loop waits for the interpreter.
    values = msgspec.structs.astuple(record)
    if not record.reason:
        return values
    return [storable(value) if isinstance(value, str) else value for value in values]


def _usage(row: Row) -> Usage:
    try:
        return msgspec.convert(row, Usage, from_attributes=True)
    except msgspec.ValidationError as error:
        raise StoreError(f"usage {row.request} in the store cannot be read: {error}") from error


def _whole_sum(column: ColumnElement[int]) -> ColumnElement[int]:
    return sqlalchemy.cast(func.sum(column), BigInteger)  # PostgreSQL's sums are decimals
