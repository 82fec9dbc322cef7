"""Training runs as the store keeps them: what was asked, who took part, what was trained on.

Here are the records and their reading, for whoever looks; the syncer, and it alone, writes them
through `run_ledger.py`. A block is counted by its position in the run: `start <= position < stop`.
"""

from typing import Any, Literal, TypeVar

import msgspec
import sqlalchemy
from sqlalchemy import Connection, Engine, Row, Table

from argosy.fleet.messages import Message
from argosy.store.errors import StoreError
from argosy.store.rows import insert_new, storable
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
    writing,
)

Spans = tuple[tuple[int, int], ...]  # (start, stop) of each
RunState = Literal["training", "finishing", "finished", "stopped"]
Wanted = Literal["training", "stopped"]

_Record = TypeVar("_Record")


class RunExistsError(Exception):
    """A run of that name is there, and is another one."""


class UnknownRunError(Exception):
    """No run of that name; the message names those that there are."""


class SeedFragment(Message, frozen=True, kw_only=True):
    """One fragment of version 0."""

    index: int
    start: int
    values: int
    sha256: str


class Seed(Message, frozen=True, kw_only=True):
    """What version 0 is made of."""

    island: str  # that sent it
    tensors_sha256: str
    fragments: tuple[SeedFragment, ...]


class RunRecord(Message, frozen=True, kw_only=True):
    """One run as it stands."""

    run: str
    spec: str  # the run file's text
    state: RunState
    wanted: Wanted  # an operator's word; the syncer obeys
    created_at_s: float  # Unix time by the database's clock, as all times here
    ended_at_s: float | None
    blocks: int
    blocks_a_step: int
    frontier: int  # no block from here on was ever leased
    freed: Spans  # before it, to be leased anew
    blocks_done: int  # trained on, and their delta accepted
    version: int | None  # of the parameters; None: nobody has sent any
    seed: Seed | None


class IslandRecord(Message, frozen=True, kw_only=True):
    """One island of a run, over all its lives."""

    island: str
    epoch: int
    state: Literal["live", "silent", "left"]
    number: int  # of this epoch's last contribution; 0: none yet
    joined_at_s: float
    beat_at_s: float
    steps_per_s: float | None
    waited_s: float
    blocks_done: int
    bytes_in: int
    bytes_out: int
    # What it measured over its last lease, all waiting in it; None: unknown.
    mfu: float | None = None
    energy_j_per_million_tokens: float | None = None
    cost_usd_per_million_tokens: float | None = None


class LeaseRecord(Message, frozen=True, kw_only=True):
    """Blocks that were given to one island."""

    lease: str
    island: str
    epoch: int
    spans: Spans
    blocks: int
    state: Literal["open", "done", "void"]
    granted_at_s: float


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


class ContributionRecord(Sent, frozen=True, kw_only=True):
    """A delta that was sent; one that is `accepted` is in no version yet."""

    state: Literal["accepted", "merged", "refused"]
    version: int | None  # that it is in
    reason: str  # "CODE: words", where it was refused
    at_s: float


class Weighed(Message, frozen=True, kw_only=True):
    """A contribution as a round takes it."""

    island: str
    epoch: int
    number: int
    weight: float
    fragments: tuple[str, ...]


class RoundSettings(Message, frozen=True, kw_only=True):
    """What a round is computed with: with these and the deltas it comes out the same again."""

    lr: float
    momentum: float
    bits: int


class RoundRecord(Message, frozen=True, kw_only=True):
    """What made one version of the one before; it was written before it was computed."""

    version: int
    contributions: tuple[Weighed, ...]  # in the order of the sum
    settings: RoundSettings
    reason: str
    blocks_done: int
    at_s: float


class PointRecord(Message, frozen=True, kw_only=True):
    """One point of a curve."""

    seq: int
    at_s: float
    kind: Literal["training", "validation"]
    island: str
    version: int
    blocks_done: int  # of the run, when it was noted
    loss: float  # mean over tokens, nats


def create_run(
    engine: Engine, run: str, *, spec: str, blocks: int, blocks_a_step: int
) -> RunRecord:
    """Note the run; one of the same spec that is there already is returned as it stands.

    Raises RunExistsError where the spec is another, StoreError.
    """
    if blocks < 1 or blocks % blocks_a_step:
        raise ValueError(f"a run is of whole steps: {blocks} blocks, {blocks_a_step} a step")
    spec = storable(spec)
    fields = ("run", "spec", "state", "wanted", "created_at_s", "blocks", "blocks_a_step")
    with store_errors(place_of(engine)), writing(engine) as connection:
        row = (run, spec, "training", "training", clock_s(connection), blocks, blocks_a_step)
        insert_new(
            connection,
            run_table,
            columns=(*fields, "frontier", "freed", "blocks_done"),
            rows=[(*row, 0, "[]", 0)],
        )
        record = run_record(connection, run)
    if record is None or record.spec != spec or record.blocks != blocks:
        raise RunExistsError(
            f'a run "{run}" is in the store, of another run file. Give this one another name,'
            f" or go on with that one: argosy runs resume {run}"
        )
    return record


def set_wanted(engine: Engine, run: str, wanted: Wanted) -> None:
    """An operator's word: the syncer stops, or may go on. Raises UnknownRunError, StoreError."""
    with store_errors(place_of(engine)), writing(engine) as connection:
        changed = connection.execute(
            sqlalchemy.update(run_table).where(run_table.c.run == run).values(wanted=wanted)
        )
        if not changed.rowcount:
            raise _unknown(run, [record.run for record in _all_runs(connection)])


def forget_run(engine: Engine, run: str) -> bool:
    """Delete all of it; False: it was not there. Nobody may be training it. Raises StoreError."""
    told = (run_point_table, run_round_table, run_contribution_table, run_lease_table)
    found = 0
    with store_errors(place_of(engine)), writing(engine) as connection:
        for table in (*told, run_island_table, run_table):
            deleted = connection.execute(sqlalchemy.delete(table).where(table.c.run == run))
            found = deleted.rowcount
    return bool(found)


def list_runs(engine: Engine) -> list[RunRecord]:
    """All, oldest first. Raises StoreError."""
    with store_errors(place_of(engine)), engine.connect() as connection:
        return _all_runs(connection)


def read_run(engine: Engine, run: str) -> RunRecord:
    """Raises UnknownRunError, StoreError."""
    with store_errors(place_of(engine)), engine.connect() as connection:
        record = run_record(connection, run)
        if record is None:
            raise _unknown(run, [known.run for known in _all_runs(connection)])
    return record


def islands_of(engine: Engine, run: str) -> list[IslandRecord]:
    """By name. Raises StoreError."""
    return _read(engine, run_island_table, IslandRecord, run, "island")


def leases_of(engine: Engine, run: str, *, state: str | None = None) -> list[LeaseRecord]:
    """In the order in which they were granted. Raises StoreError."""
    only = {} if state is None else {"state": state}
    return _read(engine, run_lease_table, LeaseRecord, run, "granted_at_s", "lease", **only)


def contributions_of(
    engine: Engine, run: str, *, state: str | None = None
) -> list[ContributionRecord]:
    """In the order in which they came. Raises StoreError."""
    only = {} if state is None else {"state": state}
    by = ("at_s", "island", "epoch", "number")
    return _read(engine, run_contribution_table, ContributionRecord, run, *by, **only)


def rounds_of(engine: Engine, run: str, *, after: int = 0) -> list[RoundRecord]:
    """Those that lead beyond version `after`, in their order. Raises StoreError."""
    table = run_round_table
    query = sqlalchemy.select(table).where(table.c.run == run, table.c.version > after)
    with store_errors(place_of(engine)), engine.connect() as connection:
        rows = connection.execute(query.order_by(table.c.version)).all()
    return [record_of(row, RoundRecord) for row in rows]


def points_of(engine: Engine, run: str, *, after_seq: int = 0) -> list[PointRecord]:
    """Points of the curves from `after_seq` on. Raises StoreError."""
    table = run_point_table
    query = sqlalchemy.select(table).where(table.c.run == run, table.c.seq > after_seq)
    with store_errors(place_of(engine)), engine.connect() as connection:
        rows = connection.execute(query.order_by(table.c.seq)).all()
    return [record_of(row, PointRecord) for row in rows]


def run_record(connection: Connection, run: str, *, for_update: bool = False) -> RunRecord | None:
    """The run's row; `for_update`: nobody else may change it until the transaction ends."""
    query = sqlalchemy.select(run_table).where(run_table.c.run == run)
    row = connection.execute(query.with_for_update() if for_update else query).first()
    return None if row is None else record_of(row, RunRecord)


_JSON: dict[str, Any] = {
    "freed": Spans,
    "spans": Spans,
    "seed": Seed,
    "settings": RoundSettings,
    "contributions": tuple[Weighed, ...],
    "fragments": tuple[str, ...],
}


def record_of(row: Row[Any], kind: type[_Record]) -> _Record:
    """A table's row as the record of its columns' names; some are JSON."""
    try:
        values = {
            str(name): msgspec.json.decode(value, type=_JSON[name])
            if name in _JSON and value is not None
            else value
            for name, value in row._mapping.items()
        }
        return msgspec.convert(values, kind)
    except msgspec.DecodeError as error:
        raise StoreError(f"a {kind.__name__} in the store cannot be read: {error}") from error


def json_text(value: object) -> str:
    """As a column of text holds it."""
    return msgspec.json.encode(value).decode()


def _all_runs(connection: Connection) -> list[RunRecord]:
    columns = run_table.c
    query = sqlalchemy.select(run_table).order_by(columns.created_at_s, columns.run)
    return [record_of(row, RunRecord) for row in connection.execute(query)]


def _read(
    engine: Engine, table: Table, kind: type[_Record], run: str, *by: str, **only: str
) -> list[_Record]:
    query = sqlalchemy.select(table).where(table.c.run == run)
    for name, value in only.items():
        query = query.where(table.c[name] == value)
    with store_errors(place_of(engine)), engine.connect() as connection:
        rows = connection.execute(query.order_by(*(table.c[name] for name in by))).all()
    return [record_of(row, kind) for row in rows]


def _unknown(run: str, known: list[str]) -> UnknownRunError:
    names = ", ".join(known[-5:]) or "none"
    return UnknownRunError(f'there is no run "{run}" in the store (it has: {names})')
