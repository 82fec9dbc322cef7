"""What replicas may answer, as Hypothesis strategies, and how a stream's bytes are read back."""

import json

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


def stream_data(data: bytes) -> list[dict[str, object]]:
    """The JSON of every event in a stream, whose `event` line must agree with its `type`."""
    names = [line[7:] for line in data.decode().splitlines() if line.startswith("event: ")]
    events = [json.loads(event) for event in EventReader().feed(data)]
    assert names == [event["type"] for event in events]
    return events
