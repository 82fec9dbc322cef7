"""A real Ray cluster on loopback: a head and raylets, each a process group of its own to be killed.

Every node has a loopback address of its own (127.0.0.2, .3, …): Ray rewrites 127.0.0.1 to the
host's, and tells nodes apart by address. Or they are on machines of a network (`machines.py`).
The head keeps its tables in RocksDB, so it can come back.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_STORE_BYTES = 80 * 2**20  # of objects, which nobody makes here; Ray takes no less
_SETTINGS = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_worker_niceness": "0",
    "RAY_usage_stats_enabled": "0",
    "RAY_gcs_storage": "rocksdb",
}


class RayCluster:
    """`folder` must have a short path: a socket's may have 107 bytes. `host`: of the head."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.2") -> None:
        self._host = host
        self._folder = folder
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.state = folder / "home"
        self._port = _free_port(host)
        self.address = f"{host}:{self._port}"

    def start_head(self) -> None:
        """Or start it again."""
        with contextlib.suppress(FileNotFoundError):  # on one host ray start takes raylets for it
            (self._folder / "head" / "ray_current_cluster").unlink()
        arguments = ["--head", "--port", str(self._port), "--num-cpus", "0"]
        self._start("head", self._host, [*arguments, "--include-dashboard", "false"])
        deadline_s = time.monotonic() + 40
        while not self.head_answers():
            assert time.monotonic() < deadline_s, self.log("head")
            time.sleep(0.1)

    def head_answers(self) -> bool:
        """Whether its port does."""
        with contextlib.suppress(OSError):
            socket.create_connection((self._host, self._port), 0.5).close()
            return True
        return False

    def start_node(
        self,
        name: str,
        ip: str,
        *,
        resources: str,
        labels: dict[str, str],
        on: tuple[str, ...] = (),
    ) -> None:
        """A raylet; `resources` as `ray start` takes them, JSON or --num-gpus=2.

        `on`: words that run a command on its machine.
        """
        told = [resources] if resources.startswith("--") else ["--resources", resources]
        bears = ",".join(f"{key}={value}" for key, value in labels.items())
        arguments = ["--address", self.address, "--num-cpus", "4", "--labels", bears, *told]
        self._start(name, ip, arguments, on)

    def raylet(self, name: str) -> psutil.Process:
        """The node's raylet."""
        return self._process(name, "raylet")

    def kill(self, name: str) -> None:
        """All of the node's own processes, as a power cut would; its actors' too."""
        process = self._nodes.pop(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for each in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(children, 10)
        process.wait(10)

    def close(self) -> None:
        """End all."""
        for name in list(self._nodes):
            self.kill(name)

    def log(self, name: str) -> str:
        """What `ray start` said."""
        return (self._folder / f"{name}.log").read_text()[-2000:]

    def _process(self, name: str, of: str) -> psutil.Process:
        children = psutil.Process(self._nodes[name].pid).children(recursive=True)
        return next(process for process in children if process.name() == of)

    def _start(self, name: str, ip: str, arguments: list[str], on: tuple[str, ...] = ()) -> None:
        own = self._folder / name  # nodes that share a folder race for its sockets
        command = [*on, sys.executable, "-m", "ray.scripts.scripts", "start", *arguments]
        shared = ["--node-ip-address", ip, "--temp-dir", str(own), "--block"]
        lean = ["--object-store-memory", str(_STORE_BYTES), "--include-log-monitor", "false"]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._nodes[name] = subprocess.Popen(
                [*command, *shared, *lean, "--disable-usage-stats"],
                env={
                    **os.environ,
                    **_SETTINGS,
                    "RAY_gcs_storage_path": str(self._folder / "gcs"),
                    "XDG_STATE_HOME": str(self.state),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextlib.contextmanager
def running_cluster(*, host: str = "127.0.0.2") -> Iterator[RayCluster]:
    """Its head, without raylets yet; all end with it."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # pytest's own is too long for a socket
    cluster = RayCluster(folder, host=host)
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


def suspend(process: psutil.Process) -> None:
    """As a machine that hangs."""
    process.send_signal(signal.SIGSTOP)


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as taken:
        return taken.getsockname()[1]


def as_json(**resources: int) -> str:
    """For `start_node`."""
    return json.dumps(resources)
