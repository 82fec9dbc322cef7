"""What replicas may answer and clients may send, and how a stream's bytes are read back."""

import copy
import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from argosy.gateway.surfaces.events import (
    Event,
    Finish,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
    ToolStart,
)
from argosy.gateway.surfaces.sse import EventReader

_texts = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4)
_arguments = st.dictionaries(st.text(max_size=4), st.integers(0, 99) | st.text(max_size=4))


def _pieces(text: str, cut: int) -> list[str]:
    return [piece for piece in (text[:cut], text[cut:]) if piece]


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """A whole answer: text, reasoning and calls in any order, a finish, perhaps a count."""
    events: list[Event] = []
    calls = 0
    for kind in draw(st.lists(st.sampled_from(("text", "thinking", "call")), max_size=5)):
        if kind == "text":
            events += [TextDelta(text=text) for text in draw(_texts)]
        elif kind == "thinking":
            events += [ThinkingDelta(text=text) for text in draw(_texts)]
        else:
            events.append(ToolStart(index=calls, id=f"call_{calls}", name=f"tool_{calls}"))
            text = json.dumps(draw(_arguments))
            cut = draw(st.integers(0, len(text)))
            events += [ToolDelta(index=calls, arguments=piece) for piece in _pieces(text, cut)]
            calls += 1
    reason = draw(st.sampled_from(("stop", "length", "tool_calls", "content_filter")))
    sequence = draw(st.none() | st.just("###")) if reason == "stop" else None
    events.append(Finish(reason=reason, stop_sequence=sequence))
    if draw(st.booleans()):
        cached = draw(st.integers(0, 50))
        events.append(Tokens(tokens_in=cached + 7, tokens_cached=cached, tokens_out=9))
    return events


def stream_data(data: bytes) -> list[dict[str, Any]]:
    """The JSON of every event in a stream, whose `event` line must agree with its `type`."""
    names = [line[7:] for line in data.decode().splitlines() if line.startswith("event: ")]
    events = [json.loads(event) for event in EventReader().feed(data)]
    assert names == [event["type"] for event in events]
    return events


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@st.composite
def mutations(draw: st.DrawFn, valid: Mapping[str, object]) -> bytes:
    """A valid body in which some places hold something else, or nothing."""
    body = copy.deepcopy(dict(valid))
    for _ in range(draw(st.integers(1, 3))):
        _mutate(draw, body)
    return json.dumps(body).encode()


def _mutate(draw: st.DrawFn, place: Any) -> None:
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    if not keys:
        return
    key = draw(st.sampled_from(keys))
    inner = place[key]
    if isinstance(inner, dict | list) and draw(st.booleans()):
        _mutate(draw, inner)
    elif draw(st.booleans()):
        place[key] = draw(_junk)
    elif isinstance(place, dict):
        del place[key]
        place[draw(st.text(max_size=5))] = inner
