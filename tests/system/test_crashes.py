"""Replicas die and hang under load; clients notice no more than they must."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fleet_process import FleetProcess, wait_until
from streams import Ended, http_client, stream_once, stream_until

from argosy.fleet.messages import Replica

CLIENTS = 16


@pytest.fixture(scope="module")
def breakable(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """A fleet whose replicas may be broken: it mends itself between the tests."""
    running = FleetProcess(tmp_path_factory.mktemp("crashes") / "state", "--port", "0")
    try:
        yield running.wait_ready()
    finally:
        running.kill()


def test_requests_wait_while_every_replica_is_dead(breakable: FleetProcess):
    for row in breakable.replicas():
        _signal(row.replica, signal.SIGKILL)
    ended = _ask(breakable, 6)
    assert [one.end for one in ended] == ["whole"] * 6, ended
    _check_account(breakable, ended)


def test_a_hung_replica_is_told_is_passed_over_and_is_replaced(breakable: FleetProcess, say):
    breakable.wait_ready()
    hung = _replica(breakable, 0)
    _signal(hung, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as beside:
        asking = beside.submit(_ask, breakable, 8)  # nobody has noticed yet: half go there
        noticed_s = wait_until(lambda: not _is_ready(breakable, 0), 10, breakable)
        ended = asking.result()
    ended += _ask(breakable, 8)
    replaced_s = wait_until(
        lambda: _is_ready(breakable, 0) and _replica(breakable, 0).pid != hung.pid, 60, breakable
    )
    say(f"hung: not ready after {noticed_s:.1f} s, replaced {replaced_s:.1f} s later")
    assert noticed_s < 8.0, "2 s, and slack for a busy machine"
    assert [one.end for one in ended] == ["whole"] * 16, ended
    _check_account(breakable, ended)
    attempts = {record.request: record.attempts for record in breakable.usage()}
    assert max(attempts[one.request] for one in ended) > 1, "none was on the hung one"


@pytest.mark.timeout(300)  # a minute where two cores do nothing else
def test_clients_without_a_byte_notice_no_killed_replica(breakable: FleetProcess, say):
    breakable.wait_ready()
    restarts = _restarts(breakable)
    ended = _under_load(breakable, signal.SIGKILL, tokens=12, say=say)
    _check_account(breakable, ended)
    cut = sum(one.end == "error event" for one in ended)
    assert cut <= len(ended) / 2, "hardly anything was served"
    assert _restarts(breakable) == restarts + 10
    assert [row.replica.state for row in breakable.replicas()] == ["ready", "ready"]
    assert sum(row.load.requests_in_flight for row in breakable.replicas()) == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_clients_without_a_byte_notice_no_replica_that_breaks_again_and_again(
    start_fleet, say, number: signal.Signals
):
    fleet = start_fleet().wait_ready()
    _check_account(fleet, _under_load(fleet, number, tokens=24, say=say))


def _ask(fleet: FleetProcess, count: int) -> list[Ended]:
    """Short streams, all at once."""

    async def main() -> list[Ended]:
        async with http_client(fleet) as client:
            asked = (stream_once(client, tokens=4) for _ in range(count))
            return list(await asyncio.gather(*asked))

    return asyncio.run(main())


def _under_load(
    fleet: FleetProcess, number: signal.Signals, *, tokens: int, say: Callable[[str], None]
) -> list[Ended]:
    """Every request of the clients that went on while replicas got that signal ten times."""
    ended: list[Ended] = []

    async def main() -> list[float]:
        over = asyncio.Event()
        clients = asyncio.create_task(
            stream_until(fleet, over, ended, clients=CLIENTS, tokens=tokens)
        )
        try:
            return await _break_again_and_again(fleet, number, ended)
        finally:
            over.set()
            await clients

    recovered_s = asyncio.run(main())
    cut = sum(one.end == "error event" for one in ended)
    say(
        f"{len(ended)} requests, {cut} cut; from {number.name} to ready again: "
        f"{min(recovered_s):.2f} to {max(recovered_s):.2f} s"
    )
    return ended


async def _break_again_and_again(
    fleet: FleetProcess, number: signal.Signals, ended: list[Ended]
) -> list[float]:
    """Signal one replica, then the other; seconds from each signal to its successor's readiness.

    In between as many requests end as there are clients: one that was sent back to the end of a
    queue is served before the next blow, or it would run out of attempts as it should.
    """
    recovered_s: list[float] = []
    for blow in range(10):
        victim = await asyncio.to_thread(_replica, fleet, blow % 2)
        ended_wanted = len(ended) + CLIENTS
        _signal(victim, number)

        def is_replaced(victim: Replica = victim, position: int = blow % 2) -> bool:
            now = _replica(fleet, position)
            return now.pid != victim.pid and now.state == "ready"

        recovered_s.append(await _until(is_replaced, fleet))
        await _until(lambda wanted=ended_wanted: len(ended) >= wanted, fleet)
    return recovered_s


async def _until(holds: Callable[[], bool], fleet: FleetProcess) -> float:
    """Seconds until it holds, beside clients that go on."""
    began_s = time.monotonic()
    while not await asyncio.to_thread(holds):
        assert time.monotonic() - began_s < 60, f"still not so after 60 s\n{fleet.said}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


def _check_account(fleet: FleetProcess, ended: list[Ended]) -> None:
    """No request without a byte failed; none was cut in silence; each left exactly one record."""
    failed = [one for one in ended if one.end == "refused" or not one.began]
    assert not failed, f"{len(failed)} of {len(ended)} failed without a byte: {failed[0]}"
    silent = [one for one in ended if one.end not in ("whole", "error event")]
    assert not silent, f"{len(silent)} of {len(ended)} ended without a word: {silent[0]}"
    asked = {one.request for one in ended}
    wait_until(lambda: asked <= {record.request for record in fleet.usage()}, 10, fleet)
    records = [record for record in fleet.usage() if record.request in asked]
    assert len(records) == len(asked) == len(ended), "a request left more than one record"
    outcomes = {record.request: record.outcome for record in records}
    for one in ended:
        assert outcomes[one.request] == ("finished" if one.end == "whole" else "failed"), one


def _signal(replica: Replica, number: signal.Signals) -> None:
    assert replica.pid is not None, replica
    os.kill(replica.pid, number)


def _replica(fleet: FleetProcess, position: int) -> Replica:
    return fleet.replicas()[position].replica


def _is_ready(fleet: FleetProcess, position: int) -> bool:
    return _replica(fleet, position).state == "ready"


def _restarts(fleet: FleetProcess) -> int:
    return sum(row.replica.restarts for row in fleet.replicas())
