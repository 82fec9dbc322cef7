"""The control plane's memory in the store: records, the last table, decisions; written behind it.

A tick waits for no disk. What a crash loses is found again by looking: records that came too late
belong to replicas that their launcher still shows. Only the newest leader writes (`store/control`).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from argosy.control.reconcile import Drains, Note, State
from argosy.control.records import Record
from argosy.fleet.messages import Message, ReplicaTable
from argosy.store.control import Fenced
from argosy.store.decisions import Decision, DecisionLog
from argosy.store.errors import FencedError, StoreError

K = TypeVar("K", bound=msgspec.Struct)
logger = logging.getLogger(__name__)
_AGAIN_S = 1.0  # after the store took nothing
_LOG_CLOSE_S = 5.0


class Intent(Message, frozen=True, kw_only=True):
    """What was wanted beyond the fleet file: the operator's words, the autoscaling's targets."""

    held: dict[str, int]  # by deployment
    targets: dict[str, int]
    drains: Drains


class StoreMemory:
    """Of one leader; `on_fenced` is called once when another one leads."""

    def __init__(self, fenced: Fenced, *, on_fenced: Callable[[], None] | None = None) -> None:
        self._fenced = fenced
        self._on_fenced = on_fenced
        self._log = DecisionLog(fenced)
        self._state: State | None = None  # that is to be written
        self._written: dict[str, Record] = {}
        self._table: ReplicaTable | None = None
        self._news = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def begin(self, written: Iterable[Record]) -> None:
        """`written`: the records that the store has."""
        self._written = {record.name: record for record in written}
        self._writing = asyncio.create_task(self._write_forever())

    def keep(self, state: State) -> None:
        self._state = state
        self._news.set()

    def note(self, notes: Sequence[Note], *, now_s: float) -> None:
        self._log.append(
            Decision(
                at_s=now_s,
                kind=note.kind,
                subject=note.subject,
                reason=note.reason,
                inputs=note.inputs,
            )
            for note in notes
        )

    async def close(self) -> None:
        """Write what waits, as far as the store takes it."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait((self._writing,))
            try:
                await self._write()
            except (StoreError, FencedError) as error:
                logger.warning("The last state was not stored: %s", error)
        await asyncio.to_thread(self._log.close, timeout_s=_LOG_CLOSE_S)

    async def _write_forever(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._write()
            except FencedError as error:
                logger.warning("Another control plane leads this fleet: %s", error)
                if self._on_fenced is not None:
                    self._on_fenced()
                return
            except StoreError as error:
                logger.warning("The control plane's state waits to be stored: %s", error)
                self._news.set()
                await asyncio.sleep(_AGAIN_S)

    async def _write(self) -> None:
        state = self._state
        if state is None:
            return
        changed = {
            name: record
            for name, record in state.records.items()
            if self._written.get(name) is not record
        }
        removed = self._written.keys() - state.records.keys()
        if changed or removed:
            bodies = {name: msgspec.json.encode(record) for name, record in changed.items()}
            await asyncio.to_thread(self._fenced.save, bodies, removed)
            self._written = dict(state.records)
        if state.table is not self._table:
            await asyncio.to_thread(
                self._fenced.publish, msgspec.json.encode(state.table), state.table.version
            )
            self._table = state.table


def read_records(bodies: Iterable[bytes]) -> tuple[Record, ...]:
    """Those that this version can read; of the others it says which."""
    found: list[Record] = []
    for body in bodies:
        try:
            found.append(msgspec.json.decode(body, type=Record))
        except msgspec.MsgspecError as error:
            logger.warning("A replica's record cannot be read and is dropped: %s", error)
    return tuple(found)


def read_kept(body: bytes | None, kind: type[K]) -> K | None:
    """What the last control plane kept; None where there is none that this version can read."""
    if body is None:
        return None
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        logger.warning("What the last control plane kept cannot be read: %s", error)
        return None
