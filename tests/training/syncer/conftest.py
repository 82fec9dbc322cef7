"""Runs that end with their test."""

import pytest

from tests.training.syncer.running_run import RunningRun


@pytest.fixture
def start(tmp_path):
    """A function that makes a run in a folder of its own."""
    made = []

    def start_one(run, name="run", **changes):
        running = RunningRun(tmp_path / name, run, **changes)
        made.append(running)
        return running

    yield start_one
    for running in made:
        running.close()
