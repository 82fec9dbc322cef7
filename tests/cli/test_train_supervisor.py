"""The supervisor and real processes that listen, die, refuse and end."""

import asyncio
import os
import signal
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from argosy.cli.training_supervisor import REFUSED, Child, Restarts, Supervisor
from argosy.fleet.messages import Command

FAST = Restarts(pause_s=0.05, pause_s_max=0.2, good_s=5.0, deaths_max=3)
LISTENS = """
    import json, signal, sys
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(json.dumps({"url": "https://127.0.0.1:1"}), flush=True)
    sys.stdin.read()
"""
WAITS = """
    import signal, sys
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.stdin.read()
"""


class Said(list[str]):
    """What a person was told."""

    def has(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self)


def child(name: str, program: str) -> Child:
    argv = (sys.executable, "-c", textwrap.dedent(program))
    return Child(name=name, command=Command(argv=argv, env={}))


async def until(holds, timeout_s: float = 20.0) -> None:
    for _ in range(int(timeout_s / 0.02)):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("still not so")


@pytest.fixture
def said() -> Said:
    return Said()


def supervisor(tmp_path: Path, said: Said, *islands: str, syncer: str = LISTENS) -> Supervisor:
    them = [child(f"island-{index}", program) for index, program in enumerate(islands)]
    return Supervisor(
        child("syncer", syncer), them, folder=tmp_path, say=said.append, restarts=FAST
    )


def test_a_run_is_finished_when_its_islands_have_ended_in_order(tmp_path, said):
    both = supervisor(tmp_path, said, "pass", "pass")
    assert asyncio.run(both.run()) == "finished"
    assert [one.state for one in both.children] == ["stopped", "finished", "finished"]
    assert not list((tmp_path / "replicas").glob("*.json"))


def test_a_killed_island_is_started_again_and_that_is_said(tmp_path, said):
    async def play() -> str:
        one = supervisor(tmp_path, said, WAITS)
        running = asyncio.create_task(one.run())
        await until(lambda: one.children[1].pid)
        first = one.children[1].pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: one.children[1].pid not in (None, first))
        assert one.children[1].starts == 2
        one.stop.set()
        return await running

    assert asyncio.run(play()) == "stopped"
    assert said.has("island-0", "killed by SIGKILL", "started again in 0.05 s")


def test_a_killed_syncer_is_started_again_and_islands_stay(tmp_path, said):
    async def play() -> None:
        one = supervisor(tmp_path, said, WAITS)
        running = asyncio.create_task(one.run())
        await until(lambda: one.children[1].pid)
        syncer, island = one.children[0].pid, one.children[1].pid
        os.kill(syncer, signal.SIGKILL)
        await until(lambda: one.children[0].pid not in (None, syncer))
        assert one.children[1].pid == island
        one.stop.set()
        await running

    asyncio.run(play())


def test_a_child_that_dies_at_once_is_given_up_with_its_last_words(tmp_path, said):
    one = supervisor(tmp_path, said, "raise SystemExit('no such chip')")
    assert asyncio.run(one.run()) == "gave_up"
    assert one.children[1].starts == 3
    assert said.has("3 times in a row: given up", "no such chip")


def test_others_go_on_when_one_island_is_given_up(tmp_path, said):
    one = supervisor(tmp_path, said, "raise SystemExit(1)", "import time; time.sleep(1.5)")
    assert asyncio.run(one.run()) == "finished"
    assert [child.state for child in one.children[1:]] == ["gave_up", "finished"]


def test_a_child_that_refuses_is_not_started_again(tmp_path, said):
    program = f"import sys; print('the model is another', file=sys.stderr); sys.exit({REFUSED})"
    one = supervisor(tmp_path, said, "import sys; sys.stdin.read()", syncer=program)
    assert asyncio.run(one.run()) == "refused"
    assert one.children[0].starts == 1
    assert said.has("syncer cannot go on", "the model is another")


def test_a_program_that_cannot_be_run_is_given_up(tmp_path, said):
    missing = Child(name="island-x", command=Command(argv=("/nowhere/argosy",), env={}))
    one = Supervisor(
        child("syncer", LISTENS), [missing], folder=tmp_path, say=said.append, restarts=FAST
    )
    assert asyncio.run(one.run()) == "gave_up"
    assert said.has("/nowhere/argosy cannot be run")


def test_children_end_when_the_supervisor_is_killed(tmp_path):
    program = f"""
        import asyncio, sys
        sys.path[:0] = {[str(Path(__file__).parents[2]), str(Path(__file__).parent)]!r}
        from pathlib import Path
        import test_train_supervisor as t
        asyncio.run(t.supervisor(Path({str(tmp_path)!r}), t.Said(), t.WAITS).run())
    """

    async def play() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(program)
        )
        keeper = psutil.Process(process.pid)
        await until(lambda: len(keeper.children()) == 2)
        children = keeper.children()
        keeper.kill()
        await process.wait()
        await until(lambda: not any(one.is_running() for one in children))

    asyncio.run(play())
