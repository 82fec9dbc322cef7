"""Control planes and gateways apart, under streaming load: killed, stopped, cut off, restarted."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from far_fleet import LEASE_S, FarFleet
from fleet_process import wait_until
from streams import Ended, stream_once

from argosy.store.decisions import read
from argosy.store.schema import open_store
from argosy.store.usage import records
from tests.store.running_postgresql import RunningPostgreSQL, shared_postgresql

pytestmark = pytest.mark.timeout(240)  # the first one starts all of it
SLACK_S = 1.0  # a machine with much other work
_AFTER_S = 1.0  # of load, when it is over


@pytest.fixture(scope="module")
def postgresql() -> Iterator[RunningPostgreSQL]:
    if shared_postgresql() is None:
        pytest.skip("PostgreSQL is not installed")
    running = RunningPostgreSQL()
    yield running
    running.close()


@pytest.fixture(scope="module")
def far(
    postgresql: RunningPostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FarFleet]:
    fleet = FarFleet(tmp_path_factory.mktemp("far"), postgresql.fresh_url())
    yield fleet
    fleet.close()


def under_load(far: FarFleet, act: Callable[[], object]) -> list[Ended]:
    """How the requests of six clients ended that stream through both gateways meanwhile.

    The load has a thread of its own: PostgreSQL ends with the thread that started it.
    """
    ended: list[Ended] = []
    over = threading.Event()

    async def repeat(url: str) -> None:
        async with _client(url, far) as client:
            while not over.is_set():
                ended.append(await stream_once(client, tokens=24))

    async def load() -> None:
        await asyncio.gather(*(repeat(one.url) for one in far.gateways for _ in range(3)))

    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(asyncio.run, load())
        try:
            time.sleep(1.0)
            act()
            time.sleep(_AFTER_S)
        finally:
            over.set()
        loading.result()
    return ended


def _client(url: str, far: FarFleet) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers=far.headers, timeout=30.0, trust_env=False)


def _models(url: str, far: FarFleet) -> set[str]:
    page = httpx.get(f"{url}/v1/models", headers=far.headers, timeout=10.0, trust_env=False)
    return {model["id"] for model in page.json()["data"]}


def none_failed(ended: list[Ended]) -> bool:
    failed = [one for one in ended if one.end != "whole"]
    assert not failed, failed[:3]
    return len(ended) >= 6  # of each client one


@pytest.fixture
def e2_drained(far: FarFleet) -> None:
    """Whatever ran before."""
    leader = far.controls[far.leader()]
    if any(row.pool == "e2" for row in far.status(leader).replicas):
        far.ask("drain", "e2")
        wait_until(lambda: all(row.pool != "e2" for row in far.status(leader).replicas), 19.0)


def test_a_replica_is_drained_by_what_the_gateways_report(far: FarFleet, say):
    seconds: list[float] = []

    def drain() -> None:
        assert "is drained" in far.ask("drain", "e2")
        seconds.append(
            wait_until(lambda: len(far.status(far.controls[far.leader()]).replicas) == 2, 19.0)
        )

    assert none_failed(under_load(far, drain))
    say(f"drained under load after {seconds[0]:.1f} s of at most 20")
    assert seconds[0] < 15.0  # not by the end of `drain_s`


@pytest.mark.usefixtures("e2_drained")
def test_a_killed_leader_is_followed_within_two_leases_and_no_request_fails(far: FarFleet, say):
    first = far.leader()
    second = 1 - first
    assert far.status(far.controls[second]).leader == far.controls[first].url
    before = far.status(far.controls[first])
    seconds: list[float] = []

    def kill() -> None:
        far.controls[first].kill()
        seconds.append(far.controls[second].wait("leads fleet", 2 * LEASE_S))
        wait_until(
            lambda: (
                {one.version for one in far.status(far.controls[second]).gateways}
                == {far.status(far.controls[second]).version}
            ),
            5.0,
        )

    assert none_failed(under_load(far, kill))
    after = far.status(far.controls[second])
    say(f"leader killed: the next one leads after {seconds[0]:.2f} s, lease {LEASE_S:g} s")
    assert after.token == before.token + 1
    assert after.version > before.version
    assert [row.state for row in after.replicas] == ["ready", "ready"]  # e2 is still drained
    assert [row.url for row in after.replicas] == [row.url for row in before.replicas]
    far.control_again(first)


def test_postgresql_restarts_under_load_and_no_request_fails(
    far: FarFleet, postgresql: RunningPostgreSQL, say
):
    before = far.status(far.controls[far.leader()])
    store = open_store(far.store)
    try:
        known = len(records(store, limit=100_000))

        def restart() -> None:
            postgresql.stop(crash=True)
            time.sleep(LEASE_S + 1.0)  # longer than the lease: then nobody leads
            postgresql.start()

        ended = under_load(far, restart)
        assert none_failed(ended)
        after = far.status(far.controls[far.leader()])
        assert after.token >= before.token
        wait_until(lambda: len(records(store, limit=100_000)) == known + len(ended), 15.0)
    finally:
        store.dispose()
    say(
        f"PostgreSQL was away for {LEASE_S + 1:g} s: {len(ended)} requests, none failed, all billed"
    )


@pytest.mark.usefixtures("e2_drained")
def test_a_leader_that_was_stopped_past_its_lease_does_nothing_any_more(far: FarFleet):
    first = far.leader()
    stopped, next_one = far.controls[first], far.controls[1 - first]

    def stop() -> None:
        os.kill(stopped.process.pid, signal.SIGSTOP)
        try:
            said = len(next_one.said)
            wait_until(lambda: "leads fleet" in next_one.said[said:], 2 * LEASE_S)
            assert "is used again" in far.ask("drain", "e2", "--undo", control=next_one)
        finally:
            os.kill(stopped.process.pid, signal.SIGCONT)
        wait_until(lambda: "leads no more" in stopped.said, 5.0)

    assert none_failed(under_load(far, stop))
    told = far.status(stopped)
    assert told.leader == next_one.url
    wait_until(lambda: any(row.pool == "e2" for row in far.status(next_one).replicas), 5.0)
    store = open_store(far.store)
    try:
        log = read(store, "far", after_seq=0, limit=10_000)
    finally:
        store.dispose()
    tokens = [one.token for one in log]
    assert tokens == sorted(tokens)  # who was followed decided nothing after that
    assert [one.kind for one in log].count("lead") == len(set(tokens))


def test_an_applied_file_reaches_all_gateways_and_the_next_leader(far: FarFleet):
    new = far.folder / "new.yaml"
    text = far.file.read_text()
    model = "models: [{name: other}, "
    more = "deployments:\n  - {model: other, pool: e0, engine: {kind: endpoint, slots: 8}}\n"
    new.write_text(text.replace("models: [", model).replace("deployments:\n", more))
    assert "1 come" in far.ask("diff", new)

    def apply() -> None:
        assert "applied fleet far" in far.ask("apply", new)
        for gateway in far.gateways:
            gateway.wait("the fleet file that was applied is served", 20.0)

    assert none_failed(under_load(far, apply))
    for gateway in far.gateways:
        assert "other" in _models(gateway.url, far)
    first = far.leader()
    far.controls[first].process.send_signal(signal.SIGTERM)
    assert far.controls[first].process.wait(20) == 0
    far.controls[1 - first].wait("the fleet file that holds is revision 2", 2 * LEASE_S)
    wait_until(
        lambda: "other" in {row.model for row in far.status(far.controls[1 - first]).replicas},
        5.0,
    )
    far.control_again(first)


def test_a_key_is_known_to_all_gateways_within_a_second_and_revoked_as_soon(far: FarFleet, say):
    def answers(key: str) -> list[int]:
        headers = {"authorization": f"Bearer {key}"}
        return [
            httpx.get(f"{one.url}/v1/models", headers=headers, trust_env=False).status_code
            for one in far.gateways
        ]

    id_, secret = far.made_key("fresh")
    known_s = wait_until(lambda: answers(secret) == [200, 200], 5.0)
    far.revoke_key(id_)
    revoked_s = wait_until(lambda: answers(secret) == [401, 401], 5.0)
    say(f"a key is known {known_s:.2f} s after it is made, refused {revoked_s:.2f} s after revoked")
    assert max(known_s, revoked_s) < 1.0 + SLACK_S


def test_a_gateway_is_started_again_while_postgresql_is_away_and_knows_its_keys(
    far: FarFleet, postgresql: RunningPostgreSQL
):
    far.gateways[1].wait("serves fleet")
    wait_until(lambda: (far.folder / "g1" / "keys.json").exists(), 5.0)
    store = open_store(far.store)
    port = int(far.gateways[1].url.rpartition(":")[2])
    try:
        known = len(records(store, limit=100_000))
        postgresql.stop(crash=True)
        try:
            far.gateways[1].kill()
            far.gateways[1] = far.gateway(1, port)
            far.gateways[1].wait("serves fleet")
            ended = under_load(far, lambda: time.sleep(1.0))
            assert none_failed(ended)
        finally:
            postgresql.start()
        wait_until(lambda: len(records(store, limit=100_000)) == known + len(ended), 15.0)
    finally:
        store.dispose()


def test_gateways_serve_on_and_restart_without_any_control_plane(far: FarFleet):
    known = len(far.status(far.controls[far.leader()]).replicas)
    for control in far.controls:
        control.kill()
    gateway = far.gateways[0]
    port = int(gateway.url.rpartition(":")[2])
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(20) == 0
    far.gateways[0] = far.gateway(0, port)
    far.gateways[0].wait(f"has a table of {known} replicas")
    assert none_failed(under_load(far, lambda: time.sleep(1.0)))
    far.gateways[1].wait("cut off: no control plane", 15.0)
    wait_until(lambda: far.table_age_s(far.gateways[1]) > 9.0, 15.0)
    far.control_again(0, 1)
    far.gateways[1].wait("no longer cut off", 15.0)
