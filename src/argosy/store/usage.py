"""What requests cost: written behind the requests by one thread, summed for bills and operators.

Owns that each record reaches the disk exactly once, however often the database fails. What is
recorded, and what to do when records pile up, is left to the gateway.
"""

import logging
import random
import threading
from collections import deque
from collections.abc import Sequence
from typing import Literal, Self

import msgspec
import sqlalchemy
from sqlalchemy import BigInteger, ColumnElement, Engine, Row, case, func
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from argosy.fleet.messages import Usage
from argosy.store.schema import StoreError, insert_new, store_fault, usage_table, writing

BATCH_RECORDS = 500  # of one transaction: 500 share one fsync
BATCH_EVERY_S = 0.2  # what a crash of the process may lose
RETRY_AFTER_S = 0.1  # after the first failure; doubles, with jitter, up to RETRY_AFTER_S_MAX
RETRY_AFTER_S_MAX = 5.0

# What says that a record, not the database, is at fault: a number of more than 64 bits, NaN.
BAD_RECORD_ERRORS = (IntegrityError, DataError, OverflowError, ValueError, TypeError)

UsageGroup = Literal["tenant", "key", "model", "replica", "outcome"]

logger = logging.getLogger(__name__)


class UsageWriter:
    """Takes records at no cost to the caller; a thread of its own makes them durable.

    A record that the database refuses for the time being waits in memory; `close` writes all.
    """

    def __init__(
        self, engine: Engine, *, backlog_max: int = 100_000, chance: random.Random | None = None
    ) -> None:
        self._engine = engine
        self._backlog_max = backlog_max
        self._chance = chance or random.Random()
        self._waiting: deque[Usage] = deque()  # a record leaves when it is durable
        self._failures = 0  # in a row
        self._unwritable = 0
        self._wake = threading.Event()  # a batch is full, or the writer closes
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage-writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, record: Usage) -> None:
        """Take the record: no I/O, no waiting. RuntimeError after `close`."""
        if self._closing.is_set():
            raise RuntimeError(f"the usage writer is closed; {record.request} came after that")
        self._waiting.append(record)
        if len(self._waiting) >= BATCH_RECORDS and not self._wake.is_set():
            self._wake.set()

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Write what waits and stop the thread; what cannot be written in time is logged as lost.

        One attempt more than `timeout_s` may be under way: add the store's busy timeout.
        """
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        self._abandoned.set()
        self._thread.join()
        if self._waiting:
            logger.error("%d usage records are lost: the store took none", len(self._waiting))

    @property
    def unwritten(self) -> int:
        """Records that are not yet durable."""
        return len(self._waiting)

    @property
    def unwritable(self) -> int:
        """Records that no database would take; each was logged in full."""
        return self._unwritable

    @property
    def is_overloaded(self) -> bool:
        """Too many records wait: new work would be work that may never be billed."""
        return len(self._waiting) > self._backlog_max

    def _run(self) -> None:
        while not self._abandoned.is_set() and (self._waiting or not self._closing.is_set()):
            if not self._closing.is_set():
                self._wake.wait(BATCH_EVERY_S)
                self._wake.clear()
            while self._waiting and not self._abandoned.is_set():
                self._write_next_batch()

    def _write_next_batch(self) -> None:
        # By index, for other threads append meanwhile; only this one takes away, at the left.
        count = min(len(self._waiting), BATCH_RECORDS)
        batch = [self._waiting[index] for index in range(count)]
        try:
            try:
                insert_records(self._engine, batch)
            except BAD_RECORD_ERRORS:
                self._write_one_by_one(batch)
        except SQLAlchemyError as error:
            self._back_off(error)
            return
        for _ in batch:
            self._waiting.popleft()
        if self._failures:
            logger.warning("usage is written again, after %d failed attempts", self._failures)
            self._failures = 0

    def _write_one_by_one(self, batch: list[Usage]) -> None:
        """So that one record that cannot be stored does not hold up all that follow it."""
        unwritable: list[tuple[Usage, Exception]] = []
        for record in batch:
            try:
                insert_records(self._engine, [record])
            except BAD_RECORD_ERRORS as error:
                unwritable.append((record, error))
        for record, error in unwritable:
            logger.error("usage record cannot be stored (%s): %r", error, record)
        self._unwritable += len(unwritable)

    def _back_off(self, error: SQLAlchemyError) -> None:
        self._failures += 1
        if self._failures == 1:
            logger.warning(
                "usage cannot be written, %d records wait in memory: the store %s",
                len(self._waiting),
                store_fault(error),
            )
        delay_s = min(RETRY_AFTER_S * 2 ** min(self._failures - 1, 10), RETRY_AFTER_S_MAX)
        sooner = self._abandoned if self._closing.is_set() else self._closing
        sooner.wait(delay_s * self._chance.uniform(0.5, 1.0))


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
    return [_storable(value) for value in values] if record.reason else values


def _storable(value: object) -> object:
    """The value, but for what databases refuse as text: lone surrogates and NUL."""
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return value
    return value.encode("utf-8", "replace").decode().replace("\0", "")


def _usage(row: Row) -> Usage:
    try:
        return msgspec.convert(row, Usage, from_attributes=True)
    except msgspec.ValidationError as error:
        raise StoreError(f"usage {row.request} in the store cannot be read: {error}") from error


def _whole_sum(column: ColumnElement[int]) -> ColumnElement[int]:
    return sqlalchemy.cast(func.sum(column), BigInteger)  # PostgreSQL's sums are decimals
