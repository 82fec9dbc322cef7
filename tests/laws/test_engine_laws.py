"""The compiled engine agrees with one that does a step at a time; nothing is lost or made up."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from argosy.perf.engine_settings import EngineSettings
from argosy.perf.step_time import StepTime
from argosy.simulator import engine
from argosy.simulator.engine import ReplicaGroup
from argosy.simulator.engine.histogram import bin_edges_s
from tests.simulator.engine_oracle import Action, Oracle

HASH_TOKENS = 8

# Every time below is a sum of few powers of two: exact in floating point, so that ties are ties.
dyadic_step_times = st.builds(
    lambda base, knee, rise, context, pair: StepTime(
        knots_tokens=(1.0, 9.0, 41.0),
        knots_s=(base / 1024, (base + knee) / 1024, (base + knee + rise) / 1024),
        context_s_per_token=context / 2**20,
        pair_s=pair / 2**24,
    ),
    st.integers(1, 40),
    st.integers(0, 8),
    st.integers(0, 64),
    st.integers(0, 300),
    st.integers(0, 100),
)
any_step_times = st.builds(
    lambda base, knee, rise, context, pair: StepTime(
        knots_tokens=(1.0, 7.0, 30.0),
        knots_s=(base, base + knee, base + knee + rise),
        context_s_per_token=context,
        pair_s=pair,
    ),
    st.floats(1e-4, 0.1),
    st.floats(0, 0.01),
    st.floats(0, 0.1),
    st.floats(0, 1e-3),
    st.floats(0, 1e-5),
)


@st.composite
def groups(draw, step_times):
    requests_max = draw(st.integers(1, 6))
    block = draw(st.sampled_from([1, 2, 4, 8]))
    return ReplicaGroup(
        count=draw(st.integers(1, 3)),
        step_time=draw(step_times),
        kv_tokens=draw(st.integers(block, 160)),
        watermark=draw(st.sampled_from([0.0, 0.01, 0.2])),
        settings=EngineSettings(
            requests_max=requests_max,
            prefill_tokens_max=draw(st.integers(requests_max, 40)),
            block_tokens=block,
            prefix_cache=draw(st.booleans()),
        ),
    )


@st.composite
def scripts(draw, times):
    """Actions of a fleet in order of time, each with its replica's number (to be taken modulo)."""
    submits = [
        (draw(st.integers(0, 2)), Action(
            at_s=draw(times), kind="submit", slot=slot, prompt=draw(st.integers(1, 60)),
            output=draw(st.integers(1, 40)),
            hashes=tuple(chain * 100 + n for n in range(draw(st.integers(0, 6)))),
        ))
        for slot in range(draw(st.integers(1, 14)))
        for chain in [draw(st.integers(1, 3))]
    ]  # fmt: skip
    others = st.tuples(
        st.integers(0, 2),
        st.builds(
            Action,
            at_s=times,
            kind=st.sampled_from(["cancel", "cancel", "kill", "revive", "speed"]),
            slot=st.integers(0, len(submits) - 1),
            prompt=st.just(0),
            output=st.just(0),
            hashes=st.just(()),
            factor=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
        ),
    )
    script = submits + draw(st.lists(others, max_size=6))
    return sorted(script, key=lambda row: row[1].at_s)


class Driven:
    """The compiled engine, given a script."""

    def __init__(self, group, script):
        self.group = group
        names = [name for _, action in script for name in action.hashes]
        self.state = engine.build(
            [group],
            requests_max_alive=max(1, len(script)),
            hash_tokens=HASH_TOKENS,
            hashes=np.array(names, np.uint64),
        )
        self.events = [[] for _ in range(group.count)]
        self.refused = [[] for _ in range(group.count)]
        self.killed = [[] for _ in range(group.count)]
        self.times_s = []
        self.hash_at = 0
        self.gone = 0
        for replica, action in script:
            self.pop_until(action.at_s)
            getattr(self, action.kind)(replica % group.count, action)
            assert_conserved(self.state)
        self.pop_until(np.inf)

    def pop_until(self, until_s):
        while True:
            time_s, kind, replica, slot = engine.pop_event(self.state, until_s)
            if kind == engine.NOTHING:
                return
            self.times_s.append(time_s)
            self.events[replica].append((time_s, kind, slot))

    def submit(self, replica, action):
        until = self.hash_at + len(action.hashes)
        code = engine.submit_hashed(
            self.state, replica, action.slot, (action.prompt, action.output), action.at_s,
            (self.hash_at, until),
        )  # fmt: skip
        self.hash_at = until
        if code != engine.ACCEPTED:
            assert code in (engine.NEVER_FITS, engine.REPLICA_DEAD)
            self.refused[replica].append(action.slot)

    def cancel(self, replica, action):
        engine.cancel(self.state, replica, action.slot, action.at_s)

    def kill(self, replica, action):
        out = np.zeros((self.state.requests.size, 2), np.int64)
        count = engine.kill(self.state, replica, action.at_s, out)
        self.killed[replica].append([tuple(row) for row in out[:count].tolist()])

    def revive(self, replica, action):
        engine.revive(self.state, replica)

    def speed(self, replica, action):
        engine.set_speed(self.state, replica, action.factor, action.at_s)


def assert_conserved(state):
    for replica in range(state.replicas.size):
        done = engine.account(state, replica)
        alive = engine.requests_running(state, replica) + engine.requests_waiting(state, replica)
        gone = done.refused + done.finished + done.cancelled + done.killed
        assert done.submitted == gone + alive
        it = state.replicas[replica]
        entries = it["unreferenced"] * it["entry_blocks"]
        assert 0 <= entries <= it["blocks_free"] <= it["blocks"]
        if alive == 0:
            assert it["blocks_free"] == it["blocks"]
            assert it["unread_tokens"] == it["contexts"] == 0
            assert not state.phases[it["phases_at"] : it["phases_at"] + it["block_tokens"]].any()


def oracles(group, script):
    for replica in range(group.count):
        oracle = Oracle(group, HASH_TOKENS)
        oracle.run([action for of, action in script if of % group.count == replica])
        yield oracle


@settings(max_examples=150, deadline=None)
@given(groups(dyadic_step_times), scripts(st.integers(0, 256).map(lambda n: n / 64)))
def test_macro_steps_give_what_single_steps_give_to_the_last_bit_and_tie(group, script):
    driven = Driven(group, script)
    gaps_s = []
    for replica, oracle in enumerate(oracles(group, script)):
        assert driven.events[replica] == oracle.events
        assert driven.refused[replica] == oracle.refused
        assert driven.killed[replica] == oracle.killed
        done = engine.account(driven.state, replica)
        assert done.busy_s == oracle.busy_s
        assert done.steps == oracle.steps
        assert done.tokens_prefilled == oracle.prefilled
        assert done.tokens_spared == oracle.spared
        assert done.preemptions == oracle.preemptions
        gaps_s += oracle.gaps_s
    bins = np.searchsorted(bin_edges_s(), gaps_s, side="right") - 1
    assert np.array_equal(np.bincount(bins, minlength=1), trimmed(engine.itl_counts(driven.state)))
    assert driven.times_s == sorted(driven.times_s)
    assert_conserved(driven.state)


@settings(max_examples=100, deadline=None)
@given(groups(any_step_times), scripts(st.floats(0, 5)))
def test_macro_steps_are_within_a_microsecond_of_single_steps(group, script):
    driven = Driven(group, script)
    for replica, oracle in enumerate(oracles(group, script)):
        assume(oracle.margin_s > 1e-9)  # else the last bit says which comes first
        ours, theirs = driven.events[replica], oracle.events
        assert [event[1:] for event in ours] == [event[1:] for event in theirs]
        assert all(abs(one[0] - two[0]) < 1e-6 for one, two in zip(ours, theirs, strict=True))
        assert engine.account(driven.state, replica).tokens_spared == oracle.spared


def test_one_who_was_preempted_comes_back_as_soon_as_the_cache_spares_enough():
    settings_ = EngineSettings(requests_max=3, prefill_tokens_max=5, block_tokens=1)
    step_time = StepTime(knots_tokens=(1.0,), knots_s=(0.25,), context_s_per_token=0.0, pair_s=0.0)
    group = ReplicaGroup(
        count=1, step_time=step_time, kv_tokens=36, watermark=0.0, settings=settings_
    )

    def asked(at_s, slot, prompt, output, *hashes):
        return (0, Action(at_s=at_s, kind="submit", slot=slot, prompt=prompt, output=output,
                          hashes=hashes, factor=1.0))  # fmt: skip

    script = [asked(0.0, 1, 1, 15), asked(2.4, 2, 9, 3, 100), asked(2.7, 0, 14, 1, 100)]
    driven, [oracle] = Driven(group, script), oracles(group, script)
    assert oracle.preemptions == 1
    assert driven.events[0] == oracle.events


@settings(max_examples=30, deadline=None)
@given(groups(any_step_times), scripts(st.floats(0, 5)))
def test_the_same_script_leaves_the_same_bytes(group, script):
    one, two = Driven(group, script), Driven(group, script)
    assert one.events == two.events
    for name in one.state.FIELDS:
        assert getattr(one.state, name).tobytes() == getattr(two.state, name).tobytes()


@settings(max_examples=50, deadline=None)
@given(groups(any_step_times), scripts(st.floats(0, 5)))
def test_tokens_come_no_faster_than_the_step_time_allows(group, script):
    driven = Driven(group, [row for row in script if row[1].kind != "speed"])
    batches = range(1, group.settings.requests_max + 1)
    rate = max(batch / group.step_time.step_s(tokens=batch) for batch in batches)
    for replica in range(group.count):
        done = engine.account(driven.state, replica)
        assert done.tokens_out <= rate * done.busy_s * (1 + 1e-9)


def trimmed(counts):
    """Without the zeros at the end, one number at least."""
    used = np.flatnonzero(counts)
    return counts[: used[-1] + 1] if used.size else counts[:1]
