"""Starts a replica's program as a launcher would, for the tests of this folder."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from argosy.engines.registry import adapter
from argosy.fleet.config import EngineConfig, Model
from argosy.fleet.messages import Command

MODEL = Model(name="smollm2-135m")


def command(config: EngineConfig, weights: Path | None = None) -> Command:
    made = adapter(config).command(config, model=MODEL, weights=weights, threads=1)
    assert made is not None
    return made


@contextlib.contextmanager
def running(started: Command) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process and its URL; the end of its stdin ends it."""
    with subprocess.Popen(
        started.argv,
        env={**os.environ, **started.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process, json.loads(process.stdout.readline())["url"]
        process.stdin.close()
        process.wait(10)


def is_gone(pid: int, *, within_s: float) -> bool:
    """True when the process ends in time; an orphan that nobody reaps has ended too."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False
