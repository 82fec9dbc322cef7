"""The gateway changes nothing: greedy text through it is the engine's own, token for token."""

import anthropic
import httpx
import openai
import pytest
from fleet_process import MODEL, FleetProcess

SYSTEM = "You are a helpful assistant."
TOKENS = 24
TURNS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Write a haiku about the sea."}],
    [{"role": "user", "content": "Say «crème brûlée» and 日本 and 🚢, then explain each of them."}],
    [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada!"},
        {"role": "user", "content": "What is my name?"},
    ],
    [{"role": "user", "content": 'Repeat this JSON: {"a": "\\n", "b": [1, 2]}'}],
]
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n",
    "Once upon a time",
    "1, 2, 3,",
    "Ça va",
]


@pytest.fixture
def engine(fleet: FleetProcess):
    """A replica, asked directly."""
    url = fleet.replicas()[0].replica.url
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as client:
        yield client


def _said_by_engine(engine: httpx.Client, messages: list[dict[str, str]]) -> str:
    body = {"messages": messages, "temperature": 0, "max_tokens": TOKENS}
    answer = engine.post("/v1/chat/completions", json=body).raise_for_status().json()
    text = answer["choices"][0]["message"]["content"]
    assert text
    return text


@pytest.mark.parametrize("turns", TURNS, ids=["france", "haiku", "unicode", "turns", "json"])
def test_a_greedy_chat_is_the_engines_own_in_every_api(
    engine: httpx.Client,
    openai_client: openai.OpenAI,
    anthropic_client: anthropic.Anthropic,
    turns: list[dict[str, str]],
):
    system = {"role": "system", "content": SYSTEM}
    expected = _said_by_engine(engine, [system, *turns])

    chat = {"model": MODEL, "temperature": 0, "max_tokens": TOKENS}
    told = openai_client.chat.completions.create(messages=[system, *turns], **chat)
    untold = openai_client.chat.completions.create(messages=turns, **chat)  # the model's own prompt
    chunks = openai_client.chat.completions.create(messages=turns, stream=True, **chat)
    assert told.choices[0].message.content == expected
    assert untold.choices[0].message.content == expected
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected

    message = {"model": MODEL, "messages": turns, "max_tokens": TOKENS}
    message["extra_body"] = {"temperature": 0}
    whole = anthropic_client.messages.create(system=SYSTEM, **message)
    with anthropic_client.messages.stream(**message) as stream:
        streamed = "".join(stream.text_stream)
    assert whole.content[0].text == expected
    assert streamed == expected

    response = {"model": MODEL, "input": turns, "temperature": 0, "max_output_tokens": TOKENS}
    assert openai_client.responses.create(instructions=SYSTEM, **response).output_text == expected
    events = openai_client.responses.create(stream=True, **response)
    deltas = (event.delta for event in events if event.type == "response.output_text.delta")
    assert "".join(deltas) == expected


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_greedy_completion_is_the_engines_own(
    engine: httpx.Client, openai_client: openai.OpenAI, prompt: str
):
    body = {"prompt": prompt, "temperature": 0, "max_tokens": TOKENS}
    expected = engine.post("/v1/completions", json=body).raise_for_status().json()["choices"][0]
    whole = openai_client.completions.create(model=MODEL, **body)
    chunks = openai_client.completions.create(model=MODEL, stream=True, **body)
    assert whole.choices[0].text == expected["text"]
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected["text"]


def test_texts_embedded_together_are_what_the_engine_makes_of_each_alone(
    engine: httpx.Client, openai_client: openai.OpenAI
):
    texts = ["a ship at sea", "ein Brot", "Name three rivers of Asia, and the sea of each."]
    ours = openai_client.embeddings.create(model=MODEL, input=texts, encoding_format="float").data
    for text, row in zip(texts, ours, strict=True):
        body = {"input": text, "encoding_format": "float"}
        [alone] = engine.post("/v1/embeddings", json=body).raise_for_status().json()["data"]
        assert row.embedding == pytest.approx(alone["embedding"], abs=2e-3)


def test_an_embedding_is_the_engines_own(engine: httpx.Client, openai_client: openai.OpenAI):
    body = {"input": ["a ship at sea", "ein Brot"], "encoding_format": "float"}
    theirs = engine.post("/v1/embeddings", json=body).raise_for_status().json()["data"]
    ours = openai_client.embeddings.create(model=MODEL, **body).data
    expected = {row["index"]: row["embedding"] for row in theirs}  # a row's place tells nothing
    assert {row.index for row in ours} == expected.keys() == {0, 1}
    for row in ours:
        assert row.embedding == pytest.approx(expected[row.index], abs=1e-4)
