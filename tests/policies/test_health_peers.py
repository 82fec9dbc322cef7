"""Like replicas compared: who goes into quarantine, who comes back, and who is left in peace."""

import msgspec
import pytest
from msgspec.structs import replace

from argosy.policies.health import (
    OutSeen,
    PeerSeen,
    PeerSettings,
    PeersState,
    PeersView,
    Quarantine,
    Release,
    compare,
)

SETTINGS = PeerSettings()


def peer(n, *, pace=1.0, per_node=2, **known):
    usual = PeerSeen(
        replica=f"chat-{n}",
        deployment="chat",
        like="chat/1",
        pool="p",
        node=f"n{n // per_node}",
        age_s=3600.0,
        running_mean=8.0,
        in_flight_mean=9.0,
        tokens_out=round(8 * 10 * 50 * pace * (1 + 0.01 * (n % 3))),
        first_tokens=20,
        ttft_s_p50=0.3,
        requests_ended=20,
    )
    return replace(usual, **known)


class World:
    """Windows one after the other; what is decided is done, where `obeys`."""

    def __init__(self, peers, needed=0, obeys=True):
        self.peers = {one.replica: one for one in peers}
        self.needed, self.obeys = needed, obeys
        self.outs, self.state, self.now_s = (), PeersState(), 10_000.0

    def change(self, name, **what):
        self.peers[name] = replace(self.peers[name], **what)

    def run(self, windows):
        decided = []
        for _ in range(windows):
            self.now_s += 10.0
            view = PeersView(
                now_s=self.now_s, window_s=10.0, replicas=tuple(self.peers.values()),
                outs=self.outs, needed={"chat": self.needed},
            )  # fmt: skip
            self.state, new = compare(self.state, view, SETTINGS)
            decided += new
            for one in new if self.obeys else ():
                for name in one.replicas:
                    self.change(name, out=one.kind if isinstance(one, Quarantine) else None)
        return decided


def world(count=8, *, bad=(), needed=0, obeys=True, **known):
    return World([peer(n, **(known if n in bad else {})) for n in range(count)], needed, obeys)


def test_replicas_that_are_alike_are_left_in_peace():
    assert world(16).run(60) == []


def test_a_slow_replica_is_out_within_two_minutes_and_the_reason_says_how_slow():
    (one,) = world(bad=[3], pace=0.6).run(12)
    assert (one.kind, one.name, one.replicas) == ("replica", "chat-3", ("chat-3",))
    assert one.reason.startswith("unlike its peers in 7 of 7 windows: 0.60 x the tokens/s")


def test_a_replica_that_runs_requests_and_gives_no_token_is_the_slowest_of_all():
    (one,) = world(bad=[3], tokens_out=0, first_tokens=0, requests_ended=0).run(12)
    assert one.name == "chat-3"


def test_a_replica_with_more_to_do_may_be_slower():
    """Half the pace at four times the load is what decoding does where the peers show it."""
    peers = [
        peer(n, running_mean=2.0 * 2**n, tokens_out=round(10 * 50 * (2.0 * 2**n) ** 0.5))
        for n in range(6)
    ]
    w = World(peers)
    assert w.run(60) == []
    w.change("chat-0", tokens_out=round(10 * 50 * 2.0**0.5 * 0.5))
    assert [one.name for one in w.run(12)] == ["chat-0"]


def test_a_slow_first_token_and_failing_requests_are_unlike_too():
    (one,) = world(bad=[3], ttft_s_p50=1.2).run(12)
    assert (one.name, one.signal) == ("chat-3", "ttft")
    (one,) = world(bad=[3], requests_failed=6).run(12)
    assert (one.name, one.signal) == ("chat-3", "errors")
    assert "30% of its requests failed, of 6 like it 0%" in one.reason


def test_what_all_suffer_from_is_nobody_s_fault():
    for known in ({"pace": 0.3}, {"ttft_s_p50": 9.0}, {"requests_failed": 10}):
        w = world(8)
        w.run(20)
        for n in range(8):
            w.peers[f"chat-{n}"] = peer(n, **known)
        assert w.run(40) == []


@pytest.mark.parametrize(
    "excuse",
    [{"age_s": 60.0}, {"running_mean": 1.0, "tokens_out": 200, "first_tokens": 1}],
)
def test_young_ones_and_idle_ones_are_not_judged(excuse):
    w = world(bad=[3], pace=0.4, **excuse)
    assert w.run(40) == []


def test_a_few_bad_windows_are_forgiven():
    w = world()
    for _ in range(10):
        w.change("chat-3", tokens_out=1500)
        w.run(2)
        w.change("chat-3", tokens_out=4000)
        assert w.run(10) == []


def test_with_few_peers_only_the_plainly_slow_one_goes():
    assert world(2, bad=[1], pace=0.65).run(40) == []
    (one,) = world(2, bad=[1], pace=0.4).run(12)
    assert one.name == "chat-1"


def test_a_replica_alone_is_like_nobody_and_left_in_peace():
    assert world(1, bad=[0], pace=0.1).run(40) == []


def test_a_slow_node_goes_whole_instead_of_its_replicas():
    (one,) = world(12, bad=[4, 5], pace=0.6).run(12)
    assert (one.kind, one.name, one.pool) == ("node", "n2", "p")
    assert one.replicas == ("chat-4", "chat-5")
    assert "2 of 2 replicas on this node are unlike their peers, elsewhere 0 of 10" in one.reason


def test_a_node_of_which_half_is_fine_stays():
    peers = [peer(n, per_node=4, pace=0.6 if n in (4, 5) else 1.0) for n in range(12)]
    decided = World(peers).run(20)
    assert {one.kind for one in decided} == {"replica"}


def test_a_node_that_holds_half_of_the_replicas_is_not_held_against_itself():
    peers = [peer(n, per_node=4, pace=0.6 if n >= 4 else 1.0) for n in range(8)]
    decided = World(peers).run(20)
    assert [(one.kind, one.name) for one in decided] == [("node", "n1")]


def test_a_pool_goes_whole_where_the_caller_compares_pools():
    peers = [peer(n, pool="a" if n < 6 else "b", pace=0.6 if n >= 6 else 1.0) for n in range(12)]
    decided = World(peers).run(20)
    assert [(one.kind, one.name, len(one.replicas)) for one in decided] == [("pool", "b", 6)]


def test_never_are_fewer_left_than_needed_and_the_worst_goes_first():
    w = World([peer(n, per_node=1, pace={2: 0.6, 5: 0.4}.get(n, 1.0)) for n in range(9)], needed=8)
    decided = w.run(40)
    assert {one.name for one in decided} == {"chat-5"}
    assert sum(one.out is None for one in w.peers.values()) == 8


def test_a_node_that_is_too_much_to_spare_gives_up_its_worst_replica():
    w = World([peer(n, pace={4: 0.6, 5: 0.4}.get(n, 1.0)) for n in range(12)], needed=11)
    assert [(one.kind, one.name) for one in w.run(12)] == [("replica", "chat-5")]


def test_what_is_needed_comes_back_the_least_bad_first():
    w = world(9, bad=[2], pace=0.6, needed=5)
    w.run(12)
    w.needed = 9
    (one,) = w.run(1)
    assert isinstance(one, Release)
    assert (one.name, one.is_trial) == ("chat-2", True)
    assert one.reason == "chat needs 9 replicas and has 8"
    assert w.run(30) == []  # still slow, and needed


def test_a_quarantine_that_is_put_off_is_wished_for_again():
    w = world(bad=[3], pace=0.6, obeys=False)
    assert [one.name for one in w.run(12)] == ["chat-3"] * 6


def test_one_that_is_like_its_peers_again_is_released():
    w = world(bad=[3], pace=0.6)
    w.run(12)
    assert w.run(10) == []  # it has requests still, and is slow still
    w.peers["chat-3"] = peer(3, out="replica")
    (one,) = w.run(12)
    assert isinstance(one, Release)
    assert (one.name, one.is_trial) == ("chat-3", False)
    assert one.reason == "like its peers in the last 5 windows"


def test_one_of_which_nothing_is_known_is_tried_again_after_a_time_that_doubles():
    w = world(bad=[3], pace=0.6)
    nothing = ("tokens_out", "first_tokens", "requests_ended")
    idle = {"running_mean": 0.0, "in_flight_mean": 0.0, **dict.fromkeys(nothing, 0)}
    waits = []
    for _ in range(3):
        w.run(12)
        assert w.peers["chat-3"].out == "replica"
        began_s, slow = w.now_s, w.peers["chat-3"]
        w.change("chat-3", **idle)
        while w.peers["chat-3"].out is not None:
            released = w.run(1)
        assert released[0].is_trial
        waits.append(w.now_s - began_s)
        w.peers["chat-3"] = replace(slow, out=None)
    assert waits == pytest.approx([300.0, 600.0, 1200.0], abs=70.0)


def test_a_node_on_which_nothing_is_left_is_released_in_time():
    w = world(8)
    w.outs = (OutSeen(kind="node", name="gone", pool="p"),)
    (one,) = w.run(31)
    assert (one.kind, one.name, one.replicas, one.is_trial) == ("node", "gone", (), True)


def test_a_view_that_comes_twice_counts_once():
    w = world(bad=[3], pace=0.6)
    w.run(6)
    for _ in range(8):  # a second later each
        w.now_s -= 9.0
        assert w.run(1) == []
    assert [one.name for one in w.run(1)] == ["chat-3"]


def test_what_is_remembered_survives_a_restart_of_the_control_plane():
    w = world(bad=[3], pace=0.6)
    w.run(5)
    w.state = msgspec.json.decode(msgspec.json.encode(w.state), type=PeersState)
    assert [one.name for one in w.run(3)] == ["chat-3"]


def test_what_is_gone_is_forgotten():
    w = world(bad=[3], pace=0.6)
    w.run(12)
    del w.peers["chat-3"]
    w.run(1)
    assert "chat-3" not in w.state.marks
    assert "chat-3" not in w.state.late
    w.run(721)
    assert w.state.outs == {}
