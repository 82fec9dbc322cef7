"""The body of OpenAI's `POST /v1/responses`, and its input items as chat messages.

Items are told apart by `type`, which may be missing on a message; so one Struct holds the fields
of all, and the functions below know which of them an item needs.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from argosy.gateway.surfaces.chat_fields import (
    CalledFunction,
    ChatMessage,
    ToolCall,
    joined_at_end,
)
from argosy.gateway.surfaces.decode import refused
from argosy.gateway.surfaces.port import RefusedError

T = TypeVar("T")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a message's content or of a call's output."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One input item of any type."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool. Unknown fields are let through: those of the API's own tools, told by `type`."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A `tool_choice` that is more than a word."""

    type: str
    name: str | None = None


class TextFormat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The shape of the answer; also as the response shows it."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, msgspec.Raw] | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of the answer, and how wordy it should be, which is a hint."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much to reason: hints, but for `effort` none is passed on."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Obfuscation pads events against onlookers; none is added here."""

    include_obfuscation: bool | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every field of the API."""

    model: str
    input: str | list[Item]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tool_calls: int | None = None  # counts the API's own tools, of which there are none
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | Choice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    store: bool | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: object = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: object = None
    prompt: object = None
    context_management: object = None
    moderation: object = None
    access_programs: object = None
    image: object = None


def chat_messages(request: ResponsesRequest, *, system_prompt: str | None) -> list[ChatMessage]:
    """The conversation, `system_prompt` first where the client sent none. Raises `RefusedError`.

    `instructions` and the system messages that open the input become one system message: many
    models' templates take only one.
    """
    messages = _input(request.input)
    heads = 0
    while heads < len(messages) and messages[heads].role == "system":
        heads += 1
    if heads == len(messages):
        message = "'input' holds nothing to answer; send a user message."
        raise refused("bad_request", message, param="input")
    texts = [message.content for message in messages[:heads]]
    if request.instructions is not None:
        texts.insert(0, request.instructions)
    if not texts and system_prompt is not None:
        texts.append(system_prompt)
    system = "\n\n".join(text for text in texts if text)
    opening = [ChatMessage(role="system", content=system)] if system else []
    return joined_at_end([*opening, *messages[heads:]])


def _input(value: str | Sequence[Item]) -> list[ChatMessage]:
    if isinstance(value, str):
        return [ChatMessage(role="user", content=value)] if value else []
    messages: list[ChatMessage] = []
    called: set[str] = set()
    for position, item in enumerate(value):
        at = f"input[{position}]"
        match item.type:
            case "message":
                messages.append(_message(item, at))
            case "function_call":
                call = _call(item, at)
                called.add(call.id)
                _add_call(messages, call)
            case "function_call_output":
                messages.append(_output(item, at, called))
            case "reasoning":  # the model's own, which it does not read again
                continue
            case _:
                raise _unserved_item(item, at)
    return messages


def _message(item: Item, at: str) -> ChatMessage:
    if item.role is None:
        raise _missing(f"{at}.role")
    text = _text(_need(item.content, f"{at}.content"), f"{at}.content")
    role = "system" if item.role == "developer" else item.role
    return ChatMessage(role=role, content=text)


def _call(item: Item, at: str) -> ToolCall:
    arguments = _need(item.arguments, f"{at}.arguments")
    function = CalledFunction(name=_need(item.name, f"{at}.name"), arguments=arguments)
    return ToolCall(id=_need(item.call_id, f"{at}.call_id"), function=function)


def _add_call(messages: list[ChatMessage], call: ToolCall) -> None:
    """The call in the assistant's message before it, where there is one: they are one turn."""
    if messages and messages[-1].role == "assistant":
        said = messages.pop()
        calls = (*said.tool_calls, call)
        messages.append(ChatMessage(role="assistant", content=said.content, tool_calls=calls))
    else:
        messages.append(ChatMessage(role="assistant", content=None, tool_calls=(call,)))


def _output(item: Item, at: str, called: set[str]) -> ChatMessage:
    call_id = _need(item.call_id, f"{at}.call_id")
    if call_id not in called:
        message = (
            f"{at}.call_id = {call_id[:100]!r} answers no earlier function_call; "
            "send the call before its output."
        )
        raise refused("bad_request", message, param=f"{at}.call_id")
    text = _text(_need(item.output, f"{at}.output"), f"{at}.output")
    return ChatMessage(role="tool", content=text, tool_call_id=call_id)


def _text(content: str | Sequence[Part], at: str) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for position, part in enumerate(content):
        where = f"{at}[{position}]"
        match part.type:
            case "input_text" | "output_text" | "text":
                texts.append(_need(part.text, f"{where}.text"))
            case "refusal":
                texts.append(_need(part.refusal, f"{where}.refusal"))
            case _:
                message = (
                    f"{where}.type = '{part.type[:100]}' is not served here: the models read text "
                    "only, as 'input_text'."
                )
                raise refused("unsupported", message, param=f"{where}.type")
    return "\n".join(texts)


def _need(value: T | None, param: str) -> T:
    if value is None:
        raise _missing(param)
    return value


def _missing(param: str) -> RefusedError:
    return refused("bad_request", f"Missing required parameter: '{param}'.", param=param)


def _unserved_item(item: Item, at: str) -> RefusedError:
    advice = (
        "no responses are stored, send the item itself"
        if item.type == "item_reference"
        else "send 'message', 'function_call' or 'function_call_output'"
    )
    message = f"{at}.type = '{item.type[:100]}' is not served here: {advice}."
    return refused("unsupported", message, param=f"{at}.type")
