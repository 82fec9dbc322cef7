"""Events to an OpenAI response: streamed as output items, or whole.

One item is open at a time. The whole answer is the stream's last state, so the two cannot differ.
Reasoning is shown as `reasoning_text`, for it is the model's own words and no summary of them.
"""

from collections.abc import Callable
from typing import Literal

import msgspec

from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.decode import refused
from argosy.gateway.surfaces.events import (
    Event,
    Finish,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
    ToolStart,
)
from argosy.gateway.surfaces.sse import named_event

_Status = Literal["in_progress", "completed", "incomplete", "failed"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a response repeats of its request. None: left to the engine, or not sent."""

    model: str
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    reasoning: dict[str, str | None]
    safety_identifier: str | None
    prompt_cache_key: str | None
    temperature: float | None
    text: msgspec.Raw
    tool_choice: msgspec.Raw
    tools: msgspec.Raw
    top_p: float | None
    user: str | None


class _Open(msgspec.Struct, kw_only=True):
    """The item that is being written."""

    type: Literal["message", "reasoning", "function_call"]
    id: str
    texts: list[str]
    call: ToolStart | None = None

    def item(self, status: _Status) -> dict[str, object]:
        """The item as it stands."""
        head: dict[str, object] = {"id": self.id, "type": self.type, "status": status}
        if self.call is not None:
            arguments = "".join(self.texts)
            return head | {
                "call_id": self.call.id,
                "name": self.call.name,
                "arguments": arguments,
            }
        content = [] if status == "in_progress" else [self.part()]
        if self.type == "reasoning":
            return head | {"summary": [], "content": content}
        return head | {"role": "assistant", "content": content}

    def part(self) -> dict[str, object]:
        """The only part of a message or of reasoning."""
        text = "".join(self.texts)
        if self.type == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


class ResponsesEncoder:
    """One response; `token` is in all its ids, as in `resp_{token}` and `msg_{token}_0`."""

    def __init__(self, *, token: str, settings: Settings, now_s: Callable[[], float]) -> None:
        self._token = token
        self._now_s = now_s
        self._created_at_s = int(now_s())
        self._settings = msgspec.structs.asdict(settings)
        self._sequence = 0
        self._output: list[dict[str, object]] = []  # finished items
        self._open: _Open | None = None
        self._finish: Finish | None = None
        self._tokens: Tokens | None = None

    def stream(self, event: Event) -> bytes:
        """The events for one of the replica's, `response.created` before the first."""
        return self._begin() + self._event(event)

    def _event(self, event: Event) -> bytes:
        match event:
            case TextDelta(text=text):
                return self._append("message", "response.output_text.delta", text)
            case ThinkingDelta(text=text):
                return self._append("reasoning", "response.reasoning_text.delta", text)
            case ToolStart():
                return self._start("function_call", call=event)[0]
            case ToolDelta():
                return self._append_arguments(event)
            case Finish():
                self._finish = event
                return self._stop("completed" if _cut_by(event) is None else "incomplete")
            case Tokens():
                self._tokens = event
                return b""

    def close(self) -> bytes:
        """`response.completed`, or `response.incomplete` where the answer was cut."""
        body = self._ended()
        return self._emit(f"response.{body['status']}", {"response": body})

    def whole(self, events: list[Event]) -> bytes:
        """The response as one object."""
        for event in events:
            self.stream(event)
        return msgspec.json.encode(self._ended())

    def error(self, refusal: Refusal) -> bytes:
        """`response.failed` with what there is, or `error` where no response has begun."""
        code = "rate_limit_exceeded" if refusal.kind == "rate_limited" else "server_error"
        if not self._sequence:
            fields = {"code": code, "message": refusal.message, "param": refusal.param}
            return self._emit("error", fields)
        output = [*self._output, self._open.item("incomplete")] if self._open else self._output
        error = {"code": code, "message": refusal.message}
        body = self._response("failed", output) | {"error": error}
        return self._emit("response.failed", {"response": body})

    def _begin(self) -> bytes:
        if self._sequence:
            return b""
        body = self._response("in_progress", [])
        created = self._emit("response.created", {"response": body})
        return created + self._emit("response.in_progress", {"response": body})

    def _append(self, kind: Literal["message", "reasoning"], name: str, text: str) -> bytes:
        if self._open is not None and self._open.type == kind:
            return self._delta(self._open, name, text)
        start, item = self._start(kind)
        return start + self._delta(item, name, text)

    def _append_arguments(self, event: ToolDelta) -> bytes:
        item = self._open
        if item is None or item.call is None or item.call.index != event.index:
            message = f"The replica sent arguments of tool call {event.index} outside that call."
            raise refused("upstream_failed", message)
        return self._delta(item, "response.function_call_arguments.delta", event.arguments)

    def _delta(self, item: _Open, name: str, text: str) -> bytes:
        item.texts.append(text)
        fields = self._place(item) | {"delta": text}
        if item.type == "message":
            fields["logprobs"] = []
        return self._emit(name, fields)

    def _start(
        self,
        kind: Literal["message", "reasoning", "function_call"],
        *,
        call: ToolStart | None = None,
    ) -> tuple[bytes, _Open]:
        stop = self._stop("completed")
        id = f"{_PREFIXES[kind]}_{self._token}_{len(self._output)}"
        item = self._open = _Open(type=kind, id=id, texts=[], call=call)
        place = {"output_index": len(self._output), "item": item.item("in_progress")}
        added = self._emit("response.output_item.added", place)
        if call is not None:
            return stop + added, item
        part = self._place(item) | {"part": item.part()}
        return stop + added + self._emit("response.content_part.added", part), item

    def _stop(self, status: _Status) -> bytes:
        if self._open is None:
            return b""
        item = self._open
        place, text = self._place(item), "".join(item.texts)
        match item.type:
            case "function_call":
                name = "response.function_call_arguments.done"
                done = self._emit(name, place | {"arguments": text})
            case "reasoning":
                done = self._emit("response.reasoning_text.done", place | {"text": text})
            case "message":
                fields = place | {"text": text, "logprobs": []}
                done = self._emit("response.output_text.done", fields)
        if item.call is None:
            done += self._emit("response.content_part.done", place | {"part": item.part()})
        body = item.item(status)
        done += self._emit(
            "response.output_item.done", {"output_index": len(self._output), "item": body}
        )
        self._output.append(body)
        self._open = None
        return done

    def _place(self, item: _Open) -> dict[str, object]:
        place: dict[str, object] = {"item_id": item.id, "output_index": len(self._output)}
        return place if item.call is not None else place | {"content_index": 0}

    def _emit(self, name: str, fields: dict[str, object]) -> bytes:
        body = {"type": name, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return named_event(name, body)

    def _ended(self) -> dict[str, object]:
        if self._finish is None:
            raise refused("upstream_failed", "The replica's answer ended without saying why.")
        cut_by = _cut_by(self._finish)
        body = self._response("completed" if cut_by is None else "incomplete", self._output)
        if cut_by is None:
            body["completed_at"] = int(self._now_s())
        else:
            body["incomplete_details"] = {"reason": cut_by}
        body["usage"] = _usage(self._tokens) if self._tokens else None
        return body

    def _response(self, status: _Status, output: list[dict[str, object]]) -> dict[str, object]:
        return {
            "id": f"resp_{self._token}",
            "object": "response",
            "created_at": self._created_at_s,
            "status": status,
            "completed_at": None,
            "background": False,
            "error": None,
            "incomplete_details": None,
            **self._settings,
            "output": output,
            "previous_response_id": None,
            "service_tier": "default",
            "store": False,
            "top_logprobs": 0,
            "truncation": "disabled",
            "usage": None,
        }


def _cut_by(finish: Finish) -> Literal["max_output_tokens", "content_filter"] | None:
    match finish.reason:
        case "length":
            return "max_output_tokens"
        case "content_filter":
            return "content_filter"
        case "stop" | "tool_calls":
            return None


def _usage(tokens: Tokens) -> dict[str, object]:
    return {
        "input_tokens": tokens.tokens_in,
        "input_tokens_details": {"cached_tokens": tokens.tokens_cached, "cache_write_tokens": 0},
        "output_tokens": tokens.tokens_out,
        "output_tokens_details": {"reasoning_tokens": 0},  # engines do not tell them apart
        "total_tokens": tokens.tokens_in + tokens.tokens_out,
    }
