"""A replica's process on a node without Ray: its ties to its parent, and the orphans' end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from argosy.fleet.launchers import RayLauncher
from argosy.launchers.ray.child import Child
from argosy.launchers.ray.orphans import reap
from argosy.launchers.ray.resources import UnknownResourceError, resources_of

HANGS = "import time; time.sleep(60)"
LISTENS = """import time
print('{"url": "http://127.0.0.1:7"}', flush=True)
time.sleep(60)
"""
BOUND = """import sys, time
print('{"url": "http://%s:7"}' % sys.argv[1], flush=True)
time.sleep(60)
"""
# An actor whose replica has a child of its own that no parent-death signal reaches.
ACTOR = f"""
import sys, time
from pathlib import Path
from argosy.launchers.ray.child import Child
inner = "import time; time.sleep(60)"
program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', " + repr(inner) + "])"
Child("r-1", (sys.executable, "-c", program + chr(10) + {LISTENS!r}), {{}},
      folder=Path(sys.argv[1]), host="127.0.0.1")
time.sleep(60)
"""


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_its_url_is_that_of_its_node(tmp_path: Path) -> None:
    child = Child("r/1", (sys.executable, "-c", LISTENS), {}, folder=tmp_path, host="10.0.0.9")
    until(lambda: child.describe().state == "listening")
    said = child.describe()
    assert said.url == "http://10.0.0.9:7"
    assert child.next_description(said.version, 0.01) == said
    child.stop(5)
    assert child.describe().state == "ended"
    assert child.describe().detail == "killed by SIGTERM"
    assert list((tmp_path / "records").iterdir()) == []
    assert (tmp_path / "logs" / "r%2F1.log").exists()


@pytest.mark.parametrize("bound", ["{host}", "0.0.0.0"])
def test_it_may_be_told_where_to_listen(bound: str, tmp_path: Path) -> None:
    command = (sys.executable, "-c", BOUND, bound)
    child = Child("r-1", command, {}, folder=tmp_path, host="10.0.0.9")
    until(lambda: child.describe().state == "listening")
    assert child.describe().url == "http://10.0.0.9:7"
    child.stop(5)


def test_what_cannot_be_run_says_so(tmp_path: Path) -> None:
    child = Child("r-1", ("/nowhere/engine",), {}, folder=tmp_path, host="127.0.0.1")
    until(lambda: child.describe().state == "ended")
    assert "/nowhere/engine cannot be run" in child.describe().detail
    assert "exited with status 1 before it listened" in child.describe().detail


def test_one_stopped_before_it_is_started_never_is(tmp_path: Path) -> None:
    child = Child("r-1", (sys.executable, "-c", HANGS), {}, folder=tmp_path, host="127.0.0.1")
    child.stop(5)
    assert child.describe().state == "ended"


def test_it_dies_with_its_actor_and_its_own_children_with_the_next_one(tmp_path: Path) -> None:
    actor = subprocess.Popen([sys.executable, "-c", ACTOR, str(tmp_path)])
    records = tmp_path / "records"
    until(lambda: records.is_dir() and any(records.glob("*.json")))
    (record,) = records.glob("*.json")
    leader = psutil.Process(int(record.name.split(".")[-2]))
    until(lambda: len(leader.children()) == 1)
    (grandchild,) = leader.children()
    assert reap(records) == [], "its actor lives"
    os.kill(actor.pid, signal.SIGKILL)
    actor.wait(10)
    until(lambda: is_gone(leader))
    assert not is_gone(grandchild)
    (said,) = reap(records)
    assert "killed r-1" in said
    until(lambda: is_gone(grandchild))
    assert reap(records) == []


def test_a_record_that_cannot_be_read_kills_nobody(tmp_path: Path) -> None:
    (tmp_path / "r.1.json").write_text("{")
    (said,) = reap(tmp_path)
    assert "not a replica's record" in said


@pytest.mark.parametrize(
    ("chip", "maker", "name", "per_chip", "label"),
    [
        ("H100-SXM", "NVIDIA", "GPU", 1, "H100"),
        ("MI300X", "AMD", "GPU", 1, "AMD-Instinct-MI300X-OAM"),
        ("TPU-v6e", "Google", "TPU", 1, None),
        ("Trainium2", "AWS", "neuron_cores", 4, None),
        ("CPU-x86", "generic", None, 1, None),
        (None, None, None, 1, None),
    ],
)
def test_each_maker_s_chips_have_ray_s_name(
    chip: str | None, maker: str | None, name: str | None, per_chip: float, label: str | None
) -> None:
    launcher = RayLauncher(address="head:6379", labels={"pool": "p"})
    asked = resources_of(launcher, chip=chip, maker=maker)
    assert (asked.name, asked.per_chip) == (name, per_chip)
    more = {"ray.io/accelerator-type": label} if label else {}
    assert asked.labels == {"pool": "p", **more}


def test_chips_that_ray_does_not_know_need_a_resource_of_the_file() -> None:
    launcher = RayLauncher(address="head:6379")
    with pytest.raises(UnknownResourceError, match=r"launcher\.resource: Maia-200"):
        resources_of(launcher, chip="Maia-200", maker="Microsoft")
    named = RayLauncher(address="head:6379", resource="MAIA")
    assert resources_of(named, chip="Maia-200", maker="Microsoft").name == "MAIA"
