"""Anthropic's `POST /v1/messages`.

Owns the translation of a request into an `Ask`; the rules about turns are in `messages_chat.py`,
the answer's shape in `messages_encoder.py`.
"""

import secrets
from collections.abc import Callable

import msgspec

from argosy.engines.port import Abilities
from argosy.gateway.surfaces.chat_fields import (
    ChatMessage,
    chat_tool,
    check_choice,
    check_tool_names,
    encoded,
    named_choice,
    refuse_given,
)
from argosy.gateway.surfaces.decode import check_max_tokens, look_up, raw, refused
from argosy.gateway.surfaces.messages_chat import chat_messages
from argosy.gateway.surfaces.messages_encoder import MessagesEncoder
from argosy.gateway.surfaces.messages_request import (
    AnyChoice,
    AutoChoice,
    CustomTool,
    MessagesRequest,
    NoChoice,
    ToolChoice,
    read_request,
)
from argosy.gateway.surfaces.port import Ask, Catalog, Prepared, Served, Tool
from argosy.gateway.surfaces.prepare import prepare_chat

_CHAT_PATH = "/v1/chat/completions"
_ADVICE = {
    "container": "there is no code execution; leave it out.",
    "mcp_servers": "call the MCP server yourself and send its tools in 'tools'.",
    "context_management": "shorten 'messages' before you send them.",
    "diagnostics": "usage.cache_read_input_tokens says what was cached.",
    "inference_geo": "where a model runs is set in the fleet file.",
    "user_profile_id": "send metadata.user_id.",
    "workspace_id": "the API key says whose request it is.",
    "output_format": "send output_config.format.",
}


class Messages:
    """The surface `messages`."""

    name = "messages"
    path = "/v1/messages"

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Surfaces are built alike; the answers of this one bear no time."""

    def ask(self, body: bytes, catalog: Catalog) -> Ask:
        """Read and check a request. Raises `RefusedError`."""
        request = read_request(body)
        served = look_up(catalog, request.model)
        if request.max_tokens is None:
            message = "Missing required parameter: 'max_tokens'."
            raise refused("bad_request", message, param="max_tokens")
        check_max_tokens(served, request.max_tokens, param="max_tokens")
        return asked(request, served)[0]

    def prepare(self, ask: Ask, abilities: Abilities) -> Prepared:
        """Fit the ask to a replica; each attempt answers under an id of its own."""
        encoder = MessagesEncoder(id=f"msg_{secrets.token_hex(12)}", model=ask.model)
        # llama.cpp repeats the assistant's beginning in a whole answer and not in a stream.
        is_continued = ask.echo is True
        return prepare_chat(ask, abilities, encoder=encoder, must_stream=is_continued)


def asked(request: MessagesRequest, served: Served) -> tuple[Ask, list[ChatMessage]]:
    """A request as an ask, and the conversation in it. Raises `RefusedError`.

    `echo` is True when the answer continues the assistant's own last words.
    """
    _check(request)
    stop = _stop(request)
    tools = tuple(_tool(tool, position) for position, tool in enumerate(request.tools or ()))
    choice = request.tool_choice
    forced_name = choice.name if isinstance(choice, ToolChoice) else None
    forced = isinstance(choice, AnyChoice | ToolChoice)
    names = [tool.name for tool in tools]
    check_tool_names(names)
    check_choice(names, forced=forced, forced_name=forced_name)
    messages = chat_messages(request, system_prompt=served.system_prompt)
    is_prefilled = messages[-1].role == "assistant"
    _check_prefill(request, is_prefilled=is_prefilled, forced=forced)
    ask = Ask(
        model=served.name,
        path=_CHAT_PATH,
        fields=_fields(request, messages, served) | _tool_fields(request, tools),
        stream=bool(request.stream),
        stop=stop,
        names_stop=True,
        tools=tools,
        must_call=forced,
        must_call_name=forced_name,
        echo=is_prefilled,
        answer_tokens_max=request.max_tokens,
    )
    return ask, messages


def _check(request: MessagesRequest) -> None:
    refuse_given(request, _ADVICE)
    if request.thinking and request.thinking.type in ("enabled", "between_tools"):
        # `adaptive` leaves it to the model whether to reason: a model that never does obeys it.
        message = (
            f"thinking.type = '{request.thinking.type}' cannot be promised: whether a model served "
            "here reasons is its own choice. Send 'adaptive' or 'disabled', or leave it out."
        )
        raise refused("unsupported", message, param="thinking.type")
    if request.speed == "fast":
        message = "speed = 'fast' is not served here: send 'standard' or leave it out."
        raise refused("unsupported", message, param="speed")


def _stop(request: MessagesRequest) -> tuple[str, ...]:
    sequences = tuple(request.stop_sequences or ())
    for position, sequence in enumerate(sequences):
        if not sequence.strip():
            param = f"stop_sequences[{position}]"
            message = f"{param} must hold more than whitespace."
            raise refused("bad_request", message, param=param)
    return sequences


def _tool(tool: CustomTool, position: int) -> Tool:
    at = f"tools[{position}]"
    if tool.type not in (None, "custom"):
        message = (
            f"{at}.type = '{tool.type[:100]}' is a tool of the API's own, which is not served "
            "here: send a tool with an input_schema and run it yourself."
        )
        raise refused("unsupported", message, param=f"{at}.type")
    if tool.input_schema is None:
        message = f"Missing required parameter: '{at}.input_schema'."
        raise refused("bad_request", message, param=f"{at}.input_schema")
    return Tool(name=tool.name, description=tool.description, parameters=tool.input_schema)


def _check_prefill(request: MessagesRequest, *, is_prefilled: bool, forced: bool) -> None:
    has_format = request.output_config is not None and request.output_config.format is not None
    if is_prefilled and (forced or has_format):
        message = (
            "The last message is the assistant's, to be continued; that cannot be combined with "
            "a forced 'tool_choice' or 'output_config.format'. End with a user message."
        )
        raise refused("bad_request", message, param="messages")


def _fields(
    request: MessagesRequest, messages: list[ChatMessage], served: Served
) -> dict[str, msgspec.Raw]:
    # `top_k` is not OpenAI's, but every open engine takes it. `effort` is a hint that no open
    # model of this shape knows; it is taken and not passed on.
    fields = {"model": raw(served.name), "messages": encoded(messages)}
    for name in ("max_tokens", "temperature", "top_p", "top_k"):
        value = getattr(request, name)
        if value is not None:
            fields[name] = raw(value)
    if request.stop_sequences:
        fields["stop"] = raw(request.stop_sequences)
    if request.output_config and request.output_config.format:
        schema = {
            "name": "answer",
            "strict": True,
            "schema": request.output_config.format.schema,
        }
        fields["response_format"] = encoded({"type": "json_schema", "json_schema": schema})
    return fields


def _tool_fields(request: MessagesRequest, tools: tuple[Tool, ...]) -> dict[str, msgspec.Raw]:
    if not tools:
        return {}
    sent = zip(tools, request.tools or (), strict=True)
    fields = {"tools": encoded([chat_tool(tool, strict=as_sent.strict) for tool, as_sent in sent])}
    choice = request.tool_choice
    if choice is None:
        return fields
    match choice:
        case AutoChoice():
            fields["tool_choice"] = raw("auto")
        case AnyChoice():
            fields["tool_choice"] = raw("required")
        case NoChoice():
            fields["tool_choice"] = raw("none")
        case ToolChoice(name=name):
            fields["tool_choice"] = raw(named_choice(name))
    if not isinstance(choice, NoChoice) and choice.disable_parallel_tool_use:
        fields["parallel_tool_calls"] = raw(value=False)
    return fields
