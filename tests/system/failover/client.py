"""Asks as a customer does: one request by the official client, with its bytes kept aside.

Never raises for what the other side does; how a request ended is part of the `Reply`.
"""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import openai

from tests.system.failover.seen import Error, Reply, Wire

_QUESTION = "Name the sixty tokens."


class _Kept(httpx.AsyncByteStream):
    """A response's bytes on their way to the client, and a copy of them."""

    def __init__(self, stream: httpx.AsyncByteStream, body: bytearray) -> None:
        self._stream, self._body = stream, body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._body += data
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Keeping(httpx.AsyncHTTPTransport):
    """Keeps the body of the one response that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = bytearray()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Kept(response.stream, self.body)
        return response


async def ask(url: str, *, deadline_s: float, at_s: float) -> Reply:
    """One streaming chat with the model `primary`; given up after `deadline_s`."""
    keeping = _Keeping()
    texts: list[str] = []
    now_s = asyncio.get_running_loop().time
    began_s = now_s()

    def reply(**fields: object) -> Reply:
        return Reply(
            at_s=at_s,
            seconds=now_s() - began_s,
            text="".join(texts),
            wire=read_wire(bytes(keeping.body)),
            **fields,  # type: ignore[arg-type]
        )

    try:
        async with asyncio.timeout(deadline_s), _client(url, keeping) as client:
            stream = await client.chat.completions.create(
                model="primary",
                messages=[{"role": "user", "content": _QUESTION}],
                stream=True,
                stream_options={"include_usage": True},
            )
            async for chunk in stream:
                texts += [choice.delta.content or "" for choice in chunk.choices]
    except TimeoutError:
        return reply(end="hung")
    except (openai.APIConnectionError, httpx.HTTPError, ValueError) as error:  # ValueError: no JSON
        return reply(end="lost", detail=f"{type(error).__name__}: {error.__cause__ or error}")
    except openai.APIError as error:
        return reply(end="refused", error=_error(error))
    return reply(end="whole")


async def ask_whole(url: str, *, deadline_s: float) -> str | None:
    """The text of one chat with the model `backup`, without a stream; None when it failed."""
    try:
        async with asyncio.timeout(deadline_s), _client(url, _Keeping()) as client:
            answer = await client.chat.completions.create(
                model="backup", messages=[{"role": "user", "content": _QUESTION}]
            )
            return answer.choices[0].message.content
    except (TimeoutError, openai.OpenAIError, httpx.HTTPError):
        return None


def _client(url: str, transport: httpx.AsyncBaseTransport) -> openai.AsyncOpenAI:
    http = httpx.AsyncClient(transport=transport, timeout=None, trust_env=False)
    return openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=None, http_client=http
    )


def _error(error: openai.APIError) -> Error:
    said = error.body if isinstance(error.body, dict) else {}
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    return Error(status=status, code=error.code, message=said.get("message") or error.message)


def read_wire(body: bytes) -> Wire:
    """A stream's events, read line by line and believed one by one."""
    chunks: list[dict] = []
    dones = unreadable = 0
    for line in body.decode(errors="replace").split("\n"):
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:"):
            continue
        if data == "[DONE]":
            dones += 1
            continue
        try:
            chunks.append(json.loads(data))
        except ValueError:
            unreadable += 1
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    return Wire(
        text="".join(choice["delta"].get("content") or "" for choice in choices),
        models=tuple(dict.fromkeys(chunk["model"] for chunk in chunks if "model" in chunk)),
        finishes=tuple(choice["finish_reason"] for choice in choices if choice["finish_reason"]),
        tokens_out=tuple(
            chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")
        ),
        dones=dones,
        events_unreadable=unreadable,
    )
