"""HTTP over mutual TLS, for whoever listens in a run: the syncer, and islands for their peers.

Owns that a request knows, by the certificate of its connection, who sent it.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from argosy.training.credentials import Identity, identity_of

_BYTES = "application/octet-stream"


class IdentifiedProtocol(HttpToolsProtocol):
    """HTTP/1.1 that knows by its certificate who is at the other end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The handshake is done: what was verified in it is each request's `state.identity`."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate: Any = None if tls is None else tls.getpeercert()
        self.app_state = {**self.app_state, "identity": identity_of(certificate)}


class QuietServer(uvicorn.Server):
    """One whose process has its own way with signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the process's."""
        yield


def make_server(app: Starlette, context: ssl.SSLContext) -> QuietServer:
    """To be served on a socket that is bound already: `serve(sockets=[...])`."""
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        log_config=None,
        lifespan="off",
        ws="none",
        timeout_keep_alive=120,
        timeout_graceful_shutdown=2,
        http=IdentifiedProtocol,
    )
    config.load()
    config.ssl = context
    return QuietServer(config)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0: any. Raises OSError."""
    listener = socket.create_server((host, port), backlog=512)
    listener.setblocking(False)
    return listener


def url_of(host: str, listener: socket.socket) -> str:
    """Where others call it."""
    named = f"[{host}]" if ":" in host else host
    return f"https://{named}:{listener.getsockname()[1]}"


def identity_in(request: Request, run: str) -> Identity | None:
    """Who sent it; None: whoever it is has no certificate of that run."""
    identity: Identity | None = getattr(request.state, "identity", None)
    return None if identity is None or identity.run != run else identity


def part_of(request: Request, content: memoryview | bytes) -> Response:
    """All of it, or from a byte on where `range: bytes=N-` asks for that; 416 beyond the end."""
    asked = request.headers.get("range", "")
    whole = len(content)
    if not asked:
        return Response(bytes(content), media_type=_BYTES)
    start = asked.removeprefix("bytes=").removesuffix("-")
    if not start.isdecimal() or int(start) >= whole:
        return Response(status_code=416, headers={"content-range": f"bytes */{whole}"})
    headers = {"content-range": f"bytes {start}-{whole - 1}/{whole}"}
    return Response(bytes(content[int(start) :]), 206, headers, _BYTES)
