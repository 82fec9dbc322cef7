"""One client's connection: reads requests, one answered at a time, and writes what it is given.

It owns what a client can do wrong with HTTP: size, pace, order, leaving. What a request means is
the gateway's. A client that closes its side while its answer is being made has left: the answer
is cancelled (as nginx and Go do; a half-closed socket cannot be told from one that is gone).
"""

import asyncio
import logging
from collections import deque
from typing import Protocol, cast

import httptools

from argosy.fleet.config import Gateway as Settings
from argosy.fleet.messages import Refusal, RefusalKind
from argosy.gateway.http import CONTINUE, Request

log = logging.getLogger(__name__)

_HEAD_BYTES_MAX = 64 * 1024  # of the head, and of the trailers
_PIPELINED_MAX = 32  # whole requests that wait on one connection
_LINGER_S = 1.0  # to let a refused client read why, while it still sends
_WRITE_BUFFER_HIGH = 256 * 1024
_UPLOADS_SHARE = 0.75  # of the bytes that wait: long bodies leave the rest to ordinary ones
_UPLOAD_BYTES_PER_S_MIN = 128 * 1024  # so fast an upload may take longer than other bodies


class Exchange(Protocol):
    """What the connection tells a request that is being answered."""

    def cancel(self, reason: str) -> None:
        """The client has left."""
        ...

    def pause(self) -> None:
        """The client reads slowly."""
        ...

    def resume(self) -> None:
        """The client reads again."""
        ...


class Floor(Protocol):
    """What the connection asks of the gateway."""

    settings: Settings
    body_bytes_pending: int

    def opened(self, connection: "ClientConnection") -> Refusal | None:
        """A client connects; why it may not."""
        ...

    def new_request_id(self) -> str:
        """An id that no request had before."""
        ...

    def closed(self, connection: "ClientConnection") -> None:
        """It is gone."""
        ...

    def precheck(self, request: Request) -> Refusal | None:
        """Why its body is not wanted, by its head alone."""
        ...

    def upload_bytes_max(self, request: Request) -> int | None:
        """The longest body of an upload; None: it is none, and takes what any body may."""
        ...

    def serve(self, connection: "ClientConnection", request: Request) -> Exchange | None:
        """Answer it; None: it has been answered at once."""
        ...

    def refuse(self, connection: "ClientConnection", request: Request, refusal: Refusal) -> None:
        """Answer with an error in the client's API, and count it."""
        ...

    def left(self, request: Request) -> None:
        """Its client left before its turn came: count it."""
        ...


class ClientConnection(asyncio.Protocol):
    """One client."""

    _upload_seen: tuple[Request, int] | None = None  # how much of it when its time was first over

    def __init__(self, floor: Floor) -> None:
        self._deadline_s = float("inf")  # for the client's next move; not while it is answered
        self._floor = floor
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, Refusal | None]] = deque()  # in their order
        self._exchange: Exchange | None = None
        self._is_serving = False
        self._serving_bytes = 0  # of the request that is being answered
        self._is_deaf = False  # what still comes is thrown away
        self._stalled_until_s: float | None = None  # set while the client does not read
        self._begin_head()

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_HIGH)
        self._deadline_s = self._loop.time() + self._floor.settings.head_timeout_s
        refusal = self._floor.opened(self)
        if refusal is not None:
            self._reject(refusal)
            self._serve_next()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if not self._has_head:
            self._unread_bytes += len(data)
        self._feed(data)
        if not self._has_head:
            self._check_head_bytes(self._unread_bytes)
        self._serve_next()

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:  # a bug of ours must not be called the client's
            log.exception("reading a request")
            self._reject_kind("internal", "The gateway failed on this request.")
        except httptools.HttpParserError as error:
            self._reject_kind("bad_request", f"This is not valid HTTP/1.1: {error}.")

    def _decline_upgrade(self, rest: bytes) -> None:
        """Ignore the offer and read on.

        The parser takes what follows the head for another protocol, so a new one is told, by a
        head of our own, how the body ends.
        """
        if self._is_deaf:
            return
        self._parser = httptools.HttpRequestParser(self)
        if self._request is not None:
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % self._framing())
        if rest:
            self._feed(rest)

    def _framing(self) -> bytes:
        """The header that says how the body ends; empty where there is no body."""
        for name in (b"content-length", b"transfer-encoding"):
            if value := self._headers.get(name):
                return b"%b: %b\r\n" % (name, value)
        return b""

    def eof_received(self) -> bool:
        """The client closed its side: whatever is being answered has lost its reader."""
        self._leave("the client closed its side")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave(str(exc) if exc else "the client closed the connection")
        self._floor.closed(self)
        self._transport = None

    def pause_writing(self) -> None:
        timeout_s = self._floor.settings.stalled_client_timeout_s
        self._stalled_until_s = self._loop.time() + timeout_s
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self._stalled_until_s = None
        if self._exchange is not None:
            self._exchange.resume()
        self._loop.call_soon(self._serve_next)

    # What the parser says.

    def on_message_begin(self) -> None:
        self._begin_request()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4  # ": " and the line's end
        if not self._has_head:
            self._headers[name.lower()] = value
        elif not self._is_deaf:
            self._check_head_bytes(self._header_bytes)  # a trailer: read, not kept

    def on_headers_complete(self) -> None:
        request = self._request
        if request is None or self._is_deaf or self._has_head:
            return
        self._has_head = True
        parser, headers = self._parser, self._headers
        request.method = parser.get_method().decode("latin-1")
        path, _, query = self._url.partition(b"?")
        request.path = path.decode("latin-1")
        if query:
            request.query = query.decode("latin-1")
        request.headers = headers
        request.is_http_10 = parser.get_http_version() == "1.0"
        request.keep_alive = parser.should_keep_alive()
        self._deadline_s = self._loop.time() + self._floor.settings.body_timeout_s
        self._check_head_bytes(self._header_bytes + len(self._url))
        if not self._is_deaf:
            self._check_head(request)

    def _check_head_bytes(self, count: int) -> None:
        if count > _HEAD_BYTES_MAX:
            message = f"The request's head is over {_HEAD_BYTES_MAX} bytes."
            self._reject_kind("head_too_large", message)

    def _check_head(self, request: Request) -> None:
        length = request.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._floor.settings.body_bytes_max:
            limit = self._body_bytes_max(request)
            if int(length) > limit:
                message = f"A body of {int(length)} bytes; the limit is {limit}."
                self._reject_kind("too_large", message)
                return
        self._refusal = self._floor.precheck(request)
        expected = request.headers.get(b"expect")
        if expected and expected.lower() == b"100-continue" and not self._is_serving:
            self.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        if self._is_deaf:
            return
        floor = self._floor
        self._body_bytes += len(body)
        if self._body_bytes > floor.settings.body_bytes_max:
            self._check_long_body()
            if self._is_deaf:
                return
        if self._refusal is not None:
            return  # it will be refused: read, not kept
        floor.body_bytes_pending += len(body)
        if not self._body:
            self._body = body  # most arrive in one piece, which is not copied
        else:
            self._body = bytearray(self._body) if isinstance(self._body, bytes) else self._body
            self._body += body
        if floor.body_bytes_pending > floor.settings.body_bytes_pending_max:
            self._refuse_pending()

    def _check_long_body(self) -> None:
        """Longer than ordinary bodies may be: an upload, or too long."""
        if self._request is None:
            return
        limit = self._body_bytes_max(self._request)
        if self._body_bytes > limit:
            self._reject_kind("too_large", f"The body is over the limit of {limit} bytes.")
        elif self._floor.body_bytes_pending > self._uploads_bytes_max() and not self._refusal:
            self._refuse_pending()

    def _refuse_pending(self) -> None:
        message = "The requests of all clients together are too large just now; try later."
        self._drop_body()
        self._refusal = Refusal(kind="no_replica", message=message, retry_after_s=1.0)

    def _body_bytes_max(self, request: Request) -> int:
        ordinary = self._floor.settings.body_bytes_max
        of_upload = self._floor.upload_bytes_max(request)
        if of_upload is None:
            return ordinary
        return max(ordinary, min(of_upload, self._uploads_bytes_max()))

    def _uploads_bytes_max(self) -> int:
        return int(self._floor.settings.body_bytes_pending_max * _UPLOADS_SHARE)

    def on_message_complete(self) -> None:
        request, refusal = self._request, self._refusal
        if request is None or self._is_deaf:
            return
        if self._parser.should_upgrade() and self._framing():
            return  # its body is still to come: see `_decline_upgrade`
        if len(self._waiting) >= _PIPELINED_MAX:
            message = f"More than {_PIPELINED_MAX} requests wait on this connection."
            self._reject_kind("rate_limited", message)
            return
        body = self._body
        if isinstance(body, bytearray) and self._floor.upload_bytes_max(request) is None:
            body = bytes(body)
        request.body = cast("bytes", body)  # a copy of 100 MB would hold the loop for 0.1 to 0.4 s
        self._body = b""
        self._request = None
        self._waiting.append((request, refusal))

    # What the exchange asks.

    def write(self, data: bytes) -> None:
        """Bytes to the client."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def finish(self, *, keep_alive: bool) -> None:
        """The exchange is over: the next request, or the end."""
        self._exchange = None
        self._is_serving = False
        self._floor.body_bytes_pending -= self._serving_bytes
        self._serving_bytes = 0
        if not keep_alive:
            self.close()
            return
        self._deadline_s = self._loop.time() + self._patience_s()
        if self._waiting:
            self._loop.call_soon(self._serve_next)

    def _patience_s(self) -> float:
        """How long the client has now, for what it has not sent yet."""
        settings = self._floor.settings
        if self._request is None:
            return settings.idle_timeout_s
        return settings.body_timeout_s if self._has_head else settings.head_timeout_s

    def close(self) -> None:
        """Close after what is written has been read."""
        self._is_deaf = True
        self._deadline_s = self._loop.time() + self._floor.settings.stalled_client_timeout_s
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once: the client must not take what it has for the whole."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_idle(self) -> bool:
        """True between two requests."""
        return not self._is_serving and not self._waiting and self._request is None

    def sweep(self, now_s: float) -> None:
        """Called every second or so: end what took too long."""
        if self._transport is None:
            return
        if self._stalled_until_s is not None and now_s >= self._stalled_until_s:
            self._transport.abort()
        elif not self._is_serving and now_s >= self._deadline_s:
            self._expire(self._transport)

    def _expire(self, transport: asyncio.Transport) -> None:
        if self._is_deaf or self._request is None:
            transport.abort()
            return
        if self._has_head and self._is_fast_upload(self._request):
            self._deadline_s += self._floor.settings.body_timeout_s
            return
        what = "body" if self._has_head else "head"
        self._reject_kind("slow_request", f"The request's {what} did not arrive in time.")
        self._serve_next()

    def _is_fast_upload(self, request: Request) -> bool:
        """Whether it is an upload, and enough of it came since this was last asked."""
        if self._refusal is not None or self._floor.upload_bytes_max(request) is None:
            return False
        seen = self._upload_seen
        before = seen[1] if seen is not None and seen[0] is request else 0
        self._upload_seen = (request, self._body_bytes)
        wanted = _UPLOAD_BYTES_PER_S_MIN * self._floor.settings.body_timeout_s
        return self._body_bytes - before >= wanted

    # Its own steps.

    def _begin_head(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._has_head = False
        self._unread_bytes = 0  # received in a head that is not whole yet
        self._header_bytes = 0
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        self._request: Request | None = None
        self._refusal: Refusal | None = None

    def _begin_request(self) -> None:
        if self._request is not None:
            return
        self._begin_head()
        now_s = self._loop.time()
        self._request = Request(id=self._floor.new_request_id(), received_s=now_s)
        self._deadline_s = now_s + self._floor.settings.head_timeout_s

    def _serve_next(self) -> None:
        while self._waiting and not self._is_serving and self._stalled_until_s is None:
            if self._transport is None or self._transport.is_closing():
                return
            request, refusal = self._waiting.popleft()
            self._serving_bytes = len(request.body)
            self._is_serving = True
            if refusal is None:
                exchange = self._floor.serve(self, request)
                if not self._is_serving:
                    continue
                self._exchange = exchange
                if exchange is not None:
                    return
            else:
                self._floor.refuse(self, request, refusal)
            self._end(request)

    def _end(self, request: Request) -> None:
        """A request has been answered at once."""
        if not self._is_deaf or self._waiting:
            self.finish(keep_alive=request.keep_alive)
            return
        # The last answer of a client that may still be sending: closing now could reset the
        # connection before it has read why.
        self._is_serving = False
        self._deadline_s = self._loop.time() + _LINGER_S
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def _leave(self, reason: str) -> None:
        self._is_deaf = True
        self._drop_body()
        waiting, self._waiting = self._waiting, deque()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel(reason)
        for request, _ in waiting:
            self._floor.body_bytes_pending -= len(request.body)
            self._floor.left(request)

    def _drop_body(self) -> None:
        self._floor.body_bytes_pending -= len(self._body)
        self._body = b""

    def _reject_kind(self, kind: RefusalKind, message: str) -> None:
        self._reject(Refusal(kind=kind, message=message))

    def _reject(self, refusal: Refusal) -> None:
        """Read no more; this is the last answer, after those to the requests before."""
        if self._is_deaf:
            return
        self._is_deaf = True
        self._drop_body()
        request = self._request or Request(
            id=self._floor.new_request_id(), received_s=self._loop.time()
        )
        request.keep_alive = False
        self._waiting.append((request, refusal))
