"""OpenAI `POST /v1/embeddings`: checked and passed through."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from argosy.engines.port import Abilities
from argosy.gateway.surfaces.decode import decode, look_up, refused
from argosy.gateway.surfaces.port import Ask, Catalog, Prepared
from argosy.gateway.surfaces.prepare import prepare_pass_through

_Token = Annotated[int, Meta(ge=0)]
_Input = Annotated[str, Meta(min_length=1)]


class _EmbeddingRequest(msgspec.Struct, forbid_unknown_fields=True):
    model: str
    input: (
        _Input | Annotated[list[str | _Token | list[_Token]], Meta(min_length=1, max_length=2048)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


_decoder = msgspec.json.Decoder(_EmbeddingRequest)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_PASSED = ("model", "input", "encoding_format")


class Embeddings:
    """The surface `embeddings`."""

    name = "embeddings"
    path = "/v1/embeddings"

    def ask(self, body: bytes, catalog: Catalog) -> Ask:
        """Read and check a request. Raises `RefusedError`."""
        request = decode(_decoder, body)
        served = look_up(catalog, request.model)
        if not served.embeddings:
            able = ", ".join(name for name, model in sorted(catalog.items()) if model.embeddings)
            message = f"{served.name} gives no embeddings here. Models that do: {able or 'none'}."
            raise refused("unsupported", message, param="model")
        if request.dimensions is not None:
            message = "'dimensions' is not supported: a model's embeddings have one length."
            raise refused("unsupported", message, param="dimensions")
        if isinstance(request.input, list) and "" in request.input:
            raise refused("bad_request", "'input' holds an empty string.", param="input")
        sent = _fields_decoder.decode(body)
        fields = {name: sent[name] for name in _PASSED if bytes(sent.get(name, b"null")) != b"null"}
        return Ask(model=served.name, path=self.path, fields=fields, answer_tokens_max=0)

    def prepare(self, ask: Ask, abilities: Abilities) -> Prepared:
        """Pass through."""
        return prepare_pass_through(ask)
