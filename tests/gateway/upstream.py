"""A replica that misbehaves as a test wants: real sockets, one small function a request."""

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Call:
    """One request as the replica received it, and the connection to answer it on."""

    def __init__(self, upstream: "Upstream", connection: int, path: str, body: bytes) -> None:
        self.upstream = upstream
        self.connection = connection
        self.path = path
        self.body = body
        self.left_at_s: float | None = None  # when the gateway closed its side
        self.has_left = asyncio.Event()
        self.bytes_written = 0
        self._reader, self._writer = upstream.streams[connection]

    @property
    def fields(self) -> dict:
        return json.loads(self.body)

    async def send(self, data: bytes) -> None:
        """Write; waits while the gateway does not read."""
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()
        self.bytes_written += len(data)

    async def event(self, body: object) -> None:
        """One chunk that holds one event."""
        data = (
            b"data: " + (body if isinstance(body, bytes) else json.dumps(body).encode()) + b"\n\n"
        )
        await self.send(chunk(data))

    async def end(self) -> None:
        """The last chunk."""
        await self.send(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close properly (FIN)."""
        self._writer.close()

    def reset(self) -> None:
        """Close rudely (RST)."""
        reset(self._writer)

    async def watch(self) -> None:
        """Wait until the gateway closes its side; note when."""
        while await _read(self._reader):
            pass
        self.left_at_s = asyncio.get_running_loop().time()
        self.has_left.set()


Behaviour = Callable[[Call], Awaitable[None]]


class Upstream:
    """Listens; `behaves` answers each request, or the next of `script` while that lasts."""

    def __init__(self, behaves: Behaviour) -> None:
        self.behaves = behaves
        self.script: list[Behaviour] = []
        self.calls: list[Call] = []
        self.streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, writer in self.streams:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = len(self.streams)
        self.streams.append((reader, writer))
        try:
            while not writer.is_closing() and (call := await self._next(number, reader)):
                behaves = self.script.pop(0) if self.script else self.behaves
                await behaves(call)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _next(self, number: int, reader: asyncio.StreamReader) -> Call | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        call = Call(self, number, lines[0].split(" ")[1], body)
        self.calls.append(call)
        return call


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except ConnectionError:
        return b""


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: int, body: bytes, *, kind: str = "application/json", extra: str = "") -> bytes:
    """A response with its length."""
    head = (
        f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode() + body


def delta(text: str | None = None, *, finish: str | None = None) -> dict[str, object]:
    """A chunk of a chat stream."""
    said = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": said, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "id": "c", "choices": [choice]}


def usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    """What an engine counted."""
    both = tokens_in + tokens_out
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": both}


def completion(text: str, *, tokens_in: int = 5, tokens_out: int = 2) -> bytes:
    """A whole chat answer."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": usage(tokens_in, tokens_out)}).encode()


# Behaviours.


def answers(*texts: str, gap_s: float = 0.0) -> Behaviour:
    """The texts, one a chunk of a stream, or all in one whole answer; counted."""

    async def behave(call: Call) -> None:
        if not call.fields.get("stream"):
            await asyncio.sleep(gap_s)
            await call.send(whole(200, completion("".join(texts), tokens_out=len(texts))))
            return
        await call.send(EVENTS)
        for text in texts:
            await asyncio.sleep(gap_s)
            await call.event(delta(text))
        await call.event(delta(finish="stop"))
        await call.event({"choices": [], "usage": usage(5, len(texts))})
        await call.event(b"[DONE]")
        await call.end()

    return behave


def says(*parts: bytes, then: str = "stay") -> Behaviour:
    """These bytes, each part a packet of its own; then `stay`, `cut` (FIN) or `reset` (RST)."""

    async def behave(call: Call) -> None:
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(0.02)
            await call.send(part)
        if then == "cut":
            call.cut()
        elif then == "reset":
            await asyncio.sleep(0.02)  # RST would overtake what was sent
            call.reset()

    return behave


async def hangs(call: Call) -> None:
    """Says nothing, until the gateway has left."""
    await call.watch()


async def streams_forever(call: Call) -> None:
    """A token every 10 ms, until the gateway has left."""
    watching = asyncio.create_task(call.watch())
    try:
        await call.send(EVENTS)
        while not call.has_left.is_set():
            await call.event(delta("a "))
            await asyncio.sleep(0.01)
    except ConnectionError:
        pass
    finally:
        await watching
