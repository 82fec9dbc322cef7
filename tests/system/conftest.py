"""Fleets for the tests of the whole: one that all share, and new ones for those that break things.

Whatever a test leaves running is killed when it ends.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anthropic
import openai
import pytest
from fleet_process import FleetProcess

StartFleet = Callable[..., FleetProcess]


@pytest.fixture(scope="session")
def fleet(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """The embedded fleet, both replicas ready. Not to be broken."""
    running = FleetProcess(tmp_path_factory.mktemp("fleet") / "state", "--port", "0")
    try:
        yield running.wait_ready()
    finally:
        running.kill()


@pytest.fixture
def start_fleet(weights: Path, tmp_path: Path) -> Iterator[StartFleet]:
    """Starts a fleet on the test's own state folder: `start_fleet("fleet.yaml", state=...)`."""
    started: list[FleetProcess] = []

    def start(
        *arguments: str | Path, state: Path | None = None, port: int = 0, **options
    ) -> FleetProcess:
        where = state or tmp_path / "state"
        started.append(FleetProcess(where, *arguments, "--port", str(port), **options))
        return started[-1]

    yield start
    for running in started:
        running.kill()


@pytest.fixture
def openai_client(fleet: FleetProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{fleet.url}/v1", api_key=fleet.key, max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(fleet: FleetProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=fleet.url, api_key=fleet.key, max_retries=0) as client:
        yield client


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tells a measured time: to whoever runs pytest with -s, and in a JUnit report."""

    def tell(line: str) -> None:
        record_property("measured", line)
        sys.stderr.write(f"{line}\n")

    return tell
