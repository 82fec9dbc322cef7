"""OpenAI's `POST /v1/responses`, without memory: nothing is stored between requests.

Owns the translation of a request into an `Ask`; input items are read in `responses_request.py`,
the answer's shape is in `responses_encoder.py`.
"""

import secrets
from collections.abc import Callable
from typing import cast

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
from argosy.gateway.surfaces.decode import check_max_tokens, decode, look_up, raw, refused
from argosy.gateway.surfaces.port import Ask, Catalog, Prepared, Served, Tool
from argosy.gateway.surfaces.prepare import prepare_chat
from argosy.gateway.surfaces.responses_encoder import ResponsesEncoder, Settings
from argosy.gateway.surfaces.responses_request import (
    Choice,
    FunctionTool,
    ResponsesRequest,
    TextFormat,
    chat_messages,
)

_CHAT_PATH = "/v1/chat/completions"
_NO_STORE = "this gateway stores no responses; send the whole conversation as 'input'."
_ADVICE = {
    "previous_response_id": _NO_STORE,
    "conversation": _NO_STORE,
    "prompt": "no prompts are stored; send the text as 'instructions' and 'input'.",
    "context_management": "shorten 'input' before you send it.",
    "moderation": "leave it out.",
    "access_programs": "leave it out.",
    "image": "the models read text only; leave it out.",
    "prompt_cache_options": "prompts are cached by themselves; leave it out.",
}
_EFFORTS = ("low", "medium", "high")  # what open models' templates know
_decoder = msgspec.json.Decoder(ResponsesRequest)


class _Echo(msgspec.Struct, frozen=True, kw_only=True):
    settings: Settings
    continues: bool  # the input ends with the assistant's own words


class Responses:
    """The surface `responses`."""

    name = "responses"
    path = "/v1/responses"

    def __init__(self, now_s: Callable[[], float]) -> None:
        """`now_s` gives Unix time."""
        self._now_s = now_s

    def ask(self, body: bytes, catalog: Catalog) -> Ask:
        """Read and check a request. Raises `RefusedError`."""
        request = decode(_decoder, body)
        served = look_up(catalog, request.model)
        _check(request, served)
        tools = tuple(_tool(tool, position) for position, tool in enumerate(request.tools or ()))
        forced_name = _forced_name(request)
        forced = forced_name is not None or request.tool_choice == "required"
        names = [tool.name for tool in tools]
        check_tool_names(names)
        check_choice(names, forced=forced, forced_name=forced_name)
        messages = chat_messages(request, system_prompt=served.system_prompt)
        return Ask(
            model=served.name,
            path=_CHAT_PATH,
            fields=_fields(request, messages, served) | _tool_fields(request, tools, forced_name),
            stream=bool(request.stream),
            tools=tools,
            must_call=forced,
            must_call_name=forced_name,
            answer_tokens_max=request.max_output_tokens,
            echo=_Echo(
                settings=_settings(request, served),
                continues=messages[-1].role == "assistant",
            ),
        )

    def prepare(self, ask: Ask, abilities: Abilities) -> Prepared:
        """Fit the ask to a replica; each attempt answers under an id of its own."""
        encoder = self.encoder(ask, token=secrets.token_hex(16))
        # llama.cpp repeats the assistant's beginning in a whole answer and not in a stream.
        is_continued = cast("_Echo", ask.echo).continues
        return prepare_chat(ask, abilities, encoder=encoder, must_stream=is_continued)

    def encoder(self, ask: Ask, *, token: str) -> ResponsesEncoder:
        """What writes one answer to this ask, under ids made of `token`."""
        settings = cast("_Echo", ask.echo).settings
        return ResponsesEncoder(token=token, settings=settings, now_s=self._now_s)


def _check(request: ResponsesRequest, served: Served) -> None:
    refuse_given(request, _ADVICE)
    unsupported = {
        "store": (request.store, _NO_STORE),
        "background": (request.background, "the answer comes in the same exchange, or streams."),
        "include": (request.include, "nothing beyond the answer can be included; send []."),
        "top_logprobs": (request.top_logprobs, "/v1/chat/completions has log probabilities."),
        "truncation": (request.truncation == "auto", "shorten 'input'; 'disabled' is served."),
        "service_tier": (
            request.service_tier not in (None, "auto", "default"),
            "the API key says the tier; send 'auto'.",
        ),
    }
    for field, (is_wanted, what_works) in unsupported.items():
        if is_wanted:
            said = msgspec.json.encode(getattr(request, field)).decode()[:100]
            message = f"'{field}' = {said} is not served here: {what_works}"
            raise refused("unsupported", message, param=field)
    check_max_tokens(served, request.max_output_tokens, param="max_output_tokens")
    wanted = request.text.format if request.text else None
    if wanted and wanted.type == "json_schema":
        for field in ("name", "schema"):
            if getattr(wanted, field) is None:
                param = f"text.format.{field}"
                message = f"Missing required parameter: '{param}'."
                raise refused("bad_request", message, param=param)


def _tool(tool: FunctionTool, position: int) -> Tool:
    at = f"tools[{position}]"
    if tool.type != "function":
        message = (
            f"{at}.type = '{tool.type[:100]}' is not served here: send a tool of type 'function' "
            "and run it yourself."
        )
        raise refused("unsupported", message, param=f"{at}.type")
    if tool.name is None:
        message = f"Missing required parameter: '{at}.name'."
        raise refused("bad_request", message, param=f"{at}.name")
    return Tool(name=tool.name, description=tool.description, parameters=tool.parameters)


def _forced_name(request: ResponsesRequest) -> str | None:
    choice = request.tool_choice
    if not isinstance(choice, Choice):
        return None
    if choice.type != "function":
        message = (
            f"tool_choice.type = '{choice.type[:100]}' is not served here: send 'auto', 'none', "
            "'required' or {'type': 'function', 'name': …}."
        )
        raise refused("unsupported", message, param="tool_choice.type")
    if choice.name is None:
        message = "Missing required parameter: 'tool_choice.name'."
        raise refused("bad_request", message, param="tool_choice.name")
    return choice.name


def _fields(
    request: ResponsesRequest, messages: list[ChatMessage], served: Served
) -> dict[str, msgspec.Raw]:
    fields = {"model": raw(served.name), "messages": encoded(messages)}
    if request.max_output_tokens is not None:
        fields["max_tokens"] = raw(request.max_output_tokens)
    if request.temperature is not None:
        fields["temperature"] = raw(request.temperature)
    if request.top_p is not None:
        fields["top_p"] = raw(request.top_p)
    if request.reasoning and request.reasoning.effort in _EFFORTS:
        fields["reasoning_effort"] = raw(request.reasoning.effort)
    if request.text and request.text.format and request.text.format.type != "text":
        fields["response_format"] = encoded(_response_format(request.text.format))
    return fields


def _response_format(wanted: TextFormat) -> dict[str, object]:
    if wanted.type == "json_object":
        return {"type": "json_object"}
    schema = {
        "name": wanted.name,
        "schema": wanted.schema,
        "strict": wanted.strict,
        "description": wanted.description,
    }
    given = {name: value for name, value in schema.items() if value is not None}
    return {"type": "json_schema", "json_schema": given}


def _tool_fields(
    request: ResponsesRequest, tools: tuple[Tool, ...], forced_name: str | None
) -> dict[str, msgspec.Raw]:
    if not tools:
        return {}
    sent = zip(tools, request.tools or (), strict=True)
    fields = {"tools": encoded([chat_tool(tool, strict=as_sent.strict) for tool, as_sent in sent])}
    if forced_name is not None:
        fields["tool_choice"] = raw(named_choice(forced_name))
    elif request.tool_choice is not None:
        fields["tool_choice"] = raw(request.tool_choice)
    if request.parallel_tool_calls is not None:
        fields["parallel_tool_calls"] = raw(request.parallel_tool_calls)
    return fields


def _settings(request: ResponsesRequest, served: Served) -> Settings:
    text = request.text
    shown: dict[str, object] = {"format": text.format if text and text.format else _PLAIN}
    if text and text.verbosity:
        shown["verbosity"] = text.verbosity
    effort = request.reasoning.effort if request.reasoning else None
    return Settings(
        model=served.name,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        metadata=request.metadata or {},
        parallel_tool_calls=request.parallel_tool_calls is not False,
        reasoning={"effort": effort, "summary": None},
        safety_identifier=request.safety_identifier,
        prompt_cache_key=request.prompt_cache_key,
        temperature=request.temperature,
        text=encoded(shown),
        tool_choice=encoded(request.tool_choice or "auto"),
        tools=encoded(request.tools or []),
        top_p=request.top_p,
        user=request.user,
    )


_PLAIN = TextFormat(type="text")
