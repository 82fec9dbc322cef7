"""Anthropic's Messages API: what is taken and refused, what is sent on, what is answered."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pydantic
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from surface_bodies import ABILITIES, BASE, CALL, CATALOG, RESULT, RICH, SCHEMA, TOOL
from surface_strategies import answers, mutations, stream_data

from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.count_tokens import CountTokens
from argosy.gateway.surfaces.events import (
    Event,
    Finish,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
    ToolStart,
)
from argosy.gateway.surfaces.messages import Messages
from argosy.gateway.surfaces.messages_encoder import MessagesEncoder
from argosy.gateway.surfaces.port import Ask, RefusedError

MESSAGES = Messages(lambda: 0.0)
COUNT = CountTokens(lambda: 0.0)
STREAM_EVENT = pydantic.TypeAdapter(RawMessageStreamEvent)


def ask(body: object) -> Ask:
    return MESSAGES.ask(json.dumps(body).encode(), CATALOG)


def sent(body: object) -> Any:
    return json.loads(msgspec.json.encode(ask(body).fields))


def turns(*messages: tuple[str, object]) -> dict[str, Any]:
    return BASE | {"messages": [{"role": role, "content": text} for role, text in messages]}


def encoder() -> MessagesEncoder:
    return MessagesEncoder(id="msg_1", model="small")


def streamed(events: list[Event]) -> bytes:
    writer = encoder()
    return b"".join(map(writer.stream, events)) + writer.close()


def blocks(*kinds: Mapping[str, object]) -> dict[str, Any]:
    return turns(("user", list(kinds)))


# What is sent on.


def test_a_plain_request_becomes_a_chat_request_with_the_models_own_system_prompt():
    assert sent(BASE) == {
        "model": "small",
        "max_tokens": 16,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
        ],
    }


def test_every_field_that_can_be_honoured_reaches_the_replica():
    fields = sent(RICH)
    assert fields.pop("messages") == [
        {"role": "system", "content": "Short."},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Wait.",
            "tool_calls": [
                {
                    "type": "function",
                    "id": "t1",
                    "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
        {"role": "user", "content": "So?"},
    ]
    function = {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}
    schema = {"name": "answer", "strict": True, "schema": SCHEMA}
    assert fields == {
        "model": "small",
        "max_tokens": 16,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop": ["###"],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    asked = ask(RICH)
    assert (asked.stream, asked.stop, asked.names_stop) == (True, ("###",), True)
    assert (asked.must_call, asked.must_call_name) == (True, None)
    assert [tool.name for tool in asked.tools] == ["weather"]


@pytest.mark.parametrize(
    ("choice", "expected", "name"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "none"}, "none", None),
        ({"type": "any"}, "required", None),
        (
            {"type": "tool", "name": "weather"},
            {"type": "function", "function": {"name": "weather"}},
            "weather",
        ),
    ],
)
def test_a_tool_choice_is_said_in_chat_words(choice, expected, name):
    body = BASE | {"tools": [TOOL], "tool_choice": choice}
    assert sent(body)["tool_choice"] == expected
    assert ask(body).must_call_name == name
    assert ask(body).must_call == (choice["type"] in ("any", "tool"))


def test_an_empty_system_prompt_keeps_the_models_own_away():
    assert sent(BASE | {"system": ""})["messages"] == [{"role": "user", "content": "Hi"}]


def test_a_system_message_among_the_turns_stays_where_it_is():
    messages = sent(turns(("system", "A"), ("user", "B"), ("system", "C")))["messages"]
    assert [message["content"] for message in messages] == ["A", "B", "C"]


def test_consecutive_turns_are_kept_and_text_blocks_of_one_are_joined():
    two = [{"type": "text", "text": "B"}, {"type": "text", "text": "C"}]
    messages = sent(turns(("user", "A"), ("user", two)))["messages"]
    assert [message["content"] for message in messages] == ["Be kind.", "A", "B\nC"]


def test_assistant_turns_at_the_end_are_one_since_engines_continue_only_one():
    body = turns(("user", "A"), ("assistant", "B"), ("assistant", "C"))
    assert sent(body)["messages"][-1] == {"role": "assistant", "content": "B\nC"}


def test_a_failed_tool_says_so_in_its_text():
    failed = RESULT | {"is_error": True, "content": [{"type": "text", "text": "no net"}]}
    messages = sent(turns(("user", "A"), ("assistant", [CALL]), ("user", [failed])))["messages"]
    assert messages[-1] == {"role": "tool", "tool_call_id": "t1", "content": "Error: no net"}


def test_earlier_reasoning_is_left_out():
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    body = turns(("user", "A"), ("assistant", [thinking, {"type": "text", "text": "B"}]))
    assert sent(body)["messages"][-1] == {"role": "assistant", "content": "B"}
    alone = turns(("user", "A"), ("assistant", [thinking]), ("user", "C"))
    assert [message["role"] for message in sent(alone)["messages"]] == ["system", "user", "user"]


def test_a_whole_answer_that_continues_the_assistants_words_is_streamed_by_the_replica():
    prepared = MESSAGES.prepare(ask(turns(("user", "A"), ("assistant", "The"))), ABILITIES)
    assert prepared.stream
    answer = prepared.answer
    chunk = {"choices": [{"index": 0, "delta": {"content": " end"}, "finish_reason": "stop"}]}
    assert answer.event(json.dumps(chunk).encode()) == b""
    message = Message.model_validate_json(answer.end(), strict=True)
    assert [block.to_dict()["text"] for block in message.content] == [" end"]


def test_each_attempt_answers_under_an_id_of_its_own():
    chunk = b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}'
    attempts = [MESSAGES.prepare(ask(BASE), ABILITIES).answer.whole(chunk) for _ in range(2)]
    ids = {json.loads(attempt)["id"] for attempt in attempts}
    assert len(ids) == 2
    assert all(id.startswith("msg_") for id in ids)


# What is refused.

BLOCK = "messages[0].content[0]"
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
SEARCHED = {"type": "web_search_tool_result", "tool_use_id": "t1", "content": []}
XML = {"format": {"type": "xml"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
REFUSED = [
    ({}, "bad_request", "model"),
    ({"model": "small", "messages": BASE["messages"]}, "bad_request", "max_tokens"),
    (BASE | {"model": "big"}, "unknown_model", "model"),
    (BASE | {"max_tokens": 0}, "bad_request", "max_tokens"),
    (BASE | {"max_tokens": 1001}, "bad_request", "max_tokens"),
    (BASE | {"max_tokens": "9"}, "bad_request", "max_tokens"),
    (BASE | {"messages": []}, "bad_request", "messages"),
    (BASE | {"messages": "Hi"}, "bad_request", "messages"),
    (BASE | {"temperature": 1.5}, "bad_request", "temperature"),
    (BASE | {"max_tokens_to_sample": 5}, "unsupported", "max_tokens_to_sample"),
    (BASE | {"stop_sequences": ["a", " "]}, "bad_request", "stop_sequences[1]"),
    (BASE | {"thinking": {"type": "enabled"}}, "unsupported", "thinking.type"),
    (BASE | {"speed": "fast"}, "unsupported", "speed"),
    (BASE | {"container": "c"}, "unsupported", "container"),
    (BASE | {"mcp_servers": []}, "unsupported", "mcp_servers"),
    (BASE | {"context_management": {}}, "unsupported", "context_management"),
    (BASE | {"inference_geo": "eu"}, "unsupported", "inference_geo"),
    (turns(("tool", "A")), "bad_request", "messages[0].role"),
    (turns(("user", "")), "bad_request", "messages[0].content"),
    (turns(("user", [])), "bad_request", "messages[0].content"),
    (turns(("assistant", "")), "bad_request", "messages"),
    (turns(("user", "A"), ("assistant", "B ")), "bad_request", "messages[1].content"),
    (turns(("user", "A"), ("assistant", [CALL])), "bad_request", "messages[1].content"),
    (blocks({"type": "text", "text": ""}), "bad_request", f"{BLOCK}.text"),
    (blocks({"type": "text", "text": " \n"}), "bad_request", f"{BLOCK}.text"),
    (blocks({"type": "text"}), "bad_request", f"{BLOCK}.text"),
    (blocks(IMAGE), "unsupported", f"{BLOCK}.type"),
    (blocks(IMAGE | {"type": "document"}), "unsupported", f"{BLOCK}.type"),
    (blocks(SEARCHED), "unsupported", f"{BLOCK}.type"),
    (blocks(CALL), "bad_request", BLOCK),
    (blocks(RESULT), "bad_request", f"{BLOCK}.tool_use_id"),
    (turns(("assistant", [RESULT])), "bad_request", BLOCK),
    (BASE | {"system": [{"type": "text", "text": ""}]}, "bad_request", "system[0].text"),
    (BASE | {"system": [IMAGE]}, "unsupported", "system[0].type"),
    (BASE | {"tools": [SEARCH]}, "unsupported", "tools[0].type"),
    (BASE | {"tools": [{"name": "weather"}]}, "bad_request", "tools[0].input_schema"),
    (BASE | {"tools": [TOOL | {"name": "a b"}]}, "bad_request", "tools[0].name"),
    (BASE | {"tools": [TOOL, TOOL]}, "bad_request", "tools"),
    (BASE | {"tool_choice": {"type": "any"}}, "bad_request", "tool_choice"),
    (
        BASE | {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "news"}},
        "bad_request",
        "tool_choice.name",
    ),
    (BASE | {"output_config": XML}, "bad_request", "output_config.format.type"),
    (
        turns(("user", "A"), ("assistant", "{"))
        | {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
        "bad_request",
        "messages",
    ),
]


@pytest.mark.parametrize(("body", "kind", "param"), REFUSED)
def test_what_cannot_be_honoured_is_refused_and_the_field_named(body, kind, param):
    with pytest.raises(RefusedError) as caught:
        ask(body)
    assert (caught.value.refusal.kind, caught.value.refusal.param) == (kind, param)
    assert caught.value.refusal.message


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_refused_and_nothing_worse(body):
    for surface in (MESSAGES, COUNT):
        with pytest.raises(RefusedError):
            surface.ask(body, CATALOG)


@given(mutations(RICH))
def test_a_body_with_anything_anywhere_is_taken_or_refused_and_nothing_worse(body):
    for surface in (MESSAGES, COUNT):
        outcome = "taken"
        try:
            surface.prepare(surface.ask(body, CATALOG), ABILITIES)
        except RefusedError as error:
            outcome = error.refusal.message
        assert outcome


def test_a_body_nested_near_the_limit_is_taken_or_refused_and_nothing_worse():
    outcomes: set[str] = set()
    for depth in range(800, 1000):
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        tool = b'{"name":"t","input_schema":' + nested + b"}"
        body = json.dumps(BASE).encode()[:-1] + b',"tools":[' + tool + b"]}"
        for surface in (MESSAGES, COUNT):
            try:
                surface.ask(body, CATALOG)
                outcomes.add("taken")
            except RefusedError as error:
                outcomes.add(error.refusal.kind)
    assert outcomes == {"taken", "bad_request"}


# What is answered.


@given(answers())
def test_every_event_and_every_whole_message_is_what_the_sdk_expects(events):
    for event in stream_data(streamed(events)):
        STREAM_EVENT.validate_json(json.dumps(event), strict=True)
    Message.model_validate_json(encoder().whole(events), strict=True)


@given(answers())
def test_a_stream_read_to_its_end_is_the_whole_message(events):
    snapshot, buffers = None, {}
    for event in stream_data(streamed(events)):
        if event["type"] != "message_stop":
            snapshot = accumulate_event(
                event=STREAM_EVENT.validate_python(event),
                current_snapshot=snapshot,
                json_bufs=buffers,
            )
    assert snapshot is not None
    whole = Message.model_validate_json(encoder().whole(events), strict=True)
    assert snapshot.to_dict() == whole.to_dict()


@given(answers())
def test_blocks_open_one_at_a_time_with_growing_index_between_start_and_stop(events):
    said = stream_data(streamed(events))
    assert [event["type"] for event in said[:1]] == ["message_start"]
    assert [event["type"] for event in said[-2:]] == ["message_delta", "message_stop"]
    opened, current = 0, None
    for event in said[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert (current, event["index"]) == (None, opened)
                current, opened = opened, opened + 1
            case "content_block_delta":
                assert event["index"] == current
            case "content_block_stop":
                assert event["index"] == current
                current = None
            case other:
                pytest.fail(f"{other} among the blocks")
    assert current is None


def test_an_answer_without_text_has_no_blocks():
    finish: list[Event] = [Finish(reason="stop")]
    assert json.loads(encoder().whole(finish))["content"] == []
    kinds = [event["type"] for event in stream_data(streamed(finish))]
    assert kinds == ["message_start", "message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("finish", "has_call", "expected"),
    [
        (Finish(reason="stop"), False, ("end_turn", None)),
        (Finish(reason="stop", stop_sequence="###"), False, ("stop_sequence", "###")),
        (Finish(reason="stop"), True, ("tool_use", None)),
        (Finish(reason="tool_calls"), True, ("tool_use", None)),
        (Finish(reason="length"), True, ("max_tokens", None)),
        (Finish(reason="content_filter"), False, ("refusal", None)),
    ],
)
def test_the_stop_reason_is_said_in_the_apis_words(finish, has_call, expected):
    call: list[Event] = [ToolStart(index=0, id="c", name="weather")] if has_call else []
    message = json.loads(encoder().whole([*call, finish]))
    assert (message["stop_reason"], message["stop_sequence"]) == expected


def test_cached_tokens_are_not_counted_among_the_input_tokens():
    events: list[Event] = [
        TextDelta(text="x"),
        Finish(reason="stop"),
        Tokens(tokens_in=10, tokens_cached=7, tokens_out=1),
    ]
    assert json.loads(encoder().whole(events))["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 7,
        "output_tokens": 1,
    }


@pytest.mark.parametrize("arguments", ["", '{"city": "Ro', "[1]", "[" * 5000])
def test_a_call_whose_arguments_are_no_object_has_no_input(arguments):
    events: list[Event] = [
        ToolStart(index=0, id="c", name="weather"),
        ToolDelta(index=0, arguments=arguments),
        Finish(reason="length"),
    ]
    message = json.loads(encoder().whole(events))
    assert message["content"][0]["input"] == {}
    assert message["stop_reason"] == "max_tokens"


def test_arguments_outside_their_call_are_a_failure_of_the_replica():
    torn: list[Event] = [
        ToolStart(index=0, id="a", name="weather"),
        ToolStart(index=1, id="b", name="weather"),
        ToolDelta(index=0, arguments="{}"),
        Finish(reason="tool_calls"),
    ]
    for write in (streamed, encoder().whole):
        with pytest.raises(RefusedError) as caught:
            write(torn)
        assert caught.value.refusal.kind == "upstream_failed"


def test_an_answer_without_a_finish_is_a_failure_of_the_replica():
    with pytest.raises(RefusedError):
        streamed([ThinkingDelta(text="hm")])


def test_an_error_inside_a_stream_is_the_apis_error_event():
    [event] = stream_data(encoder().error(Refusal(kind="upstream_failed", message="It died.")))
    assert event == {"type": "error", "error": {"type": "api_error", "message": "It died."}}
