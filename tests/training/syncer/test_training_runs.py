"""Whole runs with real processes over TLS: killed islands, a killed syncer, an ended disk."""

import hashlib
import json
import random
import time

import numpy as np
import pytest

from argosy.store import runs
from argosy.training.island.reference import ReferenceSource
from tests.store.running_postgresql import shared_postgresql
from tests.training.syncer.running_run import VOCABULARY, a_run

pytestmark = pytest.mark.timeout(400)  # a few seconds where nothing else runs


def seen_by(run, spans):
    source = ReferenceSource(run, vocabulary=VOCABULARY)
    seen = hashlib.sha256()
    for start, stop in spans:
        for at in range(start, stop, run.batch_blocks):
            seen.update(source.read(at, at + run.batch_blocks).astype("<u4").tobytes())
    return seen.hexdigest()


def check_end(running, islands):
    """All ended well, with equal parameters, and the ledger proves what was trained on."""
    for island in islands:
        assert island.end() == 0, island.tail()
        assert island.outcome["state"] == "finished"
    assert len({island.outcome["published_sha256"] for island in islands}) == 1
    record, counted, leases = running.check_books()
    assert record.state == "finished"
    assert {one.state for one in counted} == {"merged"}
    for one in counted[:: max(1, len(counted) // 5)]:
        assert one.tokens_sha256 == seen_by(running.run, leases[one.lease].spans)
    final = json.loads((running.folder / "syncer" / "final" / "parameters.json").read_bytes())
    vector = np.fromfile(running.folder / "syncer" / "final" / "parameters.f32", "<f4")
    assert final["version"] == record.version
    assert final["sha256"] == islands[0].outcome["published_sha256"]
    assert hashlib.sha256(vector.data).hexdigest() == final["sha256"]
    return record


def lost_by_the_stop_alone(island):
    """An operator's stop gives up the lease under way, and nothing else."""
    lost = [event for event in island.events if event.get("event") == "lost"]
    assert sum(event["steps"] for event in lost) == island.outcome["lost_steps"]
    return {event["why"] for event in lost} <= {"the run was stopped"}


def test_two_unlike_islands_train_every_block_once_and_end_equal(start):
    running = start(a_run(blocks=400, slowdowns=(1.0, 3.0)))
    syncer = running.syncer()
    islands = [running.island("ann"), running.island("bob")]
    check_end(running, islands)
    assert syncer.end() == 0, syncer.tail()
    rows = running.read(runs.islands_of)
    assert sum(row.blocks_done for row in rows) == running.run.blocks
    assert [row.state for row in rows] == ["left", "left"]
    losses = [p.loss for p in running.read(runs.points_of) if p.kind == "validation"]
    assert losses[-1] < losses[0]


def test_an_island_that_is_killed_and_relaunched_is_counted_again_and_others_lose_nothing(start):
    running = start(a_run(blocks=100_000))
    running.syncer()
    ann, bob = running.island("ann"), running.island("bob")
    bob.wait_for(lambda event: event.get("event") == "accepted" and event["number"] >= 2)
    bob.kill()
    again = running.island("bob")
    again.wait_for(lambda event: event.get("event") == "accepted")
    joined = again.wait_for(lambda event: event.get("event") == "joined")
    assert joined["epoch"] == 2
    assert joined["version"] > 0, "it began with the newest version, not with its own"
    again.wait_for(lambda event: event.get("version", 0) > joined["version"])
    running.read(runs.set_wanted, "stopped")
    assert (ann.end(), again.end()) == (0, 0)
    running.check_books()
    assert lost_by_the_stop_alone(ann)
    assert ann.outcome["refused"] == 0


def test_a_syncer_that_is_killed_in_the_middle_of_rounds_loses_and_doubles_nothing(start):
    running = start(a_run(blocks=800, slowdowns=(1.0, 2.0), staleness_max=6))
    syncer = running.syncer()
    ann, bob = running.island("ann"), running.island("bob")
    chance = random.Random(7)
    for number in range(1, 4):
        ann.wait_for(lambda event, at=number: event.get("version", 0) >= 2 * at)
        time.sleep(chance.random() * 0.2)
        syncer.kill()
        syncer = running.syncer()
    check_end(running, [ann, bob])
    assert syncer.end() == 0, syncer.tail()
    for island in (ann, bob):
        assert island.outcome["lost_steps"] == 0
        assert island.outcome["lives"] == 1


def test_a_second_syncer_of_the_run_is_refused_and_does_no_harm(start):
    running = start(a_run(blocks=100_000))
    syncer = running.syncer()
    ann = running.island("ann")
    ann.wait_for(lambda event: event.get("event") == "version")
    same = running.syncer(port=0)
    assert same.end() == 1
    assert "another syncer of this host uses" in same.tail()
    elsewhere = running.syncer(port=0, folder=str(running.folder / "elsewhere"))
    assert elsewhere.end() == 1
    assert "another syncer has the run" in elsewhere.tail()
    running.read(runs.set_wanted, "stopped")
    assert (ann.end(), syncer.end()) == (0, 0)
    assert lost_by_the_stop_alone(ann)
    running.check_books()


def test_a_run_whose_ledger_is_in_postgresql_survives_a_killed_syncer(start):
    postgresql = shared_postgresql()
    if postgresql is None:
        pytest.skip("PostgreSQL is not installed")
    running = start(a_run(blocks=400, staleness_max=6), store=postgresql.fresh_url())
    syncer = running.syncer()
    islands = [running.island("ann"), running.island("bob")]
    islands[0].wait_for(lambda event: event.get("version", 0) >= 2)
    syncer.kill()
    syncer = running.syncer()
    check_end(running, islands)
    assert syncer.end() == 0, syncer.tail()


@pytest.mark.slow
def test_a_run_is_stopped_by_an_operators_word_and_goes_on_later(start):
    running = start(a_run(blocks=2400))
    syncer = running.syncer()
    ann = running.island("ann")
    ann.wait_for(lambda event: event.get("event") == "version")
    running.read(runs.set_wanted, "stopped")
    assert ann.end() == 0
    assert ann.outcome["state"] == "stopped"
    assert lost_by_the_stop_alone(ann)
    assert syncer.end() == 0
    before = running.read(runs.read_run)
    assert before.state == "stopped"
    assert 0 < before.blocks_done < 2400
    assert running.syncer().end() == 1, "it is stopped"

    running.read(runs.set_wanted, "training")
    running.syncer()
    ann = running.island("ann")
    joined = ann.wait_for(lambda event: event.get("event") == "joined")
    assert joined["version"] == before.version
    check_end(running, [ann])
