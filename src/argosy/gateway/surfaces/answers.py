"""How a replica's answer becomes the client's: passed through, or translated event by event.

Both count what passes. `PassThrough` is the hot path (OpenAI chat, completions, embeddings to a
replica that speaks the same): it looks into an event only as far as metering needs.
"""

import msgspec

from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.chat_upstream import (
    NO_ERROR,
    ChatReader,
    UpstreamUsage,
    check_error,
    upstream_failed,
)
from argosy.gateway.surfaces.events import (
    Event,
    Finish,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
)
from argosy.gateway.surfaces.port import Encoder, Meter
from argosy.gateway.surfaces.sse import DONE, DONE_EVENT, data_event
from argosy.gateway.surfaces.transforms import Transform


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None  # of a completion
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: UpstreamUsage | None = None
    error: msgspec.Raw = NO_ERROR


class _Whole(msgspec.Struct):
    choices: list[msgspec.Raw] = []  # of a chat or a completion
    data: list[msgspec.Raw] = []  # of embeddings
    usage: UpstreamUsage | None = None
    error: msgspec.Raw = NO_ERROR


_event_decoder = msgspec.json.Decoder(_Event)
_whole_decoder = msgspec.json.Decoder(_Whole)
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class PassThrough:
    """The replica's own bytes, in its own shape, less the usage chunk that nobody asked for."""

    is_complete = False

    def __init__(self, *, usage_event: bool) -> None:
        self.meter = Meter()
        self._usage_event = usage_event
        self._finished = 0

    def event(self, data: bytes) -> bytes:
        """The event as it came. Raises `RefusedError` on an error or on what is not JSON."""
        if data == DONE or data == b"null":  # llama.cpp opens several prompts with `data: null`
            return b""
        try:
            event = _event_decoder.decode(data)
        except _NOT_JSON as error:
            raise upstream_failed(f"The replica sent what is not an event: {error}.") from None
        check_error(event.error)
        for choice in event.choices:
            self._count(choice)
        if event.usage is not None:
            _settle(self.meter, event.usage.tokens())
            if not event.choices and not self._usage_event:
                return b""
        return b"data: " + data.replace(b"\n", b" ") + b"\n\n"  # a line end in JSON is a space

    def _count(self, choice: _Choice) -> None:
        delta = choice.delta
        if choice.text or (
            delta
            and (delta.content or delta.tool_calls or delta.reasoning_content or delta.reasoning)
        ):
            self.meter.tokens_out += not self.meter.is_counted
        if choice.finish_reason:
            self._finished += 1

    def end(self) -> bytes:
        """OpenAI's `[DONE]`. Raises `RefusedError` when no choice has finished."""
        if not self._finished:
            raise upstream_failed("The replica's stream ended before its answer did.")
        return DONE_EVENT

    def whole(self, body: bytes) -> bytes:
        """The body as it came; its usage is metered."""
        try:
            said = _whole_decoder.decode(body)
        except _NOT_JSON as error:
            raise upstream_failed(f"The replica sent what is not an answer: {error}.") from None
        check_error(said.error)
        if not said.choices and not said.data:
            raise upstream_failed("The replica's answer has nothing in it.")
        if said.usage is not None:
            _settle(self.meter, said.usage.tokens())
        return body

    def error(self, refusal: Refusal) -> bytes:
        """OpenAI's error object as an event; clients raise on it."""
        return error_event(refusal)


def error_event(refusal: Refusal) -> bytes:
    """An error inside an OpenAI stream: the official clients raise `APIError` on it."""
    error = {"message": refusal.message, "type": "server_error", "param": None, "code": None}
    return data_event({"error": error})


class Translated:
    """The replica's events, through the transforms, in another API's shape."""

    def __init__(
        self, encoder: Encoder, transforms: tuple[Transform, ...], *, collect: bool = False
    ) -> None:
        """With `collect` the replica streams and the client wants one whole answer."""
        self.meter = Meter()
        self._reader = ChatReader()
        self._encoder = encoder
        self._transforms = transforms
        self._collected: list[Event] | None = [] if collect else None
        self._has_finished = False

    @property
    def is_complete(self) -> bool:
        """True when a transform has ended the answer."""
        return any(transform.is_complete for transform in self._transforms)

    def event(self, data: bytes) -> bytes:
        """The client's events for one of the replica's."""
        if data in (DONE, b"null") or self.is_complete:
            return b""
        events = self._transform(self._reader.read(data))
        if self._collected is not None:
            self._collected += events
            return b""
        return b"".join(map(self._encoder.stream, events))

    def end(self) -> bytes:
        """The API's last events, or the whole answer where events were collected."""
        if not self._has_finished:
            raise upstream_failed("The replica's stream ended before its answer did.")
        tokens = self._tokens()
        if self._collected is not None:
            return self._encoder.whole([*self._collected, tokens])
        return self._encoder.stream(tokens) + self._encoder.close()

    def whole(self, body: bytes) -> bytes:
        """The API's whole answer of the replica's."""
        events = self._transform(self._reader.read(body))
        if not self._has_finished:
            raise upstream_failed("The replica's answer has no end.")
        return self._encoder.whole([*events, self._tokens()])

    def error(self, refusal: Refusal) -> bytes:
        """The API's error event."""
        return self._encoder.error(refusal)

    def _tokens(self) -> Tokens:
        meter = self.meter
        return Tokens(
            tokens_in=meter.tokens_in,
            tokens_cached=meter.tokens_cached,
            tokens_out=meter.tokens_out,
        )

    def _transform(self, events: list[Event]) -> list[Event]:
        for event in events:
            self._count(event)
        for transform in self._transforms:
            events = [after for event in events for after in transform.feed(event)]
        self._has_finished |= any(isinstance(event, Finish) for event in events)
        return [event for event in events if not isinstance(event, Tokens)]

    def _count(self, event: Event) -> None:
        if isinstance(event, Tokens):
            _settle(self.meter, event)
        elif isinstance(event, TextDelta | ThinkingDelta | ToolDelta):
            self.meter.tokens_out += not self.meter.is_counted


def _settle(meter: Meter, tokens: Tokens) -> None:
    meter.tokens_in = tokens.tokens_in
    meter.tokens_cached = tokens.tokens_cached
    meter.tokens_out = tokens.tokens_out
    meter.is_counted = True
