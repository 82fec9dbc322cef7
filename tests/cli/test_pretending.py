"""A fleet as it is pretended, and the pools that can be lost: no fleet is started here."""

import asyncio
import functools
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from argosy.cli.files import UnreadableFleetError, check_startable, load_fleet
from argosy.cli.operator_socket import Back, Lose
from argosy.cli.pretending import (
    Pretence,
    PretenceRefusedError,
    check_memory,
    domains_of,
    pools_in,
    pretended,
)
from argosy.cli.wanted import Launchers
from argosy.cli.welcome import welcome
from argosy.fleet.config import Fleet, SimulatedEngine
from argosy.fleet.messages import Command, ReplicaSpec
from argosy.launchers.port import PoolUnseenError

EXAMPLES = Path(__file__).parents[2] / "examples"
FIVE = load_fleet(EXAMPLES / "five-makers.yaml")
SLEEPS = 'import sys; print(\'{"url": "http://127.0.0.1:1"}\', flush=True); sys.stdin.read()'


@functools.cache
def five() -> Fleet:
    return Pretence(Path()).of(FIVE)


def spec(name: str, pool: str) -> ReplicaSpec:
    return ReplicaSpec(
        fleet="f",
        name=name,
        deployment=f"m@{pool}",
        model="m",
        pool=pool,
        engine=SimulatedEngine(),
        command=Command(argv=(sys.executable, "-c", SLEEPS), env={}),
        health_path="/health",
        generation="1",
    )


def in_a_loop(test: Callable[[Path], Coroutine[None, None, None]]) -> Callable[[Path], None]:
    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        asyncio.run(test(tmp_path))

    return run


def test_every_example_can_be_started_when_it_is_pretended():
    for name in ("embedded", "endpoint", "kubernetes", "pretend"):
        check_startable(pretended(load_fleet(EXAMPLES / f"{name}.yaml")))


def test_a_pretended_pool_keeps_its_place_its_chip_and_its_price():
    fleet = five()
    for pool, real in zip(fleet.pools, FIVE.pools, strict=True):
        assert (pool.name, pool.region, pool.chip) == (real.name, real.region, real.chip)
        assert pool.price_usd_per_chip_hour == real.price_usd_per_chip_hour
    assert fleet.models[2].residency == ("us",)


def test_a_simulated_replica_is_as_fast_as_its_chip_would_be():
    engines = {one.name: one.engine for one in five().deployments}
    assert all(isinstance(one, SimulatedEngine) for one in engines.values())
    large, small = engines["large@azure-h100"], engines["small@azure-h100"]
    assert large.decode_tokens_per_s < small.decode_tokens_per_s  # 70B on 4, 8B on 1 H100
    assert large.prefill_tokens_per_s > 1000


def test_as_many_replicas_as_are_asked_for_and_no_more_than_the_file_says():
    assert {one.replicas for one in pretended(FIVE, replicas=3).deployments} == {3}
    scaled = pretended(load_fleet(EXAMPLES / "autoscaled.yaml"), replicas=3)
    assert {one.replicas for one in scaled.deployments} == {3}
    assert {one.autoscale.max for one in scaled.deployments} == {6}
    small = pretended(load_fleet(EXAMPLES / "pretend.yaml"))
    assert [one.replicas for one in small.deployments] == [1] * 7


def test_more_replicas_than_the_memory_holds_are_refused_with_what_would_work():
    fleet = five()
    check_memory(fleet, available_bytes=10**9)
    with pytest.raises(UnreadableFleetError, match=r"14 simulated.*0\.7 GB.*0\.5 GB.*--replicas 1"):
        check_memory(fleet, available_bytes=5 * 10**8)


def test_a_domain_is_a_cloud_a_region_a_pool_or_a_maker():
    def named(domain: str) -> list[str]:
        return [pool.name for pool in pools_in(FIVE, domain)]

    assert named("azure") == ["azure-h100", "azure-maia"] == named("azure/westus3")
    assert named("AMD") == ["own-mi300x"] == named("own") == named("own-mi300x")
    assert named("mars") == []
    assert domains_of(FIVE.pools[0]) == {"azure-h100", "azure/westus3", "azure", "NVIDIA"}


def test_the_welcome_says_that_replicas_are_simulated_and_what_they_stand_for():
    said = welcome(five(), url="http://x", secret="k", is_pretended=True)
    assert "All 14 replicas are simulated" in said
    assert "  own-mi300x  own/frankfurt  MI300X     large x 2\n" in said
    assert "argosy pretend lose azure" in said
    assert "simulated" not in welcome(FIVE, url="http://x", secret="k")


@in_a_loop
async def test_nobody_sees_or_starts_anything_in_a_lost_pool_until_it_is_back(tmp_path: Path):
    pretence = Pretence(tmp_path)
    fleet = five()
    pools = Launchers(tmp_path, pretence=pretence).of(fleet)
    lost, other = pools["azure-maia"], pools["own-mi300x"]
    try:
        await lost.start(spec("a", "azure-maia"))
        await other.start(spec("b", "own-mi300x"))
        assert await pretence.lose(fleet, "azure") == (tuple(pools_in(fleet, "azure")), 1)
        for asking in (lost.observe(), lost.start(spec("c", "x")), lost.stop("a", grace_s=0)):
            with pytest.raises(PoolUnseenError):
                await asking
        assert [one.name for one in (await other.observe()).replicas] == ["b"]
        assert [pool.name for pool in pretence.back(fleet, "azure")] == ["azure-h100", "azure-maia"]
        assert (await lost.observe()).replicas == ()
        await lost.start(spec("a", "azure-maia"))
        assert len((await lost.observe()).replicas) == 1
    finally:
        for pool in pools.values():
            await pool.close(is_final=True)


@in_a_loop
async def test_what_is_being_started_when_its_pool_is_lost_does_not_survive(tmp_path: Path):
    pretence = Pretence(tmp_path)
    fleet = five()
    pool = pretence.launcher(fleet.pools[0])
    starting = asyncio.create_task(pool.start(spec("a", "azure-h100")))
    await asyncio.sleep(0)
    await pretence.lose(fleet, "NVIDIA")
    with pytest.raises(PoolUnseenError):
        await starting
    pretence.back(fleet, "NVIDIA")
    assert (await pool.observe()).replicas == ()


@in_a_loop
async def test_what_is_lost_twice_is_back_when_both_are(tmp_path: Path):
    pretence = Pretence(tmp_path)
    fleet = five()
    await pretence.lose(fleet, "azure")
    await pretence.lose(fleet, "NVIDIA")
    assert [pool.name for pool in pretence.back(fleet, "azure")] == ["azure-maia"]
    assert pretence.launcher(fleet.pools[0]).is_lost
    assert [pool.name for pool in pretence.back(fleet, "NVIDIA")] == ["azure-h100"]


@in_a_loop
async def test_a_new_pool_in_a_lost_region_is_lost_from_the_beginning(tmp_path: Path):
    pretence = Pretence(tmp_path)
    await pretence.lose(FIVE, "azure")
    assert pretence.launcher(FIVE.pools[4]).is_lost
    assert not pretence.launcher(FIVE.pools[1]).is_lost


@in_a_loop
async def test_what_is_not_there_is_not_lost_and_what_is_not_lost_is_not_back(tmp_path: Path):
    pretence = Pretence(tmp_path)
    with pytest.raises(PretenceRefusedError, match=r"mars is no cloud.*there are AMD, .*own"):
        await pretence.lose(FIVE, "mars")
    with pytest.raises(PretenceRefusedError, match="azure was not made to be lost; nothing was"):
        pretence.back(FIVE, "azure")
    await pretence.lose(FIVE, "azure")
    with pytest.raises(PretenceRefusedError, match="lost already: argosy pretend back azure"):
        await pretence.lose(FIVE, "azure")


def test_the_words_of_an_operator_survive_their_socket():
    import msgspec

    from argosy.cli.operator_socket import Asked

    for word in (Lose(domain="azure"), Back(domain="own/frankfurt")):
        assert msgspec.json.decode(msgspec.json.encode(word), type=Asked) == word
