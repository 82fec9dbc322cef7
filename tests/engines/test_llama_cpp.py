"""A real model behind the llama.cpp adapter."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from real_replica import command, running

from argosy.engines.llama_cpp import LlamaCpp
from argosy.fleet.config import LlamaCppEngine

CONFIG = LlamaCppEngine(context_tokens=512, slots=2)
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def client(weights: Path) -> Iterator[httpx.Client]:
    with running(command(CONFIG, weights)) as (_, url), httpx.Client(base_url=url) as client:
        client.timeout = 60
        yield client


def said(content: str) -> dict[str, object]:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": content},
    ]
    return {"model": "smollm2-135m", "temperature": 0, "max_tokens": 24, "messages": messages}


def test_the_capital_of_france_is_paris(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=said("What is the capital of France?")).json()
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["model"] == "smollm2-135m"


def test_the_same_server_embeds_and_answers(client: httpx.Client) -> None:
    rows = client.post("/v1/embeddings", json={"input": ["a ship", "a boat"]}).json()["data"]
    assert [len(row["embedding"]) for row in rows] == [576, 576]
    answer = client.post(CHAT, json=said("What is the capital of France?")).json()
    assert "Paris" in answer["choices"][0]["message"]["content"]


def test_a_prompt_of_the_whole_context_of_a_slot_is_answered(client: httpx.Client) -> None:
    answer = client.post(CHAT, json={**said("sea " * 460), "max_tokens": 1})
    assert answer.json()["usage"]["prompt_tokens"] > 460


def test_a_prompt_longer_than_the_context_is_a_context_overflow(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=said("sea " * 600))
    refusal = LlamaCpp().read_refusal(answer.status_code, answer.content)
    assert refusal.kind == "context_overflow"
    assert "this model's context is 512 tokens" in refusal.message


def test_a_text_too_long_to_embed_is_a_context_overflow(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"input": "sea " * 600})
    refusal = LlamaCpp().read_refusal(answer.status_code, answer.content)
    assert refusal.kind == "context_overflow"


def test_what_the_engine_refuses_is_told_in_its_words(client: httpx.Client) -> None:
    answer = client.post(CHAT, json={"messages": 5})
    refusal = LlamaCpp().read_refusal(answer.status_code, answer.content)
    assert refusal.kind == "upstream_refused"
    assert "Expected 'messages' to be an array" in refusal.message


def test_what_the_engine_does_not_do_is_unsupported(client: httpx.Client) -> None:
    answer = client.post("/v1/rerank", json={"query": "sea", "documents": ["ship"]})
    assert LlamaCpp().read_refusal(answer.status_code, answer.content).kind == "unsupported"


def test_its_slots_are_not_shown_and_other_web_pages_may_not_ask_it(client: httpx.Client) -> None:
    assert client.get("/slots").status_code == 501
    answer = client.get("/health", headers={"Origin": "http://elsewhere.example"})
    assert answer.headers["access-control-allow-origin"] == "http://127.0.0.1"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        (b"not a model", "is not a GGUF file"),
        (b"GGUF and then nothing of sense", "llama.cpp cannot load this model"),
    ],
)
def test_a_bad_model_file_ends_the_replica_with_its_reason(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    started = command(CONFIG, path)
    done = subprocess.Popen(
        started.argv,
        env={**os.environ, **started.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with done:
        assert done.stderr is not None
        assert done.stdout is not None
        last = done.stderr.read().splitlines()[-1]
        assert done.wait(5) == 1
        assert done.stdout.read() == ""
    assert words in last
    assert str(path) in last
