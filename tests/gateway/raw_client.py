"""A client that says exactly the bytes it is told to, and reads what comes back."""

import asyncio
import json
import socket
from dataclasses import dataclass

from upstream import reset

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
MESSAGE = {**HELLO, "max_tokens": 16}
BEARER = {"authorization": "Bearer argosy-secret"}


@dataclass
class Answer:
    """One response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytearray
    is_whole: bool = True  # False: the connection was lost before the response ended

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def error(self) -> dict:
        return self.json["error"]

    @property
    def events(self) -> list[bytes]:
        """The `data` of each event."""
        lines = self.body.decode().split("\n")
        return [line[6:].encode() for line in lines if line.startswith("data: ")]

    @property
    def text(self) -> str:
        """The text of a chat stream."""
        said = [json.loads(event) for event in self.events if event.startswith(b"{")]
        choices = [choice for event in said for choice in event.get("choices", ())]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


class Client:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, *, receive_bytes: int | None = None) -> "Client":
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except ConnectionError:
            sock.close()
            raise
        limit = 2**20 if receive_bytes is None else 1024  # what is read ahead of the test
        return cls(*await asyncio.open_connection(sock=sock, limit=limit))

    def say(self, data: bytes) -> None:
        """Write, unless the gateway has closed."""
        if not self.writer.is_closing():
            self.writer.write(data)

    async def ask(
        self, path: str = "/v1/chat/completions", body: object = None, *, method: str = "POST",
        **headers: str,
    ) -> Answer:  # fmt: skip
        """A good request, and its answer."""
        self.say(request(path, body, method=method, **headers))
        return await self.answer(is_head=method == "HEAD")

    async def answer(self, *, is_head: bool = False, timeout_s: float = 10.0) -> Answer:
        """The next response. Raises `IncompleteReadError` where there is none."""
        async with asyncio.timeout(timeout_s):
            answer = await self._head()
            while answer.status == 100:
                answer = await self._head()
            if is_head:
                return answer
            try:
                await self._body(answer)
            except (asyncio.IncompleteReadError, ConnectionError):
                answer.is_whole = False
            return answer

    async def _head(self) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Answer(int(first.split(" ")[1]), headers, bytearray())

    async def _body(self, answer: Answer) -> None:
        if "content-length" in answer.headers:
            answer.body += await self.reader.readexactly(int(answer.headers["content-length"]))
        elif answer.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                answer.body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        else:
            answer.body += await self.reader.read(-1)

    async def is_closed(self, timeout_s: float = 3.0) -> bool:
        """True when the gateway closes without another byte."""
        async with asyncio.timeout(timeout_s):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def read_fast(self) -> None:
        """Read no longer as little as possible."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        self.reader._limit = 2**20

    def reset(self) -> None:
        reset(self.writer)

    async def close(self) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)


def request(
    path: str = "/v1/chat/completions", body: object = None, *, method: str = "POST", **headers: str
) -> bytes:
    """A request as bytes; `body` is JSON unless it is bytes; a good chat where there is none."""
    if body is None and method == "POST":
        body = HELLO
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    sent = {"host": "x", **BEARER, **{name.replace("_", "-"): v for name, v in headers.items()}}
    if data or method == "POST":
        sent.setdefault("content-length", str(len(data)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data
