"""Who is measured: how each gateway is installed, configured and started.

Each from PyPI has a virtual environment of its own under the user's cache folder; HAProxy is used
where it is installed. All get the same two replicas and write no access log; what else is on is
each one's default, less limits that this load would meet.
"""

import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import platformdirs

from bench.gateway import processes
from bench.gateway.asks import DONE, MODEL, TOKEN, bodies

_CACHE = platformdirs.user_cache_path("argosy") / "gateway-peers"
_START_S = 90.0
_KEY = "sk-bench-0123456789"


class PeerFailedError(Exception):
    """It cannot be installed or started: the reason goes into the report."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Where one peer runs."""

    folder: Path
    port: int
    spare_port: int  # for metrics, where a peer cannot do without
    replicas: tuple[int, int]  # the upstream's ports

    @property
    def urls(self) -> list[str]:
        """The upstream's two addresses."""
        return [f"http://127.0.0.1:{port}" for port in self.replicas]

    def write(self, name: str, text: str) -> str:
        """A configuration file; its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One gateway. `command` gets its program and its spot."""

    name: str
    requirement: str | None  # for pip, pinned; None: found on this machine
    program: str
    command: Callable[[str, Spot], list[str]]
    env: tuple[tuple[str, str], ...] = ()
    key: Callable[[str], str | None] = lambda log: None  # from what it printed
    is_keyed: bool = False


@dataclass(frozen=True, kw_only=True)
class Running:
    """A peer that answers."""

    name: str
    port: int
    key: str | None
    process: subprocess.Popen[bytes]


_FLEET = """
fleet: bench
pools:
  - {{name: one, launcher: {{kind: endpoint, url: "{0}/v1"}}}}
  - {{name: two, launcher: {{kind: endpoint, url: "{1}/v1"}}}}
models:
  - {{name: {2}}}
deployments:
  - {{model: {2}, pool: one, engine: {{kind: endpoint}}}}
  - {{model: {2}, pool: two, engine: {{kind: endpoint}}}}
tenants:
  - {{name: default, tier: consumer}}
"""


def _argosy(program: str, spot: Spot) -> list[str]:
    fleet = spot.write("fleet.yaml", _FLEET.format(*spot.urls, MODEL))
    state = str(spot.folder / "state")
    return [program, "-m", "argosy.cli.main", "up", fleet, "--state", state,
            "--port", str(spot.port)]  # fmt: skip


def _argosy_key(log: str) -> str | None:
    found = re.search(r"^API key: (\S+)", log, re.MULTILINE)
    return found.group(1) if found else None


def _vllm_router(policy: str) -> Callable[[str, Spot], list[str]]:
    def command(program: str, spot: Spot) -> list[str]:
        return [program, "--worker-urls", *spot.urls, "--policy", policy, "--host", "127.0.0.1",
                "--port", str(spot.port), "--prometheus-port", str(spot.spare_port),
                "--prometheus-host", "127.0.0.1", "--log-level", "error",
                "--worker-startup-check-interval", "1"]  # fmt: skip

    return command


def _smg(program: str, spot: Spot) -> list[str]:
    return [program, "launch", "--worker-urls", *spot.urls, "--policy", "cache_aware",
            "--host", "127.0.0.1", "--port", str(spot.port),
            "--prometheus-port", str(spot.spare_port), "--prometheus-host", "127.0.0.1",
            "--log-level", "error", "--disable-tokenizer-autoload"]  # fmt: skip


def _litellm(program: str, spot: Spot) -> list[str]:
    rows = [
        {"model_name": MODEL, "litellm_params": {
            "model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "none"}}
        for url in spot.urls
    ]  # fmt: skip
    settings = {"model_list": rows, "general_settings": {"master_key": _KEY}}
    config = spot.write("litellm.yaml", json.dumps(settings))  # JSON is YAML
    return [program, "--config", config, "--host", "127.0.0.1", "--port", str(spot.port)]


_HAPROXY = """
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  option http-no-delay
  http-reuse always
  timeout connect 3s
  timeout client 60s
  timeout server 60s
frontend bench
  bind 127.0.0.1:{0}
  default_backend replicas
backend replicas
  balance roundrobin
  server one 127.0.0.1:{1}
  server two 127.0.0.1:{2}
"""


def _haproxy(program: str, spot: Spot) -> list[str]:
    return [program, "-db", "-f",
            spot.write("haproxy.cfg", _HAPROXY.format(spot.port, *spot.replicas))]  # fmt: skip


ALL = (
    Peer(name="argosy", requirement=None, program=sys.executable, command=_argosy,
         key=_argosy_key, is_keyed=True),
    Peer(name="vllm-router-rr", requirement="vllm-router==0.1.17", program="vllm-router",
         command=_vllm_router("round_robin")),
    Peer(name="vllm-router-cache", requirement="vllm-router==0.1.17", program="vllm-router",
         command=_vllm_router("cache_aware")),
    Peer(name="smg", requirement="smg==1.13.0", program="smg", command=_smg),
    Peer(name="litellm", requirement="litellm[proxy]==1.106.2", program="litellm",
         command=_litellm, key=lambda _: _KEY, is_keyed=True,
         env=(("LITELLM_LOG", "ERROR"), ("LITELLM_MODE", "PRODUCTION"),
              ("LITELLM_LOCAL_MODEL_COST_MAP", "True"), ("LITELLM_TELEMETRY", "False"))),
    Peer(name="haproxy", requirement=None, program="haproxy", command=_haproxy),
)  # fmt: skip
BY_NAME = {peer.name: peer for peer in ALL}


def install(peer: Peer) -> str:
    """The path of its program; a virtual environment is made the first time."""
    if peer.requirement is None:
        found = shutil.which(peer.program) or shutil.which(peer.program, path="/usr/sbin")
        if found is None:
            raise PeerFailedError(f"not installed: apt-get install {peer.program}")
        return found
    home = _CACHE / re.sub(r"\[.*?\]", "", peer.requirement).replace("==", "-")
    if not (home / ".complete").exists():
        print(f"installing {peer.requirement} into {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        _call([sys.executable, "-m", "venv", str(home)])
        _call([str(home / "bin/python"), "-m", "pip", "install", "-q", peer.requirement])
        (home / ".complete").touch()
    return str(home / "bin" / peer.program)


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerFailedError("; ".join(done.stderr.strip().splitlines()[-2:])[:300])


def version(peer: Peer, program: str) -> str:
    """What is measured."""
    if peer.requirement is not None:
        return peer.requirement
    if peer.name == "argosy":
        commit = _told(["git", "describe", "--always", "--dirty"])
        return f"argosy {metadata.version('argosy')} ({commit or 'no commit known'})"
    return " ".join(_told([program, "-v"]).split()[:3])


def _told(command: list[str]) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
        ).stdout.strip()
    except OSError:
        return ""


def start(peer: Peer, *, folder: Path, replicas: tuple[int, int], core: int) -> Running:
    """Install if need be, start, wait until it answers well. Raises `PeerFailedError`."""
    program = install(peer)
    folder.mkdir()
    port, spare_port = _free_ports()
    spot = Spot(folder=folder, port=port, spare_port=spare_port, replicas=replicas)
    log = folder / "log"
    process = processes.start(peer.command(program, spot), core=core, log=log, env=dict(peer.env))
    try:
        key = _wait(peer, process, port, log)
    except BaseException:
        processes.stop(process)
        raise
    return Running(name=peer.name, port=port, key=key, process=process)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def _wait(peer: Peer, process: subprocess.Popen[bytes], port: int, log: Path) -> str | None:
    last, ends_s = "no answer", time.monotonic() + _START_S
    while time.monotonic() < ends_s:
        time.sleep(0.2)
        if process.poll() is not None:
            raise PeerFailedError(f"ended with {process.returncode}: {_tail(log)}")
        key = peer.key(log.read_text(errors="replace"))
        if peer.is_keyed and key is None:
            continue
        last = _try(port, key)
        if last == "":
            return key
    raise PeerFailedError(f"not ready in {_START_S:.0f} s: {last}; {_tail(log)}")


def _try(port: int, key: str | None) -> str:
    """Nothing when a whole answer and a stream come as they should; else what came."""
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    for events, wanted in ((None, b'"usage"'), (3, DONE)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            body = bodies(365, events=events)[0]
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__
        finally:
            connection.close()
        if answer.status != 200 or wanted not in said or said.count(TOKEN) != (events or 0):
            return f"{answer.status} {said[:200]!r}"
    return ""


def _tail(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split())[-300:]
