"""Several gateway processes on one port: deaths, budgets, and pages that tell of all of them."""

import asyncio
import math
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from fleet_process import FleetProcess, run_argosy, wait_until
from gateway_load import (
    Asked,
    ask,
    gateway_processes,
    key_of,
    new_client,
    page,
    status_of,
    write_fleet,
)

from argosy.fleet.messages import Usage

BUDGET_TOKENS = 600
RESERVATION_TOKENS = 140  # the bytes of one body, and 40 of its answer
TENANTS = f"""
  - name: acme
  - {{name: capped, budgets: [{{tokens: {BUDGET_TOKENS}, per: ever}}]}}
  - {{name: few, budgets: [{{requests: 6, per: ever}}]}}
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory):
    """Three gateway processes, two replicas; it mends itself between the tests."""
    folder = tmp_path_factory.mktemp("three")
    file = write_fleet(folder / "fleet.yaml", processes=3, replicas=2, tenants=TENANTS, speed=400.0)
    running = FleetProcess(folder / "state", file, "--port", "0")
    try:
        yield running.wait_ready()
    finally:
        running.kill()


def _pids(fleet: FleetProcess) -> set[int]:
    return {process.pid for process in gateway_processes(fleet)}


def _ask_many(
    fleet: FleetProcess, count: int, *, tokens: int = 4, key: str | None = None
) -> list[Asked]:
    async def main() -> list[Asked]:
        async with new_client(fleet, key=key) as client:
            return list(await asyncio.gather(*(ask(client, tokens=tokens) for _ in range(count))))

    return asyncio.run(main())


def _requests_counted(fleet: FleetProcess) -> int:
    found = re.findall(
        r"^argosy_requests_total\{.*\} (\S+)$", page(fleet, "/metrics").decode(), re.M
    )
    return int(sum(map(float, found)))


def test_every_page_tells_of_all_processes(three: FleetProcess):
    before = _requests_counted(three)
    assert all(one.status == 200 for one in _ask_many(three, 30))
    for _ in range(4):  # other connections, other processes
        assert _requests_counted(three) == before + 30
        status = status_of(three)
        assert {one.pid for one in status.processes} == _pids(three)
        assert {one.state for one in status.processes} == {"serving"}
        assert len(status.processes) == 3
        assert sum(row.load.requests_finished for row in status.replicas) == before + 30
        assert all(row.replica.state == "ready" for row in status.replicas)


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_named_and_its_counts_stay(three: FleetProcess):
    before = _requests_counted(three)
    hung = gateway_processes(three)[0]
    hung.suspend()
    try:
        status = status_of(three)
        counted = _requests_counted(three)
    finally:
        hung.resume()
    states = {one.pid: one.state for one in status.processes}
    assert states.pop(hung.pid) == "silent"
    assert set(states.values()) == {"serving"}
    assert counted == before, "counters never go back"
    assert {one.state for one in status_of(three).processes} == {"serving"}


def test_connections_after_a_process_was_killed_are_all_answered(three: FleetProcess, say):
    wait_until(lambda: len(_pids(three)) == 3, 10, three)
    killed_s = [math.inf]
    counted_before = _requests_counted(three)
    ended: list[Asked] = []

    def after() -> list[Asked]:
        return [one for one in ended if one.began_s >= killed_s[0]]

    async def client_loop(client) -> None:
        while len(after()) < 40:
            ended.append(await ask(client))

    async def main() -> None:
        async with new_client(three) as client:
            clients = [asyncio.create_task(client_loop(client)) for _ in range(8)]
            while len(ended) < 16:
                await asyncio.sleep(0.01)
            os.kill(gateway_processes(three)[1].pid, signal.SIGKILL)
            killed_s[0] = time.monotonic()
            await asyncio.gather(*clients)

    before = _pids(three)
    asyncio.run(main())
    failed = [one for one in after() if one.status != 200]
    lost = sum(one.status != 200 for one in ended)
    say(f"{len(ended)} requests, {len(after())} after the kill; {lost} in flight in it were lost")
    assert not failed, f"{len(failed)} of {len(after())}: {failed[0]}"
    wait_until(lambda: len(_pids(three)) == 3, 10, three)
    assert len(_pids(three) & before) == 2, "one successor, the others untouched"
    assert "killed by SIGKILL; it is replaced" in three.err
    assert _requests_counted(three) >= counted_before


def test_a_budget_holds_over_all_processes(three: FleetProcess, say):
    key = key_of(three, "capped")
    asked = 60
    statuses = [one.status for one in _ask_many(three, asked, tokens=40, key=key)]
    assert set(statuses) == {200, 429}
    while 200 in statuses:  # until what is settled fills it, not only what is reserved
        statuses = [one.status for one in _ask_many(three, 6, tokens=40, key=key)]
        asked += 6
    wait_until(lambda: len(_of(three, "capped")) == asked, 5, three)
    served = [record for record in _of(three, "capped") if record.outcome == "finished"]
    tokens = sum(record.tokens_in + record.tokens_out for record in served)
    say(f"{len(served)} of {asked} served, {tokens} tokens of {BUDGET_TOKENS}")
    assert BUDGET_TOKENS <= tokens <= BUDGET_TOKENS + RESERVATION_TOKENS
    applied = run_argosy("apply", "--state", three.state)
    assert applied.returncode == 0, applied.stderr
    assert _ask_many(three, 1, key=key)[0].status == 429, "new processes know what is used up"


@pytest.mark.slow
def test_what_a_killed_process_had_reserved_is_given_back(three: FleetProcess):
    key = key_of(three, "few")

    async def main() -> list[Asked]:
        async with new_client(three, key=key) as client:
            asked = [asyncio.create_task(ask(client, tokens=1200)) for _ in range(6)]
            await asyncio.to_thread(
                wait_until, lambda: status_of(three).requests_in_flight == 6, 10, three
            )
            refused = await ask(client)
            assert refused.status == 429, "all six are reserved"
            for process in gateway_processes(three):
                process.kill()
            return list(await asyncio.gather(*asked))

    assert [one.status for one in asyncio.run(main())] == [None] * 6
    wait_until(lambda: len(status_of(three).processes) == 3, 10, three)
    assert _ask_many(three, 1, key=key)[0].status == 200


def _of(fleet: FleetProcess, tenant: str) -> list[Usage]:
    return [record for record in fleet.usage() if record.tenant == tenant]


@pytest.mark.slow
def test_a_killed_parent_takes_its_gateway_processes_along(
    start_fleet, tmp_path: Path, request: pytest.FixtureRequest
):
    fleet = start_fleet(write_fleet(tmp_path / "fleet.yaml", processes=2)).wait_ready()
    assert {one.status for one in _ask_many(fleet, 30)} == {200}
    children = fleet.children()
    hung = gateway_processes(fleet)[0]
    hung.suspend()
    request.addfinalizer(lambda: hung.is_running() and hung.kill())
    fleet.process.kill()
    fleet.process.wait(10)
    _, left = psutil.wait_procs([one for one in children if one != hung], timeout=10)
    assert not left
    records = {record.outcome for record in fleet.usage()}
    assert records == {"finished"}, "what it had counted reached the disk"
    again = start_fleet(tmp_path / "fleet.yaml", port=int(fleet.url.rpartition(":")[2]))
    again.wait_ready()
    assert "killed gateway process gateway-" in again.err
    assert _ask_many(again, 5)[0].status == 200
    assert again.stop() == 0


@pytest.mark.slow
def test_a_process_that_hangs_is_replaced(three: FleetProcess):
    wait_until(lambda: len(_pids(three)) == 3, 10, three)
    hung = gateway_processes(three)[0]
    hung.suspend()
    wait_until(lambda: hung.pid not in _pids(three) and len(_pids(three)) == 3, 30, three)
    assert f"gateway process {hung.pid} says nothing; it is killed" in three.err
    assert all(one.status == 200 for one in _ask_many(three, 20))
