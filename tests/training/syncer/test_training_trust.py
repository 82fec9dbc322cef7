"""Whom the syncer believes, on real deltas of the reference model, far from and near its end."""

import numpy as np
import pytest

from argosy.fleet.runs import Optimizer
from argosy.store.runs import ContributionRecord
from argosy.training.island.reference import ReferenceInner, ReferenceSource
from argosy.training.outer.codec import LIMIT
from argosy.training.syncer.rounds import Judge
from argosy.training.syncer.seats import Seats
from tests.training.syncer.running_run import VOCABULARY, a_run

STEPS = {"fast": 12, "middle": 6, "slow": 3}


class Rounds:
    """Three islands without processes, and what the syncer says of their deltas."""

    def __init__(self, *, lr_end_share=0.1):
        run = a_run(blocks=8000, islands=tuple(STEPS))
        self.run = run.__class__(
            **{
                **{name: getattr(run, name) for name in run.__struct_fields__},
                "optimizer": Optimizer(lr=3e-3, lr_end_share=lr_end_share),
            }
        )
        self.source = ReferenceSource(self.run, vocabulary=VOCABULARY)
        self.inners = {name: ReferenceInner(self.run, vocabulary=VOCABULARY) for name in STEPS}
        self.now = next(iter(self.inners.values())).parameters()
        self.judge = Judge(self.run, Seats(self.run).settings)
        self.at = 0
        self.version = 0

    def deltas(self):
        """Each island's next, from the same parameters."""
        made = {}
        for name, steps in STEPS.items():
            self.inners[name].set_parameters(self.now)
            for _ in range(steps):
                blocks = self.source.read(self.at % 8000, self.at % 8000 + 4)
                self.inners[name].step(blocks, share_done=min(1.0, self.at / 8000))
                self.at += 4
            made[name] = self.now - self.inners[name].parameters()
        return made

    def close(self, deltas):
        """The reasons, by island; what is believed moves the parameters."""
        pending = [record(name, self.version) for name in deltas]
        stacked = np.stack([delta.astype(np.float64) for delta in deltas.values()])
        plan = self.judge.plan(
            pending,
            (stacked @ stacked.T).tolist(),
            version=self.version,
            live=STEPS,
            tokens_full=84 * 16,
        )
        for one in plan.taken:
            self.now = self.now - np.float32(one.weight) * deltas[one.island]
        self.version += 1
        return {one.island: why for one, why in plan.distrusted}

    def honest(self, rounds):
        refused = []
        for _ in range(rounds):
            refused += self.close(self.deltas()).values()
        return refused


def record(island, number):
    return ContributionRecord(
        island=island,
        epoch=1,
        number=number + 1,
        base_version=number,
        lease=f"{island}-{number}",
        steps=STEPS[island],
        blocks=STEPS[island] * 4,
        loss=1.0,
        fragments=("x",),
        tokens_sha256="",
        state="accepted",
        version=None,
        reason="",
        at_s=0.0,
    )


def turned(delta):
    return -delta


def scaled(delta):
    return 30 * delta


def of_random_bits(delta):
    """Any bits that the codec lets through: finite, below its limit."""
    values = np.random.default_rng(5).integers(0, 2**32, delta.size, dtype=np.uint32)
    values = values.view(np.float32)
    return np.where(np.abs(values) < LIMIT, values, 0).astype(np.float32)


def stuck_at_zero(delta):
    return np.zeros_like(delta)


@pytest.mark.parametrize("lr_end_share", [0.1, 1.0])
def test_no_honest_delta_is_refused_from_the_start_to_long_after_convergence(lr_end_share):
    assert Rounds(lr_end_share=lr_end_share).honest(250) == []


@pytest.mark.parametrize("who", STEPS)
@pytest.mark.parametrize("spoil", [turned, scaled, of_random_bits, stuck_at_zero])
def test_a_chip_that_computes_wrongly_is_refused_and_no_other(who, spoil):
    rounds = Rounds()
    rounds.honest(5)
    for _ in range(3):
        deltas = rounds.deltas()
        refused = rounds.close({**deltas, who: spoil(deltas[who])})
        assert list(refused) == [who]
        assert refused[who].startswith("against: " if spoil is turned else "senseless: ")


@pytest.mark.parametrize("spoil", [scaled, of_random_bits, stuck_at_zero])
def test_near_the_optimum_a_delta_of_a_senseless_size_is_still_refused(spoil):
    rounds = Rounds()
    rounds.honest(100)
    deltas = rounds.deltas()
    assert list(rounds.close({**deltas, "middle": spoil(deltas["middle"])})) == ["middle"]


def test_after_a_refused_delta_an_honest_one_of_the_same_island_is_believed():
    rounds = Rounds()
    rounds.honest(5)
    deltas = rounds.deltas()
    assert rounds.close({**deltas, "slow": turned(deltas["slow"])})
    assert rounds.close(rounds.deltas()) == {}


def test_near_the_optimum_a_chip_that_goes_on_turning_signs_is_told_to_begin_anew():
    rounds = Rounds()
    rounds.honest(100)
    kinds = []
    for _ in range(60):
        deltas = rounds.deltas()
        refused = rounds.close({**deltas, "middle": turned(deltas["middle"])})
        assert set(refused) <= {"middle"}
        kinds += [why.partition(":")[0] for why in refused.values()]
    assert kinds[:4] == ["against"] * 4
    assert kinds.count("turned") > 4
