"""Leases: who may act, until when, and the token that shuts out whoever acted before.

Owns that no two holders have a lease at once. Times are the database's: hosts' clocks differ. A
holder cannot read that clock without asking, so it believes in its lease for `lasts_s` from the
moment *before it asked*, on its own monotonic clock: less than the database grants. That is a
promise about time, which a process that is paused breaks without knowing it. So each lease has a
token that only grows, and what the holder writes is checked against it: see `control.py`.

A clock that steps back costs the next holder one lease's length more, not the step; one that leaps
forward ends leases early, and then the token alone keeps the old holder from writing.
"""

import math

import msgspec
import sqlalchemy
from sqlalchemy import Connection, Engine, Row

from argosy.fleet.messages import Message
from argosy.store.rows import insert_new
from argosy.store.schema import clock_s, lease_table, place_of, store_errors, writing

_Row = Row[str, str | None, int, float, float]
_Select = sqlalchemy.Select[str, str | None, int, float, float]
_DRIFT = 0.001
_CLOCK_STEP_S = 0.002
_COLUMNS = ("name", "holder", "token", "granted_at_s", "expires_at_s")


class Lease(Message, frozen=True, kw_only=True):
    """Yours, for `lasts_s` from the moment before you asked."""

    name: str
    holder: str
    token: int  # grows with each change of holder, and never goes back
    lasts_s: float  # renewed after a third of it, it outlives a restart of the database
    granted_at_s: float  # Unix time, by the database's clock
    expires_at_s: float  # a little later than it lasts, see `_granted`


class Held(Message, frozen=True, kw_only=True):
    """Not yours."""

    name: str
    holder: str | None  # the last one; None: it was released, or never held
    token: int
    free_in_s: float  # 0: whoever asks now gets it


def acquire(
    engine: Engine, name: str, holder: str, *, ttl_s: float, now_s: float | None = None
) -> Lease | Held:
    """Take the lease if it is free. `now_s` is for tests: else the database's clock counts.

    `holder` names one process and no other, e.g. "HOST:PID:CHANCE". Whoever asks for what it holds
    already gets a new token: it is a process that was restarted under its name, and what that did
    before is shut out. Raises StoreError; the lease may then have been taken nevertheless.
    """
    _check_ttl(ttl_s)
    with store_errors(place_of(engine)), writing(engine) as connection:
        row = _locked_row(connection, name)
        now_s = clock_s(connection) if now_s is None else now_s
        row = _rebased(connection, row, now_s)
        if row.holder not in (None, holder) and row.expires_at_s > now_s:
            return _held(row, now_s)
        bare = Lease(
            name=name,
            holder=holder,
            token=row.token + 1,
            lasts_s=ttl_s,
            granted_at_s=now_s,
            expires_at_s=now_s,
        )
        lease = _granted(bare, ttl_s, now_s)
        _write(connection, lease)
    return lease


def renew(
    engine: Engine, lease: Lease, *, ttl_s: float, now_s: float | None = None
) -> Lease | Held:
    """The same lease from now on, with its token; Held when it is another's, or was released.

    One that expired and that nobody took is renewed too: nobody was its holder in between. Raises
    StoreError.
    """
    _check_ttl(ttl_s)
    with store_errors(place_of(engine)), writing(engine) as connection:
        row = _locked_row(connection, lease.name)
        now_s = clock_s(connection) if now_s is None else now_s
        if row.token != lease.token:
            return _held(row, now_s)
        renewed = _granted(lease, ttl_s, now_s)
        _write(connection, renewed)
    return renewed


def release(engine: Engine, lease: Lease) -> bool:
    """Let it go before it ends: its token can write nothing more. False: it was gone already."""
    columns = lease_table.c
    with store_errors(place_of(engine)), writing(engine) as connection:
        released = connection.execute(
            sqlalchemy.update(lease_table)
            .where(columns.name == lease.name, columns.token == lease.token)
            .values(holder=None, token=columns.token + 1, expires_at_s=columns.granted_at_s)
        )
        return bool(released.rowcount)


def look(engine: Engine, name: str, *, now_s: float | None = None) -> Held:
    """Who has it, for those who only want to know. Raises StoreError."""
    with store_errors(place_of(engine)), engine.connect() as connection:
        row = connection.execute(_select(name)).first()
        if row is None:
            return Held(name=name, holder=None, token=0, free_in_s=0.0)
        return _held(row, clock_s(connection) if now_s is None else now_s)


def _granted(lease: Lease, ttl_s: float, now_s: float) -> Lease:
    """Nobody else gets it a little longer than its holder believes in it.

    Clocks are not read to better than a millisecond, and run apart: by 1 in 2,000 while NTP slews.
    """
    return msgspec.structs.replace(
        lease,
        lasts_s=ttl_s,
        granted_at_s=now_s,
        expires_at_s=now_s + ttl_s * (1 + _DRIFT) + _CLOCK_STEP_S,
    )


def _check_ttl(ttl_s: float) -> None:
    if not (math.isfinite(ttl_s) and ttl_s > 0):
        raise ValueError(f"a lease lasts longer than 0 s; asked for {ttl_s}")


def _select(name: str) -> _Select:
    return sqlalchemy.select(lease_table).where(lease_table.c.name == name)


def _locked_row(connection: Connection, name: str) -> _Row:
    """The lease's row, which nobody else may change or rely on until the transaction ends.

    The clock is read after this, never before: waiting for the row takes time.
    """
    query = _select(name).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        insert_new(connection, lease_table, columns=_COLUMNS, rows=[(name, None, 0, 0.0, 0.0)])
        row = connection.execute(query).one()
    return row


def _rebased(connection: Connection, row: _Row, now_s: float) -> _Row:
    """A lease that was granted in the future tells of a clock that went back: it lasts from now."""
    if row.granted_at_s <= now_s:
        return row
    connection.execute(
        sqlalchemy.update(lease_table)
        .where(lease_table.c.name == row.name)
        .values(granted_at_s=now_s, expires_at_s=now_s + row.expires_at_s - row.granted_at_s)
    )
    return connection.execute(_select(row.name)).one()


def _held(row: _Row, now_s: float) -> Held:
    # Granted in the future, by a clock that went back since: then all of it is still to come.
    left_s = row.expires_at_s - max(now_s, row.granted_at_s)
    return Held(
        name=row.name,
        holder=row.holder,
        token=row.token,
        free_in_s=0.0 if row.holder is None else max(0.0, left_s),
    )


def _write(connection: Connection, lease: Lease) -> None:
    connection.execute(
        sqlalchemy.update(lease_table)
        .where(lease_table.c.name == lease.name)
        .values(
            holder=lease.holder,
            token=lease.token,
            granted_at_s=lease.granted_at_s,
            expires_at_s=lease.expires_at_s,
        )
    )
