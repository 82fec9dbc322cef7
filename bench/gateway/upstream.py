"""A fast upstream in the OpenAI shape: two ports (two replicas), one process, no framework.

    python -m bench.gateway.upstream

Prints its two ports and ends when its stdin does. Everything it may say is made beforehand, so
that its own cost is the socket's: one write an answer, one write an event.
"""

import asyncio
import json
import sys
import threading
import zlib
from functools import cache

import uvloop

from bench.gateway.asks import BODIES_MAX, MODEL

_EVENTS_MAX = 4096
_JSON = "content-type: application/json\r\n"


def _whole(body: dict[str, object], status: str = "200 OK") -> bytes:
    text = json.dumps(body, separators=(",", ":"))
    return f"HTTP/1.1 {status}\r\n{_JSON}content-length: {len(text)}\r\n\r\n{text}".encode()


def _chunk(data: str) -> bytes:
    return f"{len(data):x}\r\n{data}\r\n".encode()


def _event(choices: list[object], **more: object) -> bytes:
    event = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1790000000,
             "model": MODEL, "choices": choices, **more}  # fmt: skip
    return _chunk(f"data: {json.dumps(event, separators=(',', ':'))}\n\n")


def _delta(delta: dict[str, str], finish: str | None = None) -> list[object]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]


_USAGE = {"prompt_tokens": 60, "completion_tokens": 64, "total_tokens": 124}
_MESSAGE = {"role": "assistant", "content": "Ships come in when the light turns. " * 4}
_ANSWER = _whole(
    {"id": "chatcmpl-bench", "object": "chat.completion", "created": 1790000000, "model": MODEL,
     "choices": [{"index": 0, "message": _MESSAGE, "logprobs": None, "finish_reason": "stop"}],
     "usage": _USAGE}
)  # fmt: skip
_ROW = {"id": MODEL, "object": "model", "created": 1790000000, "owned_by": "vllm"}
_MODELS = _whole({"object": "list", "data": [_ROW]})
_HEALTHY = _whole({"status": "ok"})
_UNKNOWN = _whole({"error": {"message": "no such path", "code": 404}}, "404 Not Found")

_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n" + _event(_delta({"role": "assistant", "content": ""}))
)
_TOKENS = [_event(_delta({"content": f" word{n % 10}"})) for n in range(_EVENTS_MAX)]
_FINISH = _event(_delta({}, "stop"))
_FINISH_USAGE = _FINISH + _event([], usage=_USAGE)
_END = _chunk("data: [DONE]\n\n") + b"0\r\n\r\n"


class Replica(asyncio.Protocol):
    """One connection; one answer at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unread = b""
        self._needed = 0  # bytes of the request that is arriving; 0: not known yet
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._unread = self._unread + data if self._unread else data
        if len(self._unread) >= self._needed and self._timer is None:
            self._answer_next()

    def _answer_next(self) -> None:
        data = self._unread
        head_ends = data.find(b"\r\n\r\n") + 4
        if head_ends < 4:
            return
        head = data[:head_ends]
        self._needed = head_ends + _length(head)
        if len(data) < self._needed:
            return
        self._unread, body = data[self._needed :], data[head_ends : self._needed]
        self._needed = 0
        if head.startswith(b"POST /v1/chat/completions HTTP"):
            self._chat(body)
        elif head.startswith(b"POST /v1/chat/completions/render HTTP"):
            self._transport.write(_rendered(len(body) // 4, zlib.crc32(body) % BODIES_MAX))
        else:
            self._transport.write(_page(head))

    def _chat(self, body: bytes) -> None:
        if body.find(b'"stream":true') < 0 and body.find(b'"stream": true') < 0:
            self._transport.write(_ANSWER)
            return
        asked = json.loads(body)  # of streams only: rare, and the orders must be read right
        count = min(int(asked.get("max_tokens", 64)), _EVENTS_MAX)
        wants_usage = (asked.get("stream_options") or {}).get("include_usage")
        end = (_FINISH_USAGE if wants_usage else _FINISH) + _END
        pace_s = int(asked.get("seed", 0)) / 1000
        if not pace_s:
            self._transport.write(b"".join((_STREAM, *_TOKENS[:count], end)))
            return
        self._transport.write(_STREAM + _TOKENS[0])
        self._later(1, count, end, self._loop.time() + pace_s, pace_s)

    def _later(self, sent: int, count: int, end: bytes, at_s: float, pace_s: float) -> None:
        self._timer = self._loop.call_at(at_s, self._tick, sent, count, end, at_s, pace_s)

    def _tick(self, sent: int, count: int, end: bytes, at_s: float, pace_s: float) -> None:
        """One event; the pace is kept by the clock, not by the gap."""
        if self._transport is None:
            return
        if sent < count:
            self._transport.write(_TOKENS[sent])
            self._later(sent + 1, count, end, at_s + pace_s, pace_s)
            return
        self._timer = None
        self._transport.write(end)


@cache
def _rendered(count: int, prompt: int) -> bytes:
    """The prompt's token ids, as vLLM tells them to a router that asks before each request."""
    ids = [*range(20), 1000 + prompt, *range(2000, 1979 + count)]
    return _whole({"request_id": "chatcmpl-bench", "token_ids": ids})


def _length(head: bytes) -> int:
    """`content-length`; a chunked body is not read (no peer sends one)."""
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


def _page(head: bytes) -> bytes:
    path = head.split(b" ", 2)[1]
    if path.startswith(b"/v1/models"):
        return _MODELS
    return _HEALTHY if path.startswith((b"/health", b"/ping")) else _UNKNOWN


async def serve() -> None:
    """Listen on two free ports until stdin ends."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Replica, "127.0.0.1", 0, backlog=4096) for _ in range(2)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    over = asyncio.Event()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    await over.wait()


if __name__ == "__main__":
    uvloop.run(serve())
