"""The simulated replica over real sockets."""

import base64
import json
import struct
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from real_replica import command, running

from argosy.engines.simulated import Simulated
from argosy.fleet.config import SimulatedEngine

FAST = SimulatedEngine(
    context_tokens=512, prefill_tokens_per_s=1e6, decode_tokens_per_s=1e5, slots=64
)
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"knots": {"type": "integer", "minimum": 3}},
                "required": ["knots"],
            },
        },
    }
    for name in ("sail", "row")
]
ASKED = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Where to?"}]}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(command(FAST)) as (_, url), httpx.Client(base_url=url) as client:
        yield client


def events(body: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def gathered(chunks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Of each choice: what its chunks say together."""
    choices: dict[int, dict[str, Any]] = {}
    for part in (choice for chunk in chunks for choice in chunk["choices"]):
        whole = choices.setdefault(part["index"], {"text": "", "arguments": "", "name": None})
        delta = part.get("delta", {})
        whole["text"] += delta.get("content") or part.get("text", "")
        for call in delta.get("tool_calls", ()):
            whole["arguments"] += call["function"]["arguments"]
            whole["name"] = call["function"].get("name", whole["name"])
        whole["end"] = (part["finish_reason"], part["stop_reason"])
    return choices


def told(body: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The same of an answer in one piece."""
    choices = {}
    for choice in body["choices"]:
        message = choice.get("message", {})
        call = message.get("tool_calls", [{"function": {"name": None, "arguments": ""}}])[0]
        choices[choice["index"]] = {
            "text": message.get("content") or choice.get("text", ""),
            **call["function"],
            "end": (choice["finish_reason"], choice["stop_reason"]),
        }
    return choices


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, ASKED),
        (CHAT, {**ASKED, "n": 3, "max_tokens": 20}),
        (CHAT, {**ASKED, "n": 2, "stop": ["the", " a", "s"]}),
        (CHAT, {**ASKED, "tools": TOOLS, "tool_choice": "required", "n": 2}),
        (COMPLETIONS, {"model": "smollm2-135m", "prompt": ["a", "b"], "n": 2, "stop": "i"}),
        (COMPLETIONS, {"model": "smollm2-135m", "prompt": [[1, 2], [3]]}),
    ],
)
def test_streamed_and_whole_answers_are_the_same(
    client: httpx.Client, path: str, fields: dict[str, object]
) -> None:
    whole = client.post(path, json=fields).json()
    streaming = {**fields, "stream": True, "stream_options": {"include_usage": True}}
    chunks = events(client.post(path, json=streaming).text)
    assert gathered(chunks) == told(whole)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]


def test_the_same_request_gets_the_same_bytes_from_two_replicas(client: httpx.Client) -> None:
    asked = {**ASKED, "stream": True, "seed": 7}
    with running(command(FAST)) as (_, url):
        other = httpx.post(url + CHAT, json=asked).content
    assert client.post(CHAT, json=asked).content == other


def test_usage_counts_every_prompt_and_every_choice(client: httpx.Client) -> None:
    asked = {"model": "smollm2-135m", "prompt": ["a b", "c d e"], "n": 3, "max_tokens": 4}
    usage = client.post(COMPLETIONS, json=asked).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 24)


def test_running_counts_end_at_the_usage(client: httpx.Client) -> None:
    asked = {**ASKED, "stream": True, "timings_per_token": True}
    timings = events(client.post(CHAT, json=asked).text)[-1]["timings"]
    usage = client.post(CHAT, json=ASKED).json()["usage"]
    assert timings["predicted_n"] == usage["completion_tokens"]
    assert timings["cache_n"] + timings["prompt_n"] == usage["prompt_tokens"]


def test_a_named_tool_is_called_with_what_its_schema_wants(client: httpx.Client) -> None:
    choice = {"type": "function", "function": {"name": "row"}}
    answer = client.post(CHAT, json={**ASKED, "tools": TOOLS, "tool_choice": choice}).json()
    assert told(answer)[0]["name"] == "row"
    assert json.loads(told(answer)[0]["arguments"]) == {"knots": 3}
    assert told(answer)[0]["end"] == ("tool_calls", None)


def test_the_next_turn_finds_the_last_one_in_the_prefix_cache(client: httpx.Client) -> None:
    turns = [{"role": "user", "content": "sail " * 40}]
    first = client.post(CHAT, json={**ASKED, "messages": turns}).json()
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    turns += [first["choices"][0]["message"], {"role": "user", "content": "and then?"}]
    second = client.post(CHAT, json={**ASKED, "messages": turns}).json()["usage"]
    known = first["usage"]["total_tokens"] // 16 * 16
    assert second["prompt_tokens_details"]["cached_tokens"] == known


def test_embeddings_are_the_same_as_floats_and_as_base64(client: httpx.Client) -> None:
    asked = {"model": "smollm2-135m", "input": ["sea", "ship"], "dimensions": 8}
    floats = client.post("/v1/embeddings", json=asked).json()
    packed = client.post("/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()
    for row, packed_row in zip(floats["data"], packed["data"], strict=True):
        unpacked = struct.unpack("<8f", base64.b64decode(packed_row["embedding"]))
        assert row["embedding"] == pytest.approx(unpacked, abs=1e-6)
    assert floats["usage"]["prompt_tokens"] == 2


def test_a_prompt_longer_than_the_context_is_a_context_overflow(client: httpx.Client) -> None:
    answer = client.post(COMPLETIONS, json={"model": "smollm2-135m", "prompt": "sea " * 600})
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    refusal = Simulated().read_refusal(answer.status_code, answer.content)
    assert refusal.kind == "context_overflow"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"model": "another"}, 404),
        ({"messages": []}, 400),
        ({"n": 0}, 400),
        ({"max_tokens": 0}, 400),
        ({"tool_choice": "required"}, 400),
    ],
)
def test_a_wrong_request_is_refused_in_openais_shape(
    client: httpx.Client, fields: dict[str, object], status: int
) -> None:
    answer = client.post(CHAT, json={**ASKED, **fields})
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_openais_own_client_reads_a_stream(client: httpx.Client) -> None:
    whole = client.post(CHAT, json=ASKED).json()["choices"][0]["message"]["content"]
    url = str(client.base_url.join("/v1"))
    with (
        openai.OpenAI(base_url=url, api_key="none") as sdk,
        sdk.chat.completions.stream(**ASKED) as stream,
    ):
        assert stream.get_final_completion().choices[0].message.content == whole


def test_tokens_never_come_before_they_are_due() -> None:
    slow = SimulatedEngine(decode_tokens_per_s=100, prefill_tokens_per_s=100)
    with running(command(slow)) as (_, url):
        started_s = time.monotonic()
        asked = {"model": "smollm2-135m", "prompt": "sea " * 20, "max_tokens": 11}
        httpx.post(url + COMPLETIONS, json=asked)
        assert time.monotonic() - started_s >= 21 / 100 + 10 / 100  # the last space is a token


def test_a_client_that_leaves_frees_its_slot_at_once() -> None:
    slow = SimulatedEngine(decode_tokens_per_s=1, prefill_tokens_per_s=1e6, slots=1)
    asked = {"model": "smollm2-135m", "prompt": "sea"}
    with running(command(slow)) as (_, url):
        with httpx.stream("POST", url + COMPLETIONS, json={**asked, "stream": True}) as answer:
            next(answer.iter_lines())
        with pytest.raises(httpx.ReadTimeout):  # leaves before a first byte, in the prefill
            httpx.post(url + COMPLETIONS, json=asked, timeout=0.2)
        answer = httpx.post(url + COMPLETIONS, json={**asked, "max_tokens": 1}, timeout=3)
        assert answer.status_code == 200
