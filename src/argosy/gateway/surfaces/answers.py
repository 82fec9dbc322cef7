"""How a replica's answer becomes the client's: passed through, or translated event by event.

Both count what passes. `PassThrough` is the hot path (OpenAI chat, completions, embeddings to a
replica that speaks the same): it looks into an event only as far as metering needs.
"""

from typing import cast

import msgspec

from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.chat_upstream import (
    NO_ERROR,
    UNREADABLE,
    ChatReader,
    UpstreamUsage,
    check_error,
    unreadable,
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
from argosy.gateway.surfaces.port import Encoder, Meter, RefusedError
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
    id: str = ""
    created: int = 0
    model: str = ""
    choices: list[_Choice] = []
    usage: UpstreamUsage | None = None
    error: msgspec.Raw = NO_ERROR


class _Whole(msgspec.Struct):
    choices: list[msgspec.Raw] = []  # of a chat or a completion
    data: list[msgspec.Raw] = []  # of embeddings
    usage: UpstreamUsage | None = None
    error: msgspec.Raw = NO_ERROR


class _Tally:
    """The tokens of one attempt as they passed, against the engine's own count at its end.

    An event that cannot be read may be left out (`forgives`) and the stream goes on; when the
    counts agree no token was in it. An engine that puts several tokens in an event, or tells no
    count, cannot show that, and its answer then ends in an error.
    """

    __slots__ = ("passed", "skipped", "told")

    def __init__(self) -> None:
        self.passed = 0
        self.skipped = 0
        self.told: int | None = None

    def check(self) -> None:
        """Raises `RefusedError` where something that was left out may have held a token."""
        if self.skipped and self.passed != self.told:
            told = "no count" if self.told is None else f"{self.told} tokens"
            message = (
                f"{self.skipped} events of the replica could not be read: {self.passed} tokens "
                f"came, it told {told}, so the answer may have a gap."
            )
            raise upstream_failed(message)


_NO_DELTA = _Delta()
_event_decoder = msgspec.json.Decoder(_Event)
_whole_decoder = msgspec.json.Decoder(_Whole)
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class PassThrough:
    """The replica's own bytes, in its own shape, less the usage chunk that nobody asked for."""

    is_complete = False
    forgives = False

    def __init__(self, *, usage_event: bool, may_continue: bool = False) -> None:
        self.meter = Meter()
        self._tally = _Tally()
        self._usage_event = usage_event
        self._finished = 0
        self._said: list[str] | None = [] if may_continue else None
        self._head: dict[str, object] | None = None  # what all events of the stream share
        self._is_resumed = False

    def event(self, data: bytes) -> bytes:
        """The event as it came. Raises `RefusedError` on an error or on what is not JSON."""
        event = self._read(data)
        if event is None:
            return b""
        for choice in event.choices:
            self._count(choice)
        if event.usage is not None:
            self._settle(event.usage.tokens())
            if not event.choices and not self._usage_event:
                return b""
        if self._head is None:
            self._head = {"id": event.id, "created": event.created, "model": event.model}
        if self._is_resumed:
            return self._as_before(data)
        if b"\n" in data:
            data = data.replace(b"\n", b" ")  # a line end in JSON is a space
        return b"data: %b\n\n" % data

    def _read(self, data: bytes) -> _Event | None:
        if data == b"null":  # llama.cpp opens several prompts with `data: null`
            return None
        try:
            event = _event_decoder.decode(data)
        except _NOT_JSON as error:
            if not self.forgives:
                raise unreadable(error) from None
            self._tally.skipped += 1
            return None
        if event.error is not NO_ERROR:
            check_error(event.error)
        return event

    def _settle(self, tokens: Tokens) -> None:
        self._tally.told = tokens.tokens_out
        _settle(self.meter, tokens)

    def _count(self, choice: _Choice) -> None:
        delta = choice.delta or _NO_DELTA
        text = choice.text or delta.content
        other = delta.tool_calls or delta.reasoning_content or delta.reasoning
        if text or other:
            self._tally.passed += 1
            self.meter.tokens_out += not self.meter.is_counted
        if other:
            self._said = None  # half a call, or a thought, cannot be gone on from
        elif text and self._said is not None:
            self._said.append(text)
        if choice.finish_reason:
            self._finished += 1

    def _as_before(self, data: bytes) -> bytes:
        """Another replica's event as one more of the first's: its head, no second role."""
        body: dict[str, object] = msgspec.json.decode(data)
        body |= self._head or {}
        choices = cast("list[dict[str, dict[str, object] | None]]", body.get("choices") or [])
        for choice in choices:
            if delta := choice.get("delta"):
                delta.pop("role", None)
                if not delta.get("content"):
                    delta.pop("content", None)
        if choices and not any(
            choice.get("delta") or choice.get("text") or choice.get("finish_reason")
            for choice in choices
        ):
            return b""  # it held the role alone
        if body.get("usage"):
            body["usage"] = usage_body(_tokens(self.meter))
        return data_event(body)

    @property
    def said(self) -> str | None:
        """The text so far."""
        return None if self._said is None else "".join(self._said)

    def resume(self) -> None:
        """What comes next is another replica's."""
        self._is_resumed = True
        self._tally = _Tally()
        _resume(self.meter)

    def end(self) -> bytes:
        """OpenAI's `[DONE]`. Raises `RefusedError` when no choice has finished."""
        if not self._finished:
            raise upstream_failed("The replica's stream ended before its answer did.")
        self._tally.check()
        return DONE_EVENT

    def whole(self, body: bytes) -> bytes:
        """The body as it came; its usage is metered."""
        try:
            said = _whole_decoder.decode(body)
        except _NOT_JSON as error:
            raise upstream_failed(f"The replica sent what is not an answer: {error}.") from None
        if said.error is not NO_ERROR:
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

    forgives = False

    def __init__(
        self,
        encoder: Encoder,
        transforms: tuple[Transform, ...],
        *,
        collect: bool = False,
        may_continue: bool = False,
    ) -> None:
        """With `collect` the replica streams and the client wants one whole answer."""
        self.meter = Meter()
        self._tally = _Tally()
        self._reader = ChatReader()
        self._encoder = encoder
        self._transforms = transforms
        self._collected: list[Event] | None = [] if collect else None
        self._has_finished = False
        self._said: list[str] | None = [] if may_continue else None

    @property
    def is_complete(self) -> bool:
        """True when a transform has ended the answer."""
        return any(transform.is_complete for transform in self._transforms)

    def event(self, data: bytes) -> bytes:
        """The client's events for one of the replica's."""
        if data in (DONE, b"null") or self.is_complete:
            return b""
        try:
            read = self._reader.read(data)
        except RefusedError as error:
            if not self.forgives or error.refusal.code != UNREADABLE:
                raise
            self._tally.skipped += 1
            return b""
        events = self._transform(read)
        if self._collected is not None:
            self._collected += events
            return b""
        return b"".join(map(self._encoder.stream, events))

    def end(self) -> bytes:
        """The API's last events, or the whole answer where events were collected."""
        if not self._has_finished:
            raise upstream_failed("The replica's stream ended before its answer did.")
        self._tally.check()
        tokens = _tokens(self.meter)
        if self._collected is not None:
            return self._encoder.whole([*self._collected, tokens])
        return self._encoder.stream(tokens) + self._encoder.close()

    def whole(self, body: bytes) -> bytes:
        """The API's whole answer of the replica's."""
        events = self._transform(self._reader.read(body))
        if not self._has_finished:
            raise upstream_failed("The replica's answer has no end.")
        return self._encoder.whole([*events, _tokens(self.meter)])

    def error(self, refusal: Refusal) -> bytes:
        """The API's error event."""
        return self._encoder.error(refusal)

    @property
    def said(self) -> str | None:
        """The replica's text so far, what a transform holds back included."""
        return None if self._said is None else "".join(self._said)

    def resume(self) -> None:
        """What comes next is another replica's."""
        self._reader = ChatReader()
        self._tally = _Tally()
        _resume(self.meter)

    def _transform(self, events: list[Event]) -> list[Event]:
        for event in events:
            self._count(event)
        for transform in self._transforms:
            events = [after for event in events for after in transform.feed(event)]
        self._has_finished |= any(isinstance(event, Finish) for event in events)
        return [event for event in events if not isinstance(event, Tokens)]

    def _count(self, event: Event) -> None:
        if isinstance(event, Tokens):
            self._tally.told = event.tokens_out
            _settle(self.meter, event)
            return
        if isinstance(event, TextDelta | ThinkingDelta | ToolDelta):
            self._tally.passed += 1
            self.meter.tokens_out += not self.meter.is_counted
        if isinstance(event, TextDelta) and self._said is not None:
            self._said.append(event.text)
        elif not isinstance(event, Finish):
            self._said = None  # half a call, or a thought, cannot be gone on from


def _settle(meter: Meter, tokens: Tokens) -> None:
    # Where another replica went on, what was said before it was a part of its prompt.
    meter.tokens_in = max(0, tokens.tokens_in - meter.before)
    meter.tokens_cached = min(tokens.tokens_cached, meter.tokens_in)
    meter.tokens_out = meter.before + tokens.tokens_out
    meter.is_counted = True


def _resume(meter: Meter) -> None:
    meter.before = meter.tokens_out
    meter.is_counted = False


def _tokens(meter: Meter) -> Tokens:
    return Tokens(
        tokens_in=meter.tokens_in,
        tokens_cached=meter.tokens_cached,
        tokens_out=meter.tokens_out,
    )


def usage_body(tokens: Tokens) -> dict[str, object]:
    """Counts as OpenAI's chat and completions say them."""
    return {
        "prompt_tokens": tokens.tokens_in,
        "completion_tokens": tokens.tokens_out,
        "total_tokens": tokens.tokens_in + tokens.tokens_out,
        "prompt_tokens_details": {"cached_tokens": tokens.tokens_cached},
    }
