"""One gateway process as its parent sees it: started, spoken to, heard, ended.

Owns the process, its end of the channel and its record in the state folder (a crashed run's child
that cannot read the end of its channel, a stopped one, is killed by the next run: it would hold the
port). When to start or end one is `gateways.py`'s.
"""

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from argosy.cli.channel import (
    Begin,
    Channel,
    Collecting,
    Count,
    Counted,
    Drain,
    Farewell,
    Ready,
    Report,
    Reported,
    Retire,
    Serve,
    Serving,
    Table,
    ToParent,
    Word,
    parent_decoder,
)
from argosy.fleet.messages import ReplicaTable
from argosy.gateway.together import GatewaySnapshot
from argosy.launchers.local import how_it_ended, remove_record, write_record
from argosy.observability.counts import Counts, MetricsSnapshot

logger = logging.getLogger(__name__)
T = TypeVar("T")
_START_S_MAX = 60.0  # importing takes half a second; a disk that is asleep, some
_END_S = 15.0  # from the end of the drain to the exit: usage that the store is slow to take
_REPORT_S_MAX = 1.0


class GatewayStartError(Exception):
    """A gateway process did not come up; the message says why."""


class GatewayChild:
    """One child process."""

    def __init__(
        self,
        begin: Begin,
        process: asyncio.subprocess.Process,
        channel: Channel[ToParent],
        record: Path,
        on_collecting: Callable[["GatewayChild", Collecting], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = begin.process
        self.column = begin.column
        self.pid = process.pid
        self.state: Literal["starting", "serving", "draining"] = "starting"
        self.heard_s = loop.time()
        self.counts = Counts()  # as they were last heard
        self._on_collecting = on_collecting
        self._process = process
        self._channel = channel
        self._record = record
        self._numbers = itertools.count()
        self._reports: dict[int, asyncio.Future[GatewaySnapshot]] = {}
        self._counting: dict[int, asyncio.Future[MetricsSnapshot]] = {}
        self._ready: asyncio.Future[None] = loop.create_future()
        self._serving: asyncio.Future[None] = loop.create_future()
        self._hearing = asyncio.create_task(self._hear_forever())
        self._killing: asyncio.TimerHandle | None = None
        self.ended = asyncio.create_task(self._wait())  # says how
        channel.send(begin)

    @classmethod
    async def start(
        cls,
        begin: Begin,
        listeners: Sequence[socket.socket],
        on_collecting: Callable[["GatewayChild", Collecting], None],
    ) -> "GatewayChild":
        """Start the process; it is not ready yet. Raises GatewayStartError."""
        ours, theirs = socket.socketpair()
        fds = (theirs.fileno(), *(listener.fileno() for listener in listeners))
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "argosy.cli.gateway_process", *map(str, fds)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,  # stderr is ours: what it says is ours to say
                pass_fds=fds,
                start_new_session=True,  # Ctrl-C in the terminal reaches the parent alone
            )
        except OSError as error:
            ours.close()
            raise GatewayStartError(f"{sys.executable} cannot be run: {error}") from error
        finally:
            theirs.close()
        name = f"gateway-{begin.process}-{process.pid}"
        record = write_record(Path(begin.state), name, process.pid, kind="gateway process")
        channel = await Channel.open(ours, parent_decoder())
        return cls(begin, process, channel, record, on_collecting)

    # Its life.

    async def become_ready(self) -> None:
        """Returns when it can listen and was understood. Raises GatewayStartError."""
        try:
            async with asyncio.timeout(_START_S_MAX):
                await self._or_ended(self._ready)
                # A version that we cannot read must not come to serve.
                await self._or_ended(self._asked(None))
        except TimeoutError:
            raise GatewayStartError(f"not ready after {_START_S_MAX:g} s") from None

    async def serve(self) -> None:
        """Let it listen; returns when it does. Raises GatewayStartError."""
        self.state = "serving"  # from now on clients may reach it, and ask it for the pages of all
        self._channel.send(Serve())
        await self._or_ended(self._serving)

    def retire(self, timeout_s: float) -> None:
        """Its successor listens."""
        self.state = "draining"
        self._channel.send(Retire(timeout_s=timeout_s))
        self._kill_after(timeout_s + _END_S)

    def drain(self, timeout_s: float) -> None:
        """The fleet stops."""
        self.state = "draining"
        self._channel.send(Drain(timeout_s=timeout_s))
        self._kill_after(timeout_s + _END_S)

    def kill(self) -> None:
        """End it now, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    def _kill_after(self, seconds: float) -> None:
        if self._killing is not None:
            self._killing.cancel()
        self._killing = asyncio.get_running_loop().call_later(seconds, self.kill)

    async def _wait(self) -> str:
        status = await self._process.wait()
        if self._killing is not None:
            self._killing.cancel()
        with contextlib.suppress(TimeoutError):  # its last word may still be in the channel
            await asyncio.wait_for(asyncio.shield(self._hearing), _REPORT_S_MAX)
        self._hearing.cancel()
        self._channel.close()
        remove_record(self._record, self.pid)
        return how_it_ended(status)

    # What is said and heard.

    def table(self, table: ReplicaTable) -> None:
        """It routes on this from now on."""
        self._channel.send(Table(table=table))

    def say(self, word: Word) -> None:
        """Anything else."""
        self._channel.send(word)

    async def report(self, explain: str | None = None) -> GatewaySnapshot | None:
        """All that it tells of itself, milliseconds of work; None when it does not in a second."""
        return await self._within(self._asked(explain))

    async def count(self) -> MetricsSnapshot | None:
        """What it counts; None as for `report`."""
        number = next(self._numbers)
        asked = _noted(self._counting, number)
        self._channel.send(Count(number=number))
        return await self._within(asked)

    def _asked(self, explain: str | None) -> asyncio.Future[GatewaySnapshot]:
        number = next(self._numbers)
        asked = _noted(self._reports, number)
        self._channel.send(Report(number=number, explain=explain))
        return asked

    async def _within(self, asked: asyncio.Future[T]) -> T | None:
        try:
            async with asyncio.timeout(_REPORT_S_MAX):
                return await self._or_ended(asked)
        except (TimeoutError, GatewayStartError):
            return None

    async def _or_ended(self, awaited: asyncio.Future[T]) -> T:
        """Raises GatewayStartError when the process ends first."""
        try:
            await asyncio.wait((awaited, self.ended), return_when=asyncio.FIRST_COMPLETED)
            if awaited.done():
                return awaited.result()
        finally:
            awaited.cancel()
        raise GatewayStartError(f"{self.ended.result()} before it was ready")

    async def _hear_forever(self) -> None:
        try:
            while (word := await self._channel.receive()) is not None:
                self.heard_s = asyncio.get_running_loop().time()
                self._hear(word)
        except msgspec.MsgspecError:  # another version's: it is of no use to us
            logger.exception("Gateway process %d cannot be understood, and is killed", self.pid)
            self.kill()

    def _hear(self, word: ToParent) -> None:
        match word:
            case Ready():
                _done(self._ready, None)
            case Serving():
                _done(self._serving, None)
            case Reported(number=number, snapshot=snapshot):
                self.counts = snapshot.metrics.counts
                _done(self._reports.get(number), snapshot)
            case Counted(number=number, metrics=metrics):
                self.counts = metrics.counts
                _done(self._counting.get(number), metrics)
            case Collecting():
                self._on_collecting(self, word)
            case Farewell(snapshot=snapshot):
                self.counts = snapshot.metrics.counts


def _noted(answers: dict[int, asyncio.Future[T]], number: int) -> asyncio.Future[T]:
    """Waits for the answer of that number."""
    asked = answers[number] = asyncio.get_running_loop().create_future()
    asked.add_done_callback(lambda _: answers.pop(number, None))
    return asked


def _done(future: asyncio.Future[T] | None, result: T) -> None:
    if future is not None and not future.done():
        future.set_result(result)
