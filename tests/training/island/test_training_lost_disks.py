"""Real islands whose disk is lost, or whose peers have no room: killed, started again, checked."""

import shutil

import msgspec
import pytest

from argosy.fleet.runs import Checkpoints
from tests.training.syncer.running_run import RunningRun, a_run


@pytest.fixture
def kept_run(tmp_path):
    made = []

    def make(every_s, **changes):
        run = a_run(blocks=12_000, **changes)
        run = msgspec.structs.replace(run, checkpoints=Checkpoints(every_s=every_s, keep=1000))
        running = RunningRun(tmp_path, run)
        made.append(running)
        running.syncer().wait_for(lambda event: "url" in event)
        return running

    yield make
    for running in made:
        running.close()


def is_event(name):
    return lambda event: event.get("event") == name


@pytest.mark.parametrize("is_torn", [False, True])
def test_after_a_kill_and_a_lost_disk_the_optimizer_comes_back_from_a_peer(kept_run, is_torn):
    running = kept_run(every_s=0.5)
    bob = running.island("bob")
    ann = running.island("ann")
    bob.wait_for(is_event("joined"))
    ann.wait_for(is_event("copied"))
    ann.kill()
    folder = running.folder / "island-ann"
    aside = running.folder / "aside"
    folder.rename(aside)
    if is_torn:
        shutil.copytree(aside, folder)
        for path in folder.glob("*/state.npy"):
            path.write_bytes(path.read_bytes()[:-1])
    rare = msgspec.structs.replace(running.run, checkpoints=Checkpoints(every_s=1.5, keep=1000))
    again = running.island("ann", run=rare)
    restored = again.wait_for(is_event("restored"))
    label = restored["label"]
    assert restored["peer"] == "bob"
    for name in ("state.npy", "steps"):
        assert (folder / label / name).read_bytes() == (aside / label / name).read_bytes()
    copied = again.wait_for(is_event("copied"))["label"]
    before = int((aside / label / "steps").read_text())
    assert before > 0
    # the label counts this process's steps, the optimizer all that it took
    now = int((folder / copied / "steps").read_text())
    assert now == before + int(copied.partition("-")[2])
    assert copied > label


def test_an_island_without_room_for_copies_leaves_the_others_training(kept_run):
    running = kept_run(every_s=0.3)
    bob = running.island("bob", copies_bytes_max=1000)
    ann = running.island("ann")
    refused = ann.wait_for(is_event("copy refused"))
    assert refused["free"] == 1000
    seen = ann.count("accepted")
    ann.wait_for(lambda _: ann.count("accepted") > seen + 1)
    assert ann.count("copied") == 0
    bob.wait_for(is_event("copied"))
    ann.kill()
    for path in (running.folder / "island-ann").iterdir():
        (path / "state.npy").write_bytes(b"torn")
    again = running.island("ann")
    again.wait_for(is_event("accepted"))
    assert again.count("restored") == 0
