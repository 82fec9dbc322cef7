"""What the syncer knows of islands, without processes."""

from argosy.policies.elasticity import Close, Wait
from argosy.training.syncer.seats import Seats
from argosy.training.wire import Beat
from tests.training.syncer.running_run import a_run


def beat(seats, island, epoch, steps_per_s, **more):
    told = Beat(
        island=island,
        epoch=epoch,
        version=0,
        steps_per_s=steps_per_s,
        loss=None,
        waited_s=0.0,
        wants_lease=True,
        **more,
    )
    seats.take(seats.seats[island], told)


def test_a_slow_island_that_comes_back_is_not_leased_as_much_as_one_of_mean_speed():
    seats = Seats(a_run())
    for name, speed in (("ann", 30.0), ("bob", 10.0)):
        seats.sit(name, 1, now_s=0.0)
        beat(seats, name, 1, speed)
    before = seats.blocks_to_lease(seats.seats["bob"], blocks_free=10_000)
    back = seats.sit("bob", 2, now_s=1.0)
    beat(seats, "bob", 2, None)  # it has measured nothing yet
    assert seats.blocks_to_lease(back, blocks_free=10_000) == before
    fast = seats.seats["ann"]
    assert before < seats.blocks_to_lease(fast, blocks_free=10_000)


def test_after_a_restart_rounds_wait_for_the_islands_that_were_there():
    """One that sends several deltas at once would find rounds that others made, and be too old."""
    seats = Seats(a_run())
    ann, _ = (seats.expect(name, 1, now_s=0.0) for name in ("ann", "bob"))
    beat(seats, "bob", 1, 10.0)
    seats.contributed("bob", now_s=1.0)
    waits = seats.closing(is_last=True, now_s=1.5)
    assert isinstance(waits, Wait)
    assert waits.reason.endswith(": ann")
    assert isinstance(seats.closing(is_last=True, now_s=waits.until_s), Close)
    beat(seats, "ann", 1, 10.0, unsent=2)
    assert isinstance(seats.closing(is_last=True, now_s=2.0), Wait), "its deltas are on the way"
    seats.returned(ann, "some-lease", now_s=2.0)
    assert isinstance(seats.closing(is_last=False, now_s=2.0), Close), "it trains on nothing"
