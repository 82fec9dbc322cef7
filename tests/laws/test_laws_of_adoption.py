"""Whatever order snapshots, sendings, versions and refusals come in, all training counts once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from argosy.training.inner import Tensor
from argosy.training.outer.adopt import LocalState
from argosy.training.outer.codec import decode, encode
from argosy.training.outer.parameters import ParameterMap
from argosy.training.outer.step import OuterSettings, close, first_state

VALUES = 1500  # two fragments, the last block of each not whole
MAP = ParameterMap([Tensor(name="w", shape=(VALUES,))], fragment_bytes_max=4096)
AS_THEY_ARE = OuterSettings(lr=1.0, momentum=0.0, bits=32)
actions = st.lists(
    st.tuples(
        st.sampled_from(
            ["train", "train", "snapshot", "send", "arrive", "refuse", "close", "adopt"]
        ),
        st.integers(0, 2),
    ),
    max_size=60,
)


class Island:
    """What is inside an island and on its way to the syncer, as the island's loop would do it."""

    def __init__(self, start, seed, bits):
        self.now = start.copy()
        self.state = LocalState(MAP, start, version=0)
        self.chance = np.random.default_rng(seed)
        self.bits, self.number = bits, 0
        self.trained = np.zeros(VALUES, np.float64)
        self.taken_back = np.zeros(VALUES, np.float64)
        self.snapshot_taken = None
        self.on_the_way = []

    def train(self):
        moved = self.chance.integers(-9, 10, VALUES).astype(np.float32)
        if self.bits != 32:
            moved = (moved * self.chance.random(VALUES) * 1e-3).astype(np.float32)
        before = self.now.copy()
        self.now += moved
        self.trained += self.now.astype(np.float64) - before

    def snapshot(self):
        if self.snapshot_taken is None:
            self.snapshot_taken = self.state.snapshot(self.now)

    def send(self):
        if self.snapshot_taken is not None:
            encoded = tuple(
                encode(part.of(self.snapshot_taken), bits=self.bits) for part in MAP.fragments
            )
            self.number += 1
            self.state.sent(self.number, encoded)
            self.on_the_way.append((self.number, encoded))
            self.snapshot_taken = None

    def refuse(self):
        if self.on_the_way:
            number, encoded = self.on_the_way.pop(0)
            self.taken_back += _decoded(encoded)
            self.now += self.state.refused(number)


class World:
    """A syncer that adds up, and islands; updates reach an island when it adopts."""

    def __init__(self, seed, bits, islands=3):
        chance = np.random.default_rng(seed)
        start = chance.integers(-50, 50, VALUES).astype(np.float32)
        self.start = start
        self.islands = [Island(start, seed + 1 + n, bits) for n in range(islands)]
        self.outer = first_state(start, MAP)
        self.waiting, self.updates = [], []
        self.counted = [0] * islands
        self.settings = OuterSettings(lr=1.0, momentum=0.0, bits=bits)

    def do(self, action, which):
        island = self.islands[which]
        match action:
            case "arrive":
                if island.on_the_way:
                    number, encoded = island.on_the_way.pop(0)
                    self.waiting.append((which, number, encoded))
            case "close":
                self.close()
            case "adopt":
                self.adopt(island, which)
            case _:
                getattr(island, action)()

    def close(self):
        if not self.waiting:
            return
        self.outer, update = close(
            self.outer, [(encoded, 1.0) for _, _, encoded in self.waiting], self.settings
        )
        for which, number, _ in self.waiting:
            self.counted[which] = number
        self.waiting = []
        self.updates.append((update, tuple(self.counted)))

    def adopt(self, island, which):
        if island.state.version < len(self.updates):
            version = island.state.version + 1
            update, counted = self.updates[version - 1]
            island.now += island.state.adopt(version, update, number=counted[which])

    def settle(self):
        """All that is on its way comes in; what is not yet snapshot stays."""
        for which, island in enumerate(self.islands):
            island.send()
            while island.on_the_way:
                self.do("arrive", which)
        self.close()
        for which, island in enumerate(self.islands):
            while island.state.version < len(self.updates):
                self.adopt(island, which)


@given(actions, st.integers(0, 1000))
def test_all_training_is_in_the_parameters_once(steps, seed):
    """Whole numbers and 32 bits: nothing is rounded, so that equal means equal."""
    world = World(seed, bits=32)
    for action, which in steps:
        world.do(action, which)
    world.settle()
    for island in world.islands:
        island.snapshot()
    world.settle()
    all_of = world.start.astype(np.float64)
    for island in world.islands:
        all_of += island.trained + island.taken_back
    assert np.array_equal(world.outer.published(), all_of)
    for island in world.islands:
        assert np.array_equal(island.now, all_of)
        assert island.state.pending == ()


@given(actions, st.integers(0, 1000), st.sampled_from([4, 8]))
def test_with_few_bits_the_rest_is_what_is_not_yet_said(steps, seed, bits):
    world = World(seed, bits=bits)
    for action, which in steps:
        world.do(action, which)
    world.settle()
    all_of = world.start.astype(np.float64)
    for island in world.islands:
        unsaid = island.state.snapshot(island.now).astype(np.float64)
        all_of += island.trained + island.taken_back + unsaid
        assert island.state.published.tobytes() == world.outer.published().tobytes()
    assert np.allclose(world.outer.parameters(), all_of, atol=1e-4, rtol=0)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_one_island_alone_publishes_what_it_trained(seed, rounds):
    world = World(seed, bits=32, islands=1)
    island = world.islands[0]
    for _ in range(rounds):
        island.train()
        island.snapshot()
        world.settle()
        assert world.outer.published().tobytes() == island.now.tobytes()


def _decoded(encoded):
    return np.concatenate([decode(fragment) for fragment in encoded]).astype(np.float64)
