"""Whatever fails and whatever is asked: the budget holds, and who is like its peers comes back."""

from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from argosy.policies.health import (
    BudgetNode,
    BudgetReplica,
    BudgetSettings,
    BudgetView,
    HealthSettings,
    PeerSeen,
    PeerSettings,
    PeersState,
    PeersView,
    Quarantine,
    Release,
    Wish,
    allowed,
    compare,
)
from argosy.policies.health.budget import most_out

BUDGET, PEERS, HEALTH = BudgetSettings(), PeerSettings(), HealthSettings()
NOW_S = 1000.0
times_s = st.none() | st.floats(NOW_S - 200.0, NOW_S)


@st.composite
def fleets(draw):
    """A fleet in any state, and wishes about it."""
    count = draw(st.integers(1, 24))
    models, pools = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    replicas = tuple(
        BudgetReplica(
            name=f"r-{n}",
            deployment=f"m{n % models}@p{n % pools}",
            model=f"m{n % models}",
            pool=f"p{n % pools}",
            node=f"n{n // 4}",
            is_serving=draw(st.booleans()),
            out=draw(st.sampled_from([None, None, None, "killed", "quarantined", "draining"])),
            failing_since_s=draw(times_s),
            probe_good_s=draw(times_s),
            served_s=draw(times_s),
            is_local=draw(st.booleans()),
        )
        for n in range(count)
    )
    nodes = tuple(
        BudgetNode(name=f"n{n}", pool="p0", is_cordoned=draw(st.booleans()))
        for n in range(draw(st.integers(0, 9)))
    )
    needed = {one.deployment: draw(st.integers(0, 4)) for one in replicas}
    names = st.sampled_from([one.name for one in replicas])
    wishes = draw(
        st.lists(
            st.builds(
                Wish,
                kind=st.sampled_from(["kill", "quarantine", "drain"]),
                replicas=st.lists(names, min_size=1, max_size=3, unique=True).map(tuple),
                since_s=st.floats(0.0, 9.0),
                reason=st.just("why"),
            )
            | st.builds(
                Wish,
                kind=st.just("cordon"),
                node=st.integers(0, 8).map("n{}".format),
                pool=st.just("p0"),
                since_s=st.floats(0.0, 9.0),
                reason=st.just("why"),
            ),
            max_size=12,
        )
    )
    return BudgetView(now_s=NOW_S, replicas=replicas, nodes=nodes, needed=needed), tuple(wishes)


def newly_out(view, granted):
    already = {one.name for one in view.replicas if one.out is not None}
    return {name for wish in granted for name in wish.replicas} - already


@settings(max_examples=50, deadline=None)
@given(fleets())
def test_the_budget_is_never_exceeded_of_a_model_or_of_the_fleet(case):
    view, wishes = case
    granted = allowed(view, wishes, BUDGET).granted
    new = newly_out(view, granted)
    if not new:
        return
    out = [one for one in view.replicas if one.out is not None or one.name in new]
    share = BUDGET.out_share_fleet
    assert len(out) <= most_out(len(view.replicas), share, BUDGET.out_fleet_min)
    sizes = Counter(one.model for one in view.replicas)
    counts = Counter(one.model for one in out)
    for model in {one.model for one in view.replicas if one.name in new}:
        assert counts[model] <= most_out(sizes[model], BUDGET.out_share_model)


@settings(max_examples=50, deadline=None)
@given(fleets())
def test_no_more_of_a_pool_s_nodes_are_cordoned_than_may_be(case):
    view, wishes = case
    granted = [one for one in allowed(view, wishes, BUDGET).granted if one.kind == "cordon"]
    before = {one.name for one in view.nodes if one.is_cordoned}
    after = before | {one.node for one in granted}
    if after != before:
        assert len(after) <= most_out(len(view.nodes), BUDGET.cordoned_share)


@settings(max_examples=50, deadline=None)
@given(fleets())
def test_what_is_taken_of_serving_replicas_leaves_what_is_needed(case):
    view, wishes = case
    granted = allowed(view, wishes, BUDGET).granted
    killed = newly_out(view, [one for one in granted if one.kind == "kill"])
    new = newly_out(view, granted)
    for deployment, needed in view.needed.items():
        serving = {
            one.name
            for one in view.replicas
            if one.deployment == deployment and one.is_serving and one.out is None
        }
        if (serving & new) - killed:
            assert len(serving - new) >= needed


@settings(max_examples=50, deadline=None)
@given(fleets(), st.randoms(use_true_random=False))
def test_every_wish_has_one_answer_with_a_reason_whatever_their_order(case, chance):
    view, wishes = case
    answer = allowed(view, wishes, BUDGET)
    kept = [*answer.granted, *(one.wish for one in answer.put_off)]
    assert Counter(map(msgspec.json.encode, kept)) == Counter(map(msgspec.json.encode, wishes))
    assert all(one.reason for one in answer.put_off)
    shuffled = list(wishes)
    chance.shuffle(shuffled)
    assert allowed(view, tuple(shuffled), BUDGET) == answer


@settings(max_examples=40, deadline=None)
@given(fleets(), st.floats(0.0, 2 * BUDGET.blind_s))
def test_a_prober_that_is_cut_off_kills_nothing_across_the_network_and_then_one(case, cut_s):
    """Whatever it saw before: since then no replica over the network has answered it."""
    view, wishes = case
    far = tuple(
        replace(
            one,
            is_local=False,
            out=None,
            failing_since_s=NOW_S - cut_s,
            probe_good_s=min(one.probe_good_s or 0.0, NOW_S - cut_s),
        )
        for one in view.replicas
    )
    if len(far) < BUDGET.blind_replicas:
        return
    view = replace(view, replicas=far)
    killed = [one for one in allowed(view, wishes, BUDGET).granted if one.kind == "kill"]
    names = {name for one in killed for name in one.replicas}
    assert len(names) <= (0 if cut_s < BUDGET.blind_s - 1e-6 else 1)


# ── peers ────────────────────────────────────────────────────────────────────────────────────


def alike(n):
    return PeerSeen(
        replica=f"r-{n}",
        deployment="m@p",
        like="m@p/1",
        pool="p",
        node=f"n{n // 2}",
        age_s=3600.0,
        running_mean=8.0,
        in_flight_mean=8.0,
        tokens_out=4000,
        first_tokens=20,
        ttft_s_p50=0.3,
        requests_ended=20,
    )


spells = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 9),  # which replica
            st.sampled_from([0, 400, 1500, 2500, 3500, 4500]),  # its tokens
            st.sampled_from([0.05, 0.3, 3.0]),  # its TTFT
            st.sampled_from([0, 3, 15]),  # its failed requests
            st.sampled_from([0.0, 1.0, 8.0, 16.0]),  # its running requests
        ),
        max_size=6,
    ),
    min_size=1,
    max_size=4,
)


class Peers:
    def __init__(self, count, needed):
        self.seen = [alike(n) for n in range(count)]
        self.needed, self.state, self.now_s = needed, PeersState(), 0.0
        self.history = []

    def window(self):
        self.now_s += 10.0
        view = PeersView(
            now_s=self.now_s,
            window_s=10.0,
            replicas=tuple(self.seen),
            needed={"m@p": self.needed},
        )
        before = self.state
        self.state, decided = compare(before, view, PEERS)
        self.history.append((before, view, self.state, decided))
        for one in decided:
            out = one.kind if isinstance(one, Quarantine) else None
            for name in one.replicas:
                n = int(name.removeprefix("r-"))
                self.seen[n] = replace(self.seen[n], out=out)
        return decided

    def spell(self, changes, windows=9):
        self.seen = [replace(alike(n), out=one.out) for n, one in enumerate(self.seen)]
        for n, tokens, ttft_s, failed, running in changes:
            if n < len(self.seen):
                self.seen[n] = replace(
                    self.seen[n],
                    tokens_out=tokens,
                    ttft_s_p50=ttft_s,
                    requests_failed=failed,
                    running_mean=running,
                    in_flight_mean=running,
                )
        return [one for _ in range(windows) for one in self.window()]


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 10), spells)
def test_a_release_always_comes_when_a_replica_is_like_its_peers_again(count, troubles):
    world = Peers(count, needed=1)
    for changes in troubles:
        world.spell(changes)
    was_out = {one.replica for one in world.seen if one.out is not None}
    decided = world.spell([], windows=PEERS.windows_like + PEERS.windows_paced + 1)
    back = {name for one in decided if isinstance(one, Release) for name in one.replicas}
    assert was_out <= back
    assert all(one.out is None for one in world.seen)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 10), st.integers(0, 10), spells)
def test_quarantine_leaves_what_is_needed(count, needed, troubles):
    world = Peers(count, needed)
    for changes in troubles:
        for one in world.spell(changes):
            assert one.reason
    for _, view, _, decided in world.history:
        in_use = {one.replica for one in view.replicas if one.out is None}
        gone = {name for one in decided if isinstance(one, Quarantine) for name in one.replicas}
        assert gone <= in_use
        assert not gone or len(in_use - gone) >= needed


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 10), spells)
def test_the_same_windows_are_judged_alike_whatever_the_order_of_their_rows(count, troubles):
    world = Peers(count, needed=1)
    for changes in troubles:
        world.spell(changes)
    for before, view, after, decided in world.history:
        assert compare(before, view, PEERS) == (after, decided)
        turned = replace(view, replicas=view.replicas[::-1])
        assert compare(before, turned, PEERS)[1] == decided
