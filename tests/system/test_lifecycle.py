"""How a fleet comes up and goes down, whoever ends it and whatever the last run left behind."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from fleet_process import MODEL, FleetProcess, run_argosy, wait_until
from streams import Ended, http_client, stream_once

FIRST_TOKEN_S_MAX = 20.0  # the promise is 10 on an idle laptop
GARBAGE_FLEET = """\
fleet: garbage
pools:
  - {{name: local, launcher: {{kind: local}}}}
models:
  - {{name: noise, weights: "file:{path}"}}
deployments:
  - {{model: noise, pool: local, engine: {{kind: llama.cpp}}}}
"""


def _stream_beside(fleet: FleetProcess, *, count: int, tokens: int, then) -> list[Ended]:
    """That many streams; `then` is called once each of them is being answered."""

    def in_flight() -> int:
        return sum(row.load.requests_in_flight for row in fleet.replicas())

    async def main() -> list[Ended]:
        async with http_client(fleet) as client:
            asked = [asyncio.create_task(stream_once(client, tokens=tokens)) for _ in range(count)]
            await asyncio.to_thread(wait_until, lambda: in_flight() == count, 10, fleet)
            await asyncio.sleep(1.0)  # the first tokens
            await asyncio.to_thread(then)
            return list(await asyncio.gather(*asked))

    return asyncio.run(main())


def _assert_gone(processes: list[psutil.Process], within_s: float = 5.0) -> None:
    _, left = psutil.wait_procs(processes, timeout=within_s)
    assert not left, f"left behind: {left}"


def test_the_first_token_comes_within_seconds_of_the_command(start_fleet, say):
    fleet = start_fleet().wait_welcome()
    welcome_s = time.monotonic() - fleet.started_s

    async def one_token() -> Ended:
        async with http_client(fleet) as client:
            return await stream_once(client, tokens=1)

    assert asyncio.run(one_token()).end == "whole"
    first_token_s = time.monotonic() - fleet.started_s
    say(f"from the command: address after {welcome_s:.1f} s, first token after {first_token_s:.1f}")
    assert first_token_s < FIRST_TOKEN_S_MAX
    assert fleet.stop() == 0
    assert not (fleet.state / "run.json").exists()


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_streams_end_whole_when_the_fleet_is_told_to_stop(start_fleet, how: str):
    fleet = start_fleet().wait_ready()
    children = fleet.children()
    assert len(children) == 3, "two replicas and the gateway"
    ended = _stream_beside(
        fleet,
        count=4,
        tokens=150,
        then=fleet.interrupt if how == "Ctrl-C" else fleet.process.terminate,
    )
    assert [one.end for one in ended] == ["whole"] * 4, ended
    assert fleet.wait_exit() == 0, fleet.said
    _assert_gone(children)
    records = fleet.usage()
    assert {record.request for record in records} == {one.request for one in ended}
    assert [(record.outcome, record.tokens_out) for record in records] == [("finished", 150)] * 4
    assert "Traceback" not in fleet.err
    assert fleet.err.rstrip().endswith("stopped")


def test_a_second_ctrl_c_hurries(start_fleet):
    fleet = start_fleet().wait_ready()
    children = fleet.children()

    def interrupt_twice() -> None:
        fleet.interrupt()
        time.sleep(0.5)
        assert fleet.process.poll() is None, "did not wait for its streams"
        fleet.interrupt()

    began_s = time.monotonic()
    ended = _stream_beside(fleet, count=4, tokens=3000, then=interrupt_twice)
    assert fleet.wait_exit() == 0, fleet.said
    assert time.monotonic() - began_s < 15, "30 s are what streams have to end by themselves"
    assert [one.end for one in ended] == ["error event"] * 4, ended
    assert "stopping" in ended[0].detail
    _assert_gone(children)
    assert [record.outcome for record in fleet.usage()] == ["failed"] * 4
    assert "Traceback" not in fleet.err


def test_ctrl_c_works_before_a_replica_is_ready(start_fleet):
    fleet = start_fleet()
    wait_until(lambda: "starting" in fleet.err, 30, fleet)
    children = fleet.children()
    fleet.interrupt()
    assert fleet.wait_exit(15) == 0, fleet.said
    _assert_gone(children)
    assert "Traceback" not in fleet.err


def test_a_killed_fleet_leaves_nothing_and_starts_again(start_fleet):
    fleet = start_fleet().wait_ready()
    children = fleet.children()
    fleet.replica_processes()[0].suspend()
    fleet.process.kill()
    fleet.process.wait(10)
    _assert_gone(children, within_s=10.0)
    assert (fleet.state / "run.json").exists(), "a killed process cannot clean up"

    # A replica that outlived the crash all the same: its record is all that is known of it.
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        record = {
            "name": f"{MODEL}-9",
            "pid": orphan.pid,
            "create_time_s": psutil.Process(orphan.pid).create_time(),
        }
        (fleet.state / "replicas" / "orphan.json").write_bytes(msgspec.json.encode(record))
        again = start_fleet().wait_ready()
        assert f"killed replica {MODEL}-9 (pid {orphan.pid}), left behind" in again.err
        assert orphan.wait(10) == -signal.SIGKILL
    finally:
        orphan.kill()
        orphan.wait(10)
    assert again.stop() == 0


def test_a_second_fleet_on_the_same_state_is_refused_naming_the_first(fleet: FleetProcess):
    refused = run_argosy("up", "--state", fleet.state, "--port", "0")
    assert refused.returncode == 1
    assert f"pid {fleet.process.pid}" in refused.stderr
    assert fleet.url in refused.stderr
    assert refused.stdout == ""
    assert fleet.status().replicas, "the first one serves on"


def test_a_taken_port_is_refused_and_nothing_is_left(tmp_path: Path, weights: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run_argosy("up", "--state", tmp_path, "--port", str(port))
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert "--port" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(tmp_path.glob("replicas/*")), "a replica was started"
    assert not (tmp_path / "run.json").exists()


def test_a_broken_fleet_file_is_refused_with_its_line(tmp_path: Path):
    file = tmp_path / "fleet.yaml"
    file.write_text("fleet: x\npools:\n  - {name: local, launcher: {kind: lokal}}\n")
    refused = run_argosy("up", file, "--state", tmp_path / "state", "--port", "0")
    assert refused.returncode == 1
    assert "fleet.yaml:3" in refused.stderr
    assert "lokal" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("content", [b"no weights at all", b"GGUF" + bytes(range(256)) * 40])
def test_weights_that_are_none_are_told_and_not_tried_in_a_spin(
    start_fleet, tmp_path: Path, content: bytes
):
    path = tmp_path / "noise.gguf"
    path.write_bytes(content)
    file = tmp_path / "fleet.yaml"
    file.write_text(GARBAGE_FLEET.format(path=path))
    fleet = start_fleet(file)
    wait_until(lambda: "dead" in fleet.err, 30, fleet)
    began_s = time.monotonic()
    wait_until(lambda: time.monotonic() - began_s > 3, 10)
    assert str(path) in fleet.err
    assert "GGUF" in fleet.err or "cannot load this model" in fleet.err
    assert "Traceback" not in fleet.err
    assert fleet.err.count("dead") < 8, "restarted without a pause"
    status = run_argosy("status", "--state", fleet.state)
    assert status.returncode == 0
    assert str(path) in status.stdout.replace("\n", "")
    fleet.interrupt()
    assert fleet.wait_exit(15) == 0, fleet.said


def test_weights_that_are_not_there_are_refused(tmp_path: Path):
    file = tmp_path / "fleet.yaml"
    file.write_text(GARBAGE_FLEET.format(path=tmp_path / "nowhere.gguf"))
    refused = run_argosy("up", file, "--state", tmp_path / "state", "--port", "0")
    assert refused.returncode == 1
    assert "nowhere.gguf" in refused.stderr
    assert "Traceback" not in refused.stderr
