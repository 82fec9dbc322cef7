"""What several gateways report: summed, and unknown as soon as one of them does not say."""

import asyncio

import msgspec

from argosy.control.hearing import SILENT_S, Hearing, Report
from argosy.control.publication import Publication
from argosy.control.scaling import Signals
from argosy.control.scaling.signals import ReplicaSignals
from argosy.fleet.messages import Key, LiveKeys, ReplicaTable


class Now:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def report(count: int, *, version: int = 7, is_whole: bool = True, **fields) -> Report:
    signals = Signals(
        at_s=5.0, began_s=1.0, replicas={"r": ReplicaSignals(in_flight=count)}, is_whole=is_whole
    )
    return Report(signals=signals, version=version, **fields)


def hearing(now: Now) -> Hearing:
    heard = Hearing(now, unix_s=lambda: 1000.0 + now.s)
    now.s += SILENT_S + 1
    return heard


def test_requests_of_all_gateways_are_added_up():
    now = Now()
    heard = hearing(now)
    heard.hear("a", report(2))
    heard.hear("b", report(3))
    assert heard.in_flight("r", version=7) == 5
    assert heard.in_flight("another", version=7) == 0


def test_a_silent_gateway_makes_the_count_unknown_until_it_says_goodbye():
    now = Now()
    heard = hearing(now)
    heard.hear("a", report(0))
    heard.hear("b", report(0))
    now.s += SILENT_S + 1
    heard.hear("a", report(0))
    assert heard.in_flight("r", version=7) is None
    heard.hear("b", report(0, is_leaving=True))
    assert heard.in_flight("r", version=7) == 0


def test_a_count_by_an_older_table_is_none_for_that_gateway_may_still_send():
    now = Now()
    heard = hearing(now)
    heard.hear("a", report(0, version=6))
    assert heard.in_flight("r", version=7) is None
    heard.hear("a", report(0, version=7))
    assert heard.in_flight("r", version=9) == 0  # it leaves since table 7
    heard.stay(set())
    assert heard.in_flight("r", version=9) is None


def test_nothing_is_known_at_the_beginning_nor_of_half_a_gateway():
    now = Now()
    heard = Hearing(now, unix_s=now)
    heard.hear("a", report(0))
    assert heard.in_flight("r", version=7) is None  # another gateway may yet speak up
    now.s += SILENT_S + 1
    heard.hear("a", report(0, is_whole=False))
    assert heard.in_flight("r", version=7) is None


def test_signals_bear_the_gateways_name_and_our_time():
    now = Now()
    heard = hearing(now)
    heard.hear("a", report(1))
    (signals,) = heard.signals()
    assert signals.source == "a"
    assert signals.at_s == 1000.0 + now.s
    assert signals.at_s - signals.began_s == 4.0


def test_a_newer_table_is_told_at_once_and_an_older_one_never():
    async def story():
        publication = Publication(asyncio.get_running_loop().time)
        publication.wait_s_max = 0.05
        publication.offer(ReplicaTable(version=8, replicas=()))
        publication.offer(ReplicaTable(version=3, replicas=()))
        assert publication.table.version == 8
        orders = await publication.news(report(0), leader=lambda: None)
        assert orders.newest == 8
        assert bytes(orders.table) != b"null"
        none = await publication.news(report(0, version=8), leader=lambda: None)
        assert bytes(none.table) == b"null"
        publication.wait_s_max = 10.0
        waits = asyncio.create_task(publication.news(report(0, version=8), leader=lambda: None))
        await asyncio.sleep(0.01)
        publication.offer(ReplicaTable(version=9, replicas=()))
        assert (await asyncio.wait_for(waits, 1.0)).newest == 9

    asyncio.run(story())


def test_keys_are_told_when_they_change_and_only_to_whom_takes_them():
    key = Key(id="k", sha256="s", tenant="acme", tier="batch", name="n", created_at_s=0.0)

    async def story():
        publication = Publication(asyncio.get_running_loop().time)
        publication.wait_s_max = 0.02
        publication.offer_keys(LiveKeys(revision=3, keys=(key,)))
        publication.offer_keys(LiveKeys(revision=2, keys=()))
        told = await publication.news(report(0, keys=0), leader=lambda: None)
        assert msgspec.json.decode(told.keys, type=LiveKeys).keys == (key,)
        for knows in (report(0, keys=3), report(0)):
            assert bytes((await publication.news(knows, leader=lambda: None)).keys) == b"null"
        publication.wait_s_max = 10.0
        waits = asyncio.create_task(publication.news(report(0, keys=3), leader=lambda: None))
        await asyncio.sleep(0.01)
        publication.offer_keys(LiveKeys(revision=4, keys=()))
        revoked = await asyncio.wait_for(waits, 1.0)
        assert msgspec.json.decode(revoked.keys, type=LiveKeys).keys == ()

    asyncio.run(story())


def test_a_gateway_with_another_fleet_file_is_told_the_one_that_holds():
    async def story():
        publication = Publication(asyncio.get_running_loop().time)
        publication.offer_spec("fleet: f")
        told = await publication.news(report(0), leader=lambda: "http://c1")
        assert (told.spec, told.leader) == ("fleet: f", "http://c1")
        publication.wait_s_max = 0.02
        same = report(0, sha256=told.sha256)
        assert (await publication.news(same, leader=lambda: None)).spec is None

    asyncio.run(story())
