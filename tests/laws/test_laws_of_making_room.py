"""Which islands leave for replicas without room: enough of them, none in vain, none that stays."""

from hypothesis import given
from hypothesis import strategies as st

from argosy.policies.elasticity import Guest, who_leaves

NODES = ("n1", "n2", "n3")
free = st.dictionaries(st.sampled_from(NODES), st.integers(0, 8), min_size=1)


@st.composite
def guests(draw):
    made = draw(
        st.lists(
            st.tuples(st.sampled_from(NODES), st.integers(0, 8), st.booleans(), st.booleans()),
            max_size=6,
        )
    )
    return [
        Guest(island=f"i{at}", node=node, chips=chips, gives_way=gives, is_leaving=leaving)
        for at, (node, chips, gives, leaving) in enumerate(made)
    ]


def room(there, free, gone):
    """Chips by open node, once those have left."""
    left = dict(free)
    for guest in there:
        if (guest.is_leaving or guest.island in gone) and guest.node in left:
            left[guest.node] += guest.chips
    return left


@given(guests(), free, st.integers(1, 20))
def test_one_replica_has_room_where_that_can_be_and_nobody_leaves_in_vain(there, free, chips):
    told = who_leaves(there, wanted=[chips], free=free)
    those = [guest for guest in there if guest.island in told]
    assert all(guest.gives_way and not guest.is_leaving for guest in those)
    most = room(there, free, {guest.island for guest in there if guest.gives_way})
    is_possible = max(most.values()) >= chips
    assert (max(room(there, free, told).values()) >= chips) == is_possible
    for guest in those:
        assert max(room(there, free, told.keys() - {guest.island}).values()) < chips


@given(guests(), free, st.lists(st.integers(1, 8), max_size=4))
def test_whoever_was_told_is_counted_on_and_nobody_is_told_for_the_same_again(there, free, wanted):
    told = who_leaves(there, wanted=wanted, free=free)
    later = [
        Guest(
            island=guest.island,
            node=guest.node,
            chips=guest.chips,
            gives_way=guest.gives_way,
            is_leaving=guest.is_leaving or guest.island in told,
        )
        for guest in there
    ]
    assert who_leaves(later, wanted=wanted, free=free) == {}


@given(guests(), free, st.sampled_from(NODES))
def test_a_node_that_closes_is_left_by_all(there, free, closing):
    open_ones = {node: chips for node, chips in free.items() if node != closing}
    told = who_leaves(there, wanted=[], free=open_ones, closing=frozenset({closing}))
    assert set(told) == {
        guest.island for guest in there if guest.node == closing and not guest.is_leaving
    }


def test_the_node_that_gives_up_fewest_chips_is_chosen_and_the_largest_want_first():
    there = [
        Guest(island="a", node="n1", chips=8, gives_way=True),
        Guest(island="b", node="n2", chips=4, gives_way=True),
        Guest(island="c", node="n2", chips=2, gives_way=True),
        Guest(island="d", node="n3", chips=4, gives_way=False),
    ]
    free = {"n1": 0, "n2": 2, "n3": 0}
    assert set(who_leaves(there, wanted=[2], free=free)) == set()
    assert set(who_leaves(there, wanted=[4], free=free)) == {"c"}
    assert set(who_leaves(there, wanted=[6], free=free)) == {"b"}
    assert set(who_leaves(there, wanted=[2, 6], free=free)) == {"b", "c"}
    assert set(who_leaves(there, wanted=[8, 8], free=free)) == {"a", "b", "c"}
    assert set(who_leaves(there, wanted=[9], free=free)) == set()
