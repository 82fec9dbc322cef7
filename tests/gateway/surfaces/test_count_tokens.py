"""Anthropic's count_tokens: where a count is asked for, and with which words."""

import json

import msgspec
import pytest
from surface_bodies import ABILITIES, BASE, CALL, CATALOG, RESULT, RICH, SCHEMA, TOOL

from argosy.gateway.surfaces.count_tokens import CountTokens
from argosy.gateway.surfaces.port import Ask, RefusedError

COUNT = CountTokens(lambda: 0.0)


def ask(body: object) -> Ask:
    return COUNT.ask(json.dumps(body).encode(), CATALOG)


def test_a_count_needs_no_max_tokens_and_goes_to_the_engines_own_endpoint():
    body = {key: value for key, value in RICH.items() if key not in ("max_tokens", "tool_choice")}
    del body["output_config"]
    prepared = COUNT.prepare(ask(body), ABILITIES)
    assert (prepared.path, prepared.stream) == ("/v1/messages/count_tokens", False)
    assert json.loads(msgspec.json.encode(prepared.fields)) == {
        "model": "small",
        "system": "Short.",
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [{"type": "text", "text": "Wait."}, CALL]},
            {"role": "user", "content": [RESULT]},
            {"role": "user", "content": "So?"},
        ],
        "tools": [TOOL],
    }
    assert json.loads(prepared.answer.whole(b'{"input_tokens":12,"more":1}')) == {
        "input_tokens": 12
    }


def test_a_count_includes_the_models_own_system_prompt():
    fields = COUNT.prepare(ask(BASE), ABILITIES).fields
    assert json.loads(msgspec.json.encode(fields["system"])) == "Be kind."


@pytest.mark.parametrize(
    ("more", "abilities"),
    [
        ({}, msgspec.structs.replace(ABILITIES, counts_tokens_at_messages=False)),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, ABILITIES),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, ABILITIES),
        ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, ABILITIES),
    ],
)
def test_what_the_engines_endpoint_may_miscount_is_counted_by_a_request_for_one_token(
    more, abilities
):
    body = RICH | {"tools": [], "tool_choice": None, "output_config": None} | more
    prepared = COUNT.prepare(ask(body), abilities)
    assert (prepared.path, prepared.stream) == ("/v1/chat/completions", False)
    fields = json.loads(msgspec.json.encode(prepared.fields))
    assert fields["max_tokens"] == 1
    assert "stop" not in fields
    completion = {
        "choices": [{"message": {"content": "x"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 1},
    }
    said = json.loads(prepared.answer.whole(json.dumps(completion).encode()))
    assert said == {"input_tokens": 12}


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"input_tokens":"9"}', b"\xff"])
def test_a_count_that_is_none_is_a_failure_of_the_replica(body):
    answer = COUNT.prepare(ask(BASE), ABILITIES).answer
    with pytest.raises(RefusedError) as caught:
        answer.whole(body)
    assert caught.value.refusal.kind == "upstream_failed"
