"""A running fleet takes up another fleet file, and its clients do not notice."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from fleet_process import MODEL, FleetProcess, run_argosy, wait_until
from gateway_load import ask, gateway_processes, new_client, status_of, steadily, write_fleet

STREAM_TOKENS = 30
STREAM_TOKENS_PER_S = 30.0  # so that a stream takes a second
SETTINGS = {"processes": 2, "speed": STREAM_TOKENS_PER_S}
TIERS = ("[{name: acme, tier: consumer}]", "[{name: acme, tier: enterprise}]")


def _apply(fleet: FleetProcess, *arguments: Path | str) -> str:
    """What the command printed; it must succeed."""
    applied = run_argosy("apply", *arguments, "--state", fleet.state)
    assert applied.returncode == 0, applied.stderr
    return applied.stdout


def _ready(fleet: FleetProcess) -> set[str]:
    return {row.replica.name for row in status_of(fleet).replicas if row.replica.state == "ready"}


def test_no_stream_fails_and_none_is_cut_while_the_fleet_file_changes_twice(
    start_fleet, tmp_path: Path, say
):
    file = write_fleet(tmp_path / "fleet.yaml", tenants=TIERS[0], **SETTINGS)
    fleet = start_fleet(file).wait_ready()
    first = {process.pid for process in gateway_processes(fleet)}

    async def main():
        over = asyncio.Event()
        async with new_client(fleet, keepalive=50) as client:
            load = asyncio.create_task(
                steadily(client, over.is_set, per_s=20, tokens=STREAM_TOKENS)
            )
            await asyncio.sleep(0.7)
            write_fleet(file, replicas=2, tenants=TIERS[0], **SETTINGS)
            said = await asyncio.to_thread(_apply, fleet)
            assert "replicas: 1 stay, 1 come" in said
            await asyncio.sleep(0.7)
            write_fleet(file, replicas=2, tenants=TIERS[1], **SETTINGS)
            said = await asyncio.to_thread(_apply, fleet)
            assert "replicas: 2 stay" in said
            await asyncio.sleep(0.7)
            over.set()
            return await load

    ended = asyncio.run(main())
    failed = [one for one in ended if one.status != 200]
    say(f"{len(ended)} streams over two changes, {len(failed)} failed or cut")
    assert len(ended) > 15
    assert not failed, f"{len(failed)} of {len(ended)}: {failed[0]}"
    assert len(_ready(fleet)) == 2
    assert not first & {one.pid for one in status_of(fleet).processes if one.state == "serving"}
    wait_until(lambda: len(gateway_processes(fleet)) == 2, 25, fleet)
    assert fleet.stop() == 0
    outcomes = [record.outcome for record in fleet.usage()]
    assert outcomes == ["finished"] * len(ended)
    assert "Traceback" not in fleet.err


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory):
    """One gateway process, one replica."""
    folder = tmp_path_factory.mktemp("one")
    file = write_fleet(folder / "fleet.yaml")
    running = FleetProcess(folder / "state", file, "--port", "0")
    try:
        yield running.wait_ready()
    finally:
        running.kill()


def _file(fleet: FleetProcess) -> Path:
    return fleet.state.parent / "fleet.yaml"


def _refused(fleet: FleetProcess, *arguments: Path | str) -> str:
    """Why; and nothing has changed."""
    before = [process.pid for process in gateway_processes(fleet)]
    refused = run_argosy("apply", *arguments, "--state", fleet.state)
    assert (refused.returncode, refused.stdout) == (1, ""), refused
    assert "nothing has changed" in refused.stderr
    assert [process.pid for process in gateway_processes(fleet)] == before
    return refused.stderr


def test_a_bad_file_changes_nothing_and_says_why(one: FleetProcess, tmp_path: Path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(_file(one).read_text().replace("kind: simulated", "kind: simulator"))
    assert "bad.yaml:9" in _refused(one, bad)
    assert "nowhere.yaml" in _refused(one, tmp_path / "nowhere.yaml")


def test_what_sockets_depend_on_cannot_be_changed(one: FleetProcess, tmp_path: Path):
    file = write_fleet(tmp_path / "more.yaml", processes=2)
    assert "gateway.processes = 2, but this run has 1" in _refused(one, file)
    file.write_text(_file(one).read_text().replace("processes: 1", "host: 127.0.0.2"))
    assert "gateway.host = 127.0.0.2" in _refused(one, file)


def test_without_a_fleet_apply_says_how_to_start_one(tmp_path: Path):
    refused = run_argosy("apply", "--state", tmp_path)
    assert refused.returncode == 1
    assert "argosy up" in refused.stderr


@pytest.mark.slow
def test_a_changed_engine_is_made_before_the_old_one_is_broken(one: FleetProcess):
    write_fleet(_file(one), speed=50.0)
    (old,) = _ready(one)

    async def main():
        over = asyncio.Event()
        async with new_client(one) as client:
            load = asyncio.create_task(steadily(client, over.is_set, per_s=20, tokens=20))
            os.kill(one.process.pid, signal.SIGHUP)
            await asyncio.to_thread(wait_until, lambda: _ready(one) not in (set(), {old}), 15, one)
            await asyncio.to_thread(wait_until, lambda: old not in _names(one), 15, one)
            over.set()
            return await load

    ended = asyncio.run(main())
    assert [asked.status for asked in ended] == [200] * len(ended), one.said
    assert _names(one) == {f"{MODEL}-2"}
    assert "1 are replaced" in one.err
    assert f"{old}  gone" in one.err


def _names(fleet: FleetProcess) -> set[str]:
    return {row.replica.name for row in status_of(fleet).replicas}


@pytest.mark.slow
def test_an_idle_connection_is_closed_after_a_change_and_the_process_ends(one: FleetProcess):
    (before,) = gateway_processes(one)
    host, port = one.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=15) as idle:
        idle.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" in idle.recv(4096)
        _apply(one)
        began_s = time.monotonic()
        assert idle.recv(4096) == b"", "closed, nothing said"
        assert time.monotonic() - began_s > 3, "while it could still be used it was kept"
    before.wait(10)


@pytest.mark.slow
def test_counts_outlive_the_processes_that_counted(one: FleetProcess):
    async def two() -> None:
        async with new_client(one) as client:
            for _ in range(2):
                assert (await ask(client)).status == 200

    asyncio.run(two())
    before = sum(row.load.requests_finished for row in status_of(one).replicas)
    assert before >= 2
    _apply(one)
    wait_until(lambda: len(gateway_processes(one)) == 1, 25, one)
    assert sum(row.load.requests_finished for row in status_of(one).replicas) == before
