"""The chat that needs no change: most of them, read once and sent on as the very bytes that came.

One strict Struct says what such a body may hold. Whatever it does not know (a null, a tool's
answer, a field that is the gateway's) makes the body an ordinary one, which `chat` reads with all
its checks and messages. So nothing is refused here, and nothing passes that `chat` would refuse.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from argosy.gateway.surfaces.decode import check_max_tokens
from argosy.gateway.surfaces.port import Ask, AsSent, Catalog

_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Probability = Annotated[float, Meta(ge=0, le=1)]


class _TextPart(msgspec.Struct):
    type: Literal["text"]
    text: str


class _Message(msgspec.Struct):
    role: Literal["system", "user", "assistant"]
    content: str | list[_TextPart]
    tool_calls: None = None  # its calls have ids that later messages answer


class _Function(msgspec.Struct):
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, msgspec.Raw] | None = None


class _Tool(msgspec.Struct):
    type: Literal["function"]
    function: _Function


class _StreamOptions(msgspec.Struct):
    include_usage: Literal[True]
    include_obfuscation: bool | None = None


class _PlainChat(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    messages: Annotated[list[_Message], Meta(min_length=1)]
    stream: bool = False
    stream_options: _StreamOptions | UnsetType = UNSET
    max_tokens: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: _Probability | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    min_p: _Probability | UnsetType = UNSET
    n: Annotated[int, Meta(ge=1, le=1)] | UnsetType = UNSET
    stop: str | Annotated[list[str], Meta(max_length=16)] | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    presence_penalty: _Penalty | UnsetType = UNSET
    frequency_penalty: _Penalty | UnsetType = UNSET
    logit_bias: dict[str, float] | UnsetType = UNSET
    tools: list[_Tool] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    reasoning_effort: str | UnsetType = UNSET


_decoder = msgspec.json.Decoder(_PlainChat)
_NO = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def plain_ask(body: bytes, catalog: Catalog, *, path: str) -> Ask | None:
    """The request, if it may be sent as it came; None where `chat` must look at it.

    Raises `RefusedError` where more tokens are asked for than the model's context has.
    """
    try:
        said = _decoder.decode(body)
    except _NO:
        return None
    served = catalog.get(said.model)
    has_options = said.stream_options is not UNSET
    if served is None or (has_options and not said.stream):
        return None
    if served.system_prompt and said.messages[0].role != "system":
        return None
    if said.max_tokens is not UNSET:
        check_max_tokens(served, said.max_tokens, param="max_tokens")
    if said.stream and not has_options:
        body = body.lstrip()
        body = b'{"stream_options":{"include_usage":true},' + body[1:]
    return Ask(
        model=said.model,
        path=path,
        fields=AsSent(body),
        stream=said.stream,
        usage_event=has_options,
        answer_tokens_max=None if said.max_tokens is UNSET else said.max_tokens,
    )
