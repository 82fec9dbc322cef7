"""HTTP over mutual TLS, for whoever listens in a run: the syncer, and islands for their peers.

Owns that a request knows, by the certificate of its connection, who sent it; and that a renewed
certificate of one's own is shown.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from argosy.training import credentials
from argosy.training.credentials import CredentialsError, Identity, identity_of

LOOK_S = 60.0  # between two looks at whether the certificate was renewed
_BYTES = "application/octet-stream"

logger = logging.getLogger(__name__)


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


async def keep_renewed(context: ssl.SSLContext, folder: Path, *, look_s: float = LOOK_S) -> None:
    """Show the certificate that is in the folder, whenever it is another. Until cancelled.

    In the event loop whose server has that context.
    """
    shown: bytes | None = None
    while True:
        await asyncio.sleep(look_s)
        try:
            found = credentials.certificate_of(folder)
            if found != shown:
                credentials.take_up(context, folder)
                shown = found
        except CredentialsError as error:  # half copied, perhaps: the old one is good for days
            logger.warning("the certificate stays as it was: %s", error)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0: any. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=512)
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
