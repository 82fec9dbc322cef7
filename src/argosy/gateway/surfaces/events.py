"""What a replica's answer consists of, whatever API the client speaks. Pure values."""

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class TextDelta(msgspec.Struct, frozen=True, kw_only=True):
    """More text of the answer."""

    text: str


class ThinkingDelta(msgspec.Struct, frozen=True, kw_only=True):
    """More of the reasoning that precedes the answer."""

    text: str


class ToolStart(msgspec.Struct, frozen=True, kw_only=True):
    """The model calls a tool; its arguments follow as `ToolDelta`s of the same index."""

    index: int  # counts the calls of this answer from 0
    id: str
    name: str


class ToolDelta(msgspec.Struct, frozen=True, kw_only=True):
    """More of the JSON text of a call's arguments."""

    index: int
    arguments: str


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """Why the model stopped; exactly one an answer."""

    reason: FinishReason
    stop_sequence: str | None = None  # the one that ended the text, where that is known


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine counted; at most one an answer, after `Finish`."""

    tokens_in: int  # the whole prompt, the cached part included
    tokens_cached: int
    tokens_out: int


Event = TextDelta | ThinkingDelta | ToolStart | ToolDelta | Finish | Tokens
