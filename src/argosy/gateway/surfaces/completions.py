"""OpenAI `POST /v1/completions`: a raw prompt, no template; checked and passed through."""

from typing import Annotated

import msgspec
from msgspec import Meta

from argosy.engines.port import Abilities
from argosy.gateway.surfaces.decode import check_max_tokens, decode, look_up, refused
from argosy.gateway.surfaces.port import Ask, Catalog, Prepared, Served
from argosy.gateway.surfaces.prepare import prepare_pass_through

_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Token = Annotated[int, Meta(ge=0)]


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _CompletionRequest(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    prompt: str | Annotated[list[str | _Token | list[_Token]], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=1)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    seed: int | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    user: str | None = None  # taken and not passed on


_decoder = msgspec.json.Decoder(_CompletionRequest)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NOT_PASSED = frozenset({"stream", "stream_options", "user", "best_of"})


class Completions:
    """The surface `completions`."""

    name = "completions"
    path = "/v1/completions"

    def ask(self, body: bytes, catalog: Catalog) -> Ask:
        """Read and check a request. Raises `RefusedError`."""
        request = decode(_decoder, body)
        served = look_up(catalog, request.model)
        _check(request, served)
        sent = _fields_decoder.decode(body)
        options = request.stream_options
        return Ask(
            model=served.name,
            path=self.path,
            fields={
                name: value
                for name, value in sent.items()
                if name not in _NOT_PASSED and bytes(value) != b"null"
            },
            stream=bool(request.stream),
            usage_event=bool(options and options.include_usage),
            answer_tokens_max=request.max_tokens,
            answers=(request.n or 1) * _prompts(request.prompt),
        )

    def prepare(self, ask: Ask, abilities: Abilities) -> Prepared:
        """Pass through."""
        return prepare_pass_through(ask)


def _check(request: _CompletionRequest, served: Served) -> None:
    for field in ("echo", "suffix"):
        if getattr(request, field):
            raise refused("unsupported", f"'{field}' is not supported here.", param=field)
    several = (request.n or 1) > 1 or _prompts(request.prompt) > 1
    if several and not served.counts_every_choice:
        message = f"{served.name} answers one prompt with one choice a request; send several."
        raise refused("unsupported", message, param="n" if (request.n or 1) > 1 else "prompt")
    if request.stream_options is not None and not request.stream:
        message = "'stream_options' may be sent only with 'stream': true."
        raise refused("bad_request", message, param="stream_options")
    check_max_tokens(served, request.max_tokens, param="max_tokens")


def _prompts(prompt: str | list[str | int | list[int]]) -> int:
    """How many prompts there are: a list of numbers is one, given as tokens."""
    if isinstance(prompt, str) or all(isinstance(part, int) for part in prompt):
        return 1
    return len(prompt)
