"""What an island gives to its peers from memory, and what it keeps there for them.

    GET    /v1/fragments/SHA256           fragments of the newest version, to any island of the run
    POST   /v1/copy                       Copy -> CopyWanted | 413 CopyRefused
    PUT    /v1/copy/SHA256?island=NAME    a piece of a file, from `upload-offset` on
    GET    /v1/copy?island=NAME           -> Copy, the newest that is whole
    GET    /v1/copy/SHA256?island=NAME    `range: bytes=N-`
    DELETE /v1/copy?island=NAME           it is held elsewhere now

A joiner so fetches from all islands at once and leaves the syncer's line alone; it checks each by
its name, so that a peer can at worst waste its time. A copy of a checkpoint is taken from, given to
and dropped by the island alone whose it is, by its certificate. A thread of its own, that no step
waits for.
"""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from argosy.training import credentials
from argosy.training.inner import Vector
from argosy.training.island.held_copies import (
    PIECE_BYTES_MAX,
    HeldCopies,
    OffsetError,
    UnlikeError,
    fault_of,
)
from argosy.training.listening import (
    bind,
    identity_in,
    keep_renewed,
    make_server,
    part_of,
    url_of,
)
from argosy.training.outer.parameters import ParameterMap
from argosy.training.wire import Copy, CopyRefused, CopyWanted, FragmentName

_MANIFEST_BYTES_MAX = 4 * 2**20
_STREAM_BYTES = 2**20
_JSON = "application/json"

logger = logging.getLogger(__name__)


class PeerShare:
    """Listens from its making until `close`."""

    def __init__(
        self,
        folder: Path,
        run: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        copies_bytes_max: int = 0,
    ) -> None:
        """`folder` has the island's credentials. Raises CredentialsError, OSError.

        Others' checkpoints may take `copies_bytes_max` of this process's memory.
        """
        self._run = run
        self._fragments: dict[str, memoryview] = {}  # replaced whole, never changed
        self._copies = HeldCopies(copies_bytes_max)
        self.given = 0
        context = credentials.listening(folder)
        listener = bind(host, port)
        self.url = url_of(host, listener)
        self._server = make_server(Starlette(routes=self._routes()), context)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, context, folder)),
            name="peers",
            daemon=True,
        )
        self._thread.start()

    def offer(
        self, parameter_map: ParameterMap, published: Vector, names: tuple[FragmentName, ...]
    ) -> None:
        """These are the newest; the vector is not written to any more."""
        pairs = zip(parameter_map.fragments, names, strict=True)
        self._fragments = {
            name.sha256: part.of(published).astype("<f4", copy=False).data.cast("B")
            for part, name in pairs
        }

    def close(self) -> None:
        """Whoever is fetching is cut off, and fetches elsewhere."""
        self._server.should_exit = True
        self._thread.join(5)

    async def _serve(self, listener: socket.socket, context: ssl.SSLContext, folder: Path) -> None:
        showing = asyncio.create_task(keep_renewed(context, folder))
        await self._server.serve(sockets=[listener])
        showing.cancel()

    def _routes(self) -> list[Route]:
        return [
            Route("/v1/fragments/{name}", self._get, methods=["GET"]),
            Route("/v1/copy", self._begin_copy, methods=["POST"]),
            Route("/v1/copy", self._owners(self._newest_copy), methods=["GET"]),
            Route("/v1/copy", self._owners(self._drop_copy), methods=["DELETE"]),
            Route("/v1/copy/{name}", self._owners(self._add_to_copy), methods=["PUT"]),
            Route("/v1/copy/{name}", self._owners(self._give_copy), methods=["GET"]),
        ]

    async def _get(self, request: Request) -> Response:
        if identity_in(request, self._run) is None:
            return Response(status_code=403)
        content = self._fragments.get(request.path_params["name"])
        if content is None:
            return Response(status_code=404)
        self.given += 1
        return part_of(request, content)

    # Copies of others' checkpoints.

    def _owners(
        self, act: Callable[[Request, str], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """For the island alone that `?island=` names."""

        async def guarded(request: Request) -> Response:
            island = request.query_params.get("island", "")
            if not self._is_by(request, island):
                return _refusal(403, f"{island[:100]!r} is not whom your certificate names")
            return await act(request, island)

        return guarded

    def _is_by(self, request: Request, island: str) -> bool:
        identity = identity_in(request, self._run)
        return identity is not None and identity.role == "island" and identity.name == island

    async def _begin_copy(self, request: Request) -> Response:
        body = await _body(request, _MANIFEST_BYTES_MAX)
        if body is None:
            return _refusal(413, f"a manifest has {_MANIFEST_BYTES_MAX} bytes at most")
        try:
            copy = msgspec.json.decode(body, type=Copy)
        except msgspec.MsgspecError as error:
            return _refusal(400, str(error))
        if not self._is_by(request, copy.island):
            return _refusal(403, f"{copy.island[:100]!r} is not whom your certificate names")
        fault = fault_of(copy)
        if fault is not None:
            return _refusal(400, fault)
        answer = self._copies.begin(copy, now_s=_now_s())
        if isinstance(answer, CopyRefused):
            logger.info("no room for a copy of %s: %s", copy.island, answer.reason)
            return Response(msgspec.json.encode(answer), 413, media_type=_JSON)
        return Response(msgspec.json.encode(CopyWanted(there=answer)), media_type=_JSON)

    async def _add_to_copy(self, request: Request, island: str) -> Response:
        piece = await _body(request, PIECE_BYTES_MAX)
        if piece is None:
            return _refusal(413, f"a piece has {PIECE_BYTES_MAX} bytes at most")
        offset = request.headers.get("upload-offset", "0")
        if not offset.isdecimal():
            return _refusal(400, "upload-offset is no number of bytes")
        name = request.path_params["name"]
        try:
            self._copies.add(island, name, int(offset), piece, now_s=_now_s())
        except KeyError:
            return _refusal(404, "that copy was not begun: send its manifest first")
        except OffsetError as error:
            return Response(status_code=409, headers={"upload-offset": str(error.there)})
        except UnlikeError as error:
            return _refusal(422, str(error))
        return Response(status_code=204)

    async def _newest_copy(self, _: Request, island: str) -> Response:
        copy = self._copies.newest(island)
        if copy is None:
            return Response(status_code=404)
        return Response(msgspec.json.encode(copy), media_type=_JSON)

    async def _drop_copy(self, _: Request, island: str) -> Response:
        self._copies.drop(island)
        return Response(status_code=204)

    async def _give_copy(self, request: Request, island: str) -> Response:
        content = self._copies.content(island, request.path_params["name"])
        if content is None:
            return Response(status_code=404)
        asked = request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        if not asked.isdecimal() or int(asked) > len(content):
            return Response(status_code=416)
        rest = content[int(asked) :]
        status = 206 if "range" in request.headers else 200
        headers = {"content-length": str(len(rest))}
        return StreamingResponse(_pieces(rest), status, headers, "application/octet-stream")


async def _pieces(content: memoryview) -> AsyncIterator[bytes]:
    """Without a second copy of it all in memory."""
    for start in range(0, len(content), _STREAM_BYTES):
        yield bytes(content[start : start + _STREAM_BYTES])


async def _body(request: Request, bytes_max: int) -> bytes | None:
    """None: it has more."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            return None
    return bytes(body)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _refusal(status: int, why: str) -> Response:
    return Response(msgspec.json.encode({"error": why}), status, media_type=_JSON)
