"""One run per state folder, whatever happened to the one before."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from argosy.fleet.messages import RunFile
from argosy.launchers.lock import AlreadyRunningError, RunLock

HOLDS = """
import pathlib, subprocess, sys
from argosy.launchers.lock import RunLock
RunLock(pathlib.Path(sys.argv[1])).acquire()
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    first = RunLock(tmp_path)
    first.acquire()
    run = RunFile(pid=4711, started_at_s=0, gateway_url="http://127.0.0.1:8000", operator_token="t")
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(run))
    with pytest.raises(
        AlreadyRunningError, match=r"pid 4711, gateway http://127\.0\.0\.1:8000"
    ) as told:
        RunLock(tmp_path).acquire()
    assert "--state DIR" in str(told.value)
    first.release()
    first.release()
    second = RunLock(tmp_path)
    second.acquire()
    second.release()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_a_run_file_that_cannot_be_read_does_not_hide_the_holder(
    tmp_path: Path, content: bytes | None
) -> None:
    first = RunLock(tmp_path / "state")
    first.acquire()
    if content is not None:
        (tmp_path / "state" / "run.json").write_bytes(content)
    with pytest.raises(AlreadyRunningError, match="already runs"):
        RunLock(tmp_path / "state").acquire()
    first.release()


def test_a_killed_holder_holds_nothing_even_when_its_children_live(tmp_path: Path) -> None:
    holding = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        with pytest.raises(AlreadyRunningError):
            RunLock(tmp_path).acquire()
        holder.kill()
    os.kill(child, 0)  # it lives
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.release()
    os.kill(child, 9)
