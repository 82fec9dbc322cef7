"""A fleet in parts on loopback: control planes, gateways, simulated replicas, one PostgreSQL."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec
from fleet_process import ARGOSY, MODEL, run_argosy, wait_until

from argosy.control.api import ControlStatus
from argosy.engines.simulated import SimulatedSpec
from argosy.fleet.config import SimulatedEngine
from argosy.store.keys import mint, revoke
from argosy.store.schema import open_store

TOKEN = "a-secret-of-the-tests-alone"
LEASE_S = 3.0
ENV = {"ARGOSY_CONTROL_TOKEN": TOKEN}


class Part:
    """One command that runs until it is ended."""

    def __init__(self, name: str, arguments: tuple[object, ...], log: Path) -> None:
        self.name = name
        self.arguments = arguments
        self._log = log
        self._begins = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*ARGOSY, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **ENV},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """By this process; not by one before it."""
        return self._log.read_bytes()[self._begins :].decode()

    @property
    def url(self) -> str:
        found = re.search(r" at (https?://[^\s;]+)", self.said)
        assert found, self.said
        return found[1]

    def wait(self, words: str, timeout_s: float = 60.0) -> float:
        """Seconds until it says so."""
        began_s = time.monotonic()
        while words not in self.said:
            assert self.process.poll() is None, f"{self.name} ended: {self.said}"
            assert time.monotonic() - began_s < timeout_s, f"{self.name}: {self.said}"
            time.sleep(0.01)
        return time.monotonic() - began_s

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


class FarFleet:
    """Two control planes, two gateways, replicas at `replicas` endpoints."""

    def __init__(self, folder: Path, store: str, *, replicas: int = 3) -> None:
        self.folder = folder
        self.store = store
        self._endpoints = [endpoint() for _ in range(replicas)]
        self.file = folder / "fleet.yaml"
        self.file.write_text(fleet_of([url for _, url in self._endpoints]))
        _, self.key = self.made_key("tests")
        places = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self.urls = ",".join(f"http://{place}" for place in places)
        self.controls = [self.control(number, place) for number, place in enumerate(places)]
        self.gateways = [self.gateway(number) for number in range(2)]
        for control in self.controls:
            control.wait("Ctrl-C ends it")
        for gateway in self.gateways:
            gateway.wait("serves fleet")
        self.wait_ready()

    def control(self, number: int, listen: str) -> Part:
        name = f"c{number}"
        return self._part(
            name, "control", self.file, "--store", self.store, "--listen", listen,
            "--lease", LEASE_S,
        )  # fmt: skip

    def control_again(self, *numbers: int) -> None:
        """In the place of those that have ended, at their addresses."""
        for number in numbers:
            listen = self.controls[number].url.removeprefix("http://")
            self.controls[number] = self.control(number, listen)
        for number in numbers:
            self.controls[number].wait("Ctrl-C ends it")

    def gateway(self, number: int, port: int = 0) -> Part:
        return self._part(
            f"g{number}", "gateway", self.file, "--control", self.urls, "--store", self.store,
            "--port", port,
        )  # fmt: skip

    def _part(self, name: str, *arguments: object) -> Part:
        state = self.folder / name
        return Part(name, (*arguments, "--state", state), self.folder / f"{name}.log")

    def made_key(self, name: str) -> tuple[str, str]:
        """Its id and its secret."""
        store = open_store(self.store)
        try:
            secret, key = mint(store, tenant="acme", tier="consumer", name=name, now_s=0.0)
        finally:
            store.dispose()
        return key.id, secret

    def revoke_key(self, key: str) -> None:
        store = open_store(self.store)
        try:
            revoke(store, key, now_s=1.0)
        finally:
            store.dispose()

    # What it says.

    def status(self, control: Part) -> ControlStatus:
        answer = httpx.get(
            f"{control.url}/v1/status",
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=5.0,
            trust_env=False,
        )
        return msgspec.json.decode(answer.content, type=ControlStatus)

    def leader(self) -> int:
        """Its number, once there is one."""
        for _ in range(600):
            for number, control in enumerate(self.controls):
                if control.process.poll() is None:
                    told = self.status(control).leader
                    if told == control.url:
                        return number
            time.sleep(0.05)
        raise AssertionError(self.said)

    def ask(self, *arguments: object, control: Part | None = None) -> str:
        """What `argosy …` prints when it asks the control planes, or that one."""
        urls = self.urls if control is None else control.url
        done = run_argosy(*map(str, arguments), "--control", urls, env=ENV)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def table_age_s(self, gateway: Part) -> float:
        page = httpx.get(f"{gateway.url}/metrics", headers=self.headers, trust_env=False).text
        found = re.search(r"^argosy_table_age_seconds (\S+)$", page, re.MULTILINE)
        assert found, page
        return float(found[1])

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def wait_ready(self) -> None:
        for gateway in self.gateways:
            wait_until(lambda url=gateway.url: _is_ready(url), 30.0)

    @property
    def said(self) -> str:
        parts = (*self.controls, *getattr(self, "gateways", ()))
        return "\n".join(f"-- {part.name}\n{part.said}" for part in parts)

    def close(self) -> None:
        for part in (*self.controls, *self.gateways):
            part.kill()
        for process, _ in self._endpoints:
            process.kill()
            process.wait(10)
            process.stdin.close()
            process.stdout.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def endpoint() -> tuple[subprocess.Popen, str]:
    engine = SimulatedEngine(slots=64, decode_tokens_per_s=60.0)
    spec = msgspec.json.encode(SimulatedSpec(model=MODEL, engine=engine)).decode()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "argosy.engines.simulated_server", spec],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["url"]


def fleet_of(urls: list[str]) -> str:
    lines = ["fleet: far", "gateway: {drain_s: 20}", "pools:"]
    lines += [
        f"  - {{name: e{n}, launcher: {{kind: endpoint, url: '{url}/v1'}}}}"
        for n, url in enumerate(urls)
    ]
    lines += [f"models: [{{name: {MODEL}}}]", "deployments:"]
    lines += [
        f"  - {{model: {MODEL}, pool: e{n}, engine: {{kind: endpoint, slots: 64}}}}"
        for n in range(len(urls))
    ]
    return "\n".join([*lines, "tenants: [{name: acme}]", ""])
