"""How an island ends before its run does: told to leave, stopped, or wrong for good."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from argosy.fleet.runs import Optimizer
from argosy.store import runs
from argosy.training.credentials import folder_of
from argosy.training.island.launched import REFUSED
from argosy.training.island.link import Link
from argosy.training.island.loop import DivergedError, IslandLoop, Setting
from argosy.training.island.process import DIVERGED
from argosy.training.island.reference import ReferenceInner, ReferenceSource
from tests.training.syncer.running_run import VOCABULARY, a_run

LONG = 100_000  # steps of a lease: half an hour of training


class WrongInner(ReferenceInner):
    """Of a chip whose memory gives back other values than were put there."""

    def parameters(self):
        return super().parameters() + 1e3


class TurningInner(ReferenceInner):
    """Of a chip that turns the sign of all that a step changes."""

    def step(self, blocks, *, share_done):
        before = self.parameters()
        report = super().step(blocks, share_done=share_done)
        self.set_parameters(2 * before - self.parameters())
        return report


def trains(event):
    return event.get("event") == "step"


def open_leases(running):
    return running.read(runs.leases_of, state="open")


@pytest.mark.parametrize("is_by_ctrl_c", [False, True])
def test_a_stop_is_obeyed_at_the_next_step_and_frees_the_lease(start, is_by_ctrl_c):
    running = start(a_run(blocks=4 * 10 * LONG, inner_steps=LONG))
    syncer, ann = running.syncer(), running.island("ann")
    ann.wait_for(trains)
    assert open_leases(running)[0].blocks >= 4 * LONG / 10
    running.read(runs.set_wanted, "stopped")
    if is_by_ctrl_c:  # `argosy train` then also tells its islands to leave
        ann.process.send_signal(signal.SIGTERM)
    assert (ann.end(), syncer.end()) == (0, 0)
    assert ann.outcome["state"] == ("left" if is_by_ctrl_c else "stopped")
    assert 0 < ann.outcome["lost_steps"] == ann.outcome["steps"] < LONG / 10
    assert [event["why"] for event in ann.events if event["event"] == "lost"] == [
        "the run was stopped"
    ]
    assert open_leases(running) == []
    record = running.check_books()[0]
    assert (record.state, record.blocks_done) == ("stopped", 0)


def test_one_word_to_leave_is_obeyed_after_the_lease(start):
    running = start(a_run(blocks=100_000))
    syncer, ann = running.syncer(), running.island("ann")
    ann.wait_for(trains)
    ann.process.send_signal(signal.SIGTERM)
    assert ann.end() == 0
    assert (ann.outcome["state"], ann.outcome["lost_steps"]) == ("left", 0)
    assert ann.outcome["blocks"] == 4 * ann.outcome["steps"] > 0
    assert syncer.process.poll() is None
    assert open_leases(running) == []


def test_the_second_word_to_leave_is_obeyed_at_the_next_step(start):
    running = start(a_run(blocks=4 * 10 * LONG, inner_steps=LONG))
    running.syncer()
    ann = running.island("ann")
    ann.wait_for(trains)
    ann.process.send_signal(signal.SIGTERM)
    ann.process.send_signal(signal.SIGINT)
    assert ann.end() == 0
    assert ann.outcome["state"] == "left"
    assert 0 < ann.outcome["lost_steps"] == ann.outcome["steps"] < LONG / 10
    assert open_leases(running) == []


def test_an_island_that_waits_for_its_syncer_leaves_at_once(start):
    running = start(a_run())
    ann = running.island("ann")
    ann.wait_for(lambda event: event.get("event") == "started")
    while not catches(ann.process.pid, signal.SIGTERM):  # before that, one would just kill it
        time.sleep(0.01)
    ann.process.send_signal(signal.SIGTERM)
    assert ann.end() == 0, ann.tail()


def catches(pid, number):
    """Whether that process has its own way with that signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(mask >> (number - 1) & 1)


@pytest.mark.parametrize("wrong", [WrongInner, TurningInner])
def test_a_chip_that_is_wrong_for_good_ends_though_each_delta_was_accepted(start, wrong):
    running = start(a_run(blocks=1_000_000, islands=("ann", "bob", "cat")))
    running.syncer()
    ann, cat = running.island("ann"), running.island("cat")
    ann.wait_for(lambda event: event.get("version", 0) >= 4)  # it is known what is usual
    said = []
    link = Link(running.url, folder_of(running.credentials, "island", "bob"))
    bob = IslandLoop(
        wrong(running.run, vocabulary=VOCABULARY, step_s=0.01),
        ReferenceSource(running.run, vocabulary=VOCABULARY),
        link,
        Setting(run=running.run, island="bob"),
        say=said.append,
    )
    try:
        with pytest.raises(DivergedError, match="bob began anew from the newest version 4 times"):
            bob.run()
    finally:
        link.close()
    assert sum(event["event"] == "joined" for event in said) == 4
    assert sum(event["event"] == "accepted" for event in said) >= 3
    newest = max(event.get("version", 0) for event in ann.events)
    ann.wait_for(lambda event: event.get("version", 0) >= newest + 2)  # all of bob's are judged
    running.read(runs.set_wanted, "stopped")
    assert (ann.end(), cat.end()) == (0, 0)
    running.check_books()
    of_bob = [one for one in running.read(runs.contributions_of) if one.island == "bob"]
    kinds = ("senseless", "against", "turned")
    first_refused = min(one.version for one in of_bob if one.reason.startswith(kinds))
    # Before that there may have been a round of it alone, with nothing to compare with.
    assert all(one.version < first_refused for one in of_bob if one.state == "merged")


def test_an_island_that_diverges_says_by_its_status_that_another_try_is_no_use(start):
    hot = Optimizer(lr=1e30, clip_norm=1e30)
    running = start(msgspec.structs.replace(a_run(blocks=1_000_000), optimizer=hot))
    running.syncer()
    ann = running.island("ann")
    assert ann.end() == DIVERGED
    assert "Lower optimizer.lr, or replace the chip" in ann.tail()
    spec = str(running.folder / "ann-1.json")
    program = (
        "import sys; from argosy.training.island.launched import train; exit(train(sys.argv[1]))"
    )
    kept = subprocess.run([sys.executable, "-c", program, spec], capture_output=True, check=False)
    assert kept.returncode == REFUSED, kept.stderr.decode()
