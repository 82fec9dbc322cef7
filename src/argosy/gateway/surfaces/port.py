"""The surface port: what the gateway asks of an API that clients speak.

A request's way: `Surface.ask` (bytes to `Ask`, or refused) -> `Surface.prepare` once per attempt
(what to send to a replica with these abilities, and the `Answer` that translates what comes
back) -> `Answer.event` per upstream event or `Answer.whole` once -> bytes to the client.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from argosy.engines.port import Abilities
from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.events import Event


class RefusedError(Exception):
    """The request, or what a replica sent, cannot be used; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A model as a surface needs to know it, over all its deployments."""

    name: str
    created_at_s: int  # Unix time; the APIs' `created`
    system_prompt: str | None
    sampling: dict[str, msgspec.Raw] = {}  # fields that a body gets where it has none
    context_tokens: int | None  # of the roomiest deployment; None: unknown
    counts_every_choice: bool  # of every deployment
    embeddings: bool  # of any deployment
    continues: bool = False  # any deployment goes on from an answer's beginning
    fallback: tuple[str, ...] = ()  # models that answer instead


Catalog = Mapping[str, Served]


class AsSent(Mapping[str, msgspec.Raw]):
    """The fields of a body that may be sent as the bytes it is; read only when somebody asks."""

    __slots__ = ("_fields", "body")

    def __init__(self, body: bytes) -> None:
        """`body` is a JSON object, checked."""
        self.body = body
        self._fields: dict[str, msgspec.Raw] | None = None

    def _read(self) -> dict[str, msgspec.Raw]:
        if self._fields is None:
            self._fields = _fields_decoder.decode(self.body)
        return self._fields

    def __getitem__(self, name: str) -> msgspec.Raw:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, object] | None = None  # JSON Schema; None: takes no arguments


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants, in the OpenAI shape, before it is fitted to a replica."""

    model: str
    path: str  # on the replica, e.g. "/v1/chat/completions"
    fields: Mapping[str, msgspec.Raw]  # the body, `stream` and `stream_options` perhaps not
    stream: bool = False  # to the client
    usage_event: bool = False  # the client asked for OpenAI's usage chunk
    stop: tuple[str, ...] = ()  # also in `fields["stop"]`
    names_stop: bool = False  # the API reports which sequence ended the text
    tools: tuple[Tool, ...] = ()
    must_call: bool = False  # tool_choice is "required", or names `must_call_name`
    must_call_name: str | None = None
    echo: object = None  # what the surface itself needs again when it writes the answer
    answer_tokens_max: int | None = None  # of one answer; None: the request does not limit it
    answers: int = 1  # choices times prompts


class Meter(msgspec.Struct, kw_only=True):
    """What an answer has cost so far. `tokens_out` counts deltas until the engine's own count."""

    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    is_counted: bool = False  # the engine said its own count
    before: int = 0  # of `tokens_out`, those of replicas before this one


class Answer(Protocol):
    """Turns what one replica sends into what the client reads. One object per attempt."""

    meter: Meter
    forgives: bool  # an event that cannot be read is left out; `end` raises if a token was in it

    @property
    def is_complete(self) -> bool:
        """True when nothing more is wanted, though the replica may still talk."""
        ...

    def event(self, data: bytes) -> bytes:
        """The client's bytes for one upstream event (`data`: without `data: `), perhaps none.

        Raises `RefusedError` when the event is an error or not what an engine may say.
        """
        ...

    def end(self) -> bytes:
        """The last bytes, once the replica has ended its stream properly.

        Raises `RefusedError` when the stream ended without a finish: a cut answer.
        """
        ...

    def whole(self, body: bytes) -> bytes:
        """The client's body for a replica's whole answer. Raises `RefusedError`."""
        ...

    def error(self, refusal: Refusal) -> bytes:
        """What to say inside a stream that has begun and must end: the API's error event."""
        ...

    @property
    def said(self) -> str | None:
        """The text so far, where another replica may go on from it; None where it may not."""
        ...

    def resume(self) -> None:
        """What comes next is another replica's, which goes on from `said`."""
        ...


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt: what to send, and who translates what comes back."""

    path: str
    fields: Mapping[str, msgspec.Raw]
    stream: bool  # asked of the replica; may be True though the client wants a whole answer
    answer: Answer


class Surface(Protocol):
    """One API endpoint that produces tokens."""

    name: str  # as metrics and usage call it, e.g. "chat"
    path: str  # as clients call it; the method is POST

    def ask(self, body: bytes, catalog: Catalog) -> Ask:
        """Read and check a request. Raises `RefusedError`."""
        ...

    def prepare(self, ask: Ask, abilities: Abilities) -> Prepared:
        """Fit the ask to a replica with these abilities."""
        ...


class Encoder(Protocol):
    """Writes one answer in an API's shape. Sees the events in order, `Tokens` (if any) last."""

    def stream(self, event: Event) -> bytes:
        """Server-sent events for this event, perhaps none."""
        ...

    def close(self) -> bytes:
        """The server-sent events that end the stream, after the last event."""
        ...

    def whole(self, events: list[Event]) -> bytes:
        """The whole answer as one JSON body."""
        ...

    def error(self, refusal: Refusal) -> bytes:
        """The server-sent event that says why the stream ends here."""
        ...


class Dialect(Protocol):
    """What the surfaces of one maker's API share: the shape of errors and of the model list."""

    name: str  # "openai", "anthropic"

    def refusal(self, refusal: Refusal, *, request: str) -> tuple[int, bytes]:
        """HTTP status and body for a request (its id is `request`) that is not answered."""
        ...

    def model_list(self, catalog: Catalog) -> bytes:
        """The body of GET /v1/models."""
        ...

    def model(self, served: Served) -> bytes:
        """The body of GET /v1/models/{name}."""
        ...
