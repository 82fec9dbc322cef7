"""Streaming clients of both APIs that keep what they were told, and say what is wrong with it."""

import json
from dataclasses import dataclass, field
from typing import Literal

import httpx

Api = Literal["chat", "messages"]


@dataclass
class Told:
    """One stream as its client saw it, so far."""

    api: Api
    question: str
    replica: str | None = None  # that answered first
    request: str | None = None
    pieces: list[str] = field(default_factory=list)
    events: list[dict] = field(default_factory=list)
    last: str = ""  # what the last `data:` line held
    lost: str | None = None  # the connection's own error

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(self.pieces)

    @property
    def tokens_out(self) -> int:
        """As the stream itself counts."""
        return self._usage()["completion_tokens" if self.api == "chat" else "output_tokens"]

    @property
    def tokens_in(self) -> int:
        """Likewise, cached ones included."""
        usage = self._usage()
        if self.api == "chat":
            return usage["prompt_tokens"]
        return usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0)

    @property
    def wrong(self) -> str | None:
        """Why this is not one well-formed stream that ended well; None: it is."""
        if self.lost:
            return self.lost
        errors = [event["error"] for event in self.events if event.get("error")]
        if errors:
            return f"an error event: {errors[0]}"
        return self._wrong_chat() if self.api == "chat" else self._wrong_messages()

    def _usage(self) -> dict:
        return [event["usage"] for event in self.events if event.get("usage")][-1]

    def _wrong_chat(self) -> str | None:
        choices = [choice for event in self.events for choice in event["choices"]]
        counts = {
            "ids": len({event["id"] for event in self.events}),
            "roles": sum("role" in choice["delta"] for choice in choices),
            "finish reasons": sum(choice["finish_reason"] is not None for choice in choices),
            "usages": sum(bool(event.get("usage")) for event in self.events),
            "[DONE]": int(self.last == "[DONE]"),
        }
        return next((f"{n} {what}" for what, n in counts.items() if n != 1), None)

    def _wrong_messages(self) -> str | None:
        kinds = [event["type"] for event in self.events if event["type"] != "ping"]
        within = [kind for kind in kinds if kind != "content_block_delta"]
        wanted = [
            "message_start",
            "content_block_start",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        return None if within == wanted else f"the events are {within}"


async def listen(client: httpx.AsyncClient, told: Told, *, model: str, tokens: int) -> None:
    """Ask; fill `told` as it comes. Never raises for what the other side does."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": told.question}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    if told.api == "chat":
        body["stream_options"] = {"include_usage": True}
    path = "/v1/chat/completions" if told.api == "chat" else "/v1/messages"
    try:
        async with client.stream("POST", path, json=body) as response:
            told.request = response.headers.get("x-request-id") or response.headers["request-id"]
            if response.status_code != 200:
                told.lost = f"{response.status_code} {(await response.aread()).decode()}"
                return
            told.replica = response.headers["argosy-replica"]
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    _take(told, line.removeprefix("data: "))
    except httpx.HTTPError as error:
        told.lost = repr(error)


def _take(told: Told, data: str) -> None:
    told.last = data
    if data == "[DONE]":
        return
    event = json.loads(data)
    told.events.append(event)
    if told.api == "messages":
        piece = event.get("delta", {}).get("text")
    else:
        piece = next((c["delta"].get("content") for c in event.get("choices") or []), None)
    if piece:
        told.pieces.append(piece)
