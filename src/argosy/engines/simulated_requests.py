"""What a request asks of the simulated engine, as a plan: the whole answer, but for its time.

Pure. The plan's words come from `simulated_text.py`, its JSON from `simulated_answers.py`.
"""

import hashlib
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from argosy.engines import simulated_text as text
from argosy.engines.simulated import SimulatedSpec
from argosy.engines.simulated_schema import instance

Json = Any
_Count = Annotated[int, Meta(ge=1)]


class RequestError(Exception):
    """A request that the engine refuses; code and status as OpenAI would give them."""

    def __init__(self, message: str, *, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its answer. All its choices are decoded together, in one slot."""

    kind: Literal["chat", "text"]
    id: str
    model: str
    prompts: tuple[list[str], ...]  # the tokens of each
    choices: tuple[text.Answer, ...]
    tool: str | None  # the function that the choices are arguments of
    stream: bool
    include_usage: bool
    include_timings: bool

    @property
    def steps(self) -> int:
        """Decoding steps; an empty answer takes one too."""
        return max(1, *(len(choice.pieces) for choice in self.choices))


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """A request for embeddings."""

    model: str
    texts: list[str]
    prompts: tuple[list[str], ...]  # the tokens of each
    as_base64: bool
    dimensions: int


def read_chat(body: bytes, spec: SimulatedSpec) -> Plan:
    """Raises `RequestError`."""
    request = _decode(body, _ChatRequest, spec)
    messages, so_far = request.messages, ""
    if messages[-1].get("role") == "assistant":  # its answer begins with what is there
        messages, so_far = messages[:-1], text.content_of(messages[-1])
    prompt = text.render(messages)
    tool = _forced_tool(request)
    shape = _forced_shape(request, tool)
    asked = _Asked(
        kind="chat",
        prompts=[f"{prompt} {so_far}" if so_far else prompt],
        choices=[_chat_tokens(prompt, so_far, shape, choice) for choice in range(request.n or 1)],
        tool=tool["name"] if tool else None,
        tokens_max=request.max_completion_tokens or request.max_tokens,
    )
    return _plan(request, asked, spec)


def read_completion(body: bytes, spec: SimulatedSpec) -> Plan:
    """Raises `RequestError`."""
    request = _decode(body, _CompletionRequest, spec)
    prompts = _texts(request.prompt)
    asked = _Asked(
        kind="text",
        prompts=prompts,
        choices=[
            text.invent_completion(prompt, choice=choice)
            for prompt in prompts
            for choice in range(request.n or 1)
        ],
        tokens_max=request.max_tokens,
    )
    return _plan(request, asked, spec)


def read_embeddings(body: bytes, spec: SimulatedSpec) -> Embeddings:
    """Raises `RequestError`."""
    request = _decode(body, _EmbeddingRequest, spec)
    texts = _texts(request.input)
    if not texts or not all(texts):
        raise RequestError("'input' is empty: give at least one token to embed.")
    prompts = tuple(text.tokens_of(item) for item in texts)
    _check_context(prompts, spec)
    return Embeddings(
        model=spec.model,
        texts=texts,
        prompts=prompts,
        as_base64=request.encoding_format == "base64",
        dimensions=request.dimensions,
    )


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class _Common(msgspec.Struct, frozen=True, kw_only=True):
    """Other fields, `seed` and `temperature` among them, change nothing."""

    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: _Count | None = None
    timings_per_token: bool = False


class _ChatRequest(_Common, frozen=True, kw_only=True):
    messages: Annotated[list[dict[str, Json]], Meta(min_length=1)]
    max_completion_tokens: _Count | None = None
    tools: list[dict[str, Json]] | None = None
    tool_choice: str | dict[str, Json] | None = None
    response_format: dict[str, Json] | None = None


class _CompletionRequest(_Common, frozen=True, kw_only=True):
    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]


class _EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=4096)] = 64


_R = TypeVar("_R", _ChatRequest, _CompletionRequest, _EmbeddingRequest)


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    kind: Literal["chat", "text"]
    prompts: list[str]
    choices: list[list[str]]  # the tokens of each, before anything cuts them
    tokens_max: int | None
    tool: str | None = None


def _decode(body: bytes, shape: type[_R], spec: SimulatedSpec) -> _R:
    try:
        request = msgspec.json.decode(body, type=shape)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is wrong: {error}") from None
    if request.model != spec.model:
        raise RequestError(
            f"The model `{request.model}` does not exist.", code="model_not_found", status=404
        )
    return request


def _plan(request: _Common, asked: _Asked, spec: SimulatedSpec) -> Plan:
    prompts = tuple(text.tokens_of(prompt) for prompt in asked.prompts)
    _check_context(prompts, spec)
    room = spec.engine.context_tokens - max(len(prompt) for prompt in prompts)
    tokens_max = min(asked.tokens_max or room, room)
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    digest = hashlib.blake2b("\0".join(asked.prompts).encode(), digest_size=12).hexdigest()
    return Plan(
        kind=asked.kind,
        id=f"{'chatcmpl' if asked.kind == 'chat' else 'cmpl'}-{digest}",
        model=spec.model,
        prompts=prompts,
        choices=tuple(
            text.cut(
                tokens, tokens_max=tokens_max, stop=[sequence for sequence in stop if sequence]
            )
            for tokens in asked.choices
        ),
        tool=asked.tool,
        stream=request.stream is True,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        include_timings=request.timings_per_token,
    )


def _chat_tokens(prompt: str, so_far: str, shape: str | None, choice: int) -> list[str]:
    """A choice's tokens: the rest of the answer that `so_far` begins, or an answer to both."""
    tokens = text.tokens_of(shape) if shape is not None else _invent(prompt, choice)
    rest = text.rest_after(tokens, so_far)
    return rest if rest is not None else _invent(f"{prompt} {so_far}", choice)


def _invent(prompt: str, choice: int) -> list[str]:
    first, *others = text.invent(prompt, choice=choice)
    return [first.lstrip(), *others]  # a message does not begin with a space


def _forced_tool(request: _ChatRequest) -> dict[str, Json] | None:
    """The function that `tool_choice` wants called: the named one, or the first."""
    functions = [tool["function"] for tool in request.tools or () if "function" in tool]
    choice = request.tool_choice
    if isinstance(choice, dict):
        name = choice.get("function", {}).get("name")
        functions = [function for function in functions if function.get("name") == name]
    elif choice != "required":
        return None
    if not functions:
        raise RequestError(f"tool_choice {choice} names none of the tools.")
    return functions[0]


def _forced_shape(request: _ChatRequest, tool: dict[str, Json] | None) -> str | None:
    """The JSON that must be answered; None when words will do."""
    if tool is not None:
        return _json(instance({"type": "object", **tool.get("parameters", {})}))
    wanted = request.response_format or {}
    match wanted.get("type"):
        case "json_schema":
            return _json(instance(wanted.get("json_schema", {}).get("schema", {})))
        case "json_object":
            return "{}"
    return None


def _json(value: Json) -> str:
    return msgspec.json.encode(value).decode()


def _texts(given: str | list[str | int | list[int]]) -> list[str]:
    """The texts of `prompt` or `input`; token ids count as the words that they look like."""
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(item, int) for item in given):
        return [" ".join(map(str, given))]
    return [item if isinstance(item, str) else _ids(item) for item in given]


def _ids(item: int | list[int]) -> str:
    return str(item) if isinstance(item, int) else " ".join(map(str, item))


def _check_context(prompts: tuple[list[str], ...], spec: SimulatedSpec) -> None:
    tokens = max(len(prompt) for prompt in prompts)
    tokens_max = spec.engine.context_tokens
    if tokens >= tokens_max:
        raise RequestError(
            f"This model's maximum context length is {tokens_max} tokens. "
            f"However, your prompt has {tokens} tokens. Please shorten it.",
            code="context_length_exceeded",
        )
