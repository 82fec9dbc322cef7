"""Real stores, one a test, in a file and in PostgreSQL; and one record of usage to vary."""

import pytest

from argosy.fleet.messages import Usage
from argosy.store.schema import open_store
from tests.store.running_postgresql import RunningPostgreSQL, shared_postgresql

DATABASES = ("sqlite", "postgresql")


@pytest.fixture
def path(tmp_path):
    """Of a store in a file, for what only SQLite does."""
    return tmp_path / "state" / "argosy.db"


@pytest.fixture(scope="session")
def postgresql():
    """PostgreSQL that all tests share: never stopped."""
    running = shared_postgresql()
    if running is None:
        pytest.skip("PostgreSQL is not installed")
    return running


@pytest.fixture(scope="session")
def own_postgresql(postgresql):
    """Another, for tests that stop it, or spoil it and mend it."""
    running = RunningPostgreSQL()
    yield running
    running.close()


@pytest.fixture(params=DATABASES)
def fresh_place(request, tmp_path_factory):
    """A function that names a store which nobody opened, on one database and then on the other."""
    if request.param == "sqlite":
        return lambda: tmp_path_factory.mktemp("store") / "argosy.db"
    return request.getfixturevalue("postgresql").fresh_url


@pytest.fixture
def place(fresh_place):
    return fresh_place()


@pytest.fixture
def engine(place):
    engine = open_store(place)
    yield engine
    engine.dispose()


@pytest.fixture
def file_engine(path):
    """SQLite's alone, at `path`, that does not wait for locks."""
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
