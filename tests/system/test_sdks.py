"""Every API through the official SDKs, whole and streamed, over real replicas."""

import asyncio
import itertools
import json

import anthropic
import openai
import pytest
from fleet_process import MODEL, FleetProcess
from pydantic import BaseModel

SYSTEM = "You are a helpful assistant."
FRANCE = "What is the capital of France?"
ANSWER = "The capital of France is Paris."  # of this model, when it is greedy
ASK = [{"role": "user", "content": FRANCE}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "The weather in a city."}
CHAT_TOOLS = [{"type": "function", "function": {**TOOL, "parameters": CITY_SCHEMA}}]
RESPONSES_TOOLS = [{"type": "function", **TOOL, "parameters": CITY_SCHEMA}]
MESSAGES_TOOLS = [{**TOOL, "input_schema": CITY_SCHEMA}]
CHAT_CHOICES = ["required", {"type": "function", "function": {"name": "get_weather"}}]
RESPONSES_CHOICES = ["required", {"type": "function", "name": "get_weather"}]
MESSAGES_CHOICES = [{"type": "any"}, {"type": "tool", "name": "get_weather"}]
GREEDY = {"temperature": 0}  # the Anthropic SDK has no argument for it


class City(BaseModel):
    name: str
    country: str


# Models.


def test_openai_lists_and_finds_the_model(openai_client):
    assert [model.id for model in openai_client.models.list()] == [MODEL]
    found = openai_client.models.retrieve(MODEL)
    assert (found.id, found.object) == (MODEL, "model")
    assert found.created > 1_700_000_000


def test_anthropic_lists_and_finds_the_model(anthropic_client):
    assert [model.id for model in anthropic_client.models.list()] == [MODEL]
    found = anthropic_client.models.retrieve(MODEL)
    assert (found.id, found.type, found.max_input_tokens) == (MODEL, "model", 4096)


# Chat completions.


def test_a_chat_is_answered_whole(openai_client):
    answer = openai_client.chat.completions.create(
        model=MODEL, messages=ASK, temperature=0, max_tokens=24
    )
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == MODEL
    assert answer.usage.prompt_tokens > 20
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_a_chat_streams_with_its_usage_in_the_last_chunk(openai_client):
    stream = openai_client.chat.completions.create(
        model=MODEL,
        messages=ASK,
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    assert last.choices == []
    assert last.usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) > 4, "not token by token"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert len({chunk.id for chunk in (*chunks, last)}) == 1


def test_a_chat_stream_without_the_option_has_no_usage_chunk(openai_client):
    stream = openai_client.chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=4, stream=True
    )
    chunks = list(stream)
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)


def test_the_chat_stream_helper_gathers_the_answer(openai_client):
    with openai_client.chat.completions.stream(
        model=MODEL, messages=ASK, temperature=0, max_tokens=24
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == ANSWER


def test_a_chat_is_parsed_into_a_schema(openai_client):
    answer = openai_client.chat.completions.parse(
        model=MODEL, messages=ASK, temperature=0, max_tokens=80, response_format=City
    )
    assert isinstance(answer.choices[0].message.parsed, City)


def test_a_chat_stops_before_its_stop_sequence(openai_client):
    options = {"model": MODEL, "messages": ASK, "temperature": 0, "stop": ["France"]}
    whole = openai_client.chat.completions.create(**options)
    assert whole.choices[0].message.content == "The capital of "
    assert whole.choices[0].finish_reason == "stop"
    chunks = list(openai_client.chat.completions.create(**options, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert (text, chunks[-1].choices[0].finish_reason) == ("The capital of ", "stop")


def test_a_chat_that_is_cut_says_length(openai_client):
    answer = openai_client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_the_same_seed_gives_the_same_text_on_any_replica(openai_client):
    def told(seed: int) -> str:
        answer = openai_client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell a story about a ship."}],
            temperature=1.5,
            max_tokens=12,
            seed=seed,
        )
        return answer.choices[0].message.content

    assert {told(7) for _ in range(3)} == {told(7)}
    assert told(8) != told(7)


def test_a_chat_gives_log_probabilities(openai_client):
    answer = openai_client.chat.completions.create(
        model=MODEL, messages=ASK, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2
    )
    tokens = answer.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)


@pytest.mark.parametrize("choice", CHAT_CHOICES, ids=["required", "named"])
def test_a_chat_calls_the_tool_that_it_must_call(openai_client, choice):
    options = {"model": MODEL, "messages": WEATHER, "tools": CHAT_TOOLS, "tool_choice": choice}
    options |= {"temperature": 0, "max_tokens": 80}
    whole = openai_client.chat.completions.create(**options)
    call = whole.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    with openai_client.chat.completions.stream(**options) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion().choices[0]
    streamed = final.message.tool_calls[0]
    # Values, not characters: two greedy answers may differ where white space is a near tie.
    assert json.loads(streamed.function.arguments) == json.loads(call.function.arguments)
    assert "".join(event.arguments_delta for event in deltas) == streamed.function.arguments
    assert whole.choices[0].finish_reason == final.finish_reason
    if choice == "required":
        assert final.finish_reason == "tool_calls"


def test_a_chat_goes_on_from_the_result_of_a_tool(openai_client):
    forced = openai_client.chat.completions.create(
        model=MODEL, messages=WEATHER, tools=CHAT_TOOLS, tool_choice="required", max_tokens=80
    )
    call = forced.choices[0].message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees and sunny"}
    answer = openai_client.chat.completions.create(
        model=MODEL,
        messages=[*WEATHER, forced.choices[0].message, result],
        tools=CHAT_TOOLS,
        max_tokens=16,
    )
    assert answer.choices[0].message.content


# Completions and embeddings.


def test_a_completion_is_the_same_whole_and_streamed(openai_client):
    options = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 8}
    options |= {"temperature": 0}
    whole = openai_client.completions.create(**options)
    assert whole.choices[0].text.startswith(" Paris")
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 8
    *chunks, last = openai_client.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert last.usage.completion_tokens == 8


def test_embeddings_are_the_same_as_numbers_and_as_base64(openai_client):
    texts = ["a ship at sea", "a loaf of bread"]
    default = openai_client.embeddings.create(model=MODEL, input=texts)  # the SDK asks for base64
    floats = openai_client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    assert [row.index for row in default.data] == [0, 1]
    for ours, theirs in zip(default.data, floats.data, strict=True):
        assert len(ours.embedding) == 576
        assert ours.embedding == pytest.approx(theirs.embedding, abs=1e-4)
    assert default.usage.prompt_tokens == floats.usage.prompt_tokens > 4
    one = openai_client.embeddings.create(model=MODEL, input=texts[0])
    assert one.data[0].embedding == pytest.approx(default.data[0].embedding, abs=1e-3)


# Responses.


def test_a_response_is_answered_whole(openai_client):
    response = openai_client.responses.create(
        model=MODEL, input=FRANCE, instructions=SYSTEM, temperature=0, max_output_tokens=24
    )
    assert response.output_text == ANSWER
    assert (response.status, response.instructions) == ("completed", SYSTEM)
    assert response.usage.output_tokens == 8


def test_instructions_reach_the_model(openai_client):
    def spoken(instructions: str) -> int:
        response = openai_client.responses.create(
            model=MODEL, input=FRANCE, instructions=instructions, max_output_tokens=1
        )
        return response.usage.input_tokens

    assert spoken("Answer in French, please, and be very brief.") > spoken("Be brief.")


def test_a_response_streams_its_events_in_order(openai_client):
    events = list(
        openai_client.responses.create(
            model=MODEL, input=FRANCE, temperature=0, max_output_tokens=24, stream=True
        )
    )
    kinds = [kind for kind, _ in itertools.groupby(event.type for event in events)]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == events[-1].response.output_text == ANSWER


def test_the_response_stream_helper_gathers_the_answer(openai_client):
    with openai_client.responses.stream(
        model=MODEL, input=FRANCE, temperature=0, max_output_tokens=24
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == ANSWER


@pytest.mark.parametrize("streamed", [False, True])
def test_a_response_that_is_cut_is_incomplete(openai_client, streamed):
    options = {"model": MODEL, "input": FRANCE, "max_output_tokens": 3}
    if streamed:
        last = list(openai_client.responses.create(**options, stream=True))[-1]
        assert last.type == "response.incomplete"
        response = last.response
    else:
        response = openai_client.responses.create(**options)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.output_tokens == 3


def test_a_response_is_parsed_into_a_schema(openai_client):
    response = openai_client.responses.parse(
        model=MODEL, input=FRANCE, temperature=0, max_output_tokens=80, text_format=City
    )
    assert isinstance(response.output_parsed, City)


@pytest.mark.parametrize("choice", RESPONSES_CHOICES, ids=["required", "named"])
def test_a_response_calls_the_tool_that_it_must_call(openai_client, choice):
    options = {"model": MODEL, "input": WEATHER, "tools": RESPONSES_TOOLS, "tool_choice": choice}
    options |= {"temperature": 0, "max_output_tokens": 80}
    call = openai_client.responses.create(**options).output[0]
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert set(json.loads(call.arguments)) == {"city"}
    events = list(openai_client.responses.create(**options, stream=True))
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert events[-1].type == "response.completed"
    streamed = events[-1].response.output[0]
    assert "".join(deltas) == streamed.arguments
    assert json.loads(streamed.arguments) == json.loads(call.arguments)


# Messages.


def test_a_message_is_answered_whole(anthropic_client):
    message = anthropic_client.messages.create(
        model=MODEL, messages=ASK, system=SYSTEM, max_tokens=24, extra_body=GREEDY
    )
    assert [block.text for block in message.content] == [ANSWER]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.output_tokens == 8


def test_a_message_that_is_cut_says_max_tokens(anthropic_client):
    message = anthropic_client.messages.create(model=MODEL, messages=ASK, max_tokens=3)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


def test_a_message_streams_its_events_in_order(anthropic_client):
    events = list(
        anthropic_client.messages.create(
            model=MODEL, messages=ASK, max_tokens=24, stream=True, extra_body=GREEDY
        )
    )
    kinds = [kind for kind, _ in itertools.groupby(event.type for event in events)]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert "".join(deltas) == ANSWER
    assert len(deltas) > 4, "not token by token"
    assert events[-2].delta.stop_reason == "end_turn"
    assert events[-2].usage.output_tokens == 8


def test_the_message_stream_helper_gathers_the_answer(anthropic_client):
    with anthropic_client.messages.stream(
        model=MODEL, messages=ASK, max_tokens=24, extra_body=GREEDY
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == ANSWER
    assert final.usage.input_tokens + final.usage.cache_read_input_tokens > 20


def test_the_system_prompt_reaches_the_model(anthropic_client):
    def counted(system: str) -> int:
        return anthropic_client.messages.count_tokens(
            model=MODEL, messages=ASK, system=system
        ).input_tokens

    assert counted("Answer in French, please, and be very brief.") > counted("Be brief.")


def test_a_message_names_the_stop_sequence_that_ended_it(anthropic_client):
    options = {"model": MODEL, "messages": ASK, "max_tokens": 24, "extra_body": GREEDY}
    options["stop_sequences"] = ["Germany", "France"]
    whole = anthropic_client.messages.create(**options)
    assert (whole.stop_reason, whole.stop_sequence) == ("stop_sequence", "France")
    assert whole.content[0].text == "The capital of "
    with anthropic_client.messages.stream(**options) as stream:
        streamed = stream.get_final_message()
    assert (streamed.stop_reason, streamed.stop_sequence) == ("stop_sequence", "France")
    assert streamed.content[0].text == "The capital of "


@pytest.mark.parametrize("choice", MESSAGES_CHOICES, ids=["any", "tool"])
def test_a_message_uses_the_tool_that_it_must_use(anthropic_client, choice):
    options = {"model": MODEL, "messages": WEATHER, "tools": MESSAGES_TOOLS, "tool_choice": choice}
    options |= {"max_tokens": 80, "extra_body": GREEDY}
    whole = anthropic_client.messages.create(**options)
    assert whole.stop_reason == "tool_use"
    assert whole.content[-1].name == "get_weather"
    assert set(whole.content[-1].input) == {"city"}
    with anthropic_client.messages.stream(**options) as stream:
        kinds = {event.type for event in stream}
        streamed = stream.get_final_message()
    assert "input_json" in kinds
    assert streamed.stop_reason == "tool_use"
    assert streamed.content[-1].input == whole.content[-1].input


def test_a_message_goes_on_from_the_result_of_a_tool(anthropic_client):
    forced = anthropic_client.messages.create(
        model=MODEL,
        messages=WEATHER,
        tools=MESSAGES_TOOLS,
        tool_choice={"type": "any"},
        max_tokens=80,
    )
    result = {"type": "tool_result", "tool_use_id": forced.content[-1].id, "content": "18 degrees"}
    answer = anthropic_client.messages.create(
        model=MODEL,
        messages=[
            *WEATHER,
            {"role": "assistant", "content": forced.content},
            {"role": "user", "content": [result]},
        ],
        tools=MESSAGES_TOOLS,
        max_tokens=16,
    )
    assert answer.content[0].text


def test_a_message_follows_a_json_schema(anthropic_client):
    schema = {**City.model_json_schema(), "additionalProperties": False}
    message = anthropic_client.messages.create(
        model=MODEL,
        messages=ASK,
        max_tokens=80,
        output_config={"format": {"type": "json_schema", "schema": schema}},
        extra_body=GREEDY,
    )
    City.model_validate_json(message.content[0].text)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": ASK},
        {"messages": ASK, "system": "Be brief."},
        {"messages": [*ASK, {"role": "assistant", "content": "Paris"}, *WEATHER]},
        {"messages": WEATHER, "tools": MESSAGES_TOOLS},
        {"messages": WEATHER, "tools": MESSAGES_TOOLS, "tool_choice": {"type": "any"}},
    ],
    ids=["plain", "system", "turns", "tools", "forced"],
)
def test_counted_tokens_are_those_that_the_message_costs(anthropic_client, body):
    counted = anthropic_client.messages.count_tokens(model=MODEL, **body).input_tokens
    usage = anthropic_client.messages.create(model=MODEL, max_tokens=8, **body).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


# Refusals.


def test_openai_refusals_are_the_sdks_own_exceptions(openai_client):
    def create(client: openai.OpenAI = openai_client, **changes) -> None:
        client.chat.completions.create(**{"model": MODEL, "messages": ASK, **changes})

    with pytest.raises(openai.AuthenticationError) as wrong_key:
        create(openai_client.with_options(api_key="argosy-wrong"))
    assert wrong_key.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as unknown:
        create(model="gpt-4o")
    assert unknown.value.code == "model_not_found"
    assert unknown.value.param == "model"
    assert MODEL in unknown.value.body["message"]
    with pytest.raises(openai.NotFoundError):
        openai_client.models.retrieve("gpt-4o")
    with pytest.raises(openai.BadRequestError) as empty:
        create(messages=[])
    assert empty.value.param == "messages"
    assert empty.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as too_long:
        create(messages=[{"role": "user", "content": "word " * 5000}])
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as before_the_stream:
        create(messages=[{"role": "user", "content": "word " * 5000}], stream=True)
    assert before_the_stream.value.code == "context_length_exceeded"
    assert too_long.value.request_id.startswith("req_")


def test_anthropic_refusals_are_the_sdks_own_exceptions(anthropic_client):
    def create(client: anthropic.Anthropic = anthropic_client, **changes) -> None:
        client.messages.create(**{"model": MODEL, "messages": ASK, "max_tokens": 4, **changes})

    def kind(refused: pytest.ExceptionInfo[anthropic.APIStatusError]) -> str:
        body = refused.value.body
        assert body["type"] == "error"
        assert body["error"]["message"]
        assert body["request_id"] == refused.value.request_id
        return body["error"]["type"]

    with pytest.raises(anthropic.AuthenticationError) as wrong_key:
        create(anthropic_client.with_options(api_key="argosy-wrong"))
    assert kind(wrong_key) == "authentication_error"
    with pytest.raises(anthropic.NotFoundError) as unknown:
        create(model="claude-4")
    assert kind(unknown) == "not_found_error"
    with pytest.raises(anthropic.NotFoundError) as not_listed:
        anthropic_client.models.retrieve("claude-4")
    assert kind(not_listed) == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as no_tokens:
        create(max_tokens=0)
    assert kind(no_tokens) == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError) as too_long:
        create(messages=[{"role": "user", "content": "word " * 5000}])
    assert kind(too_long) == "invalid_request_error"


def test_the_asynchronous_clients_are_served_alike(fleet: FleetProcess):
    async def ask_both() -> tuple[str | None, str]:
        base_url = f"{fleet.url}/v1"
        async with (
            openai.AsyncOpenAI(base_url=base_url, api_key=fleet.key, max_retries=0) as ours,
            anthropic.AsyncAnthropic(
                base_url=fleet.url, api_key=fleet.key, max_retries=0
            ) as theirs,
        ):
            chat, message = await asyncio.gather(
                ours.chat.completions.create(
                    model=MODEL, messages=ASK, temperature=0, max_tokens=24
                ),
                theirs.messages.create(model=MODEL, messages=ASK, max_tokens=24, extra_body=GREEDY),
            )
        return chat.choices[0].message.content, message.content[0].text

    assert asyncio.run(ask_both()) == (ANSWER, ANSWER)
