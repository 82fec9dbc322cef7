"""Islands on a fleet's pool: who is told to leave, once, and who may not come yet."""

from argosy.fleet.messages import Observation, ObservedNode
from argosy.fleet.runs import Island
from argosy.training.guests import Guests


class Life:
    def __init__(self, node: str | None) -> None:
        self.node = node
        self.left_for = ""

    def leave(self, why: str) -> None:
        assert not self.left_for, "it was told before"
        self.left_for = why


def look(*wanted: int, free: int = 0, state="up") -> Observation:
    node = ObservedNode(name="n1", state=state, chips=8, chips_free=free)
    return Observation(replicas=(), nodes=(node,), wanted=wanted)


def island(name: str, gives_way_s: float | None) -> Island:
    return Island(name=name, pool="p", gives_way_s=gives_way_s)


def test_the_one_that_gives_way_leaves_once_and_may_come_so_long_after_the_last_want():
    guests, life, other = Guests(), Life("n1"), Life("n1")
    ann, bob = island("ann", 60.0), island("bob", None)
    guests.came(ann, 4, life)
    guests.came(bob, 4, other)
    guests.hear(look(), 0.0)
    assert (life.left_for, other.left_for) == ("", "")
    assert guests.refusal(ann, 0.0) == ""
    guests.hear(look(4), 10.0)
    guests.hear(look(4), 11.0)
    assert "4 chips finds no room" in life.left_for
    guests.gone("ann", 12.0)
    guests.hear(look(4), 12.5)
    assert "gives way" in guests.refusal(ann, 72.4)
    assert "gives way" in guests.refusal(ann, 72.5)  # at the last look one was still without
    guests.hear(look(), 73.0)
    assert guests.refusal(ann, 73.0) == ""
    assert guests.refusal(bob, 13.0) == ""
    assert other.left_for == ""


def test_with_no_patience_at_all_it_does_not_come_before_the_replica():
    guests, ann = Guests(), island("ann", 0.0)
    guests.hear(look(4, free=4), 10.0)
    assert "gives way" in guests.refusal(ann, 10.1)
    guests.hear(look(free=4), 12.0)
    assert guests.refusal(ann, 12.0) == ""


def test_where_there_is_room_nobody_leaves():
    guests, life = Guests(), Life("n1")
    guests.came(island("ann", 60.0), 4, life)
    guests.hear(look(4, free=4), 10.0)
    assert life.left_for == ""


def test_a_node_that_is_emptied_is_left_by_all_and_one_of_unknown_place_is_not_told():
    guests, life, unknown = Guests(), Life("n1"), Life(None)
    guests.came(island("ann", None), 4, life)
    guests.came(island("bob", None), 4, unknown)
    guests.hear(look(state="draining"), 10.0)
    assert life.left_for == "node n1 is to be emptied"
    assert unknown.left_for == ""


def test_after_one_has_left_the_pool_may_take_a_moment_to_know_its_chips_free():
    guests = Guests()
    lives = {name: Life("n1") for name in ("ann", "bob")}
    for name, life in lives.items():
        guests.came(island(name, 60.0), 4, life)
    guests.hear(look(4), 10.0)
    (first,) = (name for name, life in lives.items() if life.left_for)
    guests.gone(first, 11.0)
    guests.hear(look(4), 11.1)  # its chips are not among the free ones yet
    guests.hear(look(4, free=4), 20.0)
    assert sum(bool(life.left_for) for life in lives.values()) == 1
    guests.hear(look(4), 21.0)  # another took them
    assert all(life.left_for for life in lives.values())
