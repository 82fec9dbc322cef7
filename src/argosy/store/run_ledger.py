"""The ledger of a training run: every block leased to one island at a time, and counted once.

Owns the books: whose lease is open, which contribution was accepted, what a round took. Each entry
is one transaction, checked against the token of the syncer's lease on the run; what it returns is
durable. When a round closes, whom to trust and how much to lease is decided by others.

A block is free (in `freed`, or from `frontier` on), in one open lease, or done; nothing else.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import sqlalchemy
from sqlalchemy import Connection, Engine

from argosy.fleet.messages import Message
from argosy.store.control import Fenced
from argosy.store.errors import StoreError
from argosy.store.rows import put_rows, storable
from argosy.store.runs import (
    ContributionRecord,
    IslandRecord,
    LeaseRecord,
    RoundRecord,
    RoundSettings,
    RunRecord,
    RunState,
    Seed,
    Spans,
    Weighed,
    json_text,
    record_of,
    run_record,
)
from argosy.store.schema import (
    clock_s,
    place_of,
    run_contribution_table,
    run_island_table,
    run_lease_table,
    run_point_table,
    run_round_table,
    run_table,
    store_errors,
)

Code = Literal["stale_epoch", "replayed", "too_stale", "unknown_lease", "damaged", "unlike", "over"]


class Sent(Message, frozen=True, kw_only=True):
    """A contribution as an island claims it."""

    island: str
    epoch: int
    number: int
    base_version: int
    lease: str
    steps: int
    blocks: int
    loss: float
    fragments: tuple[str, ...]
    tokens_sha256: str


class Booked(Message, frozen=True, kw_only=True):
    """It is in the ledger, with its blocks done; `is_new` is False where it was there already."""

    contribution: ContributionRecord
    is_new: bool


class Declined(Message, frozen=True, kw_only=True):
    """It counts for nothing; its blocks, where they were its own, are free again."""

    code: Code
    reason: str


class Noted(Message, frozen=True, kw_only=True):
    """What is known of an island apart from its deltas."""

    island: str
    epoch: int
    steps_per_s: float | None
    waited_s: float
    bytes_in: int
    bytes_out: int


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
        self._fenced = Fenced(engine, lease_name(run), token)

    def record(self) -> RunRecord:
        """As it stands."""
        with self._write() as (_, record):
            return record

    # Islands.

    def join(self, island: str, steps_per_s: float | None) -> int:
        """Its new epoch; what its earlier lives had leased is free again."""
        with self._write() as (connection, record):
            self._free(connection, record, island=island)
            row = self._island(connection, island)
            now_s = clock_s(connection)
            epoch = 1 if row is None else row.epoch + 1
            self._put_island(
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
            row = self._island(connection, island)
            if row is None or row.epoch != epoch:
                return 0
            freed = self._free(connection, record, island=island)
            self._put_island(connection, msgspec.structs.replace(row, state=state))
        return freed

    def note(self, islands: Iterable[Noted]) -> None:
        """That they live, how fast they are, how long they waited."""
        with self._write() as (connection, _):
            now_s = clock_s(connection)
            for noted in islands:
                row = self._island(connection, noted.island)
                if row is not None and row.epoch == noted.epoch:
                    changes = msgspec.structs.asdict(noted)
                    self._put_island(
                        connection,
                        msgspec.structs.replace(row, **changes, state="live", beat_at_s=now_s),
                    )

    def epoch(self, island: str) -> int:
        """Of its newest life; 0: it never joined."""
        with self._write() as (connection, _):
            row = self._island(connection, island)
        return 0 if row is None else row.epoch

    # Leases.

    def grant(self, island: str, epoch: int, *, blocks: int) -> LeaseRecord | None:
        """At most so many blocks, in whole steps, freed ones first; None: none are free.

        None, too, where the epoch is not the island's newest.
        """
        with self._write() as (connection, record):
            row = self._island(connection, island)
            if row is None or row.epoch != epoch or record.state in ("finished", "stopped"):
                return None
            wanted = max(1, blocks // record.blocks_a_step) * record.blocks_a_step
            spans, freed, frontier = _taken(record, wanted)
            if not spans:
                return None
            lease = LeaseRecord(
                lease=f"{island}-{epoch}-{spans[0][0]}-{self._serial(connection)}",
                island=island,
                epoch=epoch,
                spans=spans,
                blocks=_count(spans),
                state="open",
                granted_at_s=clock_s(connection),
            )
            self._insert(connection, run_lease_table, lease)
            self._update_run(connection, freed=json_text(freed), frontier=frontier)
        return lease

    def open_leases(self) -> list[LeaseRecord]:
        """All, in the order in which they were granted."""
        with self._write() as (connection, _):
            return self._open_leases(connection)

    # Contributions.

    def accept(self, sent: Sent, *, staleness_max: int) -> Booked | Declined:
        """Its blocks are done, or it is declined; the same one sent again gets the same answer.

        Stale is what was trained without rounds that others made: those that an island's own
        earlier deltas went into while it sent this one are no news to it.
        """
        with self._write() as (connection, record):
            row = self._island(connection, sent.island)
            before = self._contribution(connection, sent)
            declined = _impostor(sent, row, before)
            if declined is not None or row is None:
                return declined or Declined(code="stale_epoch", reason=f"no {sent.island} joined")
            if before is not None:
                return _as_before(before)
            lease = self._lease(connection, sent.lease)
            declined = _fault(sent, record, lease) or _too_stale(
                sent, record, self._own_rounds(connection, sent), staleness_max
            )
            booked = self._book(connection, sent, declined)
            self._put_island(
                connection,
                msgspec.structs.replace(
                    row,
                    number=sent.number,
                    blocks_done=row.blocks_done + (0 if declined else sent.blocks),
                ),
            )
            if declined is not None:
                if lease is not None and lease.state == "open" and _is_own(sent, lease):
                    self._free(connection, record, lease=lease.lease)
                return declined
            self._close_lease(connection, sent.lease, "done")
            done = record.blocks_done + sent.blocks
            self._update_run(connection, blocks_done=done)
            self._point(connection, sent, "training", done, record.version or 0)
        return Booked(contribution=booked, is_new=True)

    def decline(self, sent: Sent, *, code: Code, reason: str) -> Declined:
        """What the syncer found wrong with its bytes; its blocks are free again."""
        with self._write() as (connection, record):
            row = self._island(connection, sent.island)
            before = self._contribution(connection, sent)
            declined = _impostor(sent, row, before)
            if declined is not None or row is None or before is not None:
                return declined or Declined(code=code, reason=reason)
            declined = Declined(code=code, reason=reason)
            self._book(connection, sent, declined)
            self._put_island(connection, msgspec.structs.replace(row, number=sent.number))
            lease = self._lease(connection, sent.lease)
            if lease is not None and lease.state == "open" and _is_own(sent, lease):
                self._free(connection, record, lease=lease.lease)
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
            self._update_run(connection, version=0, seed=json_text(seed))
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
                self._settle(connection, one, state="merged", version=version, reason="")
            blocks = record.blocks_done
            for one, why in distrusted:
                self._settle(connection, one, state="refused", version=version, reason=why)
                record = self._reopen(connection, record, one)
                blocks -= one.blocks
            closed = RoundRecord(
                version=version,
                contributions=tuple(taken),
                settings=settings,
                reason=storable(reason),
                blocks_done=blocks,
                at_s=clock_s(connection),
            )
            self._insert(connection, run_round_table, closed)
            self._update_run(connection, version=version, blocks_done=blocks)
        return closed

    def set_state(self, state: RunState) -> None:
        """What the run does from now on."""
        with self._write() as (connection, _):
            ended_at_s = clock_s(connection) if state in ("finished", "stopped") else None
            self._update_run(connection, state=state, ended_at_s=ended_at_s)

    def note_loss(self, island: str, version: int, loss: float) -> None:
        """On the blocks that are kept back, with the parameters of that version."""
        with self._write() as (connection, record):
            point = Sent(
                island=island,
                epoch=0,
                number=0,
                base_version=version,
                lease="",
                steps=0,
                blocks=0,
                loss=loss,
                fragments=(),
                tokens_sha256="",
            )
            self._point(connection, point, "validation", record.blocks_done, version)

    # Rows.

    @contextmanager
    def _write(self) -> Iterator[tuple[Connection, RunRecord]]:
        """A transaction of the syncer that has the run's row to itself."""
        with store_errors(place_of(self._engine)), self._fenced.writing() as connection:
            record = run_record(connection, self._run, for_update=True)
            if record is None:
                raise StoreError(f"the run {self._run} is not in the store any more")
            yield connection, record

    def _update_run(self, connection: Connection, **values: object) -> None:
        connection.execute(
            sqlalchemy.update(run_table).where(run_table.c.run == self._run).values(**values)
        )

    def _insert(self, connection: Connection, table: sqlalchemy.Table, row: Message) -> None:
        values: dict[str, Any] = {
            name: value if isinstance(value, str | int | float | None) else json_text(value)
            for name, value in msgspec.structs.asdict(row).items()
        }
        put_rows(
            connection,
            table,
            columns=("run", *values),
            rows=[(self._run, *values.values())],
        )

    def _island(self, connection: Connection, island: str) -> IslandRecord | None:
        columns = run_island_table.c
        row = connection.execute(
            sqlalchemy.select(run_island_table).where(
                columns.run == self._run, columns.island == island
            )
        ).first()
        return None if row is None else record_of(row, IslandRecord)

    def _put_island(self, connection: Connection, row: IslandRecord) -> None:
        self._insert(connection, run_island_table, row)

    def _lease(self, connection: Connection, lease: str) -> LeaseRecord | None:
        columns = run_lease_table.c
        row = connection.execute(
            sqlalchemy.select(run_lease_table).where(
                columns.run == self._run, columns.lease == lease
            )
        ).first()
        return None if row is None else record_of(row, LeaseRecord)

    def _open_leases(self, connection: Connection) -> list[LeaseRecord]:
        columns = run_lease_table.c
        query = (
            sqlalchemy.select(run_lease_table)
            .where(columns.run == self._run, columns.state == "open")
            .order_by(columns.granted_at_s, columns.lease)
        )
        return [record_of(row, LeaseRecord) for row in connection.execute(query)]

    def _serial(self, connection: Connection) -> int:
        """Leases before this one: two of the same span differ."""
        columns = run_lease_table.c
        count = sqlalchemy.select(sqlalchemy.func.count()).where(columns.run == self._run)
        return connection.execute(count).scalar_one()

    def _close_lease(self, connection: Connection, lease: str, state: str) -> None:
        columns = run_lease_table.c
        connection.execute(
            sqlalchemy.update(run_lease_table)
            .where(columns.run == self._run, columns.lease == lease)
            .values(state=state)
        )

    def _free(
        self,
        connection: Connection,
        record: RunRecord,
        *,
        island: str | None = None,
        lease: str | None = None,
    ) -> int:
        """Open leases of that island, or of that name, are void; their blocks are free again."""
        ended = [
            one
            for one in self._open_leases(connection)
            if island == one.island or lease == one.lease
        ]
        for one in ended:
            self._close_lease(connection, one.lease, "void")
        spans = [span for one in ended for span in one.spans]
        if spans:
            freed = _merged([*record.freed, *spans])
            self._update_run(connection, freed=json_text(freed))
        return _count(spans)

    def _contribution(self, connection: Connection, sent: Sent) -> ContributionRecord | None:
        row = connection.execute(
            sqlalchemy.select(run_contribution_table).where(*self._key(sent))
        ).first()
        return None if row is None else record_of(row, ContributionRecord)

    def _own_rounds(self, connection: Connection, sent: Sent) -> int:
        """Rounds since its base that took earlier deltas of this life."""
        columns = run_contribution_table.c
        rounds = sqlalchemy.func.count(sqlalchemy.distinct(columns.version))
        query = sqlalchemy.select(rounds).where(
            columns.run == self._run,
            columns.island == sent.island,
            columns.epoch == sent.epoch,
            columns.version > sent.base_version,
        )
        return connection.execute(query).scalar_one()

    def _key(
        self, one: Sent | Weighed | ContributionRecord
    ) -> list[sqlalchemy.ColumnElement[bool]]:
        columns = run_contribution_table.c
        return [
            columns.run == self._run,
            columns.island == one.island,
            columns.epoch == one.epoch,
            columns.number == one.number,
        ]

    def _book(
        self, connection: Connection, sent: Sent, declined: Declined | None
    ) -> ContributionRecord:
        row = ContributionRecord(
            **msgspec.structs.asdict(sent),
            state="accepted" if declined is None else "refused",
            version=None,
            reason="" if declined is None else storable(f"{declined.code}: {declined.reason}"),
            at_s=clock_s(connection),
        )
        self._insert(connection, run_contribution_table, row)
        return row

    def _settle(
        self, connection: Connection, one: Weighed | ContributionRecord, **values: object
    ) -> None:
        connection.execute(
            sqlalchemy.update(run_contribution_table).where(*self._key(one)).values(**values)
        )

    def _reopen(
        self, connection: Connection, record: RunRecord, one: ContributionRecord
    ) -> RunRecord:
        """Blocks that were done are free again: their delta is not trusted."""
        lease = self._lease(connection, one.lease)
        row = self._island(connection, one.island)
        if lease is None or row is None:
            return record
        self._close_lease(connection, one.lease, "void")
        self._put_island(
            connection, msgspec.structs.replace(row, blocks_done=row.blocks_done - one.blocks)
        )
        freed = _merged([*record.freed, *lease.spans])
        self._update_run(connection, freed=json_text(freed))
        return msgspec.structs.replace(record, freed=freed)

    def _point(
        self, connection: Connection, sent: Sent, kind: str, blocks_done: int, version: int
    ) -> None:
        columns = run_point_table.c
        last = connection.execute(
            sqlalchemy.select(sqlalchemy.func.max(columns.seq)).where(columns.run == self._run)
        ).scalar()
        names = ("run", "seq", "at_s", "kind", "island", "version", "blocks_done", "loss")
        row = (self._run, (last or 0) + 1, clock_s(connection), kind, sent.island, version)
        put_rows(connection, run_point_table, columns=names, rows=[(*row, blocks_done, sent.loss)])


def _impostor(
    sent: Sent, row: IslandRecord | None, before: ContributionRecord | None
) -> Declined | None:
    """Why it is not what this island's newest life sends next; nothing is noted of it."""
    if row is None or row.epoch != sent.epoch:
        now = "never joined" if row is None else f"is at epoch {row.epoch}"
        return Declined(
            code="stale_epoch",
            reason=f"{sent.island} contributes under epoch {sent.epoch}, but {now}: join anew",
        )
    if before is not None and sent.number == row.number and _is_same(sent, before):
        return None
    if sent.number <= row.number:
        return Declined(
            code="replayed",
            reason=f"number {sent.number} of {sent.island} is over: the last was {row.number},"
            f" the next is {row.number + 1}",
        )
    return None


def _is_same(sent: Sent, before: ContributionRecord) -> bool:
    return all(
        getattr(sent, name) == getattr(before, name)
        for name in ("lease", "base_version", "steps", "blocks", "fragments", "tokens_sha256")
    )


def _as_before(before: ContributionRecord) -> Booked | Declined:
    if before.state != "refused" or before.version is not None:
        return Booked(contribution=before, is_new=False)  # distrusted by a round: settled there
    code, _, reason = before.reason.partition(": ")
    return Declined(code=msgspec.convert(code, Code), reason=reason)


def _fault(sent: Sent, record: RunRecord, lease: LeaseRecord | None) -> Declined | None:
    if lease is None or lease.state != "open" or not _is_own(sent, lease):
        what = "was never granted to it" if lease is None else f"is {lease.state}"
        return Declined(
            code="unknown_lease",
            reason=f"the lease {sent.lease} {what}: it was silent for too long, or its delta is"
            " counted already. Take the delta back and ask for another lease",
        )
    if sent.blocks != lease.blocks or sent.steps * record.blocks_a_step != sent.blocks:
        return Declined(
            code="unlike",
            reason=f"{sent.steps} steps on {sent.blocks} blocks were sent for a lease of"
            f" {lease.blocks} blocks, {record.blocks_a_step} a step",
        )
    newest = record.version
    if newest is None or sent.base_version > newest:
        return Declined(
            code="unlike",
            reason=f"its base is version {sent.base_version}; the newest is {newest}",
        )
    return None


def _too_stale(
    sent: Sent, record: RunRecord, own_rounds: int, staleness_max: int
) -> Declined | None:
    behind = (record.version or 0) - sent.base_version - own_rounds
    if behind <= staleness_max:
        return None
    return Declined(
        code="too_stale",
        reason=f"its base is version {sent.base_version}, {behind} of others' rounds behind the"
        f" newest, {record.version}; at most {staleness_max} are allowed (outer.staleness_max)",
    )


def _is_own(sent: Sent, lease: LeaseRecord) -> bool:
    return lease.island == sent.island and lease.epoch == sent.epoch


def _taken(record: RunRecord, wanted: int) -> tuple[Spans, Spans, int]:
    """Spans of at most `wanted` blocks; then what stays freed, and the frontier."""
    spans: list[tuple[int, int]] = []
    freed: list[tuple[int, int]] = []
    left = wanted
    for start, stop in record.freed:
        middle = min(stop, start + left)
        if middle > start:
            spans.append((start, middle))
            left -= middle - start
        if stop > middle:
            freed.append((middle, stop))
    frontier = min(record.blocks, record.frontier + left)
    if frontier > record.frontier:
        spans.append((record.frontier, frontier))
    return tuple(spans), tuple(freed), frontier


def _merged(spans: Iterable[tuple[int, int]]) -> Spans:
    """In order, neighbours joined."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)


def _count(spans: Iterable[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in spans)
