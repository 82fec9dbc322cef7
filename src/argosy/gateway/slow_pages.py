"""Answers that read and write the store: files and batches, a task each.

All other requests are callbacks of the loop; these are rare and wait for threads. Owns their pace
(a piece is read when the client has taken the one before) and their end. What is answered is
`batches/api.py`'s.
"""

import asyncio
import logging
from contextlib import aclosing
from typing import Protocol

from argosy.fleet.messages import Refusal
from argosy.gateway.batches.api import BatchApi, Reply
from argosy.gateway.http import Request

log = logging.getLogger(__name__)


class Client(Protocol):
    """Where the answer goes: a connection."""

    def write(self, data: bytes) -> None:
        """Bytes to the client; what it does not read is buffered."""
        ...

    def finish(self, *, keep_alive: bool) -> None:
        """The answer has ended; the connection may take its next request."""
        ...

    def abort(self) -> None:
        """The answer cannot be ended: the client must see that it is cut."""
        ...


class Answerer(Protocol):
    """Knows the answer: the batches' API, the pages that ask other processes."""

    async def answer(self, request: Request) -> Reply:
        """The response, whole or piece by piece."""
        ...


class SlowPages:
    """The slow answers of one gateway that are under way. None: it has no such paths."""

    def __init__(self, api: BatchApi | None) -> None:
        self._api = api
        self._tasks: set[asyncio.Task[None]] = set()

    def has(self, path: str) -> bool:
        """True for a path that is answered here, be it with an error."""
        return self._api is not None and self._api.has(path)

    def precheck(self, request: Request) -> Refusal | None:
        """Path and method, of a path that is answered here."""
        return self._api.precheck(request) if self._api is not None else None

    def upload_bytes_max(self, request: Request) -> int | None:
        """The longest body of an upload; None: this is none."""
        return self._api.body_bytes_max(request) if self._api is not None else None

    def serve(
        self, client: Client, request: Request, *, by: Answerer | None = None
    ) -> "SlowAnswer":
        """Answer a request that passed `precheck`; `by` others than the API."""
        answerer = by or self._api
        assert answerer is not None
        answer = SlowAnswer(answerer, client, request)
        self._tasks.add(answer.task)
        answer.task.add_done_callback(self._tasks.discard)
        return answer

    async def drain(self, timeout_s: float) -> int:
        """Let what runs end; how many had to be cut after `timeout_s`."""
        if not self._tasks:
            return 0
        _, late = await asyncio.wait(tuple(self._tasks), timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return len(late)


class SlowAnswer:
    """One of them, from the request to the last byte."""

    def __init__(self, api: Answerer, client: Client, request: Request) -> None:
        self._api = api
        self._client = client
        self._request = request
        self._is_writing = False
        self._has_left = False
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.task = asyncio.create_task(self._run())

    def cancel(self, reason: str) -> None:
        """The client has left.

        What it asked for is done all the same: a write cannot be taken back from its thread, and
        until that is over the body is in memory and must be counted there.
        """
        self._has_left = True
        if self._is_writing:
            self.task.cancel(reason)

    def pause(self) -> None:
        """The client reads slowly."""
        self._may_write.clear()

    def resume(self) -> None:
        """The client reads again."""
        self._may_write.set()

    async def _run(self) -> None:
        is_whole = False
        try:
            await self._answer()
            is_whole = True
        except Exception:  # the store fails, or what was read is gone: this request ends alone
            log.warning("request %s was cut", self._request.id, exc_info=True)
        finally:
            if not is_whole:
                self._client.abort()
            self._client.finish(keep_alive=is_whole and self._request.keep_alive)

    async def _answer(self) -> None:
        reply = await self._api.answer(self._request)
        if self._has_left:
            return
        self._is_writing = True
        if isinstance(reply, bytes):
            self._client.write(reply)
            return
        async with aclosing(reply) as pieces:
            async for piece in pieces:
                self._client.write(piece)
                await self._may_write.wait()
