"""The syncer over HTTP and mutual TLS: `docs/WIRE.md` as routes.

    POST /v1/join, /v1/beat, /v1/contribution, /v1/seed, /v1/evaluated, /v1/leave
    GET  /v1/parameters?newer_than=V&wait_s=S    /v1/update/V?wait_s=S    /v1/status
    HEAD, PUT, GET /v1/fragments/SHA256

Owns HTTP, sizes, and that an island speaks for itself alone: its name is the one in its
certificate. What is answered is the desk's.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.store.errors import FencedError, StoreError
from argosy.training import credentials
from argosy.training.credentials import Identity
from argosy.training.listening import identity_in, part_of
from argosy.training.syncer.desk import Desk
from argosy.training.syncer.vault import FullError, TooMuchError, Upload, WrongHashError
from argosy.training.wire import (
    Beat,
    Contribution,
    Evaluated,
    Join,
    Leave,
    Missing,
    Refused,
    Seed,
)

BODY_BYTES_MAX = 8 * 2**20  # of a control message: the names of 100,000 fragments
WAIT_S_MAX = 60.0
_WRITE_BYTES = 1 << 20

_Message = TypeVar("_Message", Join, Beat, Contribution, Seed, Evaluated, Leave)
Handler = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger(__name__)


class NotYoursError(Exception):
    """The certificate does not allow what was asked."""


class BodyError(Exception):
    """The request makes no sense."""


def make_app(desk: Desk) -> Starlette:
    """The routes."""
    served = _Served(desk)
    routes = [
        Route("/v1/join", _answering(served.join), methods=["POST"]),
        Route("/v1/beat", _answering(served.beat), methods=["POST"]),
        Route("/v1/contribution", _answering(served.contribution), methods=["POST"]),
        Route("/v1/seed", _answering(served.seed), methods=["POST"]),
        Route("/v1/evaluated", _answering(served.evaluated), methods=["POST"]),
        Route("/v1/leave", _answering(served.leave), methods=["POST"]),
        Route("/v1/parameters", _answering(served.parameters), methods=["GET"]),
        Route("/v1/update/{version:int}", _answering(served.update), methods=["GET"]),
        Route("/v1/status", _answering(served.status), methods=["GET"]),
        Route("/v1/fragments/{name}", _answering(served.put), methods=["PUT"]),
        Route("/v1/fragments/{name}", _answering(served.get), methods=["GET", "HEAD"]),
    ]
    return Starlette(routes=routes)


class _Served:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._uploads: dict[tuple[str, str], int] = {}  # the newest of each fragment by island

    async def join(self, request: Request) -> Response:
        return _verdict(await self._desk.join(await _read(request, Join)))

    async def beat(self, request: Request) -> Response:
        return _verdict(await self._desk.beat(await _read(request, Beat)))

    async def contribution(self, request: Request) -> Response:
        # An answer that the sender does not wait for any more is given all the same: shielded.
        sent = await _read(request, Contribution)
        return _verdict(await asyncio.shield(self._desk.contribute(sent)))

    async def seed(self, request: Request) -> Response:
        seed = await _read(request, Seed)
        return _verdict(await asyncio.shield(self._desk.seed(seed)))

    async def evaluated(self, request: Request) -> Response:
        await self._desk.evaluated(await _read(request, Evaluated))
        return Response(status_code=204)

    async def leave(self, request: Request) -> Response:
        await self._desk.leave(await _read(request, Leave))
        return Response(status_code=204)

    async def parameters(self, request: Request) -> Response:
        _identity(request)
        newer = request.query_params.get("newer_than")
        found = await self._desk.parameters(
            newer_than=None if newer is None else int(newer), wait_s=_wait_s(request)
        )
        return _json(found)

    async def update(self, request: Request) -> Response:
        _identity(request)
        found = await self._desk.update(request.path_params["version"], wait_s=_wait_s(request))
        return Response(status_code=204) if found is None else _json(found)

    async def status(self, request: Request) -> Response:
        _identity(request)
        return _json(await self._desk.status())

    async def get(self, request: Request) -> Response:
        """A fragment; HEAD: how much of an upload is here."""
        identity, name = _identity(request), request.path_params["name"]
        if request.method == "HEAD":
            is_whole = await asyncio.to_thread(self._desk.vault.has, name)
            offset = await asyncio.to_thread(self._desk.vault.offset, identity.name, name)
            headers = {"upload-offset": str(offset), "upload-whole": "1" if is_whole else "0"}
            return Response(headers=headers)
        content: memoryview | bytes | None = self._desk.fragment(name)
        if content is None:
            try:
                content = await asyncio.to_thread(self._desk.vault.read, name)
            except FileNotFoundError:
                return _error(404, f"there is no fragment {name}: ask for the newest version")
        response = part_of(request, content)
        self._desk.count_bytes(identity.name, went=len(response.body))
        return response

    async def put(self, request: Request) -> Response:
        """The rest of a fragment, from `upload-offset` on."""
        identity, name = _identity(request), request.path_params["name"]
        if identity.role != "island":
            raise NotYoursError("only islands send fragments")
        if await asyncio.to_thread(self._desk.vault.has, name):
            return Response(status_code=204)
        if not self._desk.may_upload(identity.name, name):
            raise TooMuchError("so many fragments were sent without a contribution: contribute")
        upload = await asyncio.to_thread(self._desk.vault.open_upload, identity.name, name)
        try:
            return await self._take(request, upload, (identity.name, name))
        finally:
            upload.close()

    async def _take(self, request: Request, upload: Upload, key: tuple[str, str]) -> Response:
        asked = int(request.headers.get("upload-offset", "0"))
        if asked != upload.offset:
            headers = {"upload-offset": str(upload.offset)}
            return _error(409, f"{upload.offset} bytes of it are here, not {asked}", headers)
        mine = self._uploads[key] = self._uploads.get(key, 0) + 1
        waiting = bytearray()
        try:
            async for chunk in request.stream():
                if self._uploads.get(key) != mine:
                    waiting.clear()
                    return _error(409, "the same fragment is sent in another request")
                waiting += chunk
                if len(waiting) >= _WRITE_BYTES:
                    await asyncio.to_thread(upload.write, bytes(waiting))
                    waiting.clear()
        finally:  # cut off: what came is not sent again
            await asyncio.to_thread(upload.write, bytes(waiting))
        await asyncio.to_thread(upload.commit)
        self._uploads.pop(key, None)
        self._desk.count_bytes(key[0], came=upload.offset - asked)
        return Response(status_code=201)


def _answering(handler: Handler) -> Handler:
    """What goes wrong, as a status that says whether to try again."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except NotYoursError as error:
            return _error(403, str(error))
        except (BodyError, ValueError) as error:
            return _error(400, str(error))
        except TooMuchError as error:
            return _error(413, str(error))
        except WrongHashError as error:
            return _error(422, str(error))
        except FullError as error:
            logger.warning("%s", error)
            return _error(507, str(error))
        except (StoreError, FencedError) as error:
            return _error(503, str(error))
        except ClientDisconnect:
            return _error(400, "the sender went away")

    return answer


async def _read(request: Request, kind: type[_Message]) -> _Message:
    """The body, from the island that it says it is of."""
    identity = _identity(request)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise TooMuchError(f"a message has at most {BODY_BYTES_MAX} bytes")
    try:
        message = msgspec.json.decode(bytes(body), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyError(f"this is no {kind.__name__}: {error}") from error
    if identity.role != "island" or message.island != identity.name:
        raise NotYoursError(
            f'the certificate is of {identity.role} "{identity.name}"; the message is of'
            f' island "{message.island}"'
        )
    return message


def _identity(request: Request) -> Identity:
    own = request.app.state.run
    identity = identity_in(request, own)
    if identity is None:
        raise NotYoursError(f'the certificate is not one of the run "{own}"')
    return identity


def _wait_s(request: Request) -> float:
    return min(WAIT_S_MAX, max(0.0, float(request.query_params.get("wait_s", "0"))))


def _verdict(answer: msgspec.Struct) -> Response:
    return _json(answer, 409 if isinstance(answer, Refused | Missing) else 200)


def _json(answer: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status, media_type="application/json")


def _error(status: int, told: str, headers: dict[str, str] | None = None) -> Response:
    body = msgspec.json.encode({"error": told})
    return Response(body, status, headers, media_type="application/json")


def app_of(desk: Desk) -> Starlette:
    """The routes of that desk's run."""
    app = make_app(desk)
    app.state.run = desk.run.run
    return app


def context_of(folder: Path) -> ssl.SSLContext:
    """What the syncer shows, and whom it takes. Raises CredentialsError."""
    return credentials.listening(folder)
