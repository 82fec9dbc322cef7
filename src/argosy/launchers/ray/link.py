"""Our end of a bridge: the process is started, asked with deadlines, and killed when it hangs.

While the head is gone Ray's calls hang and nothing is wrong with the bridge: it is left alone, and
goes on when the head returns. Silent although the head answers, it is replaced.
"""

import asyncio
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from argosy.fleet.messages import Observation
from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError
from argosy.launchers.ray.protocol import (
    Answered,
    Asked,
    Changed,
    Connected,
    Question,
    Said,
    namespace_of,
)

_HEAD_ANSWERS_S = 0.5
_SILENT_S = 8.0  # with a head that answers: it hangs
_CONNECTS_S = 30.0
_AGAIN_S = 5.0  # after one that could not connect: starting one takes seconds of a core
_LINE_BYTES_MAX = 2**26  # an observation of 100,000 replicas
_ENVIRONMENT = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",  # 60: it would die of a minute without head
    "RAY_usage_stats_enabled": "0",
}


class Link:
    """To the cluster at `address` (its head), for one fleet; pools of it may share one.

    `guest_of`: the fleet that its nodes are of, where that is another (`cluster.Book`).
    """

    def __init__(
        self, address: str, *, fleet: str, guest_of: str | None = None, log: Path | None = None
    ) -> None:
        self._address = address
        self._namespaces = [namespace_of(one) for one in (fleet, guest_of) if one is not None]
        self._log = log  # of the bridge's stderr; None: dropped
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connected: asyncio.Future[None] | None = None
        self._open: dict[int, asyncio.Future[Answered]] = {}
        self._ids = 0
        self._failure = ""  # why the last could not connect
        self._not_before_s = 0.0  # the loop's time
        self._heard_s = 0.0  # the loop's time: when it last spoke, or could first have
        self._starting = asyncio.Lock()
        self._news = asyncio.Condition()
        self.news = 0  # grows when an observation may differ

    async def ask(self, question: Question, *, deadline_s: float) -> Observation | None:
        """The answer; raises what the port's methods raise."""
        try:
            async with asyncio.timeout(deadline_s):
                answer = await self._ask(question)
        except TimeoutError:
            await self._judge_silence()
            raise PoolUnseenError(
                f"the Ray cluster at {self._address} did not answer within {deadline_s:.1f} s"
            ) from None
        match answer.refusal:
            case None:
                return answer.observation
            case "launch":
                raise LaunchError(answer.message)
            case "capacity":
                raise NoCapacityError(answer.message)
            case "unseen":
                await self._judge_silence()  # Ray's driver may be of a cluster that is no more
                raise PoolUnseenError(f"the Ray cluster at {self._address}: {answer.message}")

    async def changed(self, seen: int) -> None:
        """Returns when `news` is no longer `seen`."""
        async with self._news:
            await self._news.wait_for(lambda: self.news != seen)

    async def close(self) -> None:
        """End the bridge; what it started runs on."""
        if self._process is not None:
            self._kill()
            assert self._reading is not None
            await self._reading

    async def _ask(self, question: Question) -> Answered:
        async with self._starting:
            if self._process is None:
                await self._spawn()
        assert self._connected is not None
        await asyncio.shield(self._connected)
        self._ids += 1
        id = self._ids
        answer = self._open[id] = asyncio.get_running_loop().create_future()
        try:
            await self._send(Asked(id=id, question=question))
            return await answer
        finally:
            self._open.pop(id, None)

    async def _send(self, asked: Asked) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise PoolUnseenError(f"the bridge to the Ray cluster at {self._address} has ended")
        with contextlib.suppress(ConnectionError):  # it ends: reading tells all that wait
            process.stdin.write(msgspec.json.encode(asked) + b"\n")
            await process.stdin.drain()

    async def _spawn(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise PoolUnseenError("Ray is not installed here: pip install ray==2.60.0")
        if asyncio.get_running_loop().time() < self._not_before_s:
            raise PoolUnseenError(f"the Ray cluster at {self._address}: {self._failure}")
        if not await self._head_answers():
            raise PoolUnseenError(f"no Ray head answers at {self._address}")
        argv = [sys.executable, "-P", "-m", "argosy.launchers.ray.bridge"]
        with contextlib.ExitStack() as files:
            stderr: BinaryIO | int = subprocess.DEVNULL
            if self._log is not None:
                self._log.parent.mkdir(parents=True, exist_ok=True)
                stderr = files.enter_context(self._log.open("ab"))
            self._process = await asyncio.create_subprocess_exec(
                *argv,
                self._address,
                *self._namespaces,
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                limit=_LINE_BYTES_MAX,
                start_new_session=True,  # Ctrl-C in the terminal reaches us alone
            )
        loop = asyncio.get_running_loop()
        self._heard_s = loop.time()
        self._connected = loop.create_future()
        self._connected.add_done_callback(_is_no_surprise)
        self._reading = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        why = "the bridge ended"
        while line := await process.stdout.readline():
            said = msgspec.json.decode(line, type=Said)
            if isinstance(said, Connected) and said.failure is not None:
                why = said.failure
            else:
                await self._take(said)
        await process.wait()
        self._process = None
        assert self._connected is not None
        if not self._connected.done():
            self._failure = why
            self._not_before_s = asyncio.get_running_loop().time() + _AGAIN_S
        self._fail_all(PoolUnseenError(f"the Ray cluster at {self._address}: {why}"))
        await self._tell()

    async def _take(self, said: Said) -> None:
        match said:
            case Answered(id=id):
                answer = self._open.get(id)
                if answer is not None and not answer.done():
                    answer.set_result(said)
                is_well = said.refusal != "unseen"
            case Connected():
                assert self._connected is not None
                self._connected.set_result(None)
                is_well = True
                await self._tell()
            case Changed():
                is_well = True
                await self._tell()
        if is_well:
            self._heard_s = asyncio.get_running_loop().time()

    async def _tell(self) -> None:
        async with self._news:
            self.news += 1
            self._news.notify_all()

    def _fail_all(self, error: PoolUnseenError) -> None:
        assert self._connected is not None
        for waiting in (self._connected, *self._open.values()):
            if not waiting.done():
                waiting.set_exception(error)

    def _kill(self) -> None:
        if self._process is not None:
            # Not Process.kill: it reaps one that has just ended, and asyncio then misses it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def _judge_silence(self) -> None:
        loop = asyncio.get_running_loop()
        if not await self._head_answers():
            self._heard_s = loop.time()  # its time counts from when the head is back
            return
        assert self._connected is None or not self._connected.cancelled()
        is_up = self._connected is not None and self._connected.done()
        if loop.time() - self._heard_s > (_SILENT_S if is_up else _CONNECTS_S):
            self._kill()

    async def _head_answers(self) -> bool:
        host, _, port = self._address.rpartition(":")
        try:
            async with asyncio.timeout(_HEAD_ANSWERS_S):
                _, writer = await asyncio.open_connection(host, int(port))
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True


def _is_no_surprise(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()  # those who asked have heard it; asyncio need not say it again
