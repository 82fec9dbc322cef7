"""A fleet as a person starts it: the command `argosy up` in a process, found by what it prints.

Used by every test of this folder; owns the process and whatever it leaves behind.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil

from argosy.cli.running import running_fleet
from argosy.cli.status import read_status
from argosy.fleet.messages import FleetStatus, ReplicaStatus, Usage
from argosy.store.schema import open_store
from argosy.store.usage import records

ARGOSY = (sys.executable, "-m", "argosy.cli.main")
MODEL = "smollm2-135m"
START_S_MAX = 60.0  # other work may keep both cores busy
_ADDRESS = re.compile(r"^Argosy serves .* at (http://\S+)$", re.MULTILINE)
_KEY = re.compile(r"^API key: (argosy-\S+)$", re.MULTILINE)


class FleetProcess:
    """One `argosy up` on the state folder `state`, in a process group of its own."""

    def __init__(
        self, state: Path, *arguments: str | Path, env: dict[str, str] | None = None
    ) -> None:
        self.state = state
        state.mkdir(parents=True, exist_ok=True)
        self._out, self._err = state / "up.out", state / "up.err"
        self.started_s = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*ARGOSY, "up", *map(str, arguments), "--state", str(state)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    # What it says.

    @property
    def out(self) -> str:
        """Its stdout so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """Its stderr so far."""
        return self._err.read_text()

    @property
    def url(self) -> str:
        """The gateway's address."""
        found = _ADDRESS.search(self.out)
        assert found, self.said
        return found[1]

    @property
    def key(self) -> str:
        """The API key of this run."""
        found = _KEY.search(self.out)
        assert found, self.said
        return found[1]

    @property
    def said(self) -> str:
        """All that it printed, for a failed assertion."""
        return f"stdout:\n{self.out}\nstderr:\n{self.err}"

    # What it is.

    def status(self) -> FleetStatus:
        """The fleet as `argosy status` sees it."""
        return read_status(running_fleet(self.state, None))

    def replicas(self) -> tuple[ReplicaStatus, ...]:
        """The rows of `argosy status`."""
        return self.status().replicas

    def usage(self) -> list[Usage]:
        """Every usage record on disk."""
        store = open_store(self.state / "argosy.db")
        try:
            return records(store, limit=100_000)
        finally:
            store.dispose()

    def children(self) -> list[psutil.Process]:
        """The processes that it started, as long as it lives: gateways and replicas."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def replica_processes(self) -> list[psutil.Process]:
        """The replicas among them."""
        return [child for child in self.children() if "argosy.engines" in " ".join(child.cmdline())]

    # Waiting.

    def wait_welcome(self) -> "FleetProcess":
        """Until the first replica is ready and the key is printed."""
        wait_until(lambda: self._welcomed(), START_S_MAX, self)
        return self

    def wait_ready(self) -> "FleetProcess":
        """Until every replica is ready."""
        self.wait_welcome()
        wait_until(
            lambda: all(row.replica.state == "ready" for row in self.replicas()), START_S_MAX, self
        )
        return self

    def wait_exit(self, timeout_s: float = START_S_MAX) -> int:
        """Its exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout_s:g} s\n{self.said}") from None

    def _welcomed(self) -> bool:
        assert self.process.poll() is None, f"ended by itself\n{self.said}"
        return "Ctrl-C drains and stops." in self.out

    # The end.

    def interrupt(self) -> None:
        """Ctrl-C in its terminal: SIGINT to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def stop(self) -> int:
        """Stop it as a person would; its exit code."""
        self.interrupt()
        return self.wait_exit()

    def kill(self) -> None:
        """Leave nothing of it, whatever state it is in."""
        left = self.children()
        for process in (*left, psutil.Process(self.process.pid)) if self._is_alive() else left:
            process.kill()
        self.process.wait(10)
        psutil.wait_procs(left, 10)
        kill_recorded(self.state)

    def _is_alive(self) -> bool:
        return self.process.poll() is None


class _Record(msgspec.Struct):
    pid: int
    create_time_s: float


def recorded(state: Path) -> list[psutil.Process]:
    """The replicas that a run on this state folder has on record and that live."""
    found: list[psutil.Process] = []
    for path in (state / "replicas").glob("*.json"):
        record = msgspec.json.decode(path.read_bytes(), type=_Record)
        with contextlib.suppress(psutil.NoSuchProcess):  # it is gone, or a zombie
            process = psutil.Process(record.pid)
            if "argosy.engines" in " ".join(process.cmdline()):
                found.append(process)
    return found


def kill_recorded(state: Path) -> None:
    """Kill the replicas that a dead run has left on record."""
    left = recorded(state)
    for process in left:
        process.kill()
    psutil.wait_procs(left, 10)


def wait_until(holds, timeout_s: float, fleet: FleetProcess | None = None) -> float:
    """Seconds until `holds()` is true; fails after `timeout_s`."""
    began_s = time.monotonic()
    while not holds():
        waited_s = time.monotonic() - began_s
        said = f"\n{fleet.said}" if fleet else ""
        assert waited_s < timeout_s, f"still not so after {timeout_s:g} s{said}"
        time.sleep(0.05)
    return time.monotonic() - began_s


def run_argosy(
    *arguments: str | Path,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    timeout_s: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [*ARGOSY, *map(str, arguments)],
        input=stdin or "",
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
