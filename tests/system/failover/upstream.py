"""A scripted upstream: an OpenAI-shaped HTTP server on loopback that breaks as it is told to.

Each fault is one small behaviour at the end of this file. It answers over bare sockets, since no
framework resets a connection, stalls or ends a chunked body without its last chunk. Counts every
attempt; judges nothing. GET (a health probe) is always answered and never counted.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable

from tests.system.failover.answer import rest_after
from tests.system.failover.seen import PREFILL_REFUSED, Attempt, Ending

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_TOKENS_IN = 12  # what every question is said to cost


class GatewayLeftError(ConnectionError):
    """The gateway closed its side while the upstream was silent."""


class Call:
    """One request as the upstream received it, and the ways to answer it."""

    def __init__(
        self, upstream: "Upstream", body: bytes, reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        fields = json.loads(body)
        self.number = len(upstream.calls) + 1
        self.at_s = upstream.now_s()
        self.ending: Ending = "open"
        self.code: str | None = None
        self.is_stream = bool(fields.get("stream"))
        self.prefill = _prefill(fields["messages"])
        self.rest = rest_after(self.prefill or "")
        self._wants_usage = bool((fields.get("stream_options") or {}).get("include_usage"))
        self._model = fields["model"]
        self._token_gap_s = upstream.token_gap_s
        self._tokens_out = 0
        self._reader, self._writer = reader, writer

    async def refuse(
        self, status: int, code: str, message: str, *, retry_after_s: int | None = None
    ) -> None:
        """An error instead of an answer."""
        self.ending, self.code = "refused", code
        error = {"message": message, "type": "wall", "param": None, "code": code}
        extra = "" if retry_after_s is None else f"retry-after: {retry_after_s}\r\n"
        await self._write(_response(status, {"error": error}, extra=extra))

    async def begin(self) -> None:
        """The head of a stream."""
        await self._write(STREAM_HEAD)

    async def say(self, tokens: tuple[str, ...]) -> None:
        """Tokens, one an event."""
        for token in tokens:
            await self._event(self._chunk({"content": token}))
            self._tokens_out += 1
            await asyncio.sleep(self._token_gap_s)

    async def garble(self) -> None:
        """An event that holds no token and breaks off inside its JSON."""
        await self._write(
            _framed(b'data: {"object": "chat.completion.chunk", "choices": [{"de\n\n')
        )

    async def end(self, *, done: bool = True) -> None:
        """Why the answer ends, what it cost, `[DONE]`, the last chunk."""
        await self._event(self._chunk({}, finish="stop"))
        if self._wants_usage:
            await self._event({**self._chunk({}), "choices": [], "usage": self._usage()})
        if done:
            await self._write(_framed(b"data: [DONE]\n\n"))
        await self._write(b"0\r\n\r\n")
        self.ending = "answered"

    async def answer_whole(self) -> None:
        """The answer without a stream."""
        self._tokens_out = len(self.rest)
        message = {"role": "assistant", "content": "".join(self.rest)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {**self._chunk({}), "object": "chat.completion", "choices": [choice]}
        await self._write(_response(200, {**body, "usage": self._usage()}))
        self.ending = "answered"

    async def be_silent(self, seconds: float) -> None:
        """Say nothing for so long. Raises `GatewayLeftError` when the gateway leaves before."""
        try:
            async with asyncio.timeout(seconds):
                await self._reader.read(1)
        except TimeoutError:
            return
        raise GatewayLeftError

    def cut(self) -> None:
        """Close in the middle (FIN), without the last chunk."""
        self.ending = "cut"
        self._writer.close()

    def reset(self) -> None:
        """Close rudely (RST)."""
        self.ending = "reset"
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._writer.transport.abort()

    def _chunk(self, delta: dict[str, str], *, finish: str | None = None) -> dict[str, object]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {
            "id": f"wall-{self.number}",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": self._model,
            "choices": [choice],
        }

    def _usage(self) -> dict[str, int]:
        out = self._tokens_out
        both = _TOKENS_IN + out
        return {"prompt_tokens": _TOKENS_IN, "completion_tokens": out, "total_tokens": both}

    async def _event(self, body: dict[str, object]) -> None:
        await self._write(_framed(b"data: " + json.dumps(body).encode() + b"\n\n"))

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


Behaviour = Callable[[Call], Awaitable[None]]


class Upstream:
    """Listens while entered; every chat is answered by `behave`, and counted."""

    def __init__(self, *, token_gap_s: float) -> None:
        self.token_gap_s = token_gap_s
        self.behave: Behaviour = answers
        self.calls: list[Call] = []
        self.url = ""
        self._began_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def begin(self, behave: Behaviour, *, began_s: float) -> None:
        """Behave so from now on; the scenario's clock began at `began_s` of the loop's."""
        self.behave, self._began_s = behave, began_s
        self.calls.clear()

    def now_s(self) -> float:
        """Seconds since the scenario began."""
        return asyncio.get_running_loop().time() - self._began_s

    def attempts(self) -> tuple[Attempt, ...]:
        """What was counted so far."""
        return tuple(
            Attempt(
                at_s=call.at_s,
                ending=call.ending,
                code=call.code,
                is_continuation=call.prefill is not None,
            )
            for call in self.calls
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not writer.is_closing():
                await self._answer_next(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway's side is closed, or the wall comes down
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer_next(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if head.startswith("GET "):
            writer.write(_response(200, {"object": "list", "data": []}))
            return
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        call = Call(self, body, reader, writer)
        self.calls.append(call)
        try:
            await self.behave(call)
        except ConnectionError:
            call.ending = "left"
            raise


def _prefill(messages: list[dict]) -> str | None:
    """The text of an assistant's message that comes last: the start of the answer."""
    last = messages[-1]
    if last["role"] != "assistant":
        return None
    content = last.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _response(status: int, body: dict[str, object], *, extra: str = "") -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


# The behaviours.


async def answers(call: Call) -> None:
    """The answer, or exactly the rest of it where the request brings its start."""
    if not call.is_stream:
        await call.answer_whole()
        return
    await call.begin()
    await call.say(call.rest)
    await call.end()


async def rejects_prefill(call: Call) -> None:
    """Answers, but never goes on from an assistant's message."""
    if call.prefill is None:
        await answers(call)
    else:
        message = "The conversation must end with a message of the user: no prefill here."
        await call.refuse(400, PREFILL_REFUSED, message)


def refuses(status: int, code: str, message: str, *, retry_after_s: int | None = None) -> Behaviour:
    """Says no, every time."""

    async def behave(call: Call) -> None:
        await call.refuse(status, code, message, retry_after_s=retry_after_s)

    return behave


def once(fault: Behaviour) -> Behaviour:
    """Breaks on the first attempt and is well from the second on."""

    async def behave(call: Call) -> None:
        await (fault if call.number == 1 else answers)(call)

    return behave


def down_for(seconds: float, fault: Behaviour) -> Behaviour:
    """Breaks until the scenario is so old, and is well from then on."""

    async def behave(call: Call) -> None:
        await (fault if call.at_s < seconds else answers)(call)

    return behave


async def resets(call: Call) -> None:
    """Resets the connection before a byte of an answer."""
    call.reset()


def says_nothing_for(seconds: float) -> Behaviour:
    """Takes the request, says nothing, closes."""

    async def behave(call: Call) -> None:
        await call.be_silent(seconds)
        call.cut()

    return behave


def first_token_after(seconds: float) -> Behaviour:
    """Sends the head at once and the first token late; the rest as usual."""

    async def behave(call: Call) -> None:
        await call.begin()
        await call.be_silent(seconds)
        await call.say(call.rest)
        await call.end()

    return behave


def cuts_after(tokens: int, *, silent_s: float = 0.0) -> Behaviour:
    """Closes after so many tokens of an attempt that wants more; at once, or silent before."""

    async def behave(call: Call) -> None:
        await call.begin()
        await call.say(call.rest[:tokens])
        if len(call.rest) <= tokens:
            await call.end()
            return
        if silent_s:
            await call.be_silent(silent_s)
        call.cut()

    return behave


def garbles_after(tokens: int) -> Behaviour:
    """Slips in an event that is no JSON; the answer is whole without it."""

    async def behave(call: Call) -> None:
        await call.begin()
        await call.say(call.rest[:tokens])
        await call.garble()
        await call.say(call.rest[tokens:])
        await call.end()

    return behave


async def leaves_out_done(call: Call) -> None:
    """Ends the stream properly, but without `[DONE]`."""
    await call.begin()
    await call.say(call.rest)
    await call.end(done=False)
