"""Writes OpenAI chat completions from events, where the replica's own cannot pass through."""

import msgspec

from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.answers import error_event, usage_body
from argosy.gateway.surfaces.events import (
    Event,
    Finish,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
    ToolStart,
)
from argosy.gateway.surfaces.sse import DONE_EVENT, data_event


class ChatEncoder:
    """One answer of one choice."""

    def __init__(self, *, id: str, model: str, created_at_s: int, usage_event: bool) -> None:
        self._head = {"id": id, "created": created_at_s, "model": model}
        self._usage_event = usage_event
        self._has_begun = False

    def stream(self, event: Event) -> bytes:
        """One chunk for one event; the role comes with the first."""
        match event:
            case TextDelta(text=text):
                return self._chunk({"content": text})
            case ThinkingDelta(text=text):
                return self._chunk({"reasoning_content": text})
            case ToolStart(index=index, id=id, name=name):
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": id, "type": "function", "function": function}
                return self._chunk({"tool_calls": [call]})
            case ToolDelta(index=index, arguments=arguments):
                call = {"index": index, "function": {"arguments": arguments}}
                return self._chunk({"tool_calls": [call]})
            case Finish(reason=reason):
                return self._chunk({}, finish_reason=reason)
            case Tokens() if self._usage_event:
                body = self._head | {"object": "chat.completion.chunk", "choices": []}
                return data_event(body | {"usage": usage_body(event)})
            case Tokens():
                return b""

    def _chunk(self, delta: dict[str, object], *, finish_reason: str | None = None) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            delta = {"role": "assistant", **delta}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return data_event(self._head | {"object": "chat.completion.chunk", "choices": [choice]})

    def close(self) -> bytes:
        """OpenAI's end of a stream."""
        return DONE_EVENT

    def whole(self, events: list[Event]) -> bytes:
        """One completion of all events."""
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        calls = [_call(event, events) for event in events if isinstance(event, ToolStart)]
        message: dict[str, object] = {"role": "assistant", "content": text or None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        finish = next(event.reason for event in events if isinstance(event, Finish))
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        body: dict[str, object] = {"object": "chat.completion", "choices": [choice]}
        for event in events:
            if isinstance(event, Tokens):
                body["usage"] = usage_body(event)
        return msgspec.json.encode(self._head | body)

    def error(self, refusal: Refusal) -> bytes:
        """OpenAI's error object as an event."""
        return error_event(refusal)


def _call(start: ToolStart, events: list[Event]) -> dict[str, object]:
    arguments = "".join(
        event.arguments
        for event in events
        if isinstance(event, ToolDelta) and event.index == start.index
    )
    function = {"name": start.name, "arguments": arguments}
    return {"id": start.id, "type": "function", "function": function}
