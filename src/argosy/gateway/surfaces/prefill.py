"""Answers that continue what the assistant is made to have begun."""

import msgspec

from argosy.engines.port import Abilities
from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.events import Event
from argosy.gateway.surfaces.port import Ask, Encoder, Prepared
from argosy.gateway.surfaces.prepare import prepare_chat


def prepare_continued(ask: Ask, abilities: Abilities, *, encoder: Encoder) -> Prepared:
    """`prepare_chat` for messages that end with the assistant's own, which is to be continued.

    llama.cpp repeats the assistant's beginning in a whole answer and not in a stream, so the
    replica always streams: the answer then is the continuation alone, on every engine.
    """
    if ask.stream:
        return prepare_chat(ask, abilities, encoder=encoder)
    streamed = msgspec.structs.replace(ask, stream=True)
    return prepare_chat(streamed, abilities, encoder=_WholeAtClose(encoder))


class _WholeAtClose:
    """Writes a streamed answer as one body, at its end."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._events: list[Event] = []

    def stream(self, event: Event) -> bytes:
        self._events.append(event)
        return b""

    def close(self) -> bytes:
        return self._encoder.whole(self._events)

    def whole(self, events: list[Event]) -> bytes:
        return self._encoder.whole(events)

    def error(self, refusal: Refusal) -> bytes:
        return self._encoder.error(refusal)
