"""Connections to one replica: kept alive, one request at a time on each, pass bytes up.

`ReplicaLink.send` gives an `UpstreamCall`; its listener hears head, body, end or loss, in that
order, never after `abort`. A call that lost a kept-alive connection before any byte came (the
replica had closed it) is sent again once on a fresh one.
"""

import asyncio
import logging
import ssl
from typing import Protocol
from urllib.parse import urlsplit

import httptools

log = logging.getLogger(__name__)

_IDLE_S_MAX = 4.0  # llama.cpp closes after 5 s of idling and does not warn
_IDLE_KEPT = 256  # connections kept per replica
_CONNECT_TIMEOUT_S = 3.0
_HEAD_BYTES_MAX = 64 * 1024


class Listener(Protocol):
    """Who hears a call's answer: `on_read` after each turn of the others but `on_lost`."""

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Status and headers (names in lower case)."""
        ...

    def on_body(self, data: bytes) -> None:
        """Bytes of the body, unchunked."""
        ...

    def on_read(self) -> None:
        """All of what arrived at once has been told."""
        ...

    def on_end(self) -> None:
        """The answer is whole. Nothing comes after this."""
        ...

    def on_unreached(self, reason: str) -> None:
        """Nobody took the connection; nothing was sent."""
        ...

    def on_lost(self, reason: str) -> None:
        """The connection failed before the answer was whole."""
        ...


class UpstreamCall:
    """One request to a replica."""

    def __init__(self, link: "ReplicaLink", payload: bytes, listener: Listener) -> None:
        self._link = link
        self._payload = payload
        self._listener: Listener | None = listener
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Send on an idle connection, or on a new one."""
        idle = self._link.take_idle()
        if idle is not None:
            self._send(idle)
        else:
            self._connect()

    def abort(self) -> None:
        """Nothing more is wanted: the replica sees its connection close. May be called again."""
        self._listener = None
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()

    def detach(self) -> None:
        """The listener has heard enough; the connection may finish its answer and be kept."""
        self._listener = None
        if self._connection is not None:
            self._connection.detach()

    def pause(self) -> None:
        """Read no more until `resume`: the client is slower than the replica."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read on."""
        if self._connection is not None:
            self._connection.resume()

    def _connect(self) -> None:
        task = asyncio.get_running_loop().create_task(self._link.connect())
        self._connecting = task  # type: ignore[assignment]
        task.add_done_callback(self._connected)

    def _connected(self, task: "asyncio.Task[_Connection]") -> None:
        self._connecting = None
        if task.cancelled():
            return
        error = task.exception()
        if self._listener is None:
            if error is None:
                task.result().abort()
            return
        if error is not None:
            self._listener.on_unreached(f"{error or type(error).__name__}")
            return
        self._send(task.result())

    def _send(self, connection: "_Connection") -> None:
        if self._listener is not None:
            self._connection = connection
            connection.send(self._payload, self, self._listener)

    def on_lost(self, reason: str, *, was_stale: bool) -> None:
        """From the connection; all else it tells the listener itself."""
        if self._listener is None:
            return
        self._connection = None
        if was_stale:
            self._connect()
        else:
            self._listener.on_lost(reason)


class ReplicaLink:
    """All connections to one replica's URL."""

    def __init__(self, url: str, *, bearer: str | None = None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._prefix = parts.path.rstrip("/").removesuffix("/v1").encode("latin-1", "replace")
        self._ssl = ssl.create_default_context() if self._is_tls else None
        head = f" HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n"
        head += "content-type: application/json\r\naccept-encoding: identity\r\n"
        if bearer is not None:
            head += f"authorization: Bearer {bearer}\r\n"
        self._head = head.encode("latin-1")
        self._loop = asyncio.get_running_loop()
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self.is_closed = False

    def call(self, path: str, body: bytes, listener: Listener, *, request: str) -> UpstreamCall:
        """A call of POST `path`, not yet begun."""
        payload = b"POST %b%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            self._prefix, path.encode(), self._head, request.encode(), len(body), body,
        )  # fmt: skip
        return UpstreamCall(self, payload, listener)

    async def connect(self) -> "_Connection":
        """A new connection. Raises `OSError` or `TimeoutError`."""
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(
            lambda: _Connection(self), self._host, self._port, ssl=self._ssl
        )
        _, connection = await asyncio.wait_for(connecting, _CONNECT_TIMEOUT_S)
        return connection

    def take_idle(self) -> "_Connection | None":
        """The connection that was used last, if one is idle and surely open."""
        now_s = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(now_s):
                return connection
            connection.abort()
        return None

    def keep(self, connection: "_Connection") -> None:
        """A connection whose answer is whole."""
        if self.is_closed or len(self._idle) >= _IDLE_KEPT:
            connection.abort()
        else:
            self._idle.append(connection)

    def joined(self, connection: "_Connection") -> None:
        """A connection was made."""
        self._all.add(connection)

    def left(self, connection: "_Connection") -> None:
        """A connection was lost."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close what nobody listens to; what is busy closes when its answer is whole."""
        self.is_closed = True
        self.sweep(float("inf"))
        self._idle.clear()

    def sweep(self, now_s: float) -> None:
        """Close what idled too long, or did not end after nobody listened any more."""
        for connection in tuple(self._all):
            if connection.is_overdue(now_s):
                connection.abort()


class _Connection(asyncio.Protocol):
    """One connection; busy from `send` until its answer is whole."""

    def __init__(self, link: ReplicaLink) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._call: UpstreamCall | None = None
        self._listener: Listener | None = None  # the call's, while it wants to hear
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: dict[bytes, bytes] = {}
        self._is_busy = False
        self._was_used = False
        self._has_answered = False  # a byte of this answer has come
        self._ends_with_connection = False
        self._has_head = False
        self._head_bytes = 0
        self._quiet_since_s = 0.0
        self._idle_s_max = _IDLE_S_MAX

    # What the link and the call ask.

    def send(self, payload: bytes, call: UpstreamCall, listener: Listener) -> None:
        self._call = call
        self._listener = listener
        self._is_busy = True
        self._has_answered = False
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        if self._transport is None or self._transport.is_closing():
            self._loop.call_soon(self._lose, "the connection was closed")
            return
        self._transport.write(payload)

    def is_usable(self, now_s: float) -> bool:
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        return now_s - self._quiet_since_s < self._idle_s_max

    def is_overdue(self, now_s: float) -> bool:
        if self._call is not None:
            return False
        return now_s - self._quiet_since_s > self._idle_s_max

    def detach(self) -> None:
        self._call = self._listener = None
        self._quiet_since_s = self._loop.time()
        if self._link.is_closed:
            self.abort()  # nobody would sweep it
        else:
            self.resume()

    def abort(self) -> None:
        self._call = self._listener = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._link.joined(self)

    def data_received(self, data: bytes) -> None:
        if not self._is_busy or self._parser is None:
            self.abort()  # an answer that nobody asked for
            return
        self._has_answered = True
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if self._listener is not None:
                self._listener.on_read()
        except httptools.HttpParserCallbackError:  # a bug of ours: this answer alone is lost
            log.exception("reading a replica's answer")
            self._fail("its answer could not be read")
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP: {error}")
        except httptools.HttpParserUpgrade:
            self._fail("it switched to another protocol")
        if not self._has_head and self._head_bytes > _HEAD_BYTES_MAX:
            self._fail(f"a head of over {_HEAD_BYTES_MAX} bytes")

    def eof_received(self) -> None:
        """The transport closes itself after this."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.left(self)
        if self._is_busy and self._ends_with_connection and exc is None:
            self._settle()
        elif self._is_busy:
            self._lose(str(exc) if exc else "the replica closed the connection")
        self._transport = None

    def _fail(self, reason: str) -> None:
        self._lose(reason)
        self.abort()

    def _lose(self, reason: str) -> None:
        call, self._call = self._call, None
        self._listener = None
        was_stale = self._was_used and not self._has_answered
        self._is_busy = False
        if call is not None:
            call.on_lost(reason, was_stale=was_stale)

    def _settle(self) -> None:
        listener, self._listener = self._listener, None
        self._call = None
        self._is_busy = False
        self._was_used = True
        if listener is not None:
            listener.on_end()

    # What the parser says.

    def on_message_begin(self) -> None:
        if not self._is_busy:
            self.abort()  # a second answer to one request
        self._headers = {}
        self._ends_with_connection = False
        self._has_head = False
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._parser is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._has_head = True
        headers = self._headers
        has_length = b"content-length" in headers or b"transfer-encoding" in headers
        self._ends_with_connection = not has_length
        if self._listener is not None:
            self._listener.on_head(status, headers)

    def on_body(self, body: bytes) -> None:
        if self._listener is not None:
            self._listener.on_body(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser is None or parser.get_status_code() < 200:
            return
        keep = parser.should_keep_alive()
        kept = self._headers.get(b"keep-alive")
        self._idle_s_max = _IDLE_S_MAX if kept is None else _idle_s(kept)
        self._quiet_since_s = self._loop.time()
        self._settle()
        if keep and self._transport is not None and not self._transport.is_closing():
            self._link.keep(self)
        else:
            self.abort()


def _idle_s(keep_alive: bytes) -> float:
    """How long a connection may idle, from `keep-alive: timeout=5, max=100`."""
    for part in keep_alive.split(b","):
        name, _, value = part.strip().partition(b"=")
        if name.lower() == b"timeout" and value.isdigit():
            return max(0.0, min(_IDLE_S_MAX, int(value) - 1.0))
    return _IDLE_S_MAX
