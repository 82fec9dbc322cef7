"""Streaming chat clients that keep an account of what each request got, down to the bytes."""

import asyncio
import json
from typing import Literal

import httpx
import msgspec
from fleet_process import MODEL, FleetProcess

End = Literal["whole", "error event", "cut", "refused", "lost"]


class Ended(msgspec.Struct, frozen=True):
    """How one request ended."""

    end: End
    began: bool  # the client had a byte of the answer
    detail: str
    request: str | None  # its id, where there was a head
    chunks: int = 0


async def stream_once(
    client: httpx.AsyncClient, *, tokens: int = 24, question: str = "Count to fifty."
) -> Ended:
    """One streaming chat. Never raises for what the other side does."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "stream": True,
        "logit_bias": {"2": -100},  # not the model's end of turn: every stream has its full length
    }
    began, request, events = False, None, []
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            request = response.headers.get("x-request-id")
            if response.status_code != 200:
                said = (await response.aread()).decode()
                return Ended("refused", False, f"{response.status_code} {said}", request)
            async for line in response.aiter_lines():
                began = True
                if line.startswith("data: "):
                    events.append(line.removeprefix("data: "))
    except httpx.HTTPError as error:
        return Ended("lost", began, repr(error), request, len(events))
    return judged(events, request)


def judged(events: list[str], request: str | None) -> Ended:
    """What a stream that ended properly on the wire holds: it must say how it ended."""
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    errors = [chunk["error"]["message"] for chunk in chunks if "error" in chunk]
    if errors:
        return Ended("error event", True, errors[0], request, len(chunks))
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    if reasons and reasons[-1] is not None and events[-1] == "[DONE]":
        return Ended("whole", True, reasons[-1], request, len(chunks))
    return Ended("cut", bool(events), f"last events: {events[-2:]}", request, len(chunks))


def http_client(fleet: FleetProcess) -> httpx.AsyncClient:
    """Never retries; connections as many as wanted."""
    return httpx.AsyncClient(
        base_url=fleet.url,
        headers={"authorization": f"Bearer {fleet.key}"},
        timeout=60.0,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=False,
    )


async def stream_until(
    fleet: FleetProcess,
    over: asyncio.Event,
    ended: list[Ended],
    *,
    clients: int,
    tokens: int = 24,
) -> None:
    """That many clients, each one request after the other, until `over` is set; fills `ended`."""

    async def repeat(client: httpx.AsyncClient, number: int) -> None:
        while not over.is_set():
            question = f"Client {number}: count from {len(ended)}."
            ended.append(await stream_once(client, tokens=tokens, question=question))

    async with http_client(fleet) as client:
        await asyncio.gather(*(repeat(client, number) for number in range(clients)))
