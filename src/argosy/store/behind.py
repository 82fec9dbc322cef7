"""Records written behind whoever makes them: by one thread, in batches, each exactly once.

Owns waiting, retrying and giving up. What a record is, and how a batch of them is inserted, is left
to `usage.py` and `decisions.py`: an insert leaves out what is there already, for a commit whose
reply was lost is tried again.
"""

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from argosy.store.errors import FencedError
from argosy.store.schema import store_fault

BATCH_RECORDS = 500  # of one transaction: 500 share one fsync
BATCH_EVERY_S = 0.2  # what a crash of the process may lose
RETRY_AFTER_S = 0.1  # after the first failure; doubles, with jitter, up to RETRY_AFTER_S_MAX
RETRY_AFTER_S_MAX = 5.0

# What says that a record, not the database, is at fault: a number of more than 64 bits, NaN.
BAD_RECORD_ERRORS = (IntegrityError, DataError, OverflowError, ValueError, TypeError)

_Record = TypeVar("_Record")

logger = logging.getLogger(__name__)


class WriterBehind(Generic[_Record]):
    """Takes records at no cost to the caller; a thread of its own makes them durable.

    A record that the database refuses for the time being waits in memory; `close` writes all.
    `insert` writes a batch in one transaction and raises what SQLAlchemy raises, a ValueError or
    the like where a record is at fault, or FencedError: then the writer ends, and drops what waits.
    """

    def __init__(
        self,
        insert: Callable[[list[_Record]], None],
        *,
        noun: str,
        chance: random.Random | None = None,
    ) -> None:
        self._insert = insert
        self._noun = noun  # of one record, for the log
        self._chance = chance or random.Random()
        self._waiting: deque[_Record] = deque()  # a record leaves when it is durable
        self._failures = 0  # in a row
        self._unwritable = 0
        self._fenced: FencedError | None = None
        self._wake = threading.Event()  # a batch is full, or the writer closes
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{noun}-writer", daemon=True)
        self._thread.start()

    def write(self, record: _Record) -> None:
        """Take the record: no I/O, no waiting. RuntimeError after `close`."""
        if self._closing.is_set():
            raise RuntimeError(f"the {self._noun} writer is closed; it was given {record!r}")
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
            logger.error(
                "%d %s records are lost: the store took none", len(self._waiting), self._noun
            )

    @property
    def unwritten(self) -> int:
        """Records that are not yet durable."""
        return len(self._waiting)

    @property
    def unwritable(self) -> int:
        """Records that no database would take; each was logged in full."""
        return self._unwritable

    @property
    def failures(self) -> int:
        """Attempts in a row that failed."""
        return self._failures

    @property
    def fenced(self) -> FencedError | None:
        """Why the writer ended before its `close`."""
        return self._fenced

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
                self._insert(batch)
            except BAD_RECORD_ERRORS:
                self._write_one_by_one(batch)
        except SQLAlchemyError as error:
            self._back_off(error)
            return
        except FencedError as error:
            self._end(error)
            return
        for _ in batch:
            self._waiting.popleft()
        if self._failures:
            logger.warning(
                "%s records are written again, after %d failed attempts",
                self._noun,
                self._failures,
            )
            self._failures = 0

    def _write_one_by_one(self, batch: list[_Record]) -> None:
        """So that one record that cannot be stored does not hold up all that follow it."""
        unwritable: list[tuple[_Record, Exception]] = []
        for record in batch:
            try:
                self._insert([record])
            except BAD_RECORD_ERRORS as error:
                unwritable.append((record, error))
        for record, error in unwritable:
            logger.error("%s record cannot be stored (%s): %r", self._noun, error, record)
        self._unwritable += len(unwritable)

    def _back_off(self, error: SQLAlchemyError) -> None:
        self._failures += 1
        if self._failures == 1:
            logger.warning(
                "%s records cannot be written, %d wait in memory: the store %s",
                self._noun,
                len(self._waiting),
                store_fault(error),
            )
        delay_s = min(RETRY_AFTER_S * 2 ** min(self._failures - 1, 10), RETRY_AFTER_S_MAX)
        sooner = self._abandoned if self._closing.is_set() else self._closing
        sooner.wait(delay_s * self._chance.uniform(0.5, 1.0))

    def _end(self, error: FencedError) -> None:
        dropped = len(self._waiting)
        for _ in range(dropped):
            self._waiting.popleft()
        if self._fenced is None:
            told = "%s records are written no more, %d dropped: %s"
            logger.warning(told, self._noun, dropped, error)
        self._fenced = error
