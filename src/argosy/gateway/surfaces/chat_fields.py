"""The OpenAI chat shape, as other APIs' requests are translated into it. Pure values."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from argosy.gateway.surfaces.decode import raw, refused
from argosy.gateway.surfaces.port import Tool

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True):
    """What an assistant called, with its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """One call in an assistant's message."""

    id: str
    function: CalledFunction


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a chat completion; `content` is None only beside `tool_calls`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


def encoded(value: object) -> msgspec.Raw:
    """A client's value for an upstream body. Raises `RefusedError` where it is nested too deeply.

    What could just be read may be too deep to write once it is wrapped in other objects.
    """
    try:
        return raw(value)
    except RecursionError:
        raise refused("bad_request", "The body is nested too deeply.") from None


def chat_tool(tool: Tool, *, strict: bool | None) -> dict[str, object]:
    """A tool as chat completions take it."""
    function: dict[str, object] = {
        "name": tool.name,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }
    if tool.description is not None:
        function["description"] = tool.description
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}


def named_choice(name: str) -> dict[str, object]:
    """The `tool_choice` that forces one function."""
    return {"type": "function", "function": {"name": name}}


def check_tool_names(names: Sequence[str]) -> None:
    """Refuse names that an engine's grammar cannot write, and one name for two tools."""
    for position, name in enumerate(names):
        if not _TOOL_NAME.fullmatch(name):
            param = f"tools[{position}].name"
            message = f"{param} = {name[:100]!r} must be 1 to 128 letters, digits, '_' or '-'."
            raise refused("bad_request", message, param=param)
    for name, times in Counter(names).items():
        if times > 1:
            message = f"Tool names must be unique: {times} tools are called '{name}'."
            raise refused("bad_request", message, param="tools")


def check_choice(names: Sequence[str], *, forced: bool, forced_name: str | None) -> None:
    """Refuse a `tool_choice` that wants a call of a tool that was not sent."""
    if forced and not names:
        message = "'tool_choice' wants a tool to be called, but 'tools' is empty."
        raise refused("bad_request", message, param="tool_choice")
    if forced_name is not None and forced_name not in names:
        known = ", ".join(names)
        message = f"'tool_choice' names '{forced_name[:100]}', which is not in 'tools': {known}."
        raise refused("bad_request", message, param="tool_choice.name")


def refuse_given(request: msgspec.Struct, advice: Mapping[str, str]) -> None:
    """Refuse the first field of `advice` that was sent, saying what would work instead."""
    for field, what_works in advice.items():
        if getattr(request, field) is not None:
            message = f"'{field}' is not served here: {what_works}"
            raise refused("unsupported", message, param=field)


def joined_at_end(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The messages, with assistant messages that end them as one: engines continue only one."""
    kept = list(messages)
    while len(kept) > 1 and all(_is_text_of_assistant(message) for message in kept[-2:]):
        last = kept.pop()
        kept[-1] = ChatMessage(role="assistant", content=f"{kept[-1].content}\n{last.content}")
    return kept


def _is_text_of_assistant(message: ChatMessage) -> bool:
    return message.role == "assistant" and not message.tool_calls
