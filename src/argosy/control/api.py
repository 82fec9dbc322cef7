"""The control API: what gateways and operators on other hosts say to a control plane.

    POST /v1/gateways/{name}   a report; the answer waits for a newer table, 5 s at most
    GET  /v1/status            who leads, the replicas, what waits
    POST /v1/operator          what `argosy scale`, `drain`, `apply` and `diff` ask
    GET  /v1/health            whether this one runs; no token

Owns HTTP and the bearer token. Every control plane serves all of it; what it answers is `Desk`'s.
"""

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Iterator
from typing import Protocol

import msgspec
import uvicorn
from msgspec import Raw
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.control.hearing import HeardGateway, Report
from argosy.fleet.messages import Message, Replica

WAIT_S_MAX = 5.0  # for a newer table
FORWARDED = "argosy-forwarded"  # one control plane asks another: it is not passed on again
_BODY_BYTES_MAX = 8 * 2**20
_CLOSE_S = 1.0


class Orders(Message, frozen=True, kw_only=True):
    """The answer to a report."""

    newest: int  # the version of the newest table known here; 0: none
    age_s: float | None = None  # since it was known to be the newest; None: never
    table: Raw | None = None  # a `ReplicaTable`; None: no newer one than the report's
    sha256: str | None = None  # of the fleet file that holds
    spec: str | None = None  # its text, where the report's is another
    leader: str | None = None  # the URL of the control plane that leads


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


class Desk(Protocol):
    """Whoever answers."""

    async def report(self, gateway: str, report: Report) -> Orders:
        """Take it, and wait for news."""
        ...

    async def status(self) -> ControlStatus:
        """As it is now."""
        ...

    async def operate(self, body: bytes, *, is_forwarded: bool) -> Answer:
        """What an operator asks, as JSON."""
        ...


class Api:
    """Listens from `start` until `stop`, on a socket that is bound already."""

    def __init__(self, desk: Desk, listener: socket.socket, *, token: str) -> None:
        config = uvicorn.Config(
            _app(desk, token),
            access_log=False,
            log_level="warning",
            lifespan="off",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
        )
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
    expected = f"Bearer {token}".encode()

    def is_known(request: Request) -> bool:
        given = request.headers.get("authorization", "").encode()
        return hmac.compare_digest(given, expected)

    async def report(request: Request) -> Response:
        if not is_known(request):
            return _unauthorized()
        body = await _body(request)
        try:
            told = msgspec.json.decode(body or b"", type=Report)
        except msgspec.MsgspecError as error:
            return _error(400, f"this is no report of a gateway: {error}")
        orders = await desk.report(request.path_params["name"], told)
        return _json(200, msgspec.json.encode(orders))

    async def status(request: Request) -> Response:
        if not is_known(request):
            return _unauthorized()
        return _json(200, msgspec.json.encode(await desk.status()))

    async def operate(request: Request) -> Response:
        if not is_known(request):
            return _unauthorized()
        body = await _body(request)
        if body is None:
            return _error(413, f"more than {_BODY_BYTES_MAX:,} bytes")
        answer = await desk.operate(body, is_forwarded=FORWARDED in request.headers)
        return _json(answer.status, answer.body)

    async def health(_: Request) -> Response:
        return _json(200, b'{"status":"ok"}')

    return Starlette(
        routes=[
            Route("/v1/gateways/{name}", report, methods=["POST"]),
            Route("/v1/status", status, methods=["GET"]),
            Route("/v1/operator", operate, methods=["POST"]),
            Route("/v1/health", health, methods=["GET"]),
        ]
    )


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


def _unauthorized() -> Response:
    return _error(401, "the bearer token is missing or another one: set ARGOSY_CONTROL_TOKEN")


def _json(status: int, body: bytes) -> Response:
    return Response(body, status_code=status, media_type="application/json")
