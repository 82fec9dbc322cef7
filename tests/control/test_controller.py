"""The controller with real processes that are killed, frozen, broken and stubborn."""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import psutil
import pytest

from argosy.control.controller import Controller
from argosy.control.plan import DeploymentPlan, plan_deployments
from argosy.control.probe import HttpProber
from argosy.control.reconcile import Settings
from argosy.fleet.config import Deployment, EndpointEngine, Fleet, Model, Pool, SimulatedEngine
from argosy.fleet.launchers import EndpointLauncher, LocalLauncher
from argosy.fleet.messages import Command, ReplicaSpec
from argosy.launchers.endpoint import EndpointPool
from argosy.launchers.local import LocalPool
from argosy.policies.health import HealthSettings

TINY = str(Path(__file__).with_name("tiny_replica.py"))
QUICK = HealthSettings(
    probe_interval_s=0.1,
    probe_timeout_s=0.3,
    probe_interval_s_starting=0.05,
    probe_interval_s_endpoint=0.1,
    probe_timeout_s_endpoint=0.3,
    unresponsive_s=1.0,
)


def wanted(name, *flags, url=None, argv=None):
    """One replica, `name`-1, of the tiny program with these flags; with a URL: an endpoint."""
    command = Command(argv=argv or (sys.executable, "-S", "-E", TINY, *flags), env={})
    return DeploymentPlan(
        spec=ReplicaSpec(
            fleet="test",
            name="",
            deployment=f"{name}@here",
            model=name,
            pool="here",
            engine=EndpointEngine() if url else SimulatedEngine(),
            command=None if url else command,
            url=url,
            health_path="/health",
            generation="1",
        ),
        replicas=1,
        names=name,
    )


class Watched:
    """A controller whose tables are kept, with the loop's time of each."""

    def __init__(self, *plans, launcher, settings=QUICK, publish=None):
        self.tables = []
        self.also = publish
        self.plans, self.launcher = plans, launcher
        self.controller = Controller(
            prober=HttpProber(),
            publish=self.keep,
            chance=random.Random(7),
            settings=Settings(health=settings),
        )

    async def start(self):
        await self.controller.start(self.plans, {"here": self.launcher})

    def keep(self, table):
        self.tables.append((asyncio.get_running_loop().time(), table))
        if self.also:
            self.also(table)

    def rows(self, name):
        """Every row of that replica, as (time, row), one per table."""
        return [
            (at, r) for at, table in self.tables for r in table.replicas if r.name == f"{name}-1"
        ]

    async def until(self, name, state, *, within_s=5.0, after=0, **fields):
        """Wait for a row from table number `after` on; returns (time, row)."""
        async with asyncio.timeout(within_s):
            while True:
                for at, row in self.rows(name)[after:]:
                    if row.state == state and all(getattr(row, k) == fields[k] for k in fields):
                        return at, row
                await asyncio.sleep(0.005)

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.controller.stop(grace_s=2.0)
        assert not children()


@pytest.fixture
def launcher(tmp_path):
    return LocalPool(tmp_path)


_before: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def others_children():
    """What tests of other files have left running in this process is not this file's."""
    _before.clear()
    _before.update(psutil.Process().children(recursive=True))


def children():
    return [one for one in psutil.Process().children(recursive=True) if one not in _before]


def now_s():
    return asyncio.get_running_loop().time()


# ── life ─────────────────────────────────────────────────────────────────────────────────────


def test_replicas_start_become_ready_and_the_versions_of_their_tables_grow(launcher):
    async def story():
        async with Watched(wanted("a"), wanted("b"), launcher=launcher) as watched:
            async with asyncio.timeout(5):
                await watched.controller.all_ready()
            for row in watched.controller.table.replicas:
                assert row.url.startswith("http://127.0.0.1:")
                assert psutil.pid_exists(row.pid)
            versions = [table.version for _, table in watched.tables]
            assert versions == list(range(1, len(versions) + 1))

    asyncio.run(story())


def test_a_replica_that_listens_but_loads_is_not_ready_until_a_probe_says_so(launcher):
    async def story():
        async with Watched(wanted("a", "--loading", "0.6"), launcher=launcher) as watched:
            began_s = now_s()
            ready_s, _ = await watched.until("a", "ready")
            assert ready_s - began_s >= 0.5
            assert any("HTTP 503" in row.reason for _, row in watched.rows("a"))

    asyncio.run(story())


def test_a_kill_9_is_published_at_once_and_the_replica_is_restarted(launcher):
    async def story():
        slow_probes = HealthSettings(probe_interval_s=60.0)
        async with Watched(wanted("a"), launcher=launcher, settings=slow_probes) as watched:
            row = await watched.controller.first_ready()
            killed_s = now_s()
            os.kill(row.pid, signal.SIGKILL)
            dead_s, dead = await watched.until("a", "dead")
            assert dead_s - killed_s < 10, "probes come every 60 s"
            assert dead.reason.startswith("killed by SIGKILL; restart in ")
            assert dead.url is None
            _, again = await watched.until("a", "ready", restarts=1)
            assert again.pid != row.pid

    asyncio.run(story())


def test_a_frozen_replica_is_suspect_within_seconds_and_well_again_when_it_thaws(launcher):
    async def story():
        async with Watched(wanted("a"), launcher=launcher, settings=HealthSettings()) as watched:
            row = await watched.controller.first_ready()
            frozen_s, before = now_s(), len(watched.tables)
            os.kill(row.pid, signal.SIGSTOP)
            suspect_s, suspect = await watched.until("a", "suspect")
            os.kill(row.pid, signal.SIGCONT)
            assert suspect_s - frozen_s < 6.0, "2 s, and slack for a busy machine"
            assert "no answer within 1.0 s" in suspect.reason
            _, again = await watched.until("a", "ready", after=before)
            assert (again.pid, again.restarts) == (row.pid, 0)

    asyncio.run(story())


def test_a_replica_that_stays_frozen_is_killed_and_replaced(launcher):
    async def story():
        async with Watched(wanted("a"), launcher=launcher) as watched:
            row = await watched.controller.first_ready()
            frozen_s = now_s()
            os.kill(row.pid, signal.SIGSTOP)
            dead_s, dead = await watched.until("a", "dead")
            assert QUICK.unresponsive_s <= dead_s - frozen_s < QUICK.unresponsive_s + 6.0
            assert dead.reason.startswith("no good answer to ")
            await watched.until("a", "ready", restarts=1)
            assert not psutil.pid_exists(row.pid)

    asyncio.run(story())


# ── failing to start ─────────────────────────────────────────────────────────────────────────


def test_a_replica_that_cannot_start_says_why_and_backs_off_while_others_stay_ready(launcher):
    async def story():
        async with Watched(wanted("bad", "--crash"), wanted("good"), launcher=launcher) as watched:
            await watched.until("good", "ready")
            await asyncio.sleep(1.5)
            _, bad = watched.rows("bad")[-1]
            assert 2 <= bad.restarts <= 5  # 0.1, 0.2, 0.4, 0.8 s between them
            _, dead = await watched.until("bad", "dead")
            assert "weights.gguf: bad magic" in dead.reason
            _, good = watched.rows("good")[-1]
            assert (good.state, good.restarts) == ("ready", 0)

    asyncio.run(story())


def test_a_command_that_does_not_exist_is_published_and_tried_again(launcher):
    async def story():
        absent = wanted("a", argv=("/no/such/program",))
        async with Watched(absent, launcher=launcher) as watched:
            _, dead = await watched.until("a", "dead", restarts=1)
            assert dead.reason.startswith("cannot start: ")
            assert "/no/such/program" in dead.reason

    asyncio.run(story())


def test_a_replica_that_never_listens_is_given_up_after_start_s_max(launcher):
    async def story():
        settings = HealthSettings(start_s_max=0.5)
        async with Watched(wanted("a", "--mute"), launcher=launcher, settings=settings) as watched:
            _, dead = await watched.until("a", "dead")
            assert dead.reason.startswith("not ready after 0.5 s")

    asyncio.run(story())


def test_a_replica_that_crashes_while_it_loads_is_noticed_before_start_s_max(launcher):
    async def story():
        flags = ("--loading", "60", "--crash-after", "0.4")
        async with Watched(wanted("a", *flags), launcher=launcher) as watched:
            _, dead = await watched.until("a", "dead")
            assert dead.reason.startswith("ended before it was ready: exited with status 7")

    asyncio.run(story())


def test_a_launcher_that_breaks_its_promise_stops_neither_its_replica_nor_others(tmp_path, caplog):
    class Broken(LocalPool):
        is_well = False

        async def start(self, spec):
            if spec.name == "a-1" and not self.is_well:
                self.is_well = True
                raise KeyError("a bug")
            await super().start(spec)

    async def story():
        async with Watched(wanted("a"), wanted("b"), launcher=Broken(tmp_path)) as watched:
            _, dead = await watched.until("a", "dead")
            assert "cannot start: KeyError('a bug')" in dead.reason
            await watched.until("a", "ready", restarts=1)
            await watched.until("b", "ready", restarts=0)

    asyncio.run(story())
    assert "Starting a-1 failed" in caplog.text


def test_a_reader_of_tables_that_fails_stops_no_replica(launcher, caplog):
    def fail(_):
        raise ValueError("a bug")

    async def story():
        async with Watched(wanted("a"), launcher=launcher, publish=fail) as watched:
            await watched.until("a", "ready")

    asyncio.run(story())
    assert "could not be published" in caplog.text


# ── stopping ─────────────────────────────────────────────────────────────────────────────────


def test_stop_leaves_no_process_even_a_stubborn_one_and_may_be_called_twice(launcher):
    async def story():
        watched = Watched(wanted("a"), wanted("b", "--stubborn"), launcher=launcher)
        await watched.start()
        async with asyncio.timeout(5):
            await watched.controller.all_ready()
        began_s = now_s()
        await watched.controller.stop(grace_s=0.5)
        assert 0.5 <= now_s() - began_s < 8.0
        assert not children()
        assert "stopping" in {row.state for _, row in watched.rows("b")}
        assert {row.state for row in watched.controller.table.replicas} == {"dead"}
        await watched.controller.stop(grace_s=0.5)

    asyncio.run(story())


def test_a_second_stop_with_less_grace_hurries_the_first(launcher):
    async def story():
        watched = Watched(wanted("a", "--stubborn"), launcher=launcher)
        await watched.start()
        await watched.until("a", "ready")
        began_s = now_s()
        patient = asyncio.create_task(watched.controller.stop(grace_s=30.0))
        await asyncio.sleep(0.1)
        await watched.controller.stop(grace_s=0.0)
        await patient
        assert now_s() - began_s < 15, "not 30 s"
        assert not children()

    asyncio.run(story())


class LateProcesses(LocalPool):
    """Each start takes 0.3 s before there is a process, as in a cloud."""

    async def start(self, spec):
        await asyncio.sleep(0.3)
        await super().start(spec)


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.29, 0.3, 0.32, 0.4])
def test_a_stop_in_the_middle_of_a_start_leaves_no_process(tmp_path, after_s):
    async def story():
        plans = wanted("a", "--mute"), wanted("b")
        watched = Watched(*plans, launcher=LateProcesses(tmp_path))
        await watched.start()
        await asyncio.sleep(after_s)
        await watched.controller.stop(grace_s=1.0)
        assert not children()
        await asyncio.sleep(0.4)
        assert not children()

    asyncio.run(story())


def test_a_stop_while_a_replica_backs_off_does_not_wait_for_it(launcher):
    async def story():
        settings = HealthSettings(restart_delay_s_first=30.0)
        watched = Watched(wanted("a", "--crash"), launcher=launcher, settings=settings)
        await watched.start()
        await watched.until("a", "dead")
        began_s = now_s()
        await watched.controller.stop(grace_s=5.0)
        assert now_s() - began_s < 4, "neither 30 s nor 5"

    asyncio.run(story())


# ── endpoints ────────────────────────────────────────────────────────────────────────────────


class CountedEndpoint(EndpointPool):
    starts = 0

    async def start(self, spec):
        self.starts += 1
        await super().start(spec)


def test_an_endpoint_that_is_away_is_never_restarted_and_ready_once_it_answers():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def story():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        launcher = CountedEndpoint()
        async with Watched(
            wanted("a", url=f"http://127.0.0.1:{port}"), launcher=launcher
        ) as watched:
            await watched.until("a", "suspect")
            _, dead = await watched.until("a", "dead")
            assert "no good answer" in dead.reason
            async with await asyncio.start_server(answer, "127.0.0.1", port):
                _, ready = await watched.until("a", "ready")
            assert (ready.restarts, launcher.starts) == (0, 1)

    asyncio.run(story())


# ── the plan ─────────────────────────────────────────────────────────────────────────────────


def test_names_carry_the_pool_only_where_a_model_has_several_deployments():
    fleet = Fleet(
        fleet="test",
        pools=(
            Pool(name="here", launcher=LocalLauncher()),
            Pool(name="there", launcher=EndpointLauncher(url="http://there:1")),
        ),
        models=(Model(name="m"), Model(name="n")),
        deployments=(
            Deployment(model="m", pool="here", engine=SimulatedEngine(), replicas=2),
            Deployment(model="n", pool="here", engine=SimulatedEngine()),
            Deployment(model="n", pool="there", engine=EndpointEngine()),
        ),
    )
    plans = plan_deployments(
        fleet,
        weights={"m": None, "n": None},
        threads={"m@here": 1, "n@here": 1, "n@there": 1},
    )
    assert [(plan.names, plan.replicas) for plan in plans] == [
        ("m", 2),
        ("n@here", 1),
        ("n@there", 1),
    ]
    assert [plan.spec.command is not None for plan in plans] == [True, True, False]
    assert len({plan.spec.generation for plan in plans}) == 3
