"""Who comes and who goes: make before break, surge, caps, and what nobody can see."""

from msgspec.structs import replace

from argosy.policies.lifecycle import (
    Decision,
    Lifecycle,
    ReplicaView,
    Settings,
    View,
    Wanted,
    decide,
)


def replica(name: str, *, ready: bool = True, generation: str = "1", **more) -> ReplicaView:
    deployment = more.pop("deployment", "m@p")
    return ReplicaView(
        name=name,
        deployment=deployment,
        model=deployment.partition("@")[0],
        generation=generation,
        created_at_s=0.0,
        is_ready=ready,
        is_serving=more.pop("serving", ready),
        **more,
    )


def wanted(replicas: int, *, deployment: str = "m@p", **more) -> Wanted:
    return Wanted(
        deployment=deployment,
        model=deployment.partition("@")[0],
        generation=more.pop("generation", "1"),
        replicas=replicas,
        **more,
    )


def decided(*parts: ReplicaView | Wanted, state: Lifecycle | None = None, at_s: float = 0.0):
    view = View(
        now_s=at_s,
        replicas=tuple(one for one in parts if isinstance(one, ReplicaView)),
        wanted=tuple(one for one in parts if isinstance(one, Wanted)),
    )
    return decide(state or Lifecycle(), view)


def going(decision: Decision) -> list[str]:
    return [one.replica for one in decision.remove]


def test_what_is_missing_is_created_all_at_once():
    _, decision = decided(wanted(3), replica("m-1"))
    assert [one.deployment for one in decision.create] == ["m@p"] * 2
    assert decision.create[0].reason == "3 wanted, 1 there"


def test_an_old_generation_is_replaced_by_one_at_a_time():
    old = [replica(f"m-{n}", generation="0") for n in (1, 2, 3)]
    _, decision = decided(wanted(3), *old)
    assert (len(decision.create), going(decision)) == (1, [])
    assert "3 of m are wanted and 2 others are ready" in decision.waits[0]
    _, decision = decided(wanted(3), *old, replica("m-4"))
    assert (len(decision.create), len(going(decision))) == (0, 1)


def test_old_ones_that_serve_nobody_make_room_at_once():
    old = [replica(f"m-{n}", generation="0", ready=False) for n in (1, 2)]
    _, decision = decided(wanted(2), *old)
    assert (len(decision.create), going(decision)) == (2, ["m-2", "m-1"])


def test_a_suspect_one_is_not_taken_away_as_if_it_were_dead():
    suspects = [replica(f"m-{n}", ready=False, serving=True, generation="0") for n in (1, 2)]
    _, decision = decided(wanted(2), *suspects)
    assert going(decision) == []


def test_without_room_for_one_more_one_goes_first():
    old = [replica(f"m-{n}", generation="0") for n in (1, 2)]
    _, decision = decided(wanted(2, has_room=False), *old)
    assert (len(decision.create), len(going(decision))) == (0, 1)
    _, decision = decided(wanted(1, has_room=False), old[0])
    assert going(decision) == []  # the last one stays


def test_a_model_moves_when_the_other_pool_is_ready():
    here = [replica(f"m-{n}") for n in (1, 2)]
    there = wanted(2, deployment="m@q")
    _, decision = decided(there, *here)
    assert (len(decision.create), going(decision)) == (2, [])
    come = [replica(f"q-{n}", deployment="m@q") for n in (1, 2)]
    _, decision = decided(there, *here, *come)
    assert going(decision) == ["m-2"]  # a quarter in a minute, one at least
    assert "enough of its model went" in decision.waits[0]


def test_a_model_that_nobody_wants_goes_at_once():
    _, decision = decided(wanted(1, deployment="n@p"), replica("m-1"), replica("m-2"))
    assert sorted(going(decision)) == ["m-1", "m-2"]


def test_the_idlest_goes_first_and_of_equals_the_newest():
    busy = [replica(f"m-{n}", requests_in_flight=count) for n, count in ((1, 0), (2, 5), (3, 0))]
    _, decision = decided(wanted(2), *busy)
    assert going(decision) == ["m-3"]


def test_no_more_than_a_share_goes_in_an_interval():
    eight = [replica(f"m-{n}") for n in range(1, 9)]
    state, decision = decided(wanted(1), *eight)
    assert len(going(decision)) == 2
    left = [one for one in eight if one.name not in going(decision)]
    state, decision = decided(wanted(1), *left, state=state, at_s=30.0)
    assert going(decision) == []
    _, decision = decided(wanted(1), *left, state=state, at_s=61.0)
    assert len(going(decision)) == 1  # a quarter of the six of half a minute ago


def test_what_cannot_be_seen_is_not_taken_away_and_replaced_only_when_lost():
    unseen = replica("m-1", is_seen=False)
    _, decision = decided(wanted(0), unseen)
    assert going(decision) == []
    assert "cannot be seen" in decision.waits[0]
    _, decision = decided(wanted(1), unseen)
    assert decision.create == ()
    _, decision = decided(wanted(1), replace(unseen, is_ready=False, is_lost=True))
    assert len(decision.create) == 1


def test_nothing_is_created_where_it_cannot_be_started():
    _, decision = decided(wanted(2, is_open=False))
    assert decision.create == ()


def test_a_drained_pool_empties_when_the_other_one_suffices():
    one, other = replica("m-1", is_unwelcome=True), replica("q-1", deployment="m@q")
    plans = wanted(1, is_open=False), wanted(1, deployment="m@q")
    _, decision = decided(*plans, one, other)
    assert going(decision) == ["m-1"]
    _, decision = decided(*plans, one, replace(other, is_ready=False, is_serving=False))
    assert going(decision) == []


def test_order_changes_nothing():
    parts = [replica(f"m-{n}", requests_in_flight=n % 3) for n in range(1, 9)]
    first = decided(wanted(3), *parts)
    assert first == decided(wanted(3), *reversed(parts))


def test_settings_may_allow_a_larger_surge():
    old = [replica(f"m-{n}", generation="0") for n in (1, 2, 3)]
    view = View(now_s=0.0, replicas=tuple(old), wanted=(wanted(3),))
    _, decision = decide(Lifecycle(), view, Settings(surge=3))
    assert len(decision.create) == 3
