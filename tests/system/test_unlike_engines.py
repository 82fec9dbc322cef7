"""llama.cpp and vLLM, both real, behind one model name: alike to a client, and each other's spare.

Left out of `make test`: vLLM is 3.5 GB and takes most of a minute to start. `make test-engines`.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
from fleet_process import MODEL, FleetProcess, wait_until

from tests.system.real_engines.house import House, fleet_file
from tests.system.real_engines.install import vllm_python
from tests.system.real_engines.relay import Relay
from tests.system.real_engines.told import Told, listen
from tests.system.real_engines.vllm_server import VllmServer
from tests.system.real_engines.weights import vllm_weights

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

TOKENS = 48
# What was said before a cut comes back as a part of a prompt, where its tokens may join otherwise.
SEAM_TOKENS_MAX = 2
BEGUN = 4  # pieces that each stream of a victim has said when it is broken
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
GREEDY = {"temperature": 0}
THINGS = (
    "a lighthouse", "the sea", "a wooden ship", "an old harbour", "a storm", "the moon",
    "a library", "a mountain railway", "bread", "a violin", "winter", "a market",
    "a clock", "a garden", "the desert", "a bridge",
)  # fmt: skip
QUESTIONS = [f"Tell me a long story about {thing}." for thing in THINGS]


@pytest.fixture(scope="module")
def house(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("unlike")
    python = vllm_python()
    vllm = VllmServer(
        python=python, weights=vllm_weights(weights, python=python), model=MODEL, folder=folder
    )
    fleet = None
    try:
        print(f"vLLM ready after {vllm.start():.0f} s")
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
    return {
        engine: {q: house.say_alone(engine, q, tokens=TOKENS) for q in QUESTIONS}
        for engine in ("llama-cpp", "vllm")
    }


@pytest.fixture
def chats(house: House) -> Iterator[openai.OpenAI]:
    url, key = f"{house.fleet.url}/v1", house.fleet.key
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
def messages(house: House) -> Iterator[anthropic.Anthropic]:
    url, key = house.fleet.url, house.fleet.key
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0) as client:
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
    told = _streams(house, lambda told: None)
    assert [one.wrong for one in told] == [None] * len(told)
    assert {_engine(one) for one in told} == {"llama-cpp", "vllm"}
    _check_usage(house, told)


# Each other's spare.


def test_llama_cpp_goes_on_where_vllm_was_killed(house: House, unbroken, say):
    house.wait_ready()
    told = _streams(house, _break_begun("vllm", lambda: house.vllm.kill()))
    _judge(house, told, "vllm", unbroken, say, how="kill -9")


def test_vllm_is_served_again_once_it_is_back(house: House, say):
    began_s = house.vllm.start()
    ready_s = wait_until(house.are_ready, 30, house.fleet)
    say(f"vLLM: ready again {began_s:.0f} s after its start, in service {ready_s:.1f} s later")
    told = _streams(house, lambda told: None)
    assert {_engine(one) for one in told} == {"llama-cpp", "vllm"}


@pytest.mark.parametrize("round_", range(3))
def test_llama_cpp_goes_on_where_vllms_connections_were_cut(house, unbroken, say, round_):
    house.wait_ready()
    told = _streams(house, _break_begun("vllm", house.relay.cut))
    _judge(house, told, "vllm", unbroken, say, how="connections cut")


@pytest.mark.parametrize("round_", range(3))
def test_vllm_goes_on_where_llama_cpp_was_killed(house, unbroken, say, round_):
    house.wait_ready()
    pid = house.llama_cpp().pid
    told = _streams(house, _break_begun("llama-cpp", lambda: os.kill(pid, signal.SIGKILL)))
    _judge(house, told, "llama-cpp", unbroken, say, how="kill -9")


def test_vllm_answers_what_a_killed_llama_cpp_had_not_begun(house: House, say):
    house.wait_ready()
    pid = house.llama_cpp().pid
    os.kill(pid, signal.SIGSTOP)
    told = _streams(house, _break_silent(0.8, lambda: os.kill(pid, signal.SIGKILL)))
    _judge_unbegun(house, told, "vllm", say)


def test_llama_cpp_answers_what_a_killed_vllm_had_not_begun(house: House, say):
    house.wait_ready()
    house.vllm.signal(signal.SIGSTOP)
    told = _streams(house, _break_silent(0.8, house.vllm.kill))
    _judge_unbegun(house, told, "llama-cpp", say)


Break = Callable[[list[Told]], object]


def _streams(house: House, break_: Break) -> list[Told]:
    """A stream for each question, all at once, both APIs on both engines; `break_` beside them."""
    told = [
        Told("chat" if number % 4 < 2 else "messages", question)
        for number, question in enumerate(QUESTIONS)
    ]

    async def main() -> None:
        async with httpx.AsyncClient(
            base_url=house.fleet.url,
            headers={"authorization": f"Bearer {house.fleet.key}"},
            timeout=90.0,
            trust_env=False,
        ) as client:
            asking = [
                asyncio.create_task(listen(client, one, model=MODEL, tokens=TOKENS)) for one in told
            ]
            done = break_(told)
            if asyncio.iscoroutine(done):
                await done
            await asyncio.gather(*asking)

    house.relay.calls.clear()
    asyncio.run(main())
    return told


def _break_begun(engine: str, strike: Callable[[], None]) -> Break:
    """Strike when every stream of that engine has said a few pieces."""

    async def main(told: list[Told]) -> None:
        while True:
            await asyncio.sleep(0.01)
            theirs = [one for one in told if one.replica and _engine(one) == engine]
            is_over = all(one.last == "[DONE]" or one.lost for one in told)
            if (
                is_over
                or all(one.replica for one in told)
                and all(len(one.pieces) >= BEGUN for one in theirs)
            ):
                break
        await asyncio.to_thread(strike)

    return main


def _break_silent(after_s: float, strike: Callable[[], None]) -> Break:
    async def main(told: list[Told]) -> None:
        await asyncio.sleep(after_s)
        await asyncio.to_thread(strike)

    return main


def _judge(house, told: list[Told], victim: str, unbroken, say, *, how: str) -> None:
    """Every stream is whole; those that were cut went on on the other engine, exactly there."""
    assert [(one.question, one.wrong) for one in told if one.wrong] == []
    off = _check_usage(house, told)
    records = {record.request: record for record in house.fleet.usage()}
    cut = [one for one in told if records[one.request].attempts > 1]
    assert len(cut) >= 4, "hardly a stream was cut"
    spare = "vllm" if victim == "llama-cpp" else "llama-cpp"
    assert {_engine_name(records[one.request].replica) for one in cut} == {spare}
    begun = [_check_seam(house, one, victim) for one in cut]
    as_alone = sum(
        house.say_alone(spare, one.question, tokens=2 * TOKENS, said=prefix).startswith(
            one.text.removeprefix(prefix)
        )
        for one, prefix in zip(cut, begun, strict=True)
    )
    same = [sum(one.text == unbroken[e][one.question] for one in cut) for e in (victim, spare)]
    over = max(one.tokens_out for one in cut) - TOKENS
    say(
        f"{victim} -> {spare} ({how}): {len(cut)} of {len(told)} streams cut, {len(cut)} went on; "
        f"the rest is what {spare} alone says from there in {as_alone}, the text is the unbroken "
        f"one of {victim} in {same[0]}, of {spare} in {same[1]}; tokens above the limit: {over}; "
        f"prompt tokens off by at most {off}"
    )


def _check_seam(house: House, one: Told, victim: str) -> str:
    """The text before the cut, which the client's begins with; nothing lost, nothing twice."""
    calls = [c for c in house.relay.calls if c.fields["messages"][1]["content"] == one.question]
    call = calls[-1]
    if victim == "vllm":
        assert call.goes_on_from is None
        assert one.text.startswith(call.text), (one.text, call.text)
        return call.text
    assert call.goes_on_from, "vLLM was asked for a new answer"
    assert call.fields["continue_final_message"] is True
    assert one.text == call.goes_on_from + call.text
    return call.goes_on_from


def _judge_unbegun(house: House, told: list[Told], spare: str, say) -> None:
    assert [(one.question, one.wrong) for one in told if one.wrong] == []
    _check_usage(house, told)
    assert {_engine(one) for one in told} == {spare}
    records = {record.request: record for record in house.fleet.usage()}
    moved = sum(records[one.request].attempts > 1 for one in told)
    say(f"killed before a byte: {moved} of {len(told)} moved, all answered by {spare}")
    assert moved >= 4


def _check_usage(house: House, told: list[Told]) -> int:
    """The record on disk says what the stream said; how far a prompt's count is off at most."""
    asked = {one.request for one in told}
    wait_until(lambda: asked <= {r.request for r in house.fleet.usage()}, 10, house.fleet)
    records = {record.request: record for record in house.fleet.usage()}
    for one in told:
        record = records[one.request]
        assert (record.outcome, record.tokens_out) == ("finished", one.tokens_out), record
        assert record.tokens_in == one.tokens_in, record
    off = [one.tokens_in - house.tokens_in(one.question) for one in told]
    assert max(map(abs, off)) <= SEAM_TOKENS_MAX, off
    return max(map(abs, off))


def _engine(one: Told) -> str:
    assert one.replica
    return _engine_name(one.replica)


def _engine_name(replica: str) -> str:
    return "vllm" if "@vllm" in replica else "llama-cpp"


def _shape(value: object) -> object:
    """The keys and the types of a JSON value, without what it says."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return type(value).__name__
