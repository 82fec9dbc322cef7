"""The control API: what gateways and operators on other hosts say to a control plane.

    POST /v1/gateways/{name}   a report; the answer waits for a newer table, 5 s at most
    GET  /v1/status            who leads, the replicas, what waits
    GET  /v1/events            what was decided, as in `argosy events --json`
    POST /v1/operator          what `argosy scale`, `drain`, `apply` and `diff` ask
    GET  /v1/health            whether this one runs; no token

Owns HTTP and the bearer token; who may connect at all is said by the TLS that it is given. Every
control plane serves all of it; what it answers is `Desk`'s.
"""

import asyncio
import contextlib
import hmac
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.control.hearing import HeardGateway, Report
from argosy.control.publication import Orders
from argosy.fleet.messages import Message, Replica

FORWARDED = "argosy-forwarded"  # one control plane asks another: it is not passed on again
_BODY_BYTES_MAX = 8 * 2**20
_CLOSE_S = 1.0

Handler = Callable[[Request], Awaitable[Response]]


class ControlStatus(Message, frozen=True, kw_only=True):
    """What `argosy status --control` prints."""

    fleet: str
    answered_by: str  # this control plane's URL
    leader: str | None  # URL; None: nobody, or not known
    token: int | None  # of its lease
    version: int  # of the newest table
    age_s: float | None  # since it was known to be the newest
    replicas: tuple[Replica, ...]
    waits: tuple[str, ...] | None  # None: only the leader knows
    gateways: tuple[HeardGateway, ...]  # as this control plane hears them


class Answer(Message, frozen=True, kw_only=True):
    """To an operator."""

    status: int
    body: bytes


class EventsAsked(Message, frozen=True, kw_only=True):
    """Which decisions: the query of `/v1/events`, as `store.decisions.read` has them."""

    since_s: float | None = None
    subject: str | None = None
    kind: str | None = None
    after_seq: int | None = None
    limit: int = 500


class Desk(Protocol):
    """Whoever answers."""

    async def report(self, gateway: str, report: Report) -> Orders:
        """Take it, and wait for news."""
        ...

    async def status(self) -> ControlStatus:
        """As it is now."""
        ...

    async def events(self, asked: EventsAsked) -> Answer:
        """Decisions of the log, as a JSON list."""
        ...

    async def operate(self, body: bytes, *, is_forwarded: bool) -> Answer:
        """What an operator asks, as JSON."""
        ...


class Api:
    """Listens from `start` until `stop`, on a socket that is bound already."""

    def __init__(
        self,
        desk: Desk,
        listener: socket.socket,
        *,
        token: str,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls`: whom it shows what, and takes; None: in the clear."""
        config = uvicorn.Config(
            _app(desk, token),
            access_log=False,
            log_level="warning",
            lifespan="off",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
        )
        config.load()
        config.ssl = tls  # a context, not files: it can take up other certificates as it runs
        self._server = _Server(config)
        self._listener = listener
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Whoever waits is cut off, and asks another control plane."""
        if self._serving is not None:
            self._server.should_exit = True
            _, late = await asyncio.wait((self._serving,), timeout=3 * _CLOSE_S)
            for task in late:
                task.cancel()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the command's."""
        yield


def _app(desk: Desk, token: str) -> Starlette:
    handlers = _Handlers(desk)

    def known(answer: Handler) -> Handler:
        return _known(answer, f"Bearer {token}".encode())

    return Starlette(
        routes=[
            Route("/v1/gateways/{name}", known(handlers.report), methods=["POST"]),
            Route("/v1/status", known(handlers.status), methods=["GET"]),
            Route("/v1/events", known(handlers.events), methods=["GET"]),
            Route("/v1/operator", known(handlers.operate), methods=["POST"]),
            Route("/v1/health", _health, methods=["GET"]),
        ]
    )


def _known(answer: Handler, expected: bytes) -> Handler:
    """Only for whoever has the token."""

    async def checked(request: Request) -> Response:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, expected):
            return _error(401, "the bearer token is missing or another one: ARGOSY_CONTROL_TOKEN")
        return await answer(request)

    return checked


class _Handlers:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def report(self, request: Request) -> Response:
        try:
            told = msgspec.json.decode(await _body(request) or b"", type=Report)
        except msgspec.MsgspecError as error:
            return _error(400, f"this is no report of a gateway: {error}")
        orders = await self._desk.report(request.path_params["name"], told)
        return _json(200, msgspec.json.encode(orders))

    async def status(self, _: Request) -> Response:
        return _json(200, msgspec.json.encode(await self._desk.status()))

    async def events(self, request: Request) -> Response:
        try:
            asked = msgspec.convert(dict(request.query_params), EventsAsked, strict=False)
        except msgspec.ValidationError as error:
            return _error(400, str(error))
        answer = await self._desk.events(asked)
        return _json(answer.status, answer.body)

    async def operate(self, request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return _error(413, f"more than {_BODY_BYTES_MAX:,} bytes")
        answer = await self._desk.operate(body, is_forwarded=FORWARDED in request.headers)
        return _json(answer.status, answer.body)


async def _health(_: Request) -> Response:
    return _json(200, b'{"status":"ok"}')


async def _body(request: Request) -> bytes | None:
    """None when it is too large."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _BODY_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


def error_body(message: str) -> bytes:
    """As all errors of this API are."""
    return msgspec.json.encode({"error": message})


def _error(status: int, message: str) -> Response:
    return _json(status, error_body(message))


def _json(status: int, body: bytes) -> Response:
    return Response(body, status_code=status, media_type="application/json")
