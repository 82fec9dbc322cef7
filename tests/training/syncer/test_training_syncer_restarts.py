"""A syncer that is killed anywhere comes to the same bits as its twin that never was."""

import hashlib
import random
import time

import numpy as np
import pytest

from argosy.store import runs
from argosy.training.credentials import folder_of
from argosy.training.inner import Tensor
from argosy.training.island.fragments import named, sha256_of
from argosy.training.island.link import Link
from argosy.training.outer.codec import encode
from argosy.training.outer.parameters import ParameterMap
from argosy.training.wire import (
    WIRE_VERSION,
    Accepted,
    Beat,
    Contribution,
    Join,
    Leave,
    Parameters,
    Seed,
)
from tests.training.syncer.running_run import a_run

TENSORS = (Tensor(name="w", shape=(50, 60)),)


class Driver:
    """An island whose deltas are written down beforehand."""

    def __init__(self, running):
        self.run = running.run
        self.link = Link(running.url, folder_of(running.credentials, "island", "ann"))
        self.map = ParameterMap(TENSORS, self.run.outer.fragment_bytes_max)
        self.chance = np.random.default_rng(3)
        self.number = 0

    def join(self):
        joined = self.link.join(
            Join(
                wire_version=WIRE_VERSION,
                island="ann",
                run=self.run.run,
                tensors_sha256=self.map.tensors_sha256,
                steps_per_s=None,
                version=None,
            )
        )
        self.epoch = joined.epoch
        vector = np.random.default_rng(1).normal(size=self.map.values).astype(np.float32)
        pairs = named(self.map, vector)
        seed = Seed(
            island="ann",
            epoch=self.epoch,
            tensors=TENSORS,
            fragments=tuple(name for name, _ in pairs),
        )
        answer = self.link.seed(seed, {name.sha256: content for name, content in pairs})
        assert isinstance(answer, Parameters)
        assert answer.version == 0

    def lease(self):
        while True:
            beaten = self.link.beat(
                Beat(
                    island="ann",
                    epoch=self.epoch,
                    version=self.number,
                    steps_per_s=100.0,
                    loss=1.0,
                    waited_s=0.0,
                    wants_lease=True,
                )
            )
            if beaten.lease is not None:
                return beaten.lease
            time.sleep(0.02)

    def contribution(self, lease):
        delta = self.chance.normal(size=self.map.values).astype(np.float32)
        parts = [encode(part.of(delta), bits=self.run.outer.bits) for part in self.map.fragments]
        blocks = sum(span.stop - span.start for span in lease.spans)
        self.number += 1
        contribution = Contribution(
            island="ann",
            epoch=self.epoch,
            number=self.number,
            base_version=self.number - 1,
            lease=lease.lease,
            steps=blocks // self.run.batch_blocks,
            blocks=blocks,
            loss=1.0,
            fragments=tuple(sha256_of(part) for part in parts),
            tokens_sha256="0" * 64,
        )
        return contribution, {sha256_of(part): part for part in parts}

    def play(self, rounds, before_each):
        """All rounds; the names of the last version's fragments."""
        self.join()
        for _ in range(rounds):
            before_each()
            sent, contents = self.contribution(self.lease())
            assert isinstance(self.link.contribute(sent, contents), Accepted)
            assert isinstance(self.link.contribute(sent, contents), Accepted), "the same again"
            while self.link.update(self.number) is None:
                continue
        self.link.leave(Leave(island="ann", epoch=self.epoch))
        self.link.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_syncer_ends_with_the_same_bits_as_its_undisturbed_twin(start, kills):
    ends = []
    rounds = kills + kills // 5 + 3  # one in ten passes without a kill
    run = a_run(blocks=rounds * 40, islands=("ann",), fragment_bytes_max=8192, lease_s=30.0)
    for name, is_killed in (("twin", False), ("killed", True)):
        running = start(run, name)
        syncer = [running.syncer()]
        chance = random.Random(5)
        left = [kills if is_killed else 0]

        def disturb(running=running, syncer=syncer, chance=chance, left=left):
            if left[0] and chance.random() < 0.9:
                left[0] -= 1
                time.sleep(chance.uniform(0.0, 0.1))
                syncer[0].kill()
                syncer[0] = running.syncer()

        Driver(running).play(rounds, disturb)
        assert syncer[0].end(60) == 0, syncer[0].tail()
        assert left[0] == 0
        final = (running.folder / "syncer" / "final" / "parameters.f32").read_bytes()
        closed = running.read(runs.rounds_of)
        assert len(closed) == rounds
        ends.append(
            (
                hashlib.sha256(final).hexdigest(),
                [[one.weight for one in each.contributions] for each in closed],
            )
        )
        assert running.read(runs.read_run).state == "finished"
    assert ends[0] == ends[1]
