"""Embeddings through the gateway are the engine's own, whatever other sequences it holds."""

from collections.abc import Iterator

import httpx
import openai
import pytest
from fleet_process import MODEL, FleetProcess


@pytest.fixture
def engine(fleet: FleetProcess) -> Iterator[httpx.Client]:
    """A replica, asked directly."""
    url = fleet.replicas()[0].replica.url
    with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as client:
        yield client


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
