"""HTTP/1.1 as bytes: what a client sent, and the heads that the gateway writes."""

import msgspec

from argosy.fleet.messages import Key, Refusal

_REASONS = {
    100: "Continue", 200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    413: "Content Too Large", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 529: "Overloaded",
}  # fmt: skip

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class Request(msgspec.Struct, kw_only=True):
    """One request of a client. `received_s` is the loop's time of its first byte."""

    id: str
    received_s: float
    method: str = ""
    path: str = ""
    query: str = ""  # what follows the question mark
    headers: dict[bytes, bytes] = {}  # names in lower case; of a repeated one the last counts
    body: bytes = b""  # of an upload a bytearray, which nobody changes
    is_http_10: bool = False
    keep_alive: bool = True
    key: Key | None = None  # found by the gateway when the head was whole

    def secret(self) -> str | None:
        """The API key: `Authorization: Bearer …` (OpenAI) or `x-api-key: …` (Anthropic)."""
        bearer = self.headers.get(b"authorization", b"")
        if bearer[:7].lower() == b"bearer ":
            return bearer[7:].strip().decode("latin-1") or None
        return self.headers.get(b"x-api-key", b"").decode("latin-1") or None


def whole_response(
    status: int,
    body: bytes,
    *,
    request: Request,
    content_type: str = JSON,
    extra: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """A response with its length; `connection: close` where the connection ends with it.

    The answer to a HEAD is the head alone.
    """
    head = _head(status, content_type, request, (("content-length", str(len(body))), *extra))
    return head if request.method == "HEAD" else head + body


def retry_after(refusal: Refusal) -> tuple[tuple[str, str], ...]:
    """The header that says when to come back, where that is known."""
    if refusal.retry_after_s is None:
        return ()
    return (("retry-after", str(max(1, round(refusal.retry_after_s)))),)


def answer_response(body: bytes, *, request: Request, replica: str) -> bytes:
    """The whole answer of a replica: `whole_response` for the path that nearly all take."""
    if not request.keep_alive or request.is_http_10:
        return whole_response(200, body, request=request, extra=(("argosy-replica", replica),))
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: {request.id}\r\n"
        f"request-id: {request.id}\r\ncontent-length: {len(body)}\r\n"
        f"argosy-replica: {replica}\r\n\r\n"
    )
    return head.encode("latin-1") + body


def stream_beginning(data: bytes, request: Request, *, replica: str) -> bytes:
    """The head of a stream of events, and its first ones: chunked, or to the connection's end."""
    framing = (("transfer-encoding", "chunked"),)
    if request.is_http_10:
        framing, request.keep_alive = (), False
    extra = (*framing, ("cache-control", "no-cache"), ("argosy-replica", replica))
    return _head(200, EVENT_STREAM, request, extra) + stream_part(data, request)


def stream_part(data: bytes, request: Request) -> bytes:
    """More events of it."""
    return data if request.is_http_10 or not data else b"%x\r\n%b\r\n" % (len(data), data)


def stream_end(request: Request) -> bytes:
    """What ends it; nothing where the connection's end does."""
    return b"" if request.is_http_10 else _LAST_CHUNK


def _head(
    status: int, content_type: str, request: Request, extra: tuple[tuple[str, str], ...]
) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}",
        f"content-type: {content_type}",
    ]
    lines += [f"x-request-id: {request.id}", f"request-id: {request.id}"]
    lines += [f"{name}: {value}" for name, value in extra]
    if not request.keep_alive:
        lines.append("connection: close")
    elif request.is_http_10:
        lines.append("connection: keep-alive")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
