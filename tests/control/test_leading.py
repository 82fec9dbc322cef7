"""Who leads: leases on a real store, with clocks that the tests turn."""

import asyncio
import random

import pytest

from argosy.control.leading import Guarded, Leading, holder_of, url_of
from argosy.launchers.endpoint import EndpointPool
from argosy.launchers.port import PoolUnseenError
from argosy.store.errors import StoreError
from argosy.store.leases import acquire
from argosy.store.schema import open_store

TTL_S = 1.2


@pytest.fixture
def store(tmp_path):
    engine = open_store(tmp_path / "argosy.db")
    yield engine
    engine.dispose()


class Clock:
    """The loop's, and what a sleep of the host adds."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.slept_s


def leading(store, holder, clock=None) -> Leading:
    return Leading(
        store, "f", holder, clock_s=clock or Clock(), ttl_s=TTL_S, chance=random.Random(1)
    )


async def ended(*leaders: Leading) -> None:
    for one in leaders:
        await one.resign()
        one.close()


def test_one_of_two_leads_and_the_other_follows_when_it_resigns(store):
    async def story():
        ann, bob = leading(store, "ann"), leading(store, "bob")
        first = await ann.lead()
        waits = asyncio.create_task(bob.lead())
        await asyncio.sleep(1.5 * TTL_S)  # it is renewed
        assert ann.may_act()
        assert not waits.done()
        assert not bob.may_act()
        assert bob.other.holder == "ann"
        await ann.resign()
        assert not ann.may_act()
        second = await asyncio.wait_for(waits, 5.0)
        assert bob.may_act()
        assert second.token > first.token
        await ended(ann, bob)

    asyncio.run(story())


def test_a_leader_that_slept_past_its_lease_may_not_act_and_goes_on_when_nobody_took_it(store):
    async def story():
        clock = Clock()
        ann = leading(store, "ann", clock)
        lease = await ann.lead()
        clock.slept_s += 10 * TTL_S
        assert not ann.may_act()
        async with asyncio.timeout(10.0):  # until it is renewed: nobody else had it in between
            while not ann.may_act():
                await asyncio.sleep(0.05)
        assert ann.lease.token == lease.token
        await ended(ann)

    asyncio.run(story())


def test_a_leader_stops_before_its_lease_ends_though_the_store_says_nothing(store, tmp_path):
    async def story():
        ann = leading(store, "ann")
        await ann.lead()
        store.dispose()
        (tmp_path / "argosy.db").rename(tmp_path / "gone.db")
        await asyncio.sleep(TTL_S)
        assert not ann.may_act()
        (tmp_path / "argosy.db").unlink(missing_ok=True)
        (tmp_path / "gone.db").rename(tmp_path / "argosy.db")
        store.dispose()
        async with asyncio.timeout(10.0):
            while not ann.may_act():
                await asyncio.sleep(0.05)
        await ended(ann)

    asyncio.run(story())


def test_a_leader_that_another_has_replaced_hears_of_it(store):
    async def story():
        ann = leading(store, "ann")
        lease = await ann.lead()
        acquire(store, "f", "bob", ttl_s=60.0, now_s=lease.expires_at_s + 1.0)
        told = await asyncio.wait_for(ann.lost(), 5.0)
        assert "bob has the lease now" in told
        assert not ann.may_act()
        await ended(ann)

    asyncio.run(story())


def test_a_leader_whose_writes_are_refused_stops_at_once(store):
    async def story():
        ann = leading(store, "ann")
        await ann.lead()
        ann.fence("the store says so")
        assert not ann.may_act()
        assert await ann.lost() == "the store says so"
        await ended(ann)

    asyncio.run(story())


def test_who_takes_the_lease_of_another_is_told_whose_it_is(store):
    acquire(store, "f", "ann", ttl_s=60.0)

    async def story():
        with pytest.raises(StoreError, match="ann leads fleet f on this store"):
            leading(store, "bob").take()

    asyncio.run(story())


def test_a_guarded_launcher_looks_and_touches_nothing_unless_it_may(a_spec):
    may = [True]
    guarded = Guarded(EndpointPool(), lambda: may[0])

    async def story():
        await guarded.start(a_spec)
        may[0] = False
        assert [one.name for one in (await guarded.observe()).replicas] == ["r-1"]
        for act in (
            guarded.start(a_spec),
            guarded.stop("r-1", grace_s=0.0),
            guarded.cordon("n", reason=""),
            guarded.uncordon("n"),
        ):
            with pytest.raises(PoolUnseenError, match="does not lead now"):
                await act
        assert [one.name for one in (await guarded.observe()).replicas] == ["r-1"]

    asyncio.run(story())


@pytest.fixture
def a_spec():
    from argosy.fleet.config import EndpointEngine
    from argosy.fleet.messages import ReplicaSpec

    return ReplicaSpec(
        fleet="f", name="r-1", deployment="m@p", model="m", pool="p", engine=EndpointEngine(),
        command=None, url="http://127.0.0.1:1/v1", health_path="/health", generation="1",
    )  # fmt: skip


def test_a_holder_tells_where_its_api_is():
    holder = str(holder_of("http://c1:8470", host="c1", pid=7))
    assert url_of(holder) == "http://c1:8470"
    assert holder != str(holder_of("http://c1:8470", host="c1", pid=7))
    assert url_of("up") is None
    assert url_of(None) is None
