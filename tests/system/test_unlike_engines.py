"""llama.cpp and vLLM, both real, behind one model name: alike to a client, and each other's spare.

Left out of `make test`: vLLM is 3.5 GB and takes most of a minute to start. `make test-engines`.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import openai
import pytest
from fleet_process import MODEL, FleetProcess, wait_until

from tests.system.real_engines.cuts import (
    QUESTIONS,
    TOKENS,
    break_begun,
    break_silent,
    check_usage,
    engine_of,
    judge,
    judge_unbegun,
    streams,
)
from tests.system.real_engines.house import House, fleet_file
from tests.system.real_engines.install import vllm_python
from tests.system.real_engines.relay import Relay
from tests.system.real_engines.vllm_server import VllmServer
from tests.system.real_engines.weights import vllm_weights

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def house(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("unlike")
    python = vllm_python()
    vllm = VllmServer(
        python=python, weights=vllm_weights(weights, python=python), model=MODEL, folder=folder
    )
    fleet = None
    try:
        sys.stderr.write(f"vLLM: ready {vllm.start():.0f} s after its start\n")
        with Relay(vllm.port) as relay:
            (folder / "fleet.yaml").write_text(fleet_file(relay.url))
            fleet = FleetProcess(folder / "state", folder / "fleet.yaml", "--port", "0")
            fleet.wait_ready()
            yield House(fleet=fleet, vllm=vllm, relay=relay)
            fleet.kill()
    finally:
        if fleet is not None:
            fleet.kill()
        vllm.kill()


@pytest.fixture(scope="module")
def unbroken(house: House) -> dict[str, dict[str, str]]:
    """What each engine says to each question when nothing happens, one question at a time."""
    texts = {
        engine: {q: house.say_alone(engine, q, tokens=TOKENS) for q in QUESTIONS}
        for engine in ("llama-cpp", "vllm")
    }
    same = sum(texts["vllm"][q] == texts["llama-cpp"][q] for q in QUESTIONS)
    sys.stderr.write(f"unbroken: {same} of {len(QUESTIONS)} texts are the same on both engines\n")
    return texts


@pytest.fixture
def chats(house: House) -> Iterator[openai.OpenAI]:
    url, key = f"{house.fleet.url}/v1", house.fleet.key
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def messages(house: House) -> Iterator[anthropic.Anthropic]:
    url, key = house.fleet.url, house.fleet.key
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=60) as client:
        yield client


def _raw(create: Callable, **options) -> tuple[str, object]:
    answer = create(**options)
    return answer.headers["argosy-replica"], answer.parse()


# Alike to a client.


def test_both_engines_answer_a_chat_alike(house: House, chats: openai.OpenAI):
    options = {"model": MODEL, "messages": FRANCE, "temperature": 0, "max_tokens": 24}
    create = chats.chat.completions.with_raw_response.create
    for answer in house.of_each(lambda: _raw(create, **options)).values():
        assert (answer.object, answer.model) == ("chat.completion", MODEL)
        choice = answer.choices[0]
        assert (choice.message.role, choice.message.content) == ("assistant", PARIS)
        assert (choice.finish_reason, choice.index) == ("stop", 0)
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (27, 8)


def test_both_engines_stream_a_chat_alike(house: House, chats: openai.OpenAI):
    options = {"model": MODEL, "messages": FRANCE, "temperature": 0, "max_tokens": 24}
    options |= {"stream": True, "stream_options": {"include_usage": True}}

    def ask() -> tuple[str, object]:
        replica, stream = _raw(chats.chat.completions.with_raw_response.create, **options)
        return replica, list(stream)

    for chunks in house.of_each(ask).values():
        *told, last = chunks
        assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == PARIS
        assert [c.choices[0].finish_reason for c in told if c.choices[0].finish_reason] == ["stop"]
        assert {(chunk.id, chunk.model) for chunk in chunks} == {(last.id, MODEL)}
        assert (last.choices, last.usage.completion_tokens) == ([], 8)


def test_both_engines_answer_a_message_in_one_shape(house: House, messages: anthropic.Anthropic):
    options = {"model": MODEL, "messages": FRANCE, "max_tokens": 24, "extra_body": GREEDY}
    answers = house.of_each(lambda: _raw(messages.messages.with_raw_response.create, **options))
    ours, theirs = (_shape(answer.model_dump()) for answer in answers.values())
    assert ours == theirs
    for answer in answers.values():
        assert [block.text for block in answer.content] == [PARIS]
        assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 8)


def test_both_engines_stream_a_message_in_one_shape(house: House, messages: anthropic.Anthropic):
    options = {"model": MODEL, "messages": FRANCE, "max_tokens": 24, "stream": True}
    options["extra_body"] = GREEDY

    def ask() -> tuple[str, object]:
        replica, stream = _raw(messages.messages.with_raw_response.create, **options)
        return replica, list(stream)

    answers = house.of_each(ask)
    ours, theirs = ([_shape(event.model_dump()) for event in told] for told in answers.values())
    assert ours == theirs
    for told in answers.values():
        deltas = [event.delta.text for event in told if event.type == "content_block_delta"]
        assert "".join(deltas) == PARIS


def test_both_engines_name_the_stop_sequence(house: House, messages: anthropic.Anthropic):
    options = {"model": MODEL, "messages": FRANCE, "max_tokens": 24, "extra_body": GREEDY}
    options["stop_sequences"] = ["Germany", "France"]
    create = messages.messages.with_raw_response.create
    for answer in house.of_each(lambda: _raw(create, **options)).values():
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "France")
        assert answer.content[0].text == "The capital of "


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_both_engines_go_on_from_the_beginning_that_a_client_gives(
    house: House, messages: anthropic.Anthropic, streamed: bool
):
    begun = [*FRANCE, {"role": "assistant", "content": "The capital of France"}]
    options = {"model": MODEL, "messages": begun, "max_tokens": 24, "extra_body": GREEDY}

    def ask() -> tuple[str, object]:
        create = messages.messages.with_raw_response.create
        replica, answer = _raw(create, stream=streamed, **options)
        if not streamed:
            return replica, answer.content[0].text
        events = [event for event in answer if event.type == "content_block_delta"]
        return replica, "".join(event.delta.text for event in events)

    assert house.of_each(ask) == {"llama-cpp": " is Paris.", "vllm": " is Paris."}


def test_both_engines_call_the_tool_that_they_must_call(house: House, chats: openai.OpenAI):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"name": "get_weather", "description": "The weather in a city.", "parameters": schema}
    options = {"model": MODEL, "messages": FRANCE, "temperature": 0, "max_tokens": 80}
    options |= {"tools": [{"type": "function", "function": tool}], "tool_choice": "required"}
    create = chats.chat.completions.with_raw_response.create
    for answer in house.of_each(lambda: _raw(create, **options)).values():
        assert answer.choices[0].finish_reason == "tool_calls"
        assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_both_engines_refuse_too_long_a_prompt_in_the_same_words(
    house: House, chats: openai.OpenAI
):
    long = [{"role": "user", "content": "word " * 3000}]
    for _ in range(4):  # both in turn
        with pytest.raises(openai.BadRequestError) as refused:
            chats.chat.completions.create(model=MODEL, messages=long, max_tokens=4)
        assert refused.value.code == "context_length_exceeded"


def test_usage_is_recorded_as_each_engine_counts_it(house: House):
    told = streams(house, lambda told: None)
    assert [one.wrong for one in told] == [None] * len(told)
    assert {engine_of(one) for one in told} == {"llama-cpp", "vllm"}
    check_usage(house, told)


# Each other's spare.


def test_llama_cpp_goes_on_where_vllm_was_killed(house: House, unbroken, say):
    house.wait_ready()
    told = streams(house, break_begun("vllm", lambda: house.vllm.kill()))
    judge(house, told, "vllm", unbroken, say, how="kill -9")


def test_vllm_is_served_again_once_it_is_back(house: House, say):
    began_s = house.vllm.start()
    ready_s = wait_until(house.are_ready, 30, house.fleet)
    say(f"vLLM: ready again {began_s:.0f} s after its start, in service {ready_s:.1f} s later")
    told = streams(house, lambda told: None)
    assert {engine_of(one) for one in told} == {"llama-cpp", "vllm"}


@pytest.mark.parametrize("round_", range(3))
def test_llama_cpp_goes_on_where_vllms_connections_were_cut(house, unbroken, say, round_):
    house.wait_ready()
    told = streams(house, break_begun("vllm", house.relay.cut))
    judge(house, told, "vllm", unbroken, say, how="connections cut")


@pytest.mark.parametrize("round_", range(3))
def test_vllm_goes_on_where_llama_cpp_was_killed(house, unbroken, say, round_):
    house.wait_ready()
    pid = house.llama_cpp().pid
    told = streams(house, break_begun("llama-cpp", lambda: os.kill(pid, signal.SIGKILL)))
    judge(house, told, "llama-cpp", unbroken, say, how="kill -9")


def test_vllm_answers_what_a_killed_llama_cpp_had_not_begun(house: House, say):
    house.wait_ready()
    pid = house.llama_cpp().pid
    os.kill(pid, signal.SIGSTOP)
    told = streams(house, break_silent(0.8, lambda: os.kill(pid, signal.SIGKILL)))
    judge_unbegun(house, told, "vllm", say)


def test_llama_cpp_answers_what_a_killed_vllm_had_not_begun(house: House, say):
    house.wait_ready()
    house.vllm.signal(signal.SIGSTOP)
    told = streams(house, break_silent(0.8, house.vllm.kill))
    judge_unbegun(house, told, "llama-cpp", say)


def _shape(value: object) -> object:
    """The keys and the types of a JSON value, without what it says."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return type(value).__name__
