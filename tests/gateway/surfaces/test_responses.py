"""OpenAI's Responses API: what is taken and refused, what is sent on, what is answered."""

import json
from typing import Any

import msgspec
import openai
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from surface_bodies import ABILITIES, CATALOG, SCHEMA
from surface_strategies import answers, mutations, stream_data

from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.events import (
    Event,
    Finish,
    TextDelta,
    ThinkingDelta,
    Tokens,
    ToolDelta,
    ToolStart,
)
from argosy.gateway.surfaces.port import Ask, Encoder, RefusedError
from argosy.gateway.surfaces.responses import Responses

RESPONSES = Responses(lambda: 1_700_000_000.9)
STREAM_EVENT = pydantic.TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
FORMAT = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}
BASE = {"model": "small", "input": "Hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Rome"}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
RICH: dict[str, Any] = {
    "model": "small",
    "instructions": "Short.",
    "input": [
        {"role": "developer", "content": "In French."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "So?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Wait.", "annotations": []}],
        },
        CALL,
        OUTPUT | {"output": [{"type": "input_text", "text": "sunny"}]},
    ],
    "max_output_tokens": 16,
    "temperature": 0.5,
    "top_p": 0.9,
    "tools": [TOOL],
    "tool_choice": {"type": "function", "name": "weather"},
    "parallel_tool_calls": False,
    "text": {"format": FORMAT, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "metadata": {"a": "b"},
    "store": False,
    "include": [],
    "truncation": "disabled",
    "service_tier": "auto",
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "stream": True,
    "stream_options": {"include_obfuscation": False},
}


def ask(body: object) -> Ask:
    return RESPONSES.ask(json.dumps(body).encode(), CATALOG)


def sent(body: object) -> Any:
    return json.loads(msgspec.json.encode(ask(body).fields))


def encoder(body: object = BASE) -> Encoder:
    return RESPONSES.encoder(ask(body), token="0")


def streamed(events: list[Event], body: object = BASE) -> bytes:
    writer = encoder(body)
    return b"".join(map(writer.stream, events)) + writer.close()


# What is sent on.


def test_a_plain_request_becomes_a_chat_request_with_the_models_own_system_prompt():
    assert sent(BASE) == {
        "model": "small",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
        ],
    }


def test_every_field_that_can_be_honoured_reaches_the_replica():
    call = {"name": "weather", "arguments": '{"city":"Rome"}'}
    function = {"name": "weather", "parameters": SCHEMA, "strict": True}
    schema = {"name": "place", "schema": SCHEMA, "strict": True}
    assert sent(RICH) == {
        "model": "small",
        "messages": [
            {"role": "system", "content": "Short.\n\nIn French."},
            {"role": "user", "content": "So?"},
            {
                "role": "assistant",
                "content": "Wait.",
                "tool_calls": [{"type": "function", "id": "c1", "function": call}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
        "max_tokens": 16,
        "temperature": 0.5,
        "top_p": 0.9,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": schema},
        "reasoning_effort": "low",
    }
    asked = ask(RICH)
    assert (asked.stream, asked.must_call, asked.must_call_name) == (True, True, "weather")


def test_instructions_replace_the_models_own_system_prompt():
    assert sent(BASE | {"instructions": "Short."})["messages"] == [
        {"role": "system", "content": "Short."},
        {"role": "user", "content": "Hi"},
    ]


def test_calls_in_a_row_are_one_assistant_message():
    items = [{"role": "user", "content": "A"}, CALL, CALL | {"call_id": "c2"}, OUTPUT]
    messages = sent(BASE | {"input": items})["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["c1", "c2"]


def test_the_items_of_a_response_can_be_sent_back():
    events: list[Event] = [
        ThinkingDelta(text="hm"),
        TextDelta(text="Wait."),
        ToolStart(index=0, id="c1", name="weather"),
        ToolDelta(index=0, arguments="{}"),
        Finish(reason="tool_calls"),
    ]
    output = json.loads(encoder().whole(events))["output"]
    items = [{"role": "user", "content": "A"}, *output, OUTPUT]
    messages = sent(BASE | {"input": items})["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool"]


# What is refused.

ITEM = {"role": "user", "content": "Hi"}
IMAGE = {"type": "input_image", "image_url": "data:"}
NO_TEXT = {"type": "input_text"}
NO_SCHEMA = {"type": "json_schema", "name": "x"}
NO_ARGUMENTS = {"type": "function_call", "name": "f"}
WITH_TOOL = BASE | {"tools": [TOOL]}
NAMED = {"type": "function", "name": "x"}
REFUSED = [
    ({}, "bad_request", "model"),
    ({"model": "small"}, "bad_request", "input"),
    (BASE | {"model": "big"}, "unknown_model", "model"),
    (BASE | {"input": ""}, "bad_request", "input"),
    (BASE | {"input": []}, "bad_request", "input"),
    (BASE | {"input": [{"role": "system", "content": "A"}]}, "bad_request", "input"),
    (BASE | {"input": [{"role": "tool", "content": "A"}]}, "bad_request", "input[0].role"),
    (BASE | {"input": [{"content": "A"}]}, "bad_request", "input[0].role"),
    (BASE | {"input": [{"role": "user"}]}, "bad_request", "input[0].content"),
    (BASE | {"input": [ITEM | {"content": [IMAGE]}]}, "unsupported", "input[0].content[0].type"),
    (
        BASE | {"input": [ITEM | {"content": [NO_TEXT]}]},
        "bad_request",
        "input[0].content[0].text",
    ),
    (BASE | {"input": [{"type": "item_reference", "id": "x"}]}, "unsupported", "input[0].type"),
    (BASE | {"input": [{"type": "computer_call"}]}, "unsupported", "input[0].type"),
    (BASE | {"input": [ITEM, OUTPUT]}, "bad_request", "input[1].call_id"),
    (BASE | {"input": [NO_ARGUMENTS]}, "bad_request", "input[0].arguments"),
    (BASE | {"max_output_tokens": 0}, "bad_request", "max_output_tokens"),
    (BASE | {"max_output_tokens": 1001}, "bad_request", "max_output_tokens"),
    (BASE | {"temperature": 3}, "bad_request", "temperature"),
    (BASE | {"max_tokens": 5}, "unsupported", "max_tokens"),
    (BASE | {"store": True}, "unsupported", "store"),
    (BASE | {"background": True}, "unsupported", "background"),
    (BASE | {"previous_response_id": "resp_1"}, "unsupported", "previous_response_id"),
    (BASE | {"conversation": "conv_1"}, "unsupported", "conversation"),
    (BASE | {"prompt": {"id": "p"}}, "unsupported", "prompt"),
    (BASE | {"truncation": "auto"}, "unsupported", "truncation"),
    (BASE | {"include": ["reasoning.encrypted_content"]}, "unsupported", "include"),
    (BASE | {"top_logprobs": 2}, "unsupported", "top_logprobs"),
    (BASE | {"service_tier": "flex"}, "unsupported", "service_tier"),
    (BASE | {"tools": [{"type": "web_search"}]}, "unsupported", "tools[0].type"),
    (BASE | {"tools": [{"type": "function"}]}, "bad_request", "tools[0].name"),
    (BASE | {"tools": [TOOL, TOOL]}, "bad_request", "tools"),
    (BASE | {"tool_choice": "required"}, "bad_request", "tool_choice"),
    (WITH_TOOL | {"tool_choice": {"type": "allowed_tools"}}, "unsupported", "tool_choice.type"),
    (WITH_TOOL | {"tool_choice": {"type": "function"}}, "bad_request", "tool_choice.name"),
    (WITH_TOOL | {"tool_choice": NAMED}, "bad_request", "tool_choice.name"),
    (BASE | {"text": {"format": {"type": "xml"}}}, "bad_request", "text.format.type"),
    (BASE | {"text": {"format": NO_SCHEMA}}, "bad_request", "text.format.schema"),
]


@pytest.mark.parametrize(("body", "kind", "param"), REFUSED)
def test_what_cannot_be_honoured_is_refused_and_the_field_named(body, kind, param):
    with pytest.raises(RefusedError) as caught:
        ask(body)
    assert (caught.value.refusal.kind, caught.value.refusal.param) == (kind, param)
    assert caught.value.refusal.message


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_refused_and_nothing_worse(body):
    with pytest.raises(RefusedError):
        RESPONSES.ask(body, CATALOG)


@given(mutations(RICH))
def test_a_body_with_anything_anywhere_is_taken_or_refused_and_nothing_worse(body):
    try:
        asked = RESPONSES.ask(body, CATALOG)
    except RefusedError:
        return
    whole = RESPONSES.encoder(asked, token="0").whole([Finish(reason="stop")])
    Response.model_validate_json(whole, strict=True)


# What is answered.


@pytest.mark.parametrize("body", [BASE, RICH])
@given(events=answers())
def test_every_event_and_every_whole_response_is_what_the_sdk_expects(events, body):
    for event in stream_data(streamed(events, body)):
        STREAM_EVENT.validate_json(json.dumps(event), strict=True)
    Response.model_validate_json(encoder(body).whole(events), strict=True)


@given(answers())
def test_the_last_event_of_a_stream_holds_the_whole_response(events):
    said = stream_data(streamed(events))
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    assert [event["type"] for event in said[:2]] == ["response.created", "response.in_progress"]
    whole = json.loads(encoder().whole(events))
    assert said[-1]["type"] == f"response.{whole['status']}"
    assert said[-1]["response"] == whole


@given(answers())
def test_the_deltas_of_a_stream_add_up_to_the_whole_response(events):
    texts: dict[int, str] = {}
    for event in stream_data(streamed(events)):
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(texts)
            texts[event["output_index"]] = ""
        elif event["type"].endswith(".delta"):
            texts[event["output_index"]] += event["delta"]
    output = json.loads(encoder().whole(events))["output"]
    assert list(texts.values()) == [
        item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        for item in output
    ]


@settings(deadline=None)  # the first example imports the SDK's parser
@given(answers())
def test_the_sdks_stream_helper_reads_every_stream(events):
    state = ResponseStreamState(input_tools=openai.omit, text_format=openai.omit)
    for event in stream_data(streamed(events)):
        state.handle_event(STREAM_EVENT.validate_python(event))
    whole = Response.model_validate_json(encoder().whole(events), strict=True)
    completed = state._completed_response
    assert (completed is None) == (whole.status != "completed")
    if completed is not None:
        assert completed.output_text == whole.output_text


def test_a_response_repeats_what_was_asked():
    whole = json.loads(encoder(RICH).whole([Finish(reason="stop")]))
    for field in ("model", "instructions", "max_output_tokens", "metadata", "text", "tool_choice",
                  "temperature", "top_p", "user", "parallel_tool_calls", "truncation"):  # fmt: skip
        assert whole[field] == RICH[field]
    assert [tool["name"] for tool in whole["tools"]] == ["weather"]
    assert (whole["created_at"], whole["completed_at"]) == (1_700_000_000, 1_700_000_000)


def test_an_answer_that_met_its_limit_is_incomplete_and_so_is_its_last_item():
    events: list[Event] = [TextDelta(text="Once"), Finish(reason="length")]
    whole = json.loads(encoder().whole(events))
    assert (whole["status"], whole["completed_at"]) == ("incomplete", None)
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in whole["output"]] == ["incomplete"]


def test_usage_counts_cached_tokens_among_the_input_tokens():
    events: list[Event] = [
        Finish(reason="stop"),
        Tokens(tokens_in=10, tokens_cached=7, tokens_out=2),
    ]
    usage = json.loads(encoder().whole(events))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (10, 2, 12)
    assert usage["input_tokens_details"]["cached_tokens"] == 7


def test_an_error_before_anything_was_said_is_an_error_event():
    [event] = stream_data(encoder().error(Refusal(kind="upstream_failed", message="It died.")))
    STREAM_EVENT.validate_json(json.dumps(event), strict=True)
    assert (event["type"], event["message"]) == ("error", "It died.")


def test_an_error_inside_a_stream_fails_the_response_with_what_there_is():
    writer = encoder()
    said = writer.stream(TextDelta(text="Once"))
    said += writer.error(Refusal(kind="upstream_failed", message="It died."))
    failed = stream_data(said)[-1]
    STREAM_EVENT.validate_json(json.dumps(failed), strict=True)
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "It died."}
    assert failed["response"]["output"][0]["content"][0]["text"] == "Once"


def test_arguments_outside_their_call_are_a_failure_of_the_replica():
    with pytest.raises(RefusedError) as caught:
        encoder().whole([ToolDelta(index=0, arguments="{}"), Finish(reason="stop")])
    assert caught.value.refusal.kind == "upstream_failed"


def test_a_whole_answer_comes_from_the_replicas_completion():
    prepared = RESPONSES.prepare(ask(BASE), ABILITIES)
    completion = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    body = prepared.answer.whole(json.dumps(completion).encode())
    response = Response.model_validate_json(body, strict=True)
    assert response.output_text == "Hello"
    assert response.id.startswith("resp_")
