"""Events to an Anthropic message: streamed as content blocks, or whole.

One block is open at a time. What the engine counted comes after its finish, so the last
`message_delta` waits for `close`.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.anthropic_dialect import error_body
from argosy.gateway.surfaces.decode import refused
from argosy.gateway.surfaces.events import (
    Event,
    Finish,
    FinishReason,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
    ToolStart,
)
from argosy.gateway.surfaces.port import RefusedError
from argosy.gateway.surfaces.sse import named_event

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]
_STOP_REASONS: dict[FinishReason, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


class MessagesEncoder:
    """One message, `msg_…`."""

    def __init__(self, *, id: str, model: str) -> None:
        self._head = {"id": id, "type": "message", "role": "assistant", "model": model}
        self._has_begun = False
        self._index = -1  # of the newest block
        self._open: Literal["text", "thinking"] | int | None = None  # int: a call's index
        self._has_calls = False
        self._deltas = 0
        self._finish: Finish | None = None
        self._tokens: Tokens | None = None

    def stream(self, event: Event) -> bytes:
        """The events for one of the replica's, `message_start` before the first."""
        return self._begin() + self._event(event)

    def _event(self, event: Event) -> bytes:
        match event:
            case TextDelta(text=text):
                block = {"type": "text", "text": ""}
                return self._append("text", block, {"type": "text_delta", "text": text})
            case ThinkingDelta(text=text):
                # No signature: reasoning that a client sends back is left out, so none is checked.
                block = {"type": "thinking", "thinking": "", "signature": ""}
                delta = {"type": "thinking_delta", "thinking": text}
                return self._append("thinking", block, delta)
            case ToolStart(index=index, id=id, name=name):
                self._has_calls = True
                block = {"type": "tool_use", "id": id, "name": name, "input": {}}
                return self._start(index, block)
            case ToolDelta(index=index, arguments=arguments):
                if self._open != index:
                    raise _torn_call(index)
                return self._delta({"type": "input_json_delta", "partial_json": arguments})
            case Finish():
                self._finish = event
                return self._stop()
            case Tokens():
                self._tokens = event
                return b""

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        message = self._head | {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": _usage(None, deltas=0),  # the engine counts the prompt later
        }
        return named_event("message_start", {"type": "message_start", "message": message})

    def _append(
        self,
        kind: Literal["text", "thinking"],
        block: Mapping[str, object],
        delta: Mapping[str, object],
    ) -> bytes:
        start = b"" if self._open == kind else self._start(kind, block)
        return start + self._delta(delta)

    def _start(self, kind: Literal["text", "thinking"] | int, block: Mapping[str, object]) -> bytes:
        stop = self._stop()
        self._open = kind
        self._index += 1
        body = {"type": "content_block_start", "index": self._index, "content_block": block}
        return stop + named_event("content_block_start", body)

    def _delta(self, delta: Mapping[str, object]) -> bytes:
        self._deltas += 1
        body = {"type": "content_block_delta", "index": self._index, "delta": delta}
        return named_event("content_block_delta", body)

    def _stop(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        body = {"type": "content_block_stop", "index": self._index}
        return named_event("content_block_stop", body)

    def close(self) -> bytes:
        """`message_delta` with why it stopped and what it cost, then `message_stop`."""
        body = {
            "type": "message_delta",
            "delta": _ending(self._finish, has_calls=self._has_calls),
            "usage": _usage(self._tokens, deltas=self._deltas),
        }
        return named_event("message_delta", body) + named_event(
            "message_stop", {"type": "message_stop"}
        )

    def whole(self, events: list[Event]) -> bytes:
        """The message as one object."""
        content = _content(events)
        finish = next((event for event in events if isinstance(event, Finish)), None)
        tokens = next((event for event in events if isinstance(event, Tokens)), None)
        deltas = sum(isinstance(event, TextDelta | ThinkingDelta | ToolDelta) for event in events)
        has_calls = any(isinstance(event, ToolStart) for event in events)
        ending = _ending(finish, has_calls=has_calls)
        body = self._head | {"content": content} | ending
        return msgspec.json.encode(body | {"usage": _usage(tokens, deltas=deltas)})

    def error(self, refusal: Refusal) -> bytes:
        """The `error` event, on which the official clients raise."""
        return named_event("error", error_body(refusal))


def _ending(finish: Finish | None, *, has_calls: bool) -> dict[str, object]:
    if finish is None:
        raise refused("upstream_failed", "The replica's answer ended without saying why.")
    reason = _STOP_REASONS[finish.reason]
    if finish.reason == "stop" and finish.stop_sequence is not None:
        reason = "stop_sequence"
    elif finish.reason == "stop" and has_calls:  # how engines end a call of a named tool
        reason = "tool_use"
    sequence = finish.stop_sequence if reason == "stop_sequence" else None
    return {"stop_reason": reason, "stop_sequence": sequence, "stop_details": None}


def _usage(tokens: Tokens | None, *, deltas: int) -> dict[str, object]:
    """What it cost. This API's `input_tokens` leave out what came from the cache."""
    cached = tokens.tokens_cached if tokens else 0
    return {
        "input_tokens": max(0, tokens.tokens_in - cached) if tokens else 0,
        "cache_creation_input_tokens": 0,  # engines do not tell what they keep
        "cache_read_input_tokens": cached,
        "output_tokens": tokens.tokens_out if tokens else deltas,
    }


def _content(events: list[Event]) -> list[dict[str, object]]:
    blocks: list[dict[str, object]] = []
    texts: list[list[str]] = []  # of each block, joined at the end
    call: int | None = None
    for event in events:
        match event:
            case TextDelta(text=text) | ThinkingDelta(text=text):
                kind = "text" if isinstance(event, TextDelta) else "thinking"
                if not blocks or blocks[-1]["type"] != kind:
                    blocks.append({"type": kind})
                    texts.append([])
                texts[-1].append(text)
                call = None
            case ToolStart(index=call, id=id, name=name):
                blocks.append({"type": "tool_use", "id": id, "name": name})
                texts.append([])
            case ToolDelta(index=index, arguments=arguments):
                if index != call:
                    raise _torn_call(index)
                texts[-1].append(arguments)
            case Finish() | Tokens():
                pass
    return [_filled(block, "".join(text)) for block, text in zip(blocks, texts, strict=True)]


def _filled(block: dict[str, object], text: str) -> dict[str, object]:
    match block["type"]:
        case "text":
            return block | {"text": text}
        case "thinking":
            return block | {"thinking": text, "signature": ""}
        case _:
            return block | {"input": _input(text)}


def _input(arguments: str) -> msgspec.Raw:
    """A call's arguments as an object.

    Arguments that `max_tokens` cut are not JSON. The block then has no input at all, so that
    nobody runs half a call; a stream shows the fragment as it is. `stop_reason` tells both.
    """
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return msgspec.Raw(b"{}")
    return msgspec.Raw(arguments.encode())


def _torn_call(index: int) -> RefusedError:
    message = f"The replica sent arguments of tool call {index} outside that call."
    return refused("upstream_failed", message)
