"""One streamed chat, timed where a client stands: from its connection to its first token."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT_S = 120.0
_NO_END = {"0": -100, "2": -100}  # the model's end tokens: every answer has max_tokens

Message = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer; a refused or cut one has an error instead of times."""

    text: str = ""
    ttft_s: float = 0.0
    whole_s: float = 0.0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    error: str = ""


async def ask(
    url: str, key: str, messages: Sequence[Message], *, max_tokens: int, model: str
) -> Answer:
    """Ask; never raises for what the server does."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _ask(url, key, _body(messages, max_tokens, model))
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        return Answer(error=f"{type(error).__name__}: {error}")


def _body(messages: Sequence[Message], max_tokens: int, model: str) -> bytes:
    return json.dumps(
        {
            "model": model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
            "logit_bias": _NO_END,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()


async def _ask(url: str, key: str, body: bytes) -> Answer:
    parts = urlsplit(url)
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\n"
            f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        status = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
        if status != b"200":
            said = await reader.read(500)
            return Answer(error=f"{status.decode()}: {said.decode(errors='replace')}")
        return await _read(reader, begun)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader, begun: float) -> Answer:
    ttft_s, text, usage = None, "", {}
    async for event in _events(reader):
        if event == b"[DONE]":
            break
        chunk = json.loads(event)
        if "error" in chunk:
            return Answer(error=str(chunk["error"]))
        for choice in chunk["choices"]:
            if said := choice["delta"].get("content"):
                ttft_s = ttft_s or time.perf_counter() - begun
                text += said
        usage = chunk.get("usage") or usage
    if ttft_s is None:
        return Answer(error="the stream ended without a token")
    return Answer(
        text=text,
        ttft_s=ttft_s,
        whole_s=time.perf_counter() - begun,
        tokens_in=usage.get("prompt_tokens", 0),
        tokens_cached=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
        tokens_out=usage.get("completion_tokens", 0),
    )


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The data of each event of a chunked body."""
    kept = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        kept += (await reader.readexactly(size + 2))[:-2]
        *events, kept = kept.split(b"\n\n")
        for event in events:
            if event.startswith(b"data: "):
                yield event[6:]
