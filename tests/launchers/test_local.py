"""The local launcher with real processes, on both event loops."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import uvloop

from argosy.fleet.messages import Command
from argosy.launchers.local import ReplicaEndedError, reap_stale, start_process
from argosy.launchers.port import LaunchError

URL = "http://127.0.0.1:1"
LISTENS = f"""
import sys
print("listening", file=sys.stderr, flush=True)
print('{{"url": "{URL}"}}', flush=True)
"""
UNTIL_STDIN_ENDS = "sys.stdin.read()"
IGNORES_SIGTERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
FOREVER = "time.sleep(60)"
Run = Callable[[Awaitable[None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def runner(test: Awaitable[None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as loop:
            loop.run(asyncio.wait_for(test, 20))

    return runner


def python(*lines: str, **env: str) -> Command:
    return Command(argv=(sys.executable, "-c", "\n".join(lines)), env=env)


def records(state: Path) -> list[str]:
    return [path.name for path in (state / "replicas").glob("*")]


def test_a_replica_is_started_and_stopped(tmp_path: Path, run: Run) -> None:
    async def test() -> None:
        replica = await start_process(tmp_path, "r-1", python(LISTENS, UNTIL_STDIN_ENDS))
        assert await replica.listening() == URL
        assert await replica.listening() == URL
        assert replica.pid is not None
        assert psutil.pid_exists(replica.pid)
        assert records(tmp_path) == ["r-1.json"]
        await replica.stop(grace_s=10)
        assert await replica.ended() in ("killed by SIGTERM", "exited with status 0")
        await replica.stop(grace_s=10)
        assert not psutil.pid_exists(replica.pid)
        assert records(tmp_path) == []
        assert "listening" in (tmp_path / "logs" / "r-1.log").read_text()

    run(test())


def test_a_replica_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path, run: Run) -> None:
    async def test() -> None:
        replica = await start_process(tmp_path, "r", python(IGNORES_SIGTERM, LISTENS, FOREVER))
        await replica.listening()
        await replica.stop(grace_s=0.1)
        assert await replica.ended() == "killed by SIGKILL"

    run(test())


def test_a_stopped_replica_is_killed_after_the_grace(tmp_path: Path, run: Run) -> None:
    async def test() -> None:
        replica = await start_process(tmp_path, "r", python(LISTENS, UNTIL_STDIN_ENDS))
        await replica.listening()
        process = psutil.Process(replica.pid)
        process.suspend()
        while process.status() != psutil.STATUS_STOPPED:
            await asyncio.sleep(0.01)
        await replica.stop(grace_s=0.1)
        assert await replica.ended() == "killed by SIGKILL"

    run(test())


def test_how_a_replica_ended_is_told_to_all_who_wait(tmp_path: Path, run: Run) -> None:
    async def test() -> None:
        replica = await start_process(tmp_path, "r", python(LISTENS, UNTIL_STDIN_ENDS))
        waiting = [asyncio.create_task(replica.ended()) for _ in range(3)]
        await replica.listening()
        assert replica.pid is not None
        waiting[0].cancel()
        os.kill(replica.pid, signal.SIGKILL)
        assert await waiting[1] == await waiting[2] == "killed by SIGKILL"

    run(test())


def test_a_replica_that_ends_first_says_its_status_and_its_last_words(
    tmp_path: Path, run: Run
) -> None:
    async def test() -> None:
        for _ in range(2):  # the words of the first are not the second's
            replica = await start_process(
                tmp_path, "r", python("import os, sys", "sys.exit(os.environ['W'])")
            )
            with pytest.raises(
                ReplicaEndedError, match="r exited with status 1 before it listened"
            ):
                await replica.listening()
        replica = await start_process(tmp_path, "r", python("import sys; sys.exit(3)"))
        with pytest.raises(ReplicaEndedError, match=r"r exited with status 3 .* saying nothing"):
            await replica.listening()
        words = python("import os, sys", "sys.exit(os.environ['W'])", W="no model, no ship")
        replica = await start_process(tmp_path, "r", words)
        with pytest.raises(ReplicaEndedError, match="no model, no ship") as caught:
            await replica.listening()
        assert "KeyError" not in str(caught.value)

    run(test())


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("print('hello', flush=True)", r"r printed b'hello' where its URL was expected"),
        ("print('{\"url\": 5}', flush=True)", "where its URL was expected"),
        ("print('x' * 200_000, flush=True)", "r printed b'xxx.* where its URL"),
        ("os.write(1, bytes([255, 10]))", "where its URL was expected"),
    ],
)
def test_a_replica_that_does_not_say_its_url_is_killed(
    tmp_path: Path, run: Run, says: str, words: str
) -> None:
    async def test() -> None:
        program = python("import os", IGNORES_SIGTERM, says, FOREVER)
        replica = await start_process(tmp_path, "r", program)
        with pytest.raises(ReplicaEndedError, match=words):
            await replica.listening()
        assert await replica.ended() == "killed by SIGKILL"
        assert records(tmp_path) == []

    run(test())


def test_a_program_that_cannot_be_run_is_told(tmp_path: Path, run: Run) -> None:
    async def test() -> None:
        with pytest.raises(LaunchError, match="/not/there cannot be run"):
            await start_process(tmp_path, "r", Command(argv=("/not/there",), env={}))

    run(test())


def test_names_with_a_slash_stay_in_the_state_folder(tmp_path: Path, run: Run) -> None:
    async def test() -> None:
        names = ["org/model-1", "org%2Fmodel-1", "../model"]
        replicas = [
            await start_process(tmp_path, name, python(LISTENS, UNTIL_STDIN_ENDS)) for name in names
        ]
        assert len(records(tmp_path)) == 3
        for replica in replicas:
            await replica.listening()
            await replica.stop(grace_s=5)

    run(test())


def test_a_long_log_is_put_aside_at_the_next_start(tmp_path: Path, run: Run) -> None:
    async def test() -> None:
        log = tmp_path / "logs" / "r.log"
        log.parent.mkdir()
        log.write_bytes(b"x" * (5 * 2**20 + 1))
        replica = await start_process(tmp_path, "r", python(LISTENS))
        await replica.ended()
        assert log.read_text() == "listening\n"
        assert (tmp_path / "logs" / "r.log.1").stat().st_size > 5 * 2**20

    run(test())


CRASHES = """
import asyncio, pathlib, sys
from argosy.fleet.messages import Command
from argosy.launchers.local import start_process
async def main():
    replica = await start_process(
        pathlib.Path(sys.argv[1]), "r-1", Command(argv=("sleep", "60"), env={}))
    print(replica.pid, flush=True)
    await replica.ended()
asyncio.run(main())
"""


def test_a_stopped_orphan_is_reaped_at_the_next_start(tmp_path: Path) -> None:
    crashing = [sys.executable, "-c", CRASHES, str(tmp_path)]
    with subprocess.Popen(crashing, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        orphan = psutil.Process(int(run.stdout.readline()))
        orphan.suspend()
        end_s = time.monotonic() + 5.0  # a signal takes its time on a busy machine
        while orphan.status() != psutil.STATUS_STOPPED and time.monotonic() < end_s:
            time.sleep(0.01)
        run.kill()
    assert orphan.status() == psutil.STATUS_STOPPED
    assert reap_stale(tmp_path) == [
        f"killed replica r-1 (pid {orphan.pid}), left behind by a run that crashed"
    ]
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert records(tmp_path) == []
    assert reap_stale(tmp_path) == []


def test_a_stranger_with_the_pid_of_a_replica_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "replicas").mkdir()
        record = f'{{"name": "r", "pid": {stranger.pid}, "create_time_s": {time.time() - 3600}}}'
        (tmp_path / "replicas" / "r.json").write_text(record)
        assert reap_stale(tmp_path) == []
        assert stranger.poll() is None
        stranger.kill()
    assert records(tmp_path) == []


def test_a_record_that_cannot_be_read_is_named_and_removed(tmp_path: Path) -> None:
    (tmp_path / "replicas").mkdir()
    (tmp_path / "replicas" / "r.json").write_text("{")
    assert "r.json: not a replica's record" in reap_stale(tmp_path)[0]
    assert records(tmp_path) == []
