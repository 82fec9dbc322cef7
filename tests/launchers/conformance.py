"""What every launcher promises, as laws that any launcher's test file runs on its own pool.

    @pytest.mark.parametrize("law", LAWS, ids=name_of)
    def test_the_launcher_conforms(law: Law, bench: Bench) -> None:
        asyncio.run(asyncio.wait_for(law(bench), 60))

A `Bench` is a pool to try a launcher on. Laws leave nothing behind and may share one; each uses
names of its own. A pool that runs no real processes overrides `spec` to imitate the `Behaviour`.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

import msgspec
import psutil

from argosy.fleet.config import SimulatedEngine
from argosy.fleet.messages import Command, Observation, ObservedReplica, ReplicaSpec
from argosy.launchers.port import Launcher, NoCapacityError, PoolUnseenError

Behaviour = Literal["listens", "tidy", "stubborn", "silent", "ends", "babbles"]
TIDIES_S = 0.4  # what "tidy" takes to end after SIGTERM
URL = "http://127.0.0.1:1/"
_LIFELINE = """
import os, signal, sys, threading, time
def lifeline():
    while os.read(0, 4096): pass
    os._exit(0)
threading.Thread(target=lifeline, daemon=True).start()
"""
_LISTEN = f"""
print("it listens", file=sys.stderr, flush=True)
print('{{"url": "{URL}"}}', flush=True)
"""
PROGRAMS: dict[Behaviour, str] = {
    "listens": f"{_LIFELINE}{_LISTEN}\ntime.sleep(600)",
    "tidy": f"{_LIFELINE}\nsignal.signal(signal.SIGTERM, lambda *_: "
    f"(time.sleep({TIDIES_S}), os._exit(0))){_LISTEN}\ntime.sleep(600)",
    "stubborn": f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN){_LIFELINE}{_LISTEN}"
    "\ntime.sleep(600)",
    "silent": f"{_LIFELINE}\ntime.sleep(600)",
    "ends": "import sys\nprint('out of luck', file=sys.stderr)\nsys.exit(3)",
    "babbles": f"{_LIFELINE}\nprint('hello', flush=True)\ntime.sleep(600)",
}


class Bench:
    """A pool to try a launcher on."""

    fleet = "bench"
    pool = "pool"
    chips_too_many: int | None = None  # a replica that takes as many has no room; None: no law
    settles_s = 20.0  # what the slowest change takes to be observed
    sees_pids = True  # its replicas are processes of this machine

    def launcher(self) -> Launcher:
        """One; may be the same for all laws."""
        raise NotImplementedError

    def another(self) -> Launcher:
        """A second object on the same pool, as the next control plane's would be; to be closed."""
        raise NotImplementedError

    def spec(self, name: str, behaviour: Behaviour, *, chips: int = 0) -> ReplicaSpec:
        """A replica that behaves so."""
        return ReplicaSpec(
            fleet=self.fleet,
            name=name,
            deployment="d",
            model="m",
            pool=self.pool,
            engine=SimulatedEngine(),
            chips=chips,
            command=Command(argv=(sys.executable, "-c", PROGRAMS[behaviour]), env={}),
            health_path="/health",
            generation=f"g-{behaviour}",
        )


Law = Callable[[Bench], Awaitable[None]]
LAWS: list[Law] = []


def _law(law: Law) -> Law:
    LAWS.append(law)
    return law


def name_of(law: Law) -> str:
    """For pytest's ids."""
    return law.__name__  # type: ignore[attr-defined]


async def seen(launcher: Launcher, bench: Bench) -> Observation:
    """What there is; waits while the pool is not seen."""
    async with asyncio.timeout(bench.settles_s):
        while True:
            with suppress(PoolUnseenError):
                return await launcher.observe()
            await asyncio.sleep(0.1)


def replica(observation: Observation, name: str) -> ObservedReplica | None:
    """That of this name."""
    found = [replica for replica in observation.replicas if replica.name == name]
    assert len(found) <= 1, f"{name} is there {len(found)} times"
    return found[0] if found else None


async def until(
    launcher: Launcher, bench: Bench, name: str, state: str | None
) -> ObservedReplica | None:
    """Wait until it is in that state; None: until it is not there."""
    last: ObservedReplica | None = None
    try:
        async with asyncio.timeout(bench.settles_s):
            while True:
                last = replica(await seen(launcher, bench), name)
                if (last.state if last is not None else None) == state:
                    return last
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{name} is not {state} after {bench.settles_s} s: {last}") from None


async def started(bench: Bench, name: str, behaviour: Behaviour) -> ObservedReplica:
    """One that is started, and listens."""
    launcher = bench.launcher()
    await seen(launcher, bench)
    await launcher.start(bench.spec(name, behaviour))
    found = await until(launcher, bench, name, "listening")
    assert found is not None
    return found


async def _took_s(doing: Awaitable[None]) -> float:
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    await doing
    return loop.time() - begun_s


def _is_gone(bench: Bench, was: ObservedReplica) -> bool:
    return not bench.sees_pids or was.pid is None or not psutil.pid_exists(was.pid)


@_law
async def a_replica_is_started_listens_and_is_stopped(bench: Bench) -> None:
    was = await started(bench, "plain-1", "listens")
    assert was.generation == "g-listens"
    assert was.url is not None
    if bench.sees_pids:
        assert was.pid is not None
        assert psutil.pid_exists(was.pid)
    await bench.launcher().stop("plain-1", grace_s=10)
    assert _is_gone(bench, was), "stop returned before it was gone"
    assert replica(await seen(bench.launcher(), bench), "plain-1") is None


@_law
async def it_is_starting_until_it_listens(bench: Bench) -> None:
    launcher = bench.launcher()
    await seen(launcher, bench)
    await launcher.start(bench.spec("slow-1", "silent"))
    found = replica(await seen(launcher, bench), "slow-1")
    assert found is not None, "start returned before it could be observed"
    assert found.state == "starting"
    assert found.url is None
    await launcher.stop("slow-1", grace_s=0.2)
    assert replica(await seen(launcher, bench), "slow-1") is None


@_law
async def starting_what_is_there_starts_nothing(bench: Bench) -> None:
    was = await started(bench, "twice-1", "listens")
    launcher = bench.launcher()
    await launcher.start(bench.spec("twice-1", "listens"))
    await asyncio.gather(*(launcher.start(bench.spec("twice-1", "listens")) for _ in range(3)))
    again = await until(launcher, bench, "twice-1", "listening")
    assert again is not None
    assert (again.url, again.pid) == (was.url, was.pid)
    await launcher.stop("twice-1", grace_s=10)


@_law
async def two_starts_at_once_start_one(bench: Bench) -> None:
    launcher = bench.launcher()
    await seen(launcher, bench)
    await asyncio.gather(*(launcher.start(bench.spec("race-1", "listens")) for _ in range(3)))
    was = await until(launcher, bench, "race-1", "listening")
    assert was is not None
    await launcher.stop("race-1", grace_s=10)
    assert _is_gone(bench, was)
    assert replica(await seen(launcher, bench), "race-1") is None


@_law
async def one_that_tidies_up_has_its_grace_and_no_more_is_waited(bench: Bench) -> None:
    was = await started(bench, "tidy-1", "tidy")
    took_s = await _took_s(bench.launcher().stop("tidy-1", grace_s=20))
    assert TIDIES_S * 0.9 <= took_s < 15
    assert _is_gone(bench, was)


@_law
async def one_that_ignores_sigterm_is_killed_after_the_grace(bench: Bench) -> None:
    was = await started(bench, "stubborn-1", "stubborn")
    took_s = await _took_s(bench.launcher().stop("stubborn-1", grace_s=0.5))
    assert 0.45 <= took_s < 15
    assert _is_gone(bench, was)
    assert replica(await seen(bench.launcher(), bench), "stubborn-1") is None


@_law
async def a_second_stop_with_less_grace_cuts_the_first_short(bench: Bench) -> None:
    was = await started(bench, "stubborn-2", "stubborn")
    launcher = bench.launcher()
    patient = asyncio.create_task(launcher.stop("stubborn-2", grace_s=60))
    await asyncio.sleep(0.3)
    assert not patient.done()
    found = replica(await seen(launcher, bench), "stubborn-2")
    assert found is not None, "it is forgotten before it is gone"
    await launcher.stop("stubborn-2", grace_s=0.1)
    assert _is_gone(bench, was)
    await asyncio.wait_for(patient, bench.settles_s)


@_law
async def stopping_what_is_not_there_is_nothing(bench: Bench) -> None:
    await seen(bench.launcher(), bench)
    await bench.launcher().stop("nobody", grace_s=30)


@_law
async def how_one_ended_is_kept_until_it_is_stopped(bench: Bench) -> None:
    launcher = bench.launcher()
    await seen(launcher, bench)
    await launcher.start(bench.spec("luckless-1", "ends"))
    ended = await until(launcher, bench, "luckless-1", "ended")
    assert ended is not None
    assert ended.generation == "g-ends"
    assert "exited with status 3" in ended.detail
    assert "out of luck" in ended.detail
    assert replica(await seen(launcher, bench), "luckless-1") == ended
    assert await _took_s(launcher.stop("luckless-1", grace_s=60)) < 15
    assert replica(await seen(launcher, bench), "luckless-1") is None
    await launcher.start(bench.spec("luckless-1", "listens"))  # the name is free again
    await until(launcher, bench, "luckless-1", "listening")
    await launcher.stop("luckless-1", grace_s=10)


@_law
async def one_that_says_no_url_is_ended_and_says_what_it_said(bench: Bench) -> None:
    launcher = bench.launcher()
    await seen(launcher, bench)
    await launcher.start(bench.spec("babbler-1", "babbles"))
    ended = await until(launcher, bench, "babbler-1", "ended")
    assert ended is not None
    assert "hello" in ended.detail
    await launcher.stop("babbler-1", grace_s=1)


@_law
async def one_that_is_killed_is_seen_to_have_ended(bench: Bench) -> None:
    was = await started(bench, "shot-1", "listens")
    if bench.sees_pids:
        assert was.pid is not None
        psutil.Process(was.pid).kill()
        ended = await until(bench.launcher(), bench, "shot-1", "ended")
        assert ended is not None
        assert "SIGKILL" in ended.detail
    await bench.launcher().stop("shot-1", grace_s=1)


@_law
async def stopping_one_leaves_the_others(bench: Bench) -> None:
    first = await started(bench, "pair-1", "listens")
    second = await started(bench, "pair-2", "listens")
    assert bench.sees_pids is False or first.pid != second.pid
    await bench.launcher().stop("pair-1", grace_s=10)
    left = replica(await seen(bench.launcher(), bench), "pair-2")
    assert left is not None
    assert (left.state, left.url, left.pid) == ("listening", second.url, second.pid)
    await bench.launcher().stop("pair-2", grace_s=10)


@_law
async def another_launcher_finds_what_runs_leaves_it_alone_and_can_stop_it(bench: Bench) -> None:
    was = await started(bench, "heir-1", "listens")
    heir = bench.another()
    try:
        found = await until(heir, bench, "heir-1", "listening")
        assert found is not None
        assert (found.generation, found.url, found.pid) == (was.generation, was.url, was.pid)
        await heir.start(bench.spec("heir-1", "listens"))
        again = replica(await seen(heir, bench), "heir-1")
        assert again is not None
        assert (again.state, again.pid) == ("listening", was.pid)
        await heir.stop("heir-1", grace_s=10)
        assert _is_gone(bench, was)
    finally:
        await heir.close(is_final=False)
    await until(bench.launcher(), bench, "heir-1", None)


@_law
async def a_pool_without_room_says_so(bench: Bench) -> None:
    launcher = bench.launcher()
    await seen(launcher, bench)
    if bench.chips_too_many is None:
        return
    try:
        await launcher.start(bench.spec("giant-1", "listens", chips=bench.chips_too_many))
    except NoCapacityError as error:
        assert "giant-1" in str(error)  # noqa: PT017  (says which law it is)
    else:
        raise AssertionError("it was started")
    assert replica(await seen(launcher, bench), "giant-1") is None


@_law
async def changes_are_told(bench: Bench) -> None:
    launcher = bench.launcher()
    await seen(launcher, bench)
    await launcher.start(bench.spec("news-1", "listens"))
    await _by_news(launcher, bench, "listening")
    stopping = asyncio.create_task(launcher.stop("news-1", grace_s=10))
    await _by_news(launcher, bench, None)
    await stopping


async def _by_news(launcher: Launcher, bench: Bench, state: str | None) -> None:
    """Reach the state by waiting for news alone, never by looking again in between."""
    async with asyncio.timeout(bench.settles_s):
        while True:
            found = replica(await seen(launcher, bench), "news-1")
            if (found.state if found is not None else None) == state:
                return
            await launcher.changed()


@_law
async def waiting_for_changes_can_be_given_up(bench: Bench) -> None:
    launcher = bench.launcher()
    await seen(launcher, bench)
    waiting = asyncio.create_task(launcher.changed())
    await asyncio.sleep(0.05)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    await seen(launcher, bench)


@_law
async def a_closed_node_gets_nothing_new_and_keeps_what_it_has(bench: Bench) -> None:
    was = await started(bench, "node-1", "listens")
    launcher = bench.launcher()
    nodes = [node.name for node in (await seen(launcher, bench)).nodes]
    for node in nodes:
        await launcher.cordon(node, reason="a test")
    try:
        closed = await seen(launcher, bench)
        assert all(node.state == "draining" for node in closed.nodes)
        if nodes:
            await _is_refused(launcher, bench)
        left = replica(await seen(launcher, bench), "node-1")
        assert left is not None
        assert (left.state, left.pid) == ("listening", was.pid)
    finally:
        for node in nodes:
            await launcher.uncordon(node)
    assert all(node.state == "up" for node in (await seen(launcher, bench)).nodes)
    await launcher.stop("node-1", grace_s=10)


async def _is_refused(launcher: Launcher, bench: Bench) -> None:
    try:
        await launcher.start(bench.spec("node-2", "listens"))
    except NoCapacityError:
        assert replica(await seen(launcher, bench), "node-2") is None
    else:  # a launcher that queues: it waits
        found = replica(await seen(launcher, bench), "node-2")
        assert found is None or found.state == "starting"
        await launcher.stop("node-2", grace_s=1)


@_law
async def closing_leaves_what_outlives_us_and_a_final_close_ends_all(bench: Bench) -> None:
    was = await started(bench, "last-1", "listens")
    final = bench.another()
    found = await until(final, bench, "last-1", "listening")
    assert found is not None
    await final.close(is_final=True)
    assert _is_gone(bench, was)
    await until(bench.launcher(), bench, "last-1", None)


def behave(spec: ReplicaSpec) -> Behaviour:
    """What a pool that only imitates processes is to imitate."""
    return msgspec.convert(spec.generation.removeprefix("g-"), Behaviour)
