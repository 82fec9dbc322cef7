"""A gateway process, started by `argosy up`: `python -m argosy.cli.gateway_process CHANNEL FD…`.

Wires store -> gateway (keys in, usage and budgets out) and follows its parent's words. It listens
on sockets that its parent opened and keeps open, so a successor can take its place at any time. It
ends when it is told to, or when its parent is gone; signals are its parent's business.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from argosy.cli.batching import Batching
from argosy.cli.channel import (
    Answered,
    Begin,
    Channel,
    Collecting,
    Count,
    Counted,
    Drain,
    Farewell,
    Keys,
    Ready,
    Report,
    Reported,
    Retire,
    Serve,
    Serving,
    Table,
    ToChild,
    child_decoder,
)
from argosy.cli.state import LEDGER_FILE, QUOTA_FILE, now_s, store_place
from argosy.cli.tls import certificate_of
from argosy.cli.upstream_keys import upstream_keys
from argosy.fleet.messages import Key
from argosy.fleet.share import share_of
from argosy.gateway.ledger import Ledger, budgets_of
from argosy.gateway.quotas import Quotas, quotas_of
from argosy.gateway.server import Gateway
from argosy.gateway.together import Collected
from argosy.gateway.wiring import Wiring
from argosy.store.keys import HeldKeys, KeyRing
from argosy.store.schema import StoreError, open_store, store_errors
from argosy.store.usage import UsageWriter, spent_since

logger = logging.getLogger(__name__)
_KEYS_REFRESH_S = 0.25  # a revoked key is refused within a second


def main(channel_fd: int, listener_fds: Sequence[int]) -> int:
    """The exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    listeners = [socket.socket(fileno=fd) for fd in listener_fds]
    running = _run(socket.socket(fileno=channel_fd), listeners)
    if sys.platform == "win32":
        return asyncio.run(running)
    import uvloop

    return uvloop.run(running)


async def _run(end: socket.socket, listeners: list[socket.socket]) -> int:
    channel = await Channel.open(end, child_decoder())
    begin = await channel.receive()
    if not isinstance(begin, Begin):
        return 1
    try:
        place = store_place(Path(begin.state), begin.store)
        store = open_store(place, is_needed=begin.store is None or begin.keys is None)
    except StoreError as error:
        sys.stderr.write(f"argosy: {error}\n")
        return 1
    usage = UsageWriter(store)
    try:
        process = _Process(channel, begin, store, usage)
        await process.follow(listeners)
    finally:
        usage.close()
        store.dispose()
    process.farewell()
    await channel.flush()
    return 0


class _Process:
    """One gateway and what its parent wants of it."""

    def __init__(
        self, channel: Channel[ToChild], begin: Begin, store: Engine, usage: UsageWriter
    ) -> None:
        self._channel = channel
        is_shared = begin.store is not None
        self._ring = KeyRing(store, begin.keys if is_shared else None)
        # Beside those of a store of its own; where all share one they are the same ones.
        self._told = self._ring if is_shared else HeldKeys(begin.keys)
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Collected]] = {}
        batching = Batching(store, self._ring, up_key=begin.up_key)
        certificate = self._certificate = certificate_of(begin.fleet.gateway.tls)
        wiring = Wiring(
            find_key=self._find if self._told is not self._ring else self._ring.find,
            find_key_by_id=batching.find_key_by_id,
            batches=batching.api,
            record=usage.write,
            usage_unwritten=lambda: usage.unwritten,
            usage_is_overloaded=lambda: usage.is_overloaded,
            unix_time_s=now_s,
            operator_token=begin.operator_token,
            upstream_keys=upstream_keys(begin.fleet),
            chance=random.Random(),
            ledger=_ledger(begin, store),
            quotas=_quotas(begin),
            process=begin.process,
            tls=None if certificate is None else certificate.context,
            collect=self._collect,
        )
        self._gateway = Gateway(share_of(begin.fleet), wiring)
        self._gateway.replace_table(begin.table)
        self._ending: asyncio.Future[object] | None = None

    async def follow(self, listeners: list[socket.socket]) -> None:
        """Do what the parent says, until the gateway has ended or the parent is gone."""
        refreshing = [asyncio.create_task(self._refresh_forever())]
        if self._certificate is not None:
            refreshing.append(asyncio.create_task(self._certificate.refresh_forever()))
        self._channel.send(Ready())
        hearing = asyncio.ensure_future(self._channel.receive())
        try:
            while True:
                events = {hearing} if self._ending is None else {hearing, self._ending}
                await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
                if self._ending is not None and self._ending.done():
                    return
                word = hearing.result()
                if word is None:
                    return
                await self._do(word, listeners)
                hearing = asyncio.ensure_future(self._channel.receive())
        finally:
            for task in refreshing:
                task.cancel()
            hearing.cancel()
            await self._gateway.drain(0.0)
            await self._gateway.stop()

    def farewell(self) -> None:
        """The last word: what was counted."""
        self._channel.send(Farewell(snapshot=self._gateway.snapshot()))

    async def _do(self, word: ToChild, listeners: list[socket.socket]) -> None:
        match word:
            case Serve():
                await self._gateway.start(listeners)
                self._channel.send(Serving())
            case Table(table=table):
                self._gateway.replace_table(table)
            case Keys(keys=keys):
                self._told.take(keys)
            case Report(number=number, explain=explain):
                snapshot = self._gateway.snapshot(explain)
                self._channel.send(Reported(number=number, snapshot=snapshot))
            case Count(number=number):
                self._channel.send(Counted(number=number, metrics=self._gateway.metrics.snapshot()))
            case Answered():
                self._answered(word)
            case Retire(timeout_s=timeout_s):
                self._end(self._gateway.retire(timeout_s))
            case Drain(timeout_s=timeout_s):
                self._end(self._gateway.drain(timeout_s))
            case Begin():
                raise RuntimeError("this gateway process has begun already")

    def _answered(self, word: Answered) -> None:
        asked = self._asked.pop(word.number, None)
        if asked is not None and not asked.done():
            asked.set_result(word.collected)

    def _find(self, secret: str) -> Key | None:
        return self._ring.find(secret) or self._told.find(secret)

    def _end(self, ending: Coroutine[object, object, object]) -> None:
        """That way, and not as was said before."""
        if self._ending is not None:
            self._ending.cancel()
        self._ending = asyncio.ensure_future(ending)

    async def _collect(self, explain: str | None) -> Collected:
        """What all processes tell; whoever waits bounds the time."""
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self._channel.send(Collecting(number=number, explain=explain))
        try:
            return await asked
        finally:
            self._asked.pop(number, None)

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(_KEYS_REFRESH_S)
            with contextlib.suppress(StoreError):  # the keys known so far go on
                await asyncio.to_thread(self._ring.refresh)


def _ledger(begin: Begin, store: Engine) -> Ledger | None:
    """None where no tenant has a budget."""
    budgets = budgets_of(begin.fleet)
    if not budgets:
        return None
    return Ledger(
        Path(begin.state) / LEDGER_FILE,
        budgets,
        process=begin.column,
        processes=begin.columns,
        spent=partial(_spent, store),
        now_unix_s=now_s(),
    )


def _quotas(begin: Begin) -> Quotas | None:
    """None where no pool has one."""
    quotas = quotas_of(begin.fleet)
    path = Path(begin.state) / QUOTA_FILE
    return Quotas(path, quotas, unix_time_s=now_s) if quotas else None


def _spent(store: Engine, tenant: str, since_s: float) -> tuple[int, int]:
    """Of a store that is away, nothing: better a budget too large than nobody served."""
    try:
        with store_errors("the usage"):
            return spent_since(store, tenant, since_s)
    except StoreError as error:
        logger.warning("What %s has spent is not known, its window begins at 0: %s", tenant, error)
        return 0, 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), [int(fd) for fd in sys.argv[2:]]))
