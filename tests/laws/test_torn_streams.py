"""However a stream was torn on its way, what is made of it is what the whole would give."""

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.gateway.surfaces.answers import PassThrough, Translated
from argosy.gateway.surfaces.chat_encoder import ChatEncoder
from argosy.gateway.surfaces.events import Finish, TextDelta, ThinkingDelta, Tokens
from argosy.gateway.surfaces.port import RefusedError
from argosy.gateway.surfaces.sse import EventReader
from argosy.gateway.surfaces.transforms import StopCutter

COUNTS = Tokens(tokens_in=1, tokens_cached=0, tokens_out=1)


def cut(whole, places):
    """The whole in pieces, cut at these places."""
    at = [0, *sorted({place % (len(whole) + 1) for place in places}), len(whole)]
    return [whole[start:end] for start, end in pairwise(at)]


places = st.lists(st.integers(0, 10_000), max_size=12)


# Stop sequences.

texts = st.text("ab", max_size=24)
stops = st.lists(st.text("ab", max_size=4), max_size=3)
often = settings(max_examples=500)


def oracle(text: str, stop: list[str]) -> tuple[str, str | None]:
    """Read character by character, look back each time: the longest that ends here."""
    for end in range(1, len(text) + 1):
        met = [sequence for sequence in stop if sequence and text[:end].endswith(sequence)]
        if met:
            sequence = max(met, key=len)
            return text[: end - len(sequence)], sequence
    return text, None


@often
@given(texts, stops, places, st.booleans())
def test_a_text_is_cut_at_its_first_stop_sequence_however_it_was_torn(text, stop, places, counts):
    cutter = StopCutter(stop)
    out = []
    for piece in cut(text, places):
        out += cutter.feed(TextDelta(text=piece))
        if counts:
            out += cutter.feed(COUNTS)
    out += cutter.feed(Finish(reason="length"))
    said = "".join(event.text for event in out if isinstance(event, TextDelta))
    finishes = [event for event in out if isinstance(event, Finish)]
    kept, sequence = oracle(text, stop)
    assert said == kept
    reason = "length" if sequence is None else "stop"
    assert finishes == [Finish(reason=reason, stop_sequence=sequence)]
    assert cutter.is_complete == (sequence is not None)


@often
@given(texts, stops, places)
def test_no_text_is_held_that_can_no_longer_become_a_stop_sequence(text, stop, places):
    cutter = StopCutter(stop)
    fed, said = "", ""
    for piece in cut(text, places):
        fed += piece
        said += "".join(
            e.text for e in cutter.feed(TextDelta(text=piece)) if isinstance(e, TextDelta)
        )
        if cutter.is_complete:
            return
        held = fed[len(said) :]
        assert not held or any(sequence.startswith(held) for sequence in stop)


def test_text_before_another_event_is_not_held_beyond_it():
    cutter = StopCutter(["##"])
    out = cutter.feed(TextDelta(text="a#")) + cutter.feed(ThinkingDelta(text="hm"))
    assert out == [TextDelta(text="a"), TextDelta(text="#"), ThinkingDelta(text="hm")]


# Server-sent events.

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
lines = st.sampled_from(
    [b"data: x", b"data:y", b"data:", b"data: {\"a\": 1}", b": comment", b"id: 5", b"event: e", b"",
     b"retry: 9", b"error: z", b"data"]
)  # fmt: skip


def plain_events(stream: bytes) -> list[bytes]:
    """The specification's algorithm, line by line."""
    stream = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events, data = [], []
    for line in stream.split(b"\n")[:-1]:
        name, _, value = line.partition(b":")
        if not line:
            events += [b"\n".join(data)] if any(data) or len(data) > 1 else []
            data = []
        elif name in (b"data", b"error") and b":" in line:
            data.append(value.removeprefix(b" "))
    return events


@given(st.lists(st.tuples(lines, line_ends), max_size=20), places)
def test_events_are_the_specification_s_whatever_the_tearing_and_the_line_ends(rows, places):
    stream = b"".join(line + end for line, end in rows) + b": end\n"
    reader = EventReader()
    read = [event for piece in cut(stream, places) for event in reader.feed(piece)]
    assert read == plain_events(stream)


@given(st.binary(max_size=60) | st.text("\r\n:dat x", max_size=60).map(str.encode), places)
def test_any_bytes_give_the_same_events_torn_as_whole(stream, places):
    stream += b"\n\n"
    torn, whole = EventReader(), EventReader()
    read = [event for piece in cut(stream, places) for event in torn.feed(piece)]
    assert read == whole.feed(stream) == plain_events(stream)


def test_an_event_that_never_ends_is_refused():
    reader = EventReader(bytes_max=100)
    for _ in range(6):
        assert reader.feed(b"data: 0123456789") == []
    with pytest.raises(ValueError, match="100 bytes"):
        reader.feed(b"data: 0123456789")


# Whole answers.

deltas = st.builds(
    lambda text, index: {"choices": [{"index": index, "delta": {"content": text}}]},
    st.text(max_size=5), st.integers(0, 1),
)  # fmt: skip
thoughts = st.builds(
    lambda text: {"choices": [{"index": 0, "delta": {"reasoning_content": text}}]},
    st.text(max_size=5),
)
calls = st.builds(
    lambda name, arguments: {
        "choices": [
            {"index": 0, "delta": {"tool_calls": [
                {"index": 0, "id": "c", "function": {"name": name, "arguments": arguments}}]}}
        ]
    },
    st.none() | st.text("fg", min_size=1, max_size=2), st.text(max_size=5),
)  # fmt: skip
finishes = st.just({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
usages = st.builds(
    lambda n: {"choices": [], "usage": {"prompt_tokens": n, "completion_tokens": n}},
    st.integers(0, 9),
)
odd = st.sampled_from([{}, {"choices": []}, {"error": {"message": "x"}}, {"error": None}, [], 5])
bodies = st.lists(deltas | thoughts | calls | finishes | usages | odd, max_size=8)


def read_with(answer, stream: bytes, places) -> tuple[bytes, object, str | None]:
    """What the client gets, what was metered, what went wrong."""
    reader = EventReader()
    out = b""
    try:
        for piece in cut(stream, places):
            for event in reader.feed(piece):
                out += answer.event(event)
        out += answer.end()
    except RefusedError as error:
        return out, msgspec.to_builtins(answer.meter), error.refusal.message
    return out, msgspec.to_builtins(answer.meter), None


def as_stream(events) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


@given(bodies, places, st.booleans())
def test_what_passes_through_is_the_same_torn_as_whole(events, places, usage_event):
    stream = as_stream(events)
    torn = read_with(PassThrough(usage_event=usage_event), stream, places)
    assert torn == read_with(PassThrough(usage_event=usage_event), stream, [])
    if torn[2] is None:
        kept = [event for event in events if usage_event or not is_usage(event)]
        assert torn[0] == as_stream(kept) + b"data: [DONE]\n\n"


def is_usage(event: dict) -> bool:
    return not event.get("choices") and event.get("usage") is not None


@given(bodies, places, st.booleans(), st.lists(st.text("ab", max_size=2), max_size=2))
def test_what_is_translated_is_the_same_torn_as_whole(events, places, usage_event, stop):
    def answer() -> Translated:
        encoder = ChatEncoder(id="c", model="m", created_at_s=0, usage_event=usage_event)
        return Translated(encoder, (StopCutter(stop),))

    stream = as_stream(events)
    assert read_with(answer(), stream, places) == read_with(answer(), stream, [])


@given(bodies, places)
def test_a_stream_without_a_finish_is_never_called_whole(events, places):
    finished = any(
        choice.get("finish_reason")
        for event in events
        if isinstance(event, dict)
        for choice in event.get("choices", ())
    )
    encoder = ChatEncoder(id="c", model="m", created_at_s=0, usage_event=False)
    for answer in (PassThrough(usage_event=False), Translated(encoder, ())):
        out, _, failure = read_with(answer, as_stream(events), places)
        assert (b"[DONE]" in out) == (failure is None)
        assert finished or failure is not None
