"""Reads what a replica sends, OpenAI chat chunks or a whole completion, into events.

Each call of `ChatReader.chunk` takes one server-sent event's data; the reader remembers which
tool calls have begun. An engine's error, in whatever place it is put, becomes `RefusedError`.
"""

import secrets
from typing import Annotated, cast, get_args

import msgspec
from msgspec import Meta

from argosy.fleet.messages import Refusal
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

NO_ERROR = msgspec.Raw(b"null")  # a field of type `Raw | None` would take null alone
_FINISH_REASONS = frozenset(get_args(FinishReason))


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None  # llama.cpp, older vLLM
    reasoning: str | None = None  # vLLM since 0.12
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None  # in a stream
    message: _Delta | None = None  # in a whole answer
    finish_reason: str | None = None
    stop_reason: str | int | None = None  # vLLM: the stop string, or the id of a stop token
    matched_stop: str | int | list[int] | None = None  # SGLang: likewise


# What no answer can have cost is not believed: it would stay in metrics and usage for good.
_Count = Annotated[int, Meta(ge=0, le=2**40)]


class _CachedTokens(msgspec.Struct):
    cached_tokens: _Count | None = None


class UpstreamUsage(msgspec.Struct):
    """`usage` of a chat completion, a completion or an embedding."""

    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    prompt_tokens_details: _CachedTokens | None = None

    def tokens(self) -> Tokens:
        """The same as an event."""
        details = self.prompt_tokens_details
        return Tokens(
            tokens_in=self.prompt_tokens,
            tokens_cached=(details.cached_tokens or 0) if details else 0,
            tokens_out=self.completion_tokens,
        )


class _Timings(msgspec.Struct):
    """llama.cpp's counts so far, with `timings_per_token`."""

    cache_n: _Count = 0
    prompt_n: _Count = 0
    predicted_n: _Count = 0

    def tokens(self) -> Tokens:
        return Tokens(
            tokens_in=self.cache_n + self.prompt_n,
            tokens_cached=self.cache_n,
            tokens_out=self.predicted_n,
        )


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: UpstreamUsage | None = None
    timings: _Timings | None = None
    error: msgspec.Raw = NO_ERROR


_decoder = msgspec.json.Decoder(_Chunk)


UNREADABLE = "unreadable_event"  # the code of a refusal


def upstream_failed(message: str) -> RefusedError:
    """The replica said something that no answer can be made of."""
    return RefusedError(Refusal(kind="upstream_failed", message=message))


def unreadable(error: Exception) -> RefusedError:
    """It sent what is not JSON, or not what an engine may say."""
    message = f"The replica sent what is not an event: {error}."
    return RefusedError(Refusal(kind="upstream_failed", message=message, code=UNREADABLE))


def read_chunk(data: bytes) -> _Chunk:
    """One JSON object of a replica. Raises `RefusedError` when it is none, or an error."""
    try:
        chunk = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(error) from None
    check_error(chunk.error)
    return chunk


def check_error(error: msgspec.Raw) -> None:
    """Raises `RefusedError` where the engine said what went wrong."""
    if bytes(error) != b"null":
        said = bytes(error)[:500].decode(errors="replace")
        raise upstream_failed(f"The replica failed: {said}")


class ChatReader:
    """Chat chunks of one answer (its first choice) to events."""

    def __init__(self) -> None:
        self._calls: dict[int, str] = {}

    def read(self, data: bytes) -> list[Event]:
        """The events of one chunk or of one whole completion, in order."""
        chunk = read_chunk(data)
        events: list[Event] = []
        if chunk.timings is not None and chunk.usage is None:
            events.append(chunk.timings.tokens())
        for choice in chunk.choices[:1]:
            if said := choice.delta or choice.message:
                self._read_delta(said, events)
            if choice.finish_reason:
                events.append(_finish(choice))
        if chunk.usage is not None:
            events.append(chunk.usage.tokens())
        return events

    def _read_delta(self, said: _Delta, events: list[Event]) -> None:
        if thinking := said.reasoning_content or said.reasoning:
            events.append(ThinkingDelta(text=thinking))
        if said.content:
            events.append(TextDelta(text=said.content))
        for position, call in enumerate(said.tool_calls or ()):
            self._read_call(call, call.index if call.index is not None else position, events)

    def _read_call(self, call: _ToolCall, index: int, events: list[Event]) -> None:
        function = call.function or _Function()
        if index not in self._calls and function.name:
            self._calls[index] = call.id or f"call_{secrets.token_hex(12)}"
            events.append(ToolStart(index=index, id=self._calls[index], name=function.name))
        if function.arguments and index in self._calls:
            events.append(ToolDelta(index=index, arguments=function.arguments))


def _finish(choice: _Choice) -> Finish:
    reason = "tool_calls" if choice.finish_reason == "function_call" else choice.finish_reason
    said = choice.stop_reason if choice.stop_reason is not None else choice.matched_stop
    named = said if isinstance(said, str) else None
    known = cast("FinishReason", reason if reason in _FINISH_REASONS else "stop")
    return Finish(reason=known, stop_sequence=named)
