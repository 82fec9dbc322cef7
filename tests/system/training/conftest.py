"""Training runs for the tests; whatever one leaves running is killed when it ends."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from training_process import TrainingProcess, write_run

StartRun = Callable[..., TrainingProcess]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def command(state: Path) -> Iterator[StartRun]:
    """Starts a command on the test's state folder."""
    started: list[TrainingProcess] = []

    def start(*arguments: str | Path) -> TrainingProcess:
        started.append(TrainingProcess(state, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def train(command: StartRun, tmp_path: Path) -> StartRun:
    """Starts a run of reference islands: `train(steps=400, step_s=0.02)`."""

    def start(*, steps: int, step_s: float = 0.02, islands=("ann", "bob")) -> TrainingProcess:
        file = write_run(tmp_path / "run.yaml", steps=steps, islands=islands)
        return command("train", file, "--inner", "reference", "--step-s", str(step_s))

    return start
