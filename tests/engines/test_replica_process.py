"""What every replica's program promises its launcher, with the real programs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec
import pytest
from real_replica import command, is_gone, running

from argosy.fleet.config import LlamaCppEngine, SimulatedEngine
from argosy.fleet.messages import Command

ORPHAN = Path(__file__).parent / "orphan.py"
ENGINES = {
    "llama.cpp": LlamaCppEngine(context_tokens=512, slots=1),
    "simulated": SimulatedEngine(),
}


@pytest.fixture(params=ENGINES)
def started(request: pytest.FixtureRequest, weights: Path) -> Command:
    return command(ENGINES[request.param], weights)


def orphan(started: Command, when: str) -> tuple[subprocess.Popen[bytes], int]:
    """A parent and the pid of the replica that it started."""
    parent = subprocess.Popen(
        [sys.executable, str(ORPHAN), msgspec.json.encode(started).decode(), when],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def kill(parent: subprocess.Popen[bytes]) -> None:
    parent.kill()
    parent.wait()
    assert parent.stdout is not None
    parent.stdout.close()


@pytest.mark.parametrize("when", ["listening", "starting"])
def test_a_replica_dies_with_its_parent(started: Command, when: str) -> None:
    parent, pid = orphan(started, when)
    kill(parent)
    assert is_gone(pid, within_s=5)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_stopped_replica_dies_with_its_parent(started: Command) -> None:
    parent, pid = orphan(started, "listening")
    os.kill(pid, signal.SIGSTOP)
    kill(parent)
    assert is_gone(pid, within_s=5)


def test_a_replica_ignores_ctrl_c_and_ends_by_sigterm(started: Command) -> None:
    with running(started) as (process, url):
        process.send_signal(signal.SIGINT)
        assert httpx.get(f"{url}/health").status_code == 200
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM


def test_a_replica_prints_one_line_on_stdout_and_ends_with_its_stdin(started: Command) -> None:
    done = subprocess.Popen(
        started.argv,
        env={**os.environ, **started.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with done:
        assert done.stdout is not None
        assert done.stdin is not None
        line = done.stdout.readline()
        httpx.post(f"{json.loads(line)['url']}/v1/chat/completions", content=b"{")
        done.stdin.close()
        assert done.stdout.read() == b""
        assert done.wait(5) == 0
