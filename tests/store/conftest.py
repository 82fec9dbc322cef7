"""A real store in a file of its own, and one record of usage to vary."""

import pytest

from argosy.fleet.messages import Usage
from argosy.store.schema import open_store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "argosy.db"


@pytest.fixture
def engine(path):
    engine = open_store(path, busy_timeout_s=0.1)
    yield engine
    engine.dispose()


@pytest.fixture
def a_record():
    def record(request: str, **changes) -> Usage:
        fields = {
            "request": request,
            "at_s": 1000.0,
            "tenant": "acme",
            "key": "key_12345678",
            "tier": "consumer",
            "surface": "chat",
            "model": "smollm2-135m",
            "replica": "smollm2-135m-1",
            "outcome": "finished",
            "status": 200,
            "reason": "",
            "attempts": 1,
            "tokens_in": 100,
            "tokens_cached": 20,
            "tokens_out": 64,
            "ttft_s": 0.25,
            "duration_s": 1.5,
        }
        return Usage(**{**fields, **changes})

    return record
