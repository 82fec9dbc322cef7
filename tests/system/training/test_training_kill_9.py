"""`argosy train` with real processes: an island, the syncer or the command itself is killed."""

import time

from training_process import (
    check_alike,
    check_books,
    done_share,
    lives,
    run_argosy,
)


def test_a_killed_island_comes_back_and_no_block_is_lost_or_counted_twice(train, state):
    process = train(steps=600)
    process.wait_done(0.1)
    first = process.wait_child("ann")
    first.kill()
    process.wait_child("ann", other_than=first.pid)
    assert process.wait_exit() == 0, process.said
    assert "island-ann killed by SIGKILL; started again" in process.said
    check_books(state)
    check_alike(state)
    shown = run_argosy(state, "runs", "show", "tried").stdout
    assert lives(shown, "ann") == 2
    assert lives(shown, "bob") == 1


def test_a_killed_syncer_comes_back_and_islands_go_on(train, state):
    process = train(steps=600)
    process.wait_done(0.1)
    islands = [process.wait_child(name).pid for name in ("ann", "bob")]
    syncer = process.wait_child("syncer")
    syncer.kill()
    process.wait_child("syncer", other_than=syncer.pid)
    process.wait_done(min(1.0, done_share(state) + 0.1))
    assert [process.wait_child(name).pid for name in ("ann", "bob")] == islands
    assert process.wait_exit() == 0, process.said
    check_books(state)
    check_alike(state)


def test_a_killed_supervisor_takes_its_children_along_and_the_run_is_resumed(train, command, state):
    process = train(steps=600)
    process.wait_done(0.1)
    children = process.kill()
    until_s = time.monotonic() + 30
    while any(one.is_running() for one in children):
        assert time.monotonic() < until_s, children
        time.sleep(0.05)
    before = done_share(state)
    assert 0.1 <= before < 1
    assert "interrupted" in run_argosy(state, "runs", "list").stdout
    again = command("runs", "resume", "tried")
    assert again.wait_exit() == 0, again.said
    check_books(state)
    check_alike(state)
