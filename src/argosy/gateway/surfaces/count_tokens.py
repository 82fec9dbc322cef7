"""Anthropic's `POST /v1/messages/count_tokens`: what a message would cost to read.

The promise: the count equals the input tokens (cached ones included) of the same body sent to
`/v1/messages`. An engine with the endpoint is given the conversation as the chat endpoint would
get it, in Anthropic's words. What the gateway or the engine would write into the prompt only for
a real answer (a forced call, a schema, a forbidden call) is counted by a real request for one
token instead, whose prompt the engine then holds in its cache.
"""

from collections.abc import Callable, Sequence

import msgspec

from argosy.engines.port import Abilities
from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.chat_fields import ChatMessage, encoded
from argosy.gateway.surfaces.decode import look_up, raw, refused
from argosy.gateway.surfaces.events import Event, Tokens
from argosy.gateway.surfaces.messages import asked
from argosy.gateway.surfaces.messages_request import MessagesRequest, NoChoice, read_request
from argosy.gateway.surfaces.port import Ask, Catalog, Meter, Prepared, RefusedError
from argosy.gateway.surfaces.prepare import prepare_chat


class CountTokens:
    """The surface `count_tokens`."""

    name = "count_tokens"
    path = "/v1/messages/count_tokens"

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Surfaces are built alike; the answers of this one bear no time."""

    def ask(self, body: bytes, catalog: Catalog) -> Ask:
        """Read and check a request; `max_tokens` and what shapes the answer may be left out.

        `echo` holds the fields for the engine's own endpoint, or None where it would miscount.
        """
        request = read_request(body)
        served = look_up(catalog, request.model)
        ask, messages = asked(request, served)
        fields = {**ask.fields, "max_tokens": raw(1)}
        fields.pop("stop", None)
        shapes_prompt = ask.must_call or isinstance(request.tool_choice, NoChoice)
        plain = not shapes_prompt and "response_format" not in ask.fields
        return msgspec.structs.replace(
            ask,
            fields=fields,
            stream=False,
            stop=(),
            names_stop=False,
            answer_tokens_max=1,
            echo=_native_fields(request, messages, ask) if plain else None,
        )

    def prepare(self, ask: Ask, abilities: Abilities) -> Prepared:
        """Ask the engine's own endpoint where it counts the same, else the chat endpoint."""
        if abilities.counts_tokens_at_messages and ask.echo is not None:
            fields = msgspec.convert(ask.echo, dict[str, msgspec.Raw])
            return Prepared(path=self.path, fields=fields, stream=False, answer=_Count())
        return prepare_chat(ask, abilities, encoder=_CountEncoder())


def _native_fields(
    request: MessagesRequest, messages: Sequence[ChatMessage], ask: Ask
) -> dict[str, msgspec.Raw]:
    fields = {"model": ask.fields["model"]}
    if messages[0].role == "system":
        fields["system"] = raw(messages[0].content)
        messages = messages[1:]
    fields["messages"] = encoded([_turn(message) for message in messages])
    if request.tools:
        fields["tools"] = encoded(
            [
                {"name": tool.name, "input_schema": tool.input_schema}
                | ({} if tool.description is None else {"description": tool.description})
                for tool in request.tools
            ]
        )
    return fields


class _Text(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class _Use(msgspec.Struct, frozen=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw


class _Result(msgspec.Struct, frozen=True, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | None


def _turn(message: ChatMessage) -> dict[str, object]:
    """A chat message as a turn again: one text each, so that engines cannot join it otherwise."""
    if message.tool_call_id is not None:
        result = _Result(message.tool_call_id, message.content)
        return {"role": "user", "content": [result]}
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    blocks: list[object] = [_Text(message.content)] if message.content else []
    blocks += [
        _Use(call.id, call.function.name, msgspec.Raw(call.function.arguments.encode()))
        for call in message.tool_calls
    ]
    return {"role": "assistant", "content": blocks}


class _Counted(msgspec.Struct, frozen=True):
    input_tokens: int


_decoder = msgspec.json.Decoder(_Counted)


class _Count:
    """The answer of an engine's own endpoint. Costs nothing: no token is computed."""

    is_complete = False
    forgives = False

    def __init__(self) -> None:
        self.meter = Meter(is_counted=True)

    def event(self, data: bytes) -> bytes:
        raise _streamed()

    def end(self) -> bytes:
        raise _streamed()

    def whole(self, body: bytes) -> bytes:
        try:
            return msgspec.json.encode(_decoder.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = f"The replica sent what is not a count: {error}."
            raise refused("upstream_failed", message) from None

    def error(self, refusal: Refusal) -> bytes:
        raise _streamed()

    @property
    def said(self) -> str | None:
        return None

    def resume(self) -> None:
        raise _streamed()


class _CountEncoder:
    """Reads the count off an answer of one token. The API does not stream."""

    def stream(self, event: Event) -> bytes:
        raise _streamed()

    def close(self) -> bytes:
        raise _streamed()

    def whole(self, events: list[Event]) -> bytes:
        for event in events:
            if isinstance(event, Tokens):
                return msgspec.json.encode(_Counted(event.tokens_in))
        raise refused("upstream_failed", "The replica did not say how many tokens it read.")

    def error(self, refusal: Refusal) -> bytes:
        raise _streamed()


def _streamed() -> RefusedError:
    return refused("upstream_failed", "The replica streamed a count of tokens.")
