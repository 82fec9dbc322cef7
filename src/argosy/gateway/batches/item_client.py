"""Sends one item of a batch to the gateway, as an ordinary request of its owner.

A bare HTTP/1.1 client over kept connections: the gateway answers these with their length, and it
shares its loop with this. A request costs 0.04 ms of CPU here, 0.9 with httpx (2 cores, November
2026). What an answer means is left to `sender.py`.
"""

import asyncio
import logging
import ssl
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

log = logging.getLogger(__name__)

_HEAD_BYTES_MAX = 64 * 1024
ON_BEHALF_OF, TIER = "argosy-on-behalf-of", "argosy-tier"


class ItemRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent. `key` is the id of the owner's; None: the gateway asks for no keys."""

    path: str
    body: bytes
    key: str | None


class ItemAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    body: bytes
    request: str | None  # the gateway's id of it
    retry_after_s: float | None


class ItemClient(Protocol):
    """Sends an item; None: no answer came, the gateway may not listen."""

    async def send(self, request: ItemRequest) -> ItemAnswer | None:
        """The answer. Cancelled, it closes the connection, and the gateway stops the work."""
        ...


class HttpItemClient:
    """Speaks to the gateway at `url`, with the operator token of the run."""

    def __init__(
        self,
        url: str,
        *,
        operator_token: str,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 3600.0,
    ) -> None:
        """`tls`: what it trusts, where the gateway speaks TLS."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._tls = tls
        self._host_header = parts.netloc
        self._operator_token = operator_token
        self._timeout_s = timeout_s  # the gateway has its own, shorter ones
        self._idle: list[_Connection] = []

    async def send(self, request: ItemRequest) -> ItemAnswer | None:
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connection()
                answer, is_kept = await connection.ask(self._head(request), request.body)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            if not isinstance(error, ConnectionError):
                log.warning("a batch item got no answer: %r", error)
            is_kept, answer = False, None
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if connection is not None:
            if is_kept:
                self._idle.append(connection)
            else:
                connection.close()
        return answer

    def close(self) -> None:
        """Close the connections that wait."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _connection(self) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            connection.close()
        return _Connection(
            *await asyncio.open_connection(
                self._host, self._port, limit=_HEAD_BYTES_MAX, ssl=self._tls
            )
        )

    def _head(self, request: ItemRequest) -> bytes:
        behalf = f"{ON_BEHALF_OF}: {request.key}\r\n" if request.key is not None else ""
        version = (
            "anthropic-version: 2023-06-01\r\n" if request.path.startswith("/v1/messages") else ""
        )
        return (
            f"POST {request.path} HTTP/1.1\r\nhost: {self._host_header}\r\n"
            f"authorization: Bearer {self._operator_token}\r\n{behalf}{TIER}: batch\r\n{version}"
            f"content-type: application/json\r\ncontent-length: {len(request.body)}\r\n\r\n"
        ).encode("latin-1")


class _Connection:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def is_open(self) -> bool:
        return not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        self._writer.transport.abort()

    async def ask(self, head: bytes, body: bytes) -> tuple[ItemAnswer, bool]:
        """The answer, and whether the connection can be used again. Raises what I/O raises."""
        self._writer.write(head)
        self._writer.write(body)
        await self._writer.drain()
        status_line, *lines = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines)
        }
        answer = ItemAnswer(
            status=int(status_line.split(b" ", 2)[1]),
            body=await self._reader.readexactly(int(headers[b"content-length"])),
            request=_text(headers.get(b"x-request-id")),
            retry_after_s=_seconds(headers.get(b"retry-after")),
        )
        return answer, headers.get(b"connection", b"").lower() != b"close"


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _seconds(value: bytes | None) -> float | None:
    return float(value) if value is not None and value.isdigit() else None
