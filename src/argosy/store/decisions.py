"""The decision log: what each leader decided, why, and from what; written behind the leader.

Owns the order of decisions (`seq`), that each is there once, and that the log stays bounded. What
is decided is the control plane's business, and so is what `inputs` mean; who logs many decisions
that rest on the same inputs gives them to the first and names that one in the others' reasons.
"""

import itertools
import random
import threading
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

import msgspec
import sqlalchemy
from sqlalchemy import Connection, Engine, func

from argosy.fleet.messages import Message
from argosy.store.behind import WriterBehind
from argosy.store.control import Fenced
from argosy.store.errors import StoreError
from argosy.store.rows import insert_new, storable
from argosy.store.schema import decision_table, place_of, store_errors

INPUTS_BYTES_MAX = 1024 * 1024  # deflated; larger ones are left out, which is said in their place
_DEFLATE_FROM_BYTES = 512
_COLUMNS = ("fleet", "seq", "at_s", "token", "kind", "subject", "reason", "inputs")


class Decision(Message, frozen=True, kw_only=True):
    """One decision, as the leader took it."""

    at_s: float  # Unix time
    kind: str  # "start", "stop", "scale", "place", "quarantine", "cordon", "lead", ...
    subject: str  # the replica, deployment, pool or node that it is about
    reason: str
    inputs: bytes | None = None  # JSON: what the policy was given, so that it can be replayed


class LoggedDecision(Message, frozen=True, kw_only=True):
    """One decision, as it is in the log."""

    seq: int  # 1, 2, ... in a fleet, in the order in which they were taken
    at_s: float
    token: int  # of the leader's lease
    kind: str
    subject: str
    reason: str
    inputs: bytes | None = None


class Retention(Message, frozen=True, kw_only=True):
    """How much of the log is kept, counted back from its newest; checked with every batch."""

    age_s: float = 30 * 86_400.0
    rows: int = 1_000_000  # about 170 bytes each in SQLite, indices included
    rows_inputs: int = 20_000  # of the newest, that keep what they rest on


_RETENTION = Retention()


class DecisionLog:
    """One leader's pen: takes decisions at no cost to it; a thread of its own writes them.

    One of these for each lease that was acquired, no more: their numbers would collide. What waits
    when the leader is replaced is lost, and said to be: the next leader decides anew.
    """

    def __init__(
        self,
        fenced: Fenced,
        *,
        retention: Retention = _RETENTION,
        backlog_max: int = 100_000,
        inputs_bytes_max: int = 64 * 1024 * 1024,
        chance: random.Random | None = None,
    ) -> None:
        self._pen = _Pen(fenced, retention)
        self._backlog_max = backlog_max
        self._inputs_bytes_max = inputs_bytes_max  # that wait in memory
        self._inputs_bytes = 0  # of all that were taken
        self._taken = 0
        self._dropped = 0
        self._order = threading.Lock()
        self._behind: WriterBehind[_Numbered] = WriterBehind(
            self._pen.insert, noun="decision", chance=chance
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, decisions: Iterable[Decision]) -> None:
        """Take them: no I/O, no waiting. RuntimeError after `close`.

        When the store takes none and too many wait, they are dropped and counted; before that,
        what they rest on is left out.
        """
        with self._order:
            for decision in decisions:
                self._append(decision)

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Write what waits and stop the thread; what cannot be written in time is logged as lost.

        See `WriterBehind.close`.
        """
        self._behind.close(timeout_s=timeout_s)

    @property
    def unwritten(self) -> int:
        """Decisions that are not yet durable."""
        return self._behind.unwritten

    @property
    def lost(self) -> int:
        """Decisions that never will be: too many waited, or no database takes them."""
        return self._dropped + self._behind.unwritable

    @property
    def is_fenced(self) -> bool:
        """Another leads: this log takes decisions and writes none."""
        return self._behind.fenced is not None

    def _append(self, decision: Decision) -> None:
        if self._behind.unwritten >= self._backlog_max:
            self._dropped += 1
            return
        size = len(decision.inputs or b"")
        if size and self._inputs_bytes - self._pen.inputs_bytes + size > self._inputs_bytes_max:
            decision = msgspec.structs.replace(decision, inputs=_left_out(size))
            size = 0
        self._inputs_bytes += size
        numbered = _Numbered(number=self._taken, inputs_bytes=self._inputs_bytes, decision=decision)
        self._behind.write(numbered)
        self._taken += 1


def read(  # noqa: PLR0913  each is a part of one question
    engine: Engine,
    fleet: str,
    *,
    since_s: float | None = None,
    until_s: float | None = None,
    subject: str | None = None,
    kind: str | None = None,
    after_seq: int | None = None,
    limit: int,
) -> list[LoggedDecision]:
    """Decisions taken in [since_s, until_s), the newest first. Raises StoreError.

    Those behind `after_seq` come oldest first: the next page for whoever follows the log.
    """
    columns = decision_table.c
    query = sqlalchemy.select(decision_table).where(columns.fleet == fleet)
    wheres = (
        None if since_s is None else columns.at_s >= since_s,
        None if until_s is None else columns.at_s < until_s,
        None if subject is None else columns.subject == subject,
        None if kind is None else columns.kind == kind,
        None if after_seq is None else columns.seq > after_seq,
    )
    query = query.where(*(where for where in wheres if where is not None))
    query = query.order_by(columns.seq.desc() if after_seq is None else columns.seq)
    with store_errors(place_of(engine)), engine.connect() as connection:
        return [_logged(row) for row in connection.execute(query.limit(limit))]


def fleets(engine: Engine) -> list[str]:
    """The fleets that anything was decided for, the latest first. Raises StoreError."""
    columns = decision_table.c
    query = sqlalchemy.select(columns.fleet, func.max(columns.at_s).label("at_s"))
    query = query.group_by(columns.fleet).order_by(sqlalchemy.desc("at_s"))
    with store_errors(place_of(engine)), engine.connect() as connection:
        return [row.fleet for row in connection.execute(query)]


def decision_json(decision: LoggedDecision) -> bytes:
    """For machines, as `decision_schema` says: `inputs` is JSON inside it, not text."""
    fields = msgspec.structs.asdict(decision)
    if decision.inputs is not None:
        fields["inputs"] = msgspec.Raw(decision.inputs)
    return msgspec.json.encode(fields)


def decision_schema() -> dict[str, Any]:
    """The JSON Schema of `decision_json`: fields may be added to it, none goes or changes."""
    schema = msgspec.json.schema(LoggedDecision)
    properties = schema["$defs"]["LoggedDecision"]["properties"]
    properties["inputs"] = {"description": "what the policy was given, or null", "default": None}
    return schema


class _Numbered(msgspec.Struct, frozen=True, kw_only=True):
    number: int  # 0, 1, ... in this log
    inputs_bytes: int  # of all up to this one
    decision: Decision


class _Pen:
    """What the log's thread does; it alone calls this."""

    def __init__(self, fenced: Fenced, retention: Retention) -> None:
        self._fenced = fenced
        self._retention = retention
        self._base: int | None = None  # the seq of the decision with number 0
        self.inputs_bytes = 0  # of all that were written

    def insert(self, batch: list[_Numbered]) -> None:
        """In one transaction, less what is there already: a lost answer may have been a yes."""
        base = self._base if self._base is not None else self._read_base()
        rows = [self._row(base + numbered.number, numbered.decision) for numbered in batch]
        with self._fenced.writing() as connection:
            insert_new(connection, decision_table, columns=_COLUMNS, rows=rows)
            newest = batch[-1]
            self._forget(connection, base + newest.number, newest.decision.at_s, len(batch))
        self.inputs_bytes = newest.inputs_bytes

    def _read_base(self) -> int:
        """Read once: no other leader writes before this one is fenced."""
        columns = decision_table.c
        with self._fenced.writing() as connection:
            last = connection.execute(
                sqlalchemy.select(func.max(columns.seq)).where(columns.fleet == self._fenced.fleet)
            ).scalar()
        base = 1 if last is None else last + 1
        self._base = base
        return base

    def _row(self, seq: int, decision: Decision) -> Sequence[object]:
        texts = (storable(text) for text in (decision.kind, decision.subject, decision.reason))
        fenced = self._fenced
        return (fenced.fleet, seq, decision.at_s, fenced.token, *texts, _packed(decision.inputs))

    def _forget(self, connection: Connection, newest: int, at_s: float, written: int) -> None:
        """At most twice what was written, of the oldest: it keeps up, and no batch waits long."""
        columns, keep = decision_table.c, self._retention
        reach = 2 * written + 10
        of_fleet = columns.fleet == self._fenced.fleet
        oldest = sqlalchemy.select(columns.seq, columns.at_s).where(of_fleet)
        oldest = oldest.order_by(columns.seq).limit(reach)
        gone = itertools.takewhile(
            lambda row: row.seq <= newest - keep.rows or row.at_s < at_s - keep.age_s,
            connection.execute(oldest).all(),
        )
        if last := [row.seq for row in gone][-1:]:
            connection.execute(
                sqlalchemy.delete(decision_table).where(of_fleet, columns.seq <= last[0])
            )
        bare = newest - keep.rows_inputs
        connection.execute(
            sqlalchemy.update(decision_table)
            .where(of_fleet, columns.seq.between(bare - reach, bare), columns.inputs.is_not(None))
            .values(inputs=None)
        )


def _packed(inputs: bytes | None) -> bytes | None:
    """Deflated where that pays. No JSON begins with an "x", and all that is deflated does."""
    if inputs is None or len(inputs) < _DEFLATE_FROM_BYTES:
        return inputs
    packed = zlib.compress(inputs, 1)  # gives the interpreter's lock away
    return packed if len(packed) <= INPUTS_BYTES_MAX else _left_out(len(inputs))


def _left_out(size: int) -> bytes:
    return msgspec.json.encode({"left_out_bytes": size})


def _logged(row: sqlalchemy.Row[tuple[object, ...]]) -> LoggedDecision:
    fields: dict[str, Any] = {str(name): value for name, value in row._mapping.items()}
    del fields["fleet"]
    try:
        if (inputs := fields["inputs"]) and inputs.startswith(b"x"):
            fields["inputs"] = zlib.decompress(inputs)
    except zlib.error as error:
        raise StoreError(f"decision {row.seq} in the store cannot be read: {error}") from error
    return LoggedDecision(**fields)
