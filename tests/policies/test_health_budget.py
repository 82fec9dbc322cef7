"""How much may be out at once, and whom nobody kills."""

from msgspec.structs import replace

from argosy.policies.health import (
    BudgetNode,
    BudgetReplica,
    BudgetSettings,
    BudgetView,
    Wish,
    allowed,
)

SETTINGS = BudgetSettings()
NOW_S = 1000.0


def fleet(count=40, *, pools=4, **needed):
    """Replicas of two models, on nodes of two, that answered their probes a moment ago."""
    replicas = tuple(
        BudgetReplica(
            name=f"r-{n}",
            deployment=f"{'chat' if n % 2 else 'code'}@p{n % pools}",
            model="chat" if n % 2 else "code",
            pool=f"p{n % pools}",
            node=f"n{n // pools // 2}",
            is_serving=True,
            probe_good_s=NOW_S - 0.4,
        )
        for n in range(count)
    )
    return BudgetView(now_s=NOW_S, replicas=replicas, needed=needed)


def changed(view, names, **what):
    return replace(
        view,
        replicas=tuple(replace(one, **what) if one.name in names else one for one in view.replicas),
    )


def failing(view, names, since_s=8.0):
    return changed(
        view,
        names,
        failing_since_s=NOW_S - since_s,
        probe_good_s=NOW_S - since_s - 0.5,
        is_serving=False,
    )


def wish(kind, *names, since_s=0.0):
    return Wish(kind=kind, replicas=names, since_s=since_s, reason="why")


def names(view):
    return [one.name for one in view.replicas]


def test_what_fails_alone_is_killed():
    view = failing(fleet(), ["r-3"])
    assert allowed(view, (wish("kill", "r-3"),), SETTINGS).granted


def test_a_prober_whose_own_network_is_cut_kills_nobody_and_says_why():
    view = failing(fleet(), names(fleet()))
    asked = tuple(wish("kill", name) for name in names(view))
    answer = allowed(view, asked, SETTINGS)
    assert answer.granted == ()
    assert len(answer.put_off) == 40
    for one in answer.put_off:
        assert "rather the prober's own network than all of them" in one.reason
        assert one.reason.endswith("nothing is killed")


def test_when_all_hang_for_long_one_at_a_time_is_tried_in_the_whole_fleet():
    view = failing(fleet(), names(fleet()), since_s=SETTINGS.blind_s + 1.0)
    asked = tuple(wish("kill", name) for name in names(view))
    answer = allowed(view, asked, SETTINGS)
    assert len(answer.granted) == 1
    assert all(one.reason.endswith("one at a time is tried") for one in answer.put_off)
    [first] = answer.granted[0].replicas
    one_out = changed(view, [first], out="killed", failing_since_s=None)
    rest = tuple(one for one in asked if one.replicas != (first,))
    assert allowed(one_out, rest, SETTINGS).granted == ()
    back = changed(view, [first], failing_since_s=None, probe_good_s=NOW_S)
    assert len(allowed(back, rest, SETTINGS).granted) > 1, "it answers: the others do hang"


def test_of_two_that_hang_the_second_waits_for_the_first_to_be_tried():
    view = failing(fleet(2), names(fleet(2)), since_s=SETTINGS.blind_s + 1.0)
    view = changed(view, ["r-0"], out="killed", failing_since_s=None)
    (one,) = allowed(view, (wish("kill", "r-1"),), SETTINGS).put_off
    assert one.reason.endswith("one at a time is tried")


def test_whoever_serves_is_not_tried_though_all_seem_to_hang():
    view = failing(fleet(), names(fleet()), since_s=SETTINGS.blind_s + 1.0)
    view = changed(view, names(view)[:39], served_s=NOW_S - 1.0)
    asked = tuple(wish("kill", name) for name in names(view))
    assert [one.replicas for one in allowed(view, asked, SETTINGS).granted] == [("r-39",)]


def test_one_that_was_not_asked_again_since_is_no_witness_for_the_prober():
    """Endpoints are asked every 5 s: their last good answer is from before the cut."""
    view = failing(fleet(), names(fleet())[1:])
    view = changed(view, ["r-0"], probe_good_s=NOW_S - 9.0)
    answer = allowed(view, (wish("kill", "r-3"),), SETTINGS)
    assert answer.granted == ()


def test_replicas_of_the_prober_s_own_machine_are_no_witnesses_and_are_killed_all_the_same():
    far = names(fleet())[2:]
    view = changed(failing(fleet(), far), ["r-0", "r-1"], is_local=True)
    assert allowed(view, (wish("kill", "r-3"),), SETTINGS).granted == ()
    view = changed(failing(fleet(2), names(fleet(2))), ["r-0", "r-1"], is_local=True)
    assert allowed(view, (wish("kill", "r-0"),), SETTINGS).granted


def test_the_only_replica_there_is_may_be_killed():
    view = failing(fleet(1), ["r-0"])
    assert allowed(view, (wish("kill", "r-0"),), SETTINGS).granted


def test_a_whole_pool_that_fails_is_tried_one_at_a_time_after_a_while():
    pool = [name for n, name in enumerate(names(fleet())) if n % 4 == 1]
    asked = tuple(wish("kill", name) for name in pool)
    soon = allowed(failing(fleet(), pool), asked, SETTINGS)
    assert soon.granted == ()
    assert "rather the way there than all of them" in soon.put_off[0].reason
    late = failing(fleet(), pool, since_s=90.0)
    assert len(allowed(late, asked, SETTINGS).granted) == 1
    one_out = changed(late, pool[:1], out="killed")
    again = allowed(one_out, asked[1:], SETTINGS)
    assert again.granted == ()
    assert again.put_off[0].reason.endswith("one at a time is tried")


def test_a_replica_whose_answers_reach_the_gateway_is_not_killed():
    view = changed(failing(fleet(), ["r-3"]), ["r-3"], served_s=NOW_S - 2.0)
    (one,) = allowed(view, (wish("kill", "r-3"),), SETTINGS).put_off
    assert one.reason == "the gateway had an answer from r-3 2.0 s ago"


def test_of_a_fleet_of_forty_four_are_out_at_once():
    asked = tuple(wish("quarantine", f"r-{n}", since_s=-n) for n in range(10))
    answer = allowed(fleet(), asked, SETTINGS)
    assert [one.replicas for one in answer.granted] == [("r-9",), ("r-8",), ("r-7",), ("r-6",)]
    assert answer.put_off[0].reason == "1 more of the fleet at once, none may be"


def test_of_a_model_a_quarter_is_out_at_once():
    settings = BudgetSettings(out_share_fleet=1.0)
    view = fleet(16)
    answer = allowed(view, tuple(wish("drain", name) for name in names(view)), settings)
    assert len(answer.granted) == 4  # two of each model
    assert answer.put_off[0].reason == "1 more of code at once, none may be"


def test_what_is_out_already_counts_and_is_granted_again():
    view = changed(fleet(), ["r-1", "r-2", "r-3"], out="quarantined", is_serving=False)
    asked = (wish("kill", "r-1"), wish("drain", "r-5"), wish("drain", "r-6"))
    answer = allowed(view, asked, SETTINGS)
    assert [one.replicas for one in answer.granted] == [("r-1",), ("r-5",)]


def test_what_crashed_of_itself_is_no_part_of_the_budget():
    view = changed(fleet(), [f"r-{n}" for n in range(10, 20)], is_serving=False)
    asked = tuple(wish("quarantine", f"r-{n}") for n in range(4))
    assert len(allowed(view, asked, SETTINGS).granted) == 4


def test_nobody_is_drained_below_what_is_needed_but_what_serves_nobody_is_killed():
    view = fleet(**{"chat@p1": 10})
    (one,) = allowed(view, (wish("drain", "r-1"),), SETTINGS).put_off
    assert one.reason == "chat@p1 can spare 0 of its replicas"
    assert allowed(failing(view, ["r-1"]), (wish("kill", "r-1"),), SETTINGS).granted


def test_a_node_goes_whole_or_not_at_all():
    answer = allowed(fleet(), (wish("quarantine", *[f"r-{n}" for n in range(5)]),), SETTINGS)
    assert answer.granted == ()
    assert answer.put_off[0].reason == "5 more of the fleet at once, 4 may be"


def test_kills_come_before_quarantines_and_these_before_drains():
    view = failing(fleet(), ["r-9"])
    asked = (wish("drain", "r-1"), wish("quarantine", "r-2"), wish("kill", "r-9", since_s=50.0))
    settings = BudgetSettings(out_share_fleet=0.0, out_fleet_min=2)
    granted = allowed(view, asked, settings).granted
    assert [one.kind for one in granted] == ["kill", "quarantine"]


def test_of_a_pool_s_nodes_a_quarter_is_cordoned_at_once():
    nodes = tuple(BudgetNode(name=f"n{n}", pool="p0", is_cordoned=n == 0) for n in range(8))
    view = replace(fleet(), nodes=nodes)
    asked = tuple(
        Wish(kind="cordon", node=f"n{n}", pool="p0", since_s=0.0, reason="why") for n in range(4)
    )
    answer = allowed(view, asked, SETTINGS)
    assert [one.node for one in answer.granted] == ["n0", "n1"]
    assert answer.put_off[0].reason == "1 more node of p0 at once, none may be"


def test_a_replica_that_nobody_knows_is_put_off():
    (one,) = allowed(fleet(), (wish("drain", "stranger"),), SETTINGS).put_off
    assert one.reason == "stranger is not known"
