"""What a control plane leaves for the next one: records, wanted numbers, the table, the fleet file.

Owns that only the newest leader writes: each write checks its token in its own transaction, which
holds up whoever would take the lease until it is committed. So a leader that was paused or cut off,
and replaced, writes nothing, however late it wakes. What records say is the control plane's
business: here they are bytes.

A fleet's lease goes by the fleet's name.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import sqlalchemy
from sqlalchemy import Connection, Engine

from argosy.fleet.messages import Message
from argosy.store.errors import FencedError
from argosy.store.rows import pages_of, put_rows, storable
from argosy.store.schema import (
    clock_s,
    lease_table,
    place_of,
    published_table,
    record_table,
    spec_table,
    store_errors,
    writing,
)

SPECS_MAX = 200  # applied fleet files that are kept

_Kind = Literal["replica", "wanted", "kept"]


class Published(Message, frozen=True, kw_only=True):
    """The last replica table."""

    version: int
    at_s: float  # Unix time, by the database's clock
    table: bytes  # JSON


class AppliedSpec(Message, frozen=True, kw_only=True):
    """A fleet file as it was applied."""

    revision: int  # 1, 2, ...
    at_s: float  # Unix time, by the database's clock
    by: str
    sha256: str
    text: str


class Fenced:
    """One leader's hand on the store. Everything raises StoreError; what writes, FencedError too.

    A StoreError may hide that the write was done: its answer was lost. Every write may be repeated.
    """

    def __init__(self, engine: Engine, fleet: str, token: int) -> None:
        self._engine = engine
        self.fleet = fleet
        self.token = token

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction of the leader: FencedError, and nothing is written, when it is none."""
        with writing(self._engine) as connection:
            self._check(connection)
            yield connection

    # Replicas: one record each, by name.

    def save(self, records: Mapping[str, bytes], removed: Iterable[str] = ()) -> None:
        """Write these, forget those, in one transaction."""
        with self._write() as connection:
            _put(connection, self.fleet, "replica", records)
            _remove(connection, self.fleet, "replica", removed)

    def load(self) -> dict[str, bytes]:
        """All records, whoever wrote them."""
        return load(self._engine, self.fleet)

    # What is wanted, by deployment: an operator's word, or the autoscaler's target.

    def set_wanted(self, name: str, wanted: bytes | None) -> None:
        """Note what is wanted of it (JSON); None: nothing in particular any more."""
        self._set("wanted", name, wanted)

    def wanted(self) -> dict[str, bytes]:
        """What is wanted, by name."""
        return wanted(self._engine, self.fleet)

    # The control plane's own memory.

    def keep(self, name: str, body: bytes | None) -> None:
        """Keep something else for the next leader, e.g. a demand's history; None: forget it."""
        self._set("kept", name, body)

    def kept(self) -> dict[str, bytes]:
        """All that was kept, by name."""
        return _read(self._engine, self.fleet, "kept")

    # The replica table.

    def publish(self, table: bytes, version: int) -> None:
        """The table that gateways are to route by from now on, in the place of the one before.

        Its version is above all published before it. ValueError when it is not, but for the same
        table once more.
        """
        with self._write() as connection:
            last = connection.execute(
                sqlalchemy.select(published_table.c.version).where(
                    published_table.c.fleet == self.fleet
                )
            ).scalar()
            if last is not None and version <= last:
                if version == last and _is_published(connection, self.fleet, table):
                    return
                raise ValueError(
                    f"table {version} of {self.fleet} comes after table {last}."
                    " A new leader goes on from published().version"
                )
            put_rows(
                connection,
                published_table,
                columns=("fleet", "version", "at_s", "body"),
                rows=[(self.fleet, version, clock_s(connection), table)],
            )

    def published(self) -> Published | None:
        """The last table, whoever published it; None: none yet."""
        return published(self._engine, self.fleet)

    # The fleet file.

    def put_spec(self, text: str, *, by: str) -> AppliedSpec:
        """Note that this fleet file holds from now on; the one that holds already is noted once."""
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        with self._write() as connection:
            last = connection.execute(_select_specs(self.fleet).limit(1)).first()
            if last is not None and last.sha256 == sha256:
                return _spec(last)
            applied = AppliedSpec(
                revision=1 if last is None else last.revision + 1,
                at_s=clock_s(connection),
                by=storable(by),
                sha256=sha256,
                text=storable(text),
            )
            _insert_spec(connection, self.fleet, applied)
        return applied

    def spec(self) -> AppliedSpec | None:
        """The fleet file that holds; None: none was applied yet."""
        return next(iter(specs(self._engine, self.fleet, limit=1)), None)

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with store_errors(place_of(self._engine)), self.writing() as connection:
            yield connection

    def _set(self, kind: _Kind, name: str, body: bytes | None) -> None:
        with self._write() as connection:
            if body is None:
                _remove(connection, self.fleet, kind, [name])
            else:
                _put(connection, self.fleet, kind, {name: body})

    def _check(self, connection: Connection) -> None:
        # FOR SHARE: whoever takes or releases the lease waits until this transaction has ended.
        row = connection.execute(
            sqlalchemy.select(lease_table.c.token, lease_table.c.holder)
            .where(lease_table.c.name == self.fleet)
            .with_for_update(read=True)
        ).first()
        if row is None or row.token != self.token:
            now = "nobody has had it" if row is None else f"{row.holder or 'nobody'} has it now"
            token = 0 if row is None else row.token
            raise FencedError(
                f"the lease of {self.fleet} with token {self.token} is over: {now}, token {token}."
                " This control plane was paused or cut off for longer than its lease lasted, or"
                " let it go. Nothing was written; acquire the lease anew before any other act"
            )


def load(engine: Engine, fleet: str) -> dict[str, bytes]:
    """The replicas' records, by name. Raises StoreError."""
    return _read(engine, fleet, "replica")


def wanted(engine: Engine, fleet: str) -> dict[str, bytes]:
    """What operators and the autoscaler want, by name. Raises StoreError."""
    return _read(engine, fleet, "wanted")


def published(engine: Engine, fleet: str, *, newer_than: int | None = None) -> Published | None:
    """The last replica table; None: none, or none above version `newer_than`. Raises StoreError.

    Asked with the version that is known, four times a second, it costs a look at one row's number.
    """
    query = sqlalchemy.select(published_table).where(published_table.c.fleet == fleet)
    if newer_than is not None:
        query = query.where(published_table.c.version > newer_than)
    with store_errors(place_of(engine)), engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else Published(version=row.version, at_s=row.at_s, table=row.body)


def specs(engine: Engine, fleet: str, *, limit: int) -> list[AppliedSpec]:
    """The last applied fleet files, newest first. Raises StoreError."""
    with store_errors(place_of(engine)), engine.connect() as connection:
        return [_spec(row) for row in connection.execute(_select_specs(fleet).limit(limit))]


def _put(connection: Connection, fleet: str, kind: _Kind, bodies: Mapping[str, bytes]) -> None:
    rows = [(fleet, kind, name, body) for name, body in bodies.items()]
    put_rows(connection, record_table, columns=("fleet", "kind", "name", "body"), rows=rows)


def _remove(connection: Connection, fleet: str, kind: _Kind, names: Iterable[str]) -> None:
    columns = record_table.c
    for page in pages_of(names):
        connection.execute(
            sqlalchemy.delete(record_table).where(
                columns.fleet == fleet, columns.kind == kind, columns.name.in_(page)
            )
        )


def _read(engine: Engine, fleet: str, kind: _Kind) -> dict[str, bytes]:
    columns = record_table.c
    query = (
        sqlalchemy.select(columns.name, columns.body)
        .where(columns.fleet == fleet, columns.kind == kind)
        .order_by(columns.name)
    )
    with store_errors(place_of(engine)), engine.connect() as connection:
        return {row.name: row.body for row in connection.execute(query)}


def _is_published(connection: Connection, fleet: str, table: bytes) -> bool:
    query = sqlalchemy.select(published_table.c.body).where(published_table.c.fleet == fleet)
    return connection.execute(query).scalar() == table


def _select_specs(fleet: str) -> sqlalchemy.Select[tuple[object, ...]]:
    columns = spec_table.c
    return (
        sqlalchemy.select(spec_table)
        .where(columns.fleet == fleet)
        .order_by(columns.revision.desc())
    )


def _insert_spec(connection: Connection, fleet: str, applied: AppliedSpec) -> None:
    columns = spec_table.c
    connection.execute(
        sqlalchemy.insert(spec_table).values(
            fleet=fleet,
            revision=applied.revision,
            at_s=applied.at_s,
            applied_by=applied.by,
            sha256=applied.sha256,
            text=applied.text,
        )
    )
    connection.execute(
        sqlalchemy.delete(spec_table).where(
            columns.fleet == fleet, columns.revision <= applied.revision - SPECS_MAX
        )
    )


def _spec(row: sqlalchemy.Row[tuple[object, ...]]) -> AppliedSpec:
    return AppliedSpec(
        revision=row.revision, at_s=row.at_s, by=row.applied_by, sha256=row.sha256, text=row.text
    )
