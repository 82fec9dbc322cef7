"""The ledger of a training run: every block leased to one island at a time, and counted once.

Owns the books: whose lease is open, which contribution was accepted, what a round took. Each entry
is one transaction, checked against the token of the syncer's lease on the run; what it returns is
durable. When a round closes, whom to trust and how much to lease is decided by others.

A block is free (in `freed`, or from `frontier` on), in one open lease, or done; nothing else.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec
import sqlalchemy
from sqlalchemy import Connection, Engine

from argosy.store.control import Fenced
from argosy.store.errors import StoreError
from argosy.store.rows import storable
from argosy.store.run_claims import (
    Booked,
    Code,
    Declined,
    Noted,
    as_before,
    count_of,
    fault_of,
    impostor,
    is_own,
    taken_from,
    too_stale,
)
from argosy.store.run_rows import RunRows
from argosy.store.runs import (
    ContributionRecord,
    IslandRecord,
    LeaseRecord,
    RoundRecord,
    RoundSettings,
    RunRecord,
    RunState,
    Seed,
    Sent,
    Weighed,
    json_text,
    record_of,
    run_record,
)
from argosy.store.schema import (
    clock_s,
    place_of,
    run_contribution_table,
    run_lease_table,
    run_round_table,
    store_errors,
)


def lease_name(run: str) -> str:
    """Of the store's lease that a run's syncer holds."""
    return f"run/{run}"


class Ledger:
    """The syncer's hand on the books. Everything raises StoreError, and FencedError once fenced.

    A StoreError may hide that an entry was made: its answer was lost. Every entry may be repeated.
    """

    def __init__(self, engine: Engine, run: str, token: int) -> None:
        self._engine = engine
        self._run = run
        self._rows = RunRows(run)
        self._fenced = Fenced(engine, lease_name(run), token)

    def record(self) -> RunRecord:
        """As it stands."""
        with self._write() as (_, record):
            return record

    # Islands.

    def join(self, island: str, steps_per_s: float | None) -> int:
        """Its new epoch; what its earlier lives had leased is free again."""
        with self._write() as (connection, record):
            self._rows.free(connection, record, island=island)
            row = self._rows.island(connection, island)
            now_s = clock_s(connection)
            epoch = 1 if row is None else row.epoch + 1
            self._rows.put_island(
                connection,
                IslandRecord(
                    island=island,
                    epoch=epoch,
                    state="live",
                    number=0,
                    joined_at_s=now_s,
                    beat_at_s=now_s,
                    steps_per_s=steps_per_s,
                    waited_s=0.0,
                    blocks_done=0 if row is None else row.blocks_done,
                    bytes_in=0 if row is None else row.bytes_in,
                    bytes_out=0 if row is None else row.bytes_out,
                ),
            )
        return epoch

    def part(self, island: str, epoch: int, *, state: Literal["silent", "left"]) -> int:
        """It fell silent, or left: how many of its blocks are free again."""
        with self._write() as (connection, record):
            row = self._rows.island(connection, island)
            if row is None or row.epoch != epoch:
                return 0
            freed = self._rows.free(connection, record, island=island)
            self._rows.put_island(connection, msgspec.structs.replace(row, state=state))
        return freed

    def note(self, islands: Iterable[Noted]) -> None:
        """That they live, how fast they are, how long they waited."""
        with self._write() as (connection, _):
            now_s = clock_s(connection)
            for noted in islands:
                row = self._rows.island(connection, noted.island)
                if row is not None and row.epoch == noted.epoch:
                    changes = msgspec.structs.asdict(noted)
                    self._rows.put_island(
                        connection,
                        msgspec.structs.replace(row, **changes, state="live", beat_at_s=now_s),
                    )

    def epoch(self, island: str) -> int:
        """Of its newest life; 0: it never joined."""
        with self._write() as (connection, _):
            row = self._rows.island(connection, island)
        return 0 if row is None else row.epoch

    # Leases.

    def grant(self, island: str, epoch: int, *, blocks: int) -> LeaseRecord | None:
        """At most so many blocks, in whole steps, freed ones first; None: none are free.

        None, too, where the epoch is not the island's newest.
        """
        with self._write() as (connection, record):
            row = self._rows.island(connection, island)
            if row is None or row.epoch != epoch or record.state in ("finished", "stopped"):
                return None
            wanted = max(1, blocks // record.blocks_a_step) * record.blocks_a_step
            spans, freed, frontier = taken_from(record, wanted)
            if not spans:
                return None
            lease = LeaseRecord(
                lease=f"{island}-{epoch}-{spans[0][0]}-{self._rows.serial(connection)}",
                island=island,
                epoch=epoch,
                spans=spans,
                blocks=count_of(spans),
                state="open",
                granted_at_s=clock_s(connection),
            )
            self._rows.insert(connection, run_lease_table, lease)
            self._rows.update_run(connection, freed=json_text(freed), frontier=frontier)
        return lease

    def open_leases(self) -> list[LeaseRecord]:
        """All, in the order in which they were granted."""
        with self._write() as (connection, _):
            return self._rows.open_leases(connection)

    # Contributions.

    def accept(self, sent: Sent, *, staleness_max: int) -> Booked | Declined:
        """Its blocks are done, or it is declined; the same one sent again gets the same answer.

        Stale is what was trained without rounds that others made: those that an island's own
        earlier deltas went into while it sent this one are no news to it.
        """
        with self._write() as (connection, record):
            row = self._rows.island(connection, sent.island)
            before = self._rows.contribution(connection, sent)
            declined = impostor(sent, row, before)
            if declined is not None or row is None:
                return declined or Declined(code="stale_epoch", reason=f"no {sent.island} joined")
            if before is not None:
                return as_before(before)
            lease = self._rows.lease(connection, sent.lease)
            declined = fault_of(sent, record, lease) or too_stale(
                sent, record, self._rows.own_rounds(connection, sent), staleness_max
            )
            booked = self._rows.book(connection, sent, declined)
            self._rows.put_island(
                connection,
                msgspec.structs.replace(
                    row,
                    number=sent.number,
                    blocks_done=row.blocks_done + (0 if declined else sent.blocks),
                ),
            )
            if declined is not None:
                if lease is not None and lease.state == "open" and is_own(sent, lease):
                    self._rows.free(connection, record, lease=lease.lease)
                return declined
            self._rows.close_lease(connection, sent.lease, "done")
            done = record.blocks_done + sent.blocks
            self._rows.update_run(connection, blocks_done=done)
            self._rows.point(
                connection,
                "training",
                island=sent.island,
                version=record.version or 0,
                blocks_done=done,
                loss=sent.loss,
            )
        return Booked(contribution=booked, is_new=True)

    def decline(self, sent: Sent, *, code: Code, reason: str) -> Declined:
        """What the syncer found wrong with its bytes; its blocks are free again."""
        with self._write() as (connection, record):
            row = self._rows.island(connection, sent.island)
            before = self._rows.contribution(connection, sent)
            declined = impostor(sent, row, before)
            if declined is not None or row is None or before is not None:
                return declined or Declined(code=code, reason=reason)
            declined = Declined(code=code, reason=reason)
            self._rows.book(connection, sent, declined)
            self._rows.put_island(connection, msgspec.structs.replace(row, number=sent.number))
            lease = self._rows.lease(connection, sent.lease)
            if lease is not None and lease.state == "open" and is_own(sent, lease):
                self._rows.free(connection, record, lease=lease.lease)
        return declined

    def pending(self) -> list[ContributionRecord]:
        """Accepted, and in no version yet; in an order that does not depend on when they came."""
        columns = run_contribution_table.c
        query = (
            sqlalchemy.select(run_contribution_table)
            .where(columns.run == self._run, columns.state == "accepted")
            .order_by(columns.island, columns.epoch, columns.number)
        )
        with self._write() as (connection, _):
            return [record_of(row, ContributionRecord) for row in connection.execute(query)]

    # Versions.

    def seed(self, seed: Seed) -> bool:
        """Version 0 is this; False: there is a version already, and it stays."""
        with self._write() as (connection, record):
            if record.version is not None:
                return False
            self._rows.update_run(connection, version=0, seed=json_text(seed))
        return True

    def close_round(
        self,
        version: int,
        taken: Sequence[Weighed],
        *,
        distrusted: Sequence[tuple[ContributionRecord, str]] = (),
        settings: RoundSettings,
        reason: str,
    ) -> RoundRecord | None:
        """The next version is made of these. None: `version` is not the next one.

        Blocks of what is distrusted (with the reason) are free again.
        """
        with self._write() as (connection, record):
            if record.version is None or version != record.version + 1:
                return None
            for one in taken:
                self._rows.settle(connection, one, state="merged", version=version, reason="")
            blocks = record.blocks_done
            for one, why in distrusted:
                self._rows.settle(connection, one, state="refused", version=version, reason=why)
                record = self._rows.reopen(connection, record, one)
                blocks -= one.blocks
            closed = RoundRecord(
                version=version,
                contributions=tuple(taken),
                settings=settings,
                reason=storable(reason),
                blocks_done=blocks,
                at_s=clock_s(connection),
            )
            self._rows.insert(connection, run_round_table, closed)
            self._rows.update_run(connection, version=version, blocks_done=blocks)
        return closed

    def set_state(self, state: RunState) -> None:
        """What the run does from now on."""
        with self._write() as (connection, _):
            ended_at_s = clock_s(connection) if state in ("finished", "stopped") else None
            self._rows.update_run(connection, state=state, ended_at_s=ended_at_s)

    def note_loss(self, island: str, version: int, loss: float) -> None:
        """On the blocks that are kept back, with the parameters of that version."""
        with self._write() as (connection, record):
            self._rows.point(
                connection,
                "validation",
                island=island,
                version=version,
                blocks_done=record.blocks_done,
                loss=loss,
            )

    @contextmanager
    def _write(self) -> Iterator[tuple[Connection, RunRecord]]:
        """A transaction of the syncer that has the run's row to itself."""
        with store_errors(place_of(self._engine)), self._fenced.writing() as connection:
            record = run_record(connection, self._run, for_update=True)
            if record is None:
                raise StoreError(f"the run {self._run} is not in the store any more")
            yield connection, record
