"""The rows of a training run, read and written inside a transaction that `run_ledger.py` began."""

from typing import Any, Literal

import msgspec
import sqlalchemy
from sqlalchemy import Connection

from argosy.fleet.messages import Message
from argosy.store.rows import put_rows, storable
from argosy.store.run_claims import Declined, count_of, merged
from argosy.store.runs import (
    ContributionRecord,
    IslandRecord,
    LeaseRecord,
    PointRecord,
    RunRecord,
    Sent,
    Weighed,
    json_text,
    record_of,
)
from argosy.store.schema import (
    clock_s,
    run_contribution_table,
    run_island_table,
    run_lease_table,
    run_point_table,
    run_table,
)


class RunRows:
    """Of one run. Errors of the database come through."""

    def __init__(self, run: str) -> None:
        self._run = run

    def update_run(self, connection: Connection, **values: object) -> None:
        """Of the run's own row."""
        connection.execute(
            sqlalchemy.update(run_table).where(run_table.c.run == self._run).values(**values)
        )

    def insert(self, connection: Connection, table: sqlalchemy.Table, row: Message) -> None:
        """Or put it in the place of the one with its key."""
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

    def island(self, connection: Connection, island: str) -> IslandRecord | None:
        """None: it never joined."""
        columns = run_island_table.c
        row = connection.execute(
            sqlalchemy.select(run_island_table).where(
                columns.run == self._run, columns.island == island
            )
        ).first()
        return None if row is None else record_of(row, IslandRecord)

    def put_island(self, connection: Connection, row: IslandRecord) -> None:
        """As it is from now on."""
        self.insert(connection, run_island_table, row)

    def lease(self, connection: Connection, lease: str) -> LeaseRecord | None:
        """None: there is none of that name."""
        columns = run_lease_table.c
        row = connection.execute(
            sqlalchemy.select(run_lease_table).where(
                columns.run == self._run, columns.lease == lease
            )
        ).first()
        return None if row is None else record_of(row, LeaseRecord)

    def open_leases(self, connection: Connection) -> list[LeaseRecord]:
        """In the order in which they were granted."""
        columns = run_lease_table.c
        query = (
            sqlalchemy.select(run_lease_table)
            .where(columns.run == self._run, columns.state == "open")
            .order_by(columns.granted_at_s, columns.lease)
        )
        return [record_of(row, LeaseRecord) for row in connection.execute(query)]

    def serial(self, connection: Connection) -> int:
        """Leases before this one: two of the same span differ."""
        columns = run_lease_table.c
        count = sqlalchemy.select(sqlalchemy.func.count()).where(columns.run == self._run)
        return connection.execute(count).scalar_one()

    def close_lease(self, connection: Connection, lease: str, state: str) -> None:
        """It is done, or void."""
        columns = run_lease_table.c
        connection.execute(
            sqlalchemy.update(run_lease_table)
            .where(columns.run == self._run, columns.lease == lease)
            .values(state=state)
        )

    def free(
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
            for one in self.open_leases(connection)
            if island == one.island or lease == one.lease
        ]
        for one in ended:
            self.close_lease(connection, one.lease, "void")
        spans = [span for one in ended for span in one.spans]
        if spans:
            freed = merged([*record.freed, *spans])
            self.update_run(connection, freed=json_text(freed))
        return count_of(spans)

    def contribution(self, connection: Connection, sent: Sent) -> ContributionRecord | None:
        """The one of that number; None: it never came."""
        row = connection.execute(
            sqlalchemy.select(run_contribution_table).where(*self.key(sent))
        ).first()
        return None if row is None else record_of(row, ContributionRecord)

    def own_rounds(self, connection: Connection, sent: Sent) -> int:
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

    def key(self, one: Sent | Weighed) -> list[sqlalchemy.ColumnElement[bool]]:
        columns = run_contribution_table.c
        return [
            columns.run == self._run,
            columns.island == one.island,
            columns.epoch == one.epoch,
            columns.number == one.number,
        ]

    def book(
        self, connection: Connection, sent: Sent, declined: Declined | None
    ) -> ContributionRecord:
        """As accepted, or as declined."""
        row = ContributionRecord(
            **msgspec.structs.asdict(sent),
            state="accepted" if declined is None else "refused",
            version=None,
            reason="" if declined is None else storable(f"{declined.code}: {declined.reason}"),
            at_s=clock_s(connection),
        )
        self.insert(connection, run_contribution_table, row)
        return row

    def settle(
        self, connection: Connection, one: Weighed | ContributionRecord, **values: object
    ) -> None:
        """What a round made of it."""
        connection.execute(
            sqlalchemy.update(run_contribution_table).where(*self.key(one)).values(**values)
        )

    def reopen(
        self, connection: Connection, record: RunRecord, one: ContributionRecord
    ) -> RunRecord:
        """Blocks that were done are free again: their delta is not trusted."""
        lease = self.lease(connection, one.lease)
        row = self.island(connection, one.island)
        if lease is None or row is None:
            return record
        self.close_lease(connection, one.lease, "void")
        self.put_island(
            connection, msgspec.structs.replace(row, blocks_done=row.blocks_done - one.blocks)
        )
        freed = merged([*record.freed, *lease.spans])
        self.update_run(connection, freed=json_text(freed))
        return msgspec.structs.replace(record, freed=freed)

    def point(
        self,
        connection: Connection,
        kind: Literal["training", "validation"],
        *,
        island: str,
        version: int,
        blocks_done: int,
        loss: float,
    ) -> None:
        """Of the run's curve."""
        columns = run_point_table.c
        last = connection.execute(
            sqlalchemy.select(sqlalchemy.func.max(columns.seq)).where(columns.run == self._run)
        ).scalar()
        point = PointRecord(
            seq=(last or 0) + 1,
            at_s=clock_s(connection),
            kind=kind,
            island=island,
            version=version,
            blocks_done=blocks_done,
            loss=loss,
        )
        self.insert(connection, run_point_table, point)
