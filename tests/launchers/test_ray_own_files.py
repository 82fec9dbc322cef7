"""Files that a program on a node is sent: whose they are, and that none outlives it."""

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from argosy.launchers.ray.child import Child
from argosy.launchers.ray.own_files import OwnFiles

SHOWS = """import json, pathlib, sys, time
own = pathlib.Path(sys.argv[1])
told = [sys.argv[2], own.joinpath("a/secret").read_text()]
print(json.dumps({"url": " ".join(told)}), flush=True)
time.sleep(60)
"""


def until_it_is(child: Child, state: str) -> None:
    deadline_s = time.monotonic() + 30
    while (said := child.describe()).state != state:
        assert time.monotonic() < deadline_s, said
        child.next_description(said.version, 1.0)


def test_it_is_started_with_its_files_which_are_its_own_and_end_with_it(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", SHOWS, "{files}", "{folder}")
    child = Child("i-1", argv, {}, folder=tmp_path, host="127.0.0.1", awaits_files=True)
    assert child.describe().pid is None
    child.take_files({"a/secret": b"x"})
    until_it_is(child, "listening")
    assert child.describe().url == f"{tmp_path} x"
    (secret,) = tmp_path.glob("files/*/a/secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    folders = (secret.parent, secret.parent.parent, tmp_path / "files")
    assert {stat.S_IMODE(one.stat().st_mode) for one in folders} == {0o700}
    child.take_files({"a/secret": b"y"})
    assert secret.read_text() == "y"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    child.stop(5)
    assert list((tmp_path / "files").iterdir()) == []
    child.take_files({"a/secret": b"z"})
    assert list((tmp_path / "files").iterdir()) == []


def test_one_that_is_stopped_before_its_files_come_is_never_started(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", "print('no')")
    child = Child("i-1", argv, {}, folder=tmp_path, host="127.0.0.1", awaits_files=True)
    child.stop(5)
    assert "never started" in child.describe().detail


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../out", ""])
def test_no_file_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    own = OwnFiles(tmp_path / "files", "i-1")
    own.make()
    with pytest.raises(OSError, match="no file of its own folder"):
        own.put({name: b"x"})


def test_files_of_an_actor_that_is_gone_are_removed_and_those_of_other_hosts_stay(
    tmp_path: Path,
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    names = (f"a.{gone.pid}@{host}", f"b.{os.getpid()}@{host}", f"c.{gone.pid}@elsewhere.example")
    for name in names:
        (tmp_path / name).mkdir()
    OwnFiles(tmp_path, "i-1")
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(names[1:])
