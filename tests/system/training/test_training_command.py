"""`argosy train` and `argosy runs` with real processes: runs that finish, and that stop."""

import json
import os
import signal
import subprocess
import sys

import pytest
from training_process import (
    check_alike,
    check_books,
    read,
    run_argosy,
    write_run,
)

from argosy.store import runs


def test_a_run_finishes_and_its_pages_tell_of_it(train, state, tmp_path):
    process = train(steps=120, step_s=0.005)
    assert process.wait_exit() == 0, process.said
    assert "finished. Make a model of it: argosy runs export tried" in process.said
    check_books(state)
    check_alike(state)
    listed = json.loads(run_argosy(state, "runs", "list", "--json").stdout)
    assert [(one["run"], one["state"], one["share_done"]) for one in listed] == [
        ("tried", "finished", 1.0)
    ]
    shown = json.loads(run_argosy(state, "runs", "show", "tried", "--json").stdout)
    assert shown["goodput"] == 1.0
    assert shown["loss_validation"] > 0
    assert sum(one["tokens_done"] for one in shown["islands"]) == shown["tokens"]
    curve = run_argosy(state, "runs", "curve", "tried", "--plot", tmp_path / "loss.png")
    assert curve.returncode == 0, curve.stderr
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    lines = run_argosy(state, "runs", "curve", "tried").stdout.splitlines()
    assert lines[0] == "kind,island,round,tokens,seconds,loss"
    assert {line.split(",")[0] for line in lines[1:]} == {"training", "validation"}
    again = run_argosy(state, "runs", "resume", "tried")
    assert again.returncode == 1
    assert "is finished" in again.stderr
    assert run_argosy(state, "runs", "forget", "tried", "--yes").returncode == 0
    assert not (state / "runs" / "tried").exists()
    assert "there is no run" in run_argosy(state, "runs", "show", "tried").stderr


def test_ctrl_c_stops_a_run_and_it_goes_on_with_three_islands(train, command, state, tmp_path):
    process = train(steps=600)
    process.wait_done(0.1)
    process.interrupt()
    assert process.wait_exit() == 0, process.said
    assert "stopped; what was counted is kept. Go on: argosy runs resume tried" in process.said
    assert read(state, runs.read_run).state == "stopped"
    assert not read(state, lambda engine, run: runs.leases_of(engine, run, state="open"))
    file = write_run(tmp_path / "three.yaml", steps=600, islands=("ann", "bob", "cid"))
    again = command("runs", "resume", "tried", file)
    assert again.wait_exit() == 0, again.said
    check_books(state)
    shown = json.loads(run_argosy(state, "runs", "show", "tried", "--json").stdout)
    done = {one["island"]: one["tokens_done"] for one in shown["islands"]}
    assert done["cid"] > 0


@pytest.mark.slow
def test_a_run_is_stopped_from_elsewhere_and_goes_on_with_one_island(
    train, command, state, tmp_path
):
    process = train(steps=1200, step_s=0.03)
    process.wait_done(0.02)
    stopped = run_argosy(state, "runs", "stop", "tried")
    assert stopped.returncode == 0, stopped.stderr + process.said
    assert process.wait_exit() == 0
    assert read(state, runs.read_run).state == "stopped"
    other = write_run(tmp_path / "other.yaml", steps=700, islands=("ann",))
    refused = run_argosy(state, "runs", "resume", "tried", other)
    assert refused.returncode == 1
    assert "has another tokens than run tried was begun with" in refused.stderr
    file = write_run(tmp_path / "one.yaml", steps=1200, islands=("bob",))
    again = command("runs", "resume", "tried", file)
    assert again.wait_exit() == 0, again.said
    check_books(state)


def test_an_island_joins_from_elsewhere_by_its_spec_and_certificate(command, state, tmp_path):
    file = write_run(tmp_path / "run.yaml", steps=900, islands=("ann", "bob"))
    process = command(
        "train", file, "--inner", "reference", "--step-s", "0.03", "--elsewhere", "bob"
    )
    process.wait_done(0.02)
    assert process.child("bob") is None
    spec = state / "runs" / "tried" / "island-bob.json"
    assert f"bob: python -m argosy.training.island {spec}" in process.said
    bob = subprocess.Popen(
        [sys.executable, "-m", "argosy.training.island", str(spec)], stdout=subprocess.PIPE
    )
    try:
        out, _ = bob.communicate(timeout=90)
    finally:
        bob.kill()
    assert bob.returncode == 0
    assert json.loads(out.splitlines()[-1])["blocks"] > 0
    assert process.wait_exit() == 0, process.said
    check_books(state)


def test_a_name_is_taken_once_and_a_run_is_kept_by_one_supervisor(train, command, state, tmp_path):
    process = train(steps=2000)
    process.wait_done(0.01)
    file = write_run(tmp_path / "again.yaml", steps=100, islands=("ann",))
    taken = run_argosy(state, "train", file, "--inner", "reference")
    assert taken.returncode == 1
    assert "a run tried is there already, training at" in taken.stderr
    second = run_argosy(state, "runs", "resume", "tried")
    assert second.returncode == 1
    assert f"is trained already, by pid {process.process.pid}" in second.stderr
    assert "Stop it first" in run_argosy(state, "runs", "forget", "tried", "--yes").stderr
    os.killpg(process.process.pid, signal.SIGINT)
    process.wait_until(lambda: "stopping:" in process.said)
    os.killpg(process.process.pid, signal.SIGINT)  # at once
    assert process.wait_exit(20) == 0
