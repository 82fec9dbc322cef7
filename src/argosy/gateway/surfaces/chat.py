"""OpenAI `POST /v1/chat/completions`: checked, then passed through wherever it can be."""

import secrets
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from argosy.engines.port import Abilities
from argosy.gateway.surfaces.chat_encoder import ChatEncoder
from argosy.gateway.surfaces.chat_plain import plain_ask
from argosy.gateway.surfaces.decode import check_max_tokens, decode, look_up, raw, refused
from argosy.gateway.surfaces.port import Ask, Catalog, Prepared, Served, Tool
from argosy.gateway.surfaces.prepare import needs_transform, prepare_chat, prepare_pass_through

_Seldom = msgspec.Raw | UnsetType


class _Function(msgspec.Struct):
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, object] | None = None


class _Tool(msgspec.Struct):
    type: Literal["function"]
    function: _Function


class _FunctionName(msgspec.Struct):
    name: str


class _NamedTool(msgspec.Struct):
    type: Literal["function"]
    function: _FunctionName


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Call(msgspec.Struct):
    id: str
    function: msgspec.Raw
    type: Literal["function"] = "function"


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, object] | None = None


_Penalty = Annotated[float, Meta(ge=-2, le=2)]


class _ChatRequest(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    messages: Annotated[list[_Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None  # not OpenAI's; every open engine has it
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None  # likewise
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    seed: int | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: _ResponseFormat | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    # Taken and not passed on: they change nothing in the answer.
    user: str | None = None
    metadata: dict[str, object] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: _Seldom = UNSET
    verbosity: str | None = None
    # OpenAI's own, not served.
    modalities: list[str] | None = None
    audio: _Seldom = UNSET
    prediction: _Seldom = UNSET
    functions: _Seldom = UNSET
    function_call: _Seldom = UNSET
    web_search_options: _Seldom = UNSET
    moderation: _Seldom = UNSET


_decoder = msgspec.json.Decoder(_ChatRequest)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_turns_decoder = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_NOT_SERVED = ("audio", "prediction", "functions", "function_call", "web_search_options",
               "moderation")  # fmt: skip
_NOT_PASSED = frozenset(
    {"stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier",
     "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "verbosity",
     "modalities", "max_completion_tokens"}
)  # fmt: skip


class Chat:
    """The surface `chat`."""

    name = "chat"
    path = "/v1/chat/completions"

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s

    def ask(self, body: bytes, catalog: Catalog) -> Ask:
        """Read and check a request. Raises `RefusedError`."""
        plain = plain_ask(body, catalog, path=self.path)
        if plain is not None:
            return plain
        request = decode(_decoder, body)
        served = look_up(catalog, request.model)
        _check(request, served)
        options = request.stream_options
        named = request.tool_choice if isinstance(request.tool_choice, _NamedTool) else None
        return Ask(
            model=served.name,
            path=self.path,
            fields=_upstream_fields(request, served, body),
            stream=bool(request.stream),
            usage_event=bool(options and options.include_usage),
            tools=tuple(_tool(tool) for tool in request.tools or ()),
            must_call=named is not None or request.tool_choice == "required",
            must_call_name=named.function.name if named else None,
            answer_tokens_max=request.max_completion_tokens or request.max_tokens,
            answers=request.n or 1,
        )

    def prepare(self, ask: Ask, abilities: Abilities) -> Prepared:
        """Pass through, or translate where a call must be forced."""
        if not needs_transform(ask, abilities):
            return prepare_pass_through(ask)
        encoder = ChatEncoder(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            model=ask.model,
            created_at_s=int(self._now_s()),
            usage_event=ask.usage_event,
        )
        return prepare_chat(ask, abilities, encoder=encoder)


def _tool(tool: _Tool) -> Tool:
    function = tool.function
    return Tool(
        name=function.name, description=function.description, parameters=function.parameters
    )


def _check(request: _ChatRequest, served: Served) -> None:
    for field in _NOT_SERVED:
        if getattr(request, field) is not UNSET:
            raise refused("unsupported", f"'{field}' is not supported here.", param=field)
    if request.modalities not in (None, ["text"]):
        raise refused("unsupported", "Only text is answered: modalities ['text'].",
                      param="modalities")  # fmt: skip
    if request.store:
        raise refused("unsupported", "Nothing is stored here: send 'store': false.", param="store")
    if (request.n or 1) > 1 and not served.counts_every_choice:
        message = f"{served.name} gives one choice a request; send {request.n} requests instead."
        raise refused("unsupported", message, param="n")
    if request.stream_options is not None and not request.stream:
        message = "'stream_options' may be sent only with 'stream': true."
        raise refused("bad_request", message, param="stream_options")
    check_max_tokens(served, request.max_tokens, param="max_tokens")
    check_max_tokens(served, request.max_completion_tokens, param="max_completion_tokens")
    _check_formats(request)
    _check_tools(request)
    _check_messages(request.messages)


def _check_formats(request: _ChatRequest) -> None:
    wanted = request.response_format
    schema = (wanted.json_schema or {}).get("schema") if wanted else None
    if wanted and wanted.type == "json_schema" and not isinstance(schema, dict):
        message = "response_format of type json_schema needs 'json_schema': {'schema': {…}}."
        raise refused("bad_request", message, param="response_format.json_schema")
    if request.top_logprobs and not request.logprobs:
        message = "'top_logprobs' needs 'logprobs': true."
        raise refused("bad_request", message, param="top_logprobs")


def _check_tools(request: _ChatRequest) -> None:
    names = [tool.function.name for tool in request.tools or ()]
    choice = request.tool_choice
    if choice not in (None, "none") and not names:
        message = "'tool_choice' may be sent only with 'tools'."
        raise refused("bad_request", message, param="tool_choice")
    if isinstance(choice, _NamedTool) and choice.function.name not in names:
        message = f"tool_choice names '{choice.function.name}', which is none of the tools {names}."
        raise refused("bad_request", message, param="tool_choice")


def _check_messages(messages: list[_Message]) -> None:
    called: set[str] = set()
    for position, message in enumerate(messages):
        _check_content(message, f"messages[{position}]")
        called.update(call.id for call in message.tool_calls or ())
        if message.role == "tool" and message.tool_call_id not in called:
            param = f"messages[{position}].tool_call_id"
            said = f"{param} = {message.tool_call_id!r} answers no earlier tool call."
            raise refused("bad_request", said, param=param)


def _check_content(message: _Message, where: str) -> None:
    if message.content is None and not message.tool_calls:
        text = f"{where}.content is missing."
        raise refused("bad_request", text, param=f"{where}.content")
    if isinstance(message.content, list):
        for part in message.content:
            if part.type != "text" or part.text is None:
                text = f"{where}: a content part of type '{part.type}' is not served, only 'text'."
                raise refused("unsupported", text, param=f"{where}.content")


def _upstream_fields(request: _ChatRequest, served: Served, body: bytes) -> dict[str, msgspec.Raw]:
    """The client's own bytes, field by field, less what is the gateway's and nulls."""
    sent = _fields_decoder.decode(body)
    fields = {
        name: value
        for name, value in sent.items()
        if name not in _NOT_PASSED and bytes(value) != b"null"
    }
    if request.max_completion_tokens is not None:  # engines know the older name
        fields["max_tokens"] = raw(request.max_completion_tokens)
    messages = fields["messages"]
    if any(message.role == "developer" for message in request.messages):
        messages = _developer_as_system(messages)
    first = request.messages[0].role
    if served.system_prompt and first not in ("system", "developer"):
        messages = with_system_prompt(messages, served.system_prompt)
    fields["messages"] = messages
    return fields


def _developer_as_system(messages: msgspec.Raw) -> msgspec.Raw:
    turns = _turns_decoder.decode(messages)
    for turn in turns:
        if msgspec.json.decode(turn["role"]) == "developer":
            turn["role"] = raw("system")
    return raw(turns)


def with_system_prompt(messages: msgspec.Raw, prompt: str) -> msgspec.Raw:
    """A non-empty list of messages with a system prompt before them, not decoded again."""
    system = msgspec.json.encode({"role": "system", "content": prompt})
    return msgspec.Raw(b"[" + system + b"," + bytes(messages).lstrip()[1:])
