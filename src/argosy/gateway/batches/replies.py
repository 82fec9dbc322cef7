"""What both APIs need to answer: the call, its owner, pages of lists, downloads."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from urllib.parse import parse_qs

import msgspec

from argosy.fleet.batches import Owner, Page
from argosy.gateway.batches.ports import Piece
from argosy.gateway.http import Request, whole_response
from argosy.gateway.surfaces.decode import refused
from argosy.gateway.surfaces.port import RefusedError

Reply = bytes | AsyncGenerator[bytes, None]
JSON_LINES = "application/x-ndjson"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request to one of these paths."""

    request: Request
    id: str  # of the file or batch in the path; "" in the path of a list
    query: dict[str, str]
    owner: Owner


def read_query(query: str) -> dict[str, str]:
    """The parameters; of a repeated one the last counts."""
    return {name: values[-1] for name, values in parse_qs(query).items()}


def owner_of(request: Request) -> Owner:
    """Whoever's key the gateway found; nobody's where it asks for none."""
    key = request.key
    return Owner(tenant=key.tenant if key else None, key=key.id if key else None)


def read_limit(call: Call, *, default: int, limit_max: int) -> int:
    """The query's `limit`. Raises `RefusedError`."""
    text = call.query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= limit_max):
        message = f"limit = {text[:20]!r} is not a number from 1 to {limit_max}."
        raise refused("bad_request", message, param="limit")
    return int(text)


def openai_page(call: Call, *, default: int, limit_max: int) -> Page:
    """`limit`, `after` and `order`, as OpenAI's lists have them. Raises `RefusedError`."""
    return Page(
        limit=read_limit(call, default=default, limit_max=limit_max),
        after=call.query.get("after"),
        oldest_first=call.query.get("order") == "asc",
    )


def not_found(what: str, asked: str) -> RefusedError:
    """There is none, or it is another tenant's: nobody learns which."""
    refusal = refused("unknown_path", f"No such {what}: '{asked[:100]}'.", param="id").refusal
    return RefusedError(msgspec.structs.replace(refusal, code="not_found"))


def json_reply(call: Call, body: object) -> bytes:
    """A whole response."""
    return whole_response(200, msgspec.json.encode(body), request=call.request)


async def download(
    request: Request,
    *,
    length_bytes: int,
    content_type: str,
    read: Callable[[int], list[Piece]],
) -> AsyncGenerator[bytes, None]:
    """Head and body, a piece at a time: whoever writes it waits for the client in between.

    Raises `RuntimeError` when what was stored went away meanwhile: the connection must then be
    closed, so that the client sees a cut answer.
    """
    yield _download_head(request, length_bytes, content_type)
    sent_bytes, after = 0, -1
    while pieces := await asyncio.to_thread(read, after):
        after = pieces[-1][0]
        content = b"".join(content for _, content in pieces)
        sent_bytes += len(content)
        yield content
    if sent_bytes != length_bytes:
        raise RuntimeError(f"{request.path}: {sent_bytes} bytes are left of {length_bytes}")


def _download_head(request: Request, length_bytes: int, content_type: str) -> bytes:
    """As `whole_response` writes it, for a body that is not in memory."""
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nx-request-id: {request.id}\r\n"
        f"request-id: {request.id}\r\ncontent-length: {length_bytes}\r\n"
    )
    if not request.keep_alive:
        head += "connection: close\r\n"
    elif request.is_http_10:
        head += "connection: keep-alive\r\n"
    return (head + "\r\n").encode("latin-1")
