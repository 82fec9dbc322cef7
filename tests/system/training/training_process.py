"""A training run as a person starts it: `argosy train` in a process, its ledger, its children.

Islands are the reference ones, in numpy: what is tried here is everything around them.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from argosy.store import runs
from argosy.store.schema import open_store

ARGOSY = (sys.executable, "-m", "argosy.cli.main")
WAIT_S_MAX = 90.0  # other work may keep both cores busy
CONTEXT, BATCH = 16, 4

RUN = """\
run: {name}
model: {{kind: llama, layers: 1, hidden: 16, heads: 1, kv_heads: 1, mlp: 16}}
data: {{path: none, validation_blocks: 8}}
tokens: {tokens}
context_tokens: {context}
batch_blocks: {batch}
outer: {{inner_steps: 10, lease_s: 2, grace_s_max: 1.0, fragment_bytes_max: 4096}}
islands:
{islands}
"""


def write_run(path: Path, *, steps: int, islands: tuple[str, ...], name: str = "tried") -> Path:
    """A run file of that many steps."""
    rows = "\n".join(f"  - {{name: {island}, threads: 1}}" for island in islands)
    tokens = steps * CONTEXT * BATCH
    path.write_text(
        RUN.format(name=name, tokens=tokens, context=CONTEXT, batch=BATCH, islands=rows)
    )
    return path


class TrainingProcess:
    """One `argosy train` or `argosy runs resume`, in a process group of its own."""

    def __init__(self, state: Path, *arguments: str | Path) -> None:
        self.state = state
        state.mkdir(parents=True, exist_ok=True)
        count = len(list(state.glob("train-*.err")))
        self._err = state / f"train-{count}.err"
        with self._err.open("wb") as err, (state / f"train-{count}.out").open("wb") as out:
            self.process = subprocess.Popen(
                [*ARGOSY, *map(str, arguments), "--state", str(state), "--no-watch"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """Its stderr so far, and the logs of its children."""
        logs = sorted(self.state.glob("runs/*/logs/*.log"))
        tails = "".join(f"\n--- {log.name}\n{log.read_text()[-1500:]}" for log in logs)
        return self._err.read_text() + tails

    def child(self, name: str) -> psutil.Process | None:
        """The syncer, or an island by its name, if it lives now."""
        for one in self._children():
            words = self._words(one)
            if name == "syncer" and "argosy.cli.training_syncer" in words:
                return one
            if words[-2:] == ["--island", name]:
                return one
        return None

    def wait_child(self, name: str, *, other_than: int | None = None) -> psutil.Process:
        """Once it lives, under another pid than that."""

        def there() -> bool:
            found = self.child(name)
            return found is not None and found.pid != other_than

        self.wait_until(there)
        found = self.child(name)
        assert found is not None, self.said
        return found

    def wait_until(self, holds, timeout_s: float = WAIT_S_MAX) -> None:
        """Fails after that, and when the command ends before."""
        until_s = time.monotonic() + timeout_s
        while not holds():
            assert self.process.poll() is None, f"ended with {self.process.returncode}\n{self.said}"
            assert time.monotonic() < until_s, f"still not so after {timeout_s:g} s\n{self.said}"
            time.sleep(0.05)

    def wait_done(self, share: float, name: str = "tried") -> None:
        """Until that share of the tokens is counted."""
        self.wait_until(lambda: done_share(self.state, name) >= share)

    def wait_exit(self, timeout_s: float = WAIT_S_MAX) -> int:
        """Its exit status."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout_s:g} s\n{self.said}") from None

    def interrupt(self) -> None:
        """Ctrl-C in its terminal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> list[psutil.Process]:
        """Kill -9 of the supervisor alone; its children then."""
        children = self._children()
        self.process.kill()
        self.process.wait()
        return children

    def close(self) -> None:
        """Leave nothing of it."""
        children = self._children()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for one in children:
            if one.is_running():
                one.kill()
        psutil.wait_procs(children, 10)

    def _children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _words(self, process: psutil.Process) -> list[str]:
        try:
            return process.cmdline()
        except psutil.Error:
            return []


def read(state: Path, read_of, name: str = "tried"):
    """From the store, by one of `store.runs`' functions."""
    engine = open_store(state / "argosy.db")
    try:
        return read_of(engine, name)
    finally:
        engine.dispose()


def done_share(state: Path, name: str = "tried") -> float:
    """Of the run's blocks; 0 before there is a run."""
    if not (state / "argosy.db").exists():
        return 0.0
    try:
        record = read(state, runs.read_run, name)
    except runs.UnknownRunError:
        return 0.0
    return record.blocks_done / record.blocks


def check_books(state: Path, name: str = "tried") -> None:
    """The run is finished, and every block was trained on and counted exactly once."""
    record = read(state, runs.read_run, name)
    assert record.state == "finished", record
    leases = {lease.lease: lease for lease in read(state, runs.leases_of, name)}
    counted = [one for one in read(state, runs.contributions_of, name) if one.state == "merged"]
    spans = sorted(span for one in counted for span in leases[one.lease].spans)
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])], spans
    assert spans[-1][1] == record.blocks
    assert len({one.lease for one in counted}) == len(counted)


def check_alike(state: Path, name: str = "tried") -> None:
    """What islands have at the end is what the syncer wrote, bit for bit."""
    final = json.loads((state / "runs" / name / "syncer/final/parameters.json").read_text())
    ended: list[str] = []
    for log in state.glob(f"runs/{name}/logs/island-*.log"):
        lines = [line for line in log.read_text().splitlines() if '"event":"ended"' in line]
        ended += [json.loads(line)["published_sha256"] for line in lines[-1:]]
    assert ended
    assert set(ended) == {final["sha256"]}


def run_argosy(state: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [*ARGOSY, *map(str, arguments), "--state", str(state)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
        check=False,
    )


def lives(text: str, island: str) -> int:
    """How often it joined, as `argosy runs show` tells it."""
    row = re.search(rf"^{island} .* (\d+)$", text, re.MULTILINE)
    assert row, text
    return int(row[1])
