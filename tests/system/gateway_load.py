"""Fleets of simulated replicas behind several gateway processes, and clients that ask them."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import psutil
from fleet_process import MODEL, FleetProcess, run_argosy

from argosy.fleet.messages import FleetStatus

FLEET = """\
fleet: simulated
gateway: {{processes: {processes}, drain_s: 20}}
pools: [{{name: local, launcher: {{kind: local}}}}]
models: [{{name: {model}}}]
deployments:
  - model: {model}
    pool: local
    replicas: {replicas}
    engine: {{kind: simulated, slots: {slots}, decode_tokens_per_s: {speed}}}
tenants: {tenants}
"""


def write_fleet(
    path: Path,
    *,
    processes: int = 1,
    replicas: int = 1,
    slots: int = 64,
    speed: float = 100.0,
    tenants: str = "[{name: acme}]",
) -> Path:
    """A fleet file at `path`."""
    text = FLEET.format(
        processes=processes,
        replicas=replicas,
        slots=slots,
        speed=speed,
        tenants=tenants,
        model=MODEL,
    )
    path.write_text(text)
    return path


def gateway_processes(fleet: FleetProcess) -> list[psutil.Process]:
    """Those that live and serve or drain."""
    return [child for child in fleet.children() if "argosy.cli.gateway_process" in child.cmdline()]


class Asked(msgspec.Struct, frozen=True):
    """How one request ended, on a connection of its own."""

    began_s: float
    status: int | None  # None: no answer
    detail: str = ""


def body(*, tokens: int, stream: bool = False) -> dict[str, object]:
    """A chat of that many tokens."""
    messages = [{"role": "user", "content": "Count."}]
    return {"model": MODEL, "messages": messages, "max_tokens": tokens, "stream": stream}


async def ask(client: httpx.AsyncClient, *, tokens: int = 4, stream: bool = False) -> Asked:
    """One chat; a stream must end as streams do."""
    began_s = time.monotonic()
    try:
        response = await client.post(
            "/v1/chat/completions", json=body(tokens=tokens, stream=stream)
        )
    except httpx.HTTPError as error:
        return Asked(began_s, None, repr(error))
    if stream and response.status_code == 200 and not response.text.endswith("[DONE]\n\n"):
        return Asked(began_s, None, f"cut: …{response.text[-200:]}")
    return Asked(began_s, response.status_code, response.text[:300])


def key_of(fleet: FleetProcess, tenant: str) -> str:
    """A new key of that tenant, known to every process."""
    made = run_argosy(
        "keys",
        "create",
        "--tenant",
        tenant,
        "--tier",
        "consumer",
        "--name",
        tenant,
        "--state",
        fleet.state,
    )
    found = re.search(r"^API key: (\S+)$", made.stdout, re.MULTILINE)
    assert found, made.stderr
    time.sleep(0.5)  # each process looks for new keys four times a second
    return found[1]


def new_client(
    fleet: FleetProcess, *, keepalive: int = 0, key: str | None = None
) -> httpx.AsyncClient:
    """Never retries; a connection a request, unless some are kept."""
    return httpx.AsyncClient(
        base_url=fleet.url,
        headers={"authorization": f"Bearer {key or fleet.key}"},
        timeout=30.0,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=keepalive),
        trust_env=False,
    )


async def steadily(
    client: httpx.AsyncClient, until: Callable[[], bool], *, per_s: float, tokens: int
) -> list[Asked]:
    """Streams at that rate, whatever becomes of those before."""
    asked: list[asyncio.Task[Asked]] = []
    while not until():
        asked.append(asyncio.create_task(ask(client, tokens=tokens, stream=True)))
        await asyncio.sleep(1 / per_s)
    return list(await asyncio.gather(*asked))


def status_of(fleet: FleetProcess, *, tries: int = 8) -> FleetStatus:
    """The status by a process that answers; a stopped one keeps a client waiting."""
    return msgspec.json.decode(page(fleet, "/argosy/status", tries=tries), type=FleetStatus)


def page(fleet: FleetProcess, path: str, *, tries: int = 8) -> bytes:
    """A page by whichever process answers, on a new connection."""
    token = json.loads((fleet.state / "run.json").read_text())["operator_token"]
    headers = {"authorization": f"Bearer {token}"}
    for _ in range(tries):
        try:
            return httpx.get(
                fleet.url + path, headers=headers, timeout=1.8, trust_env=False
            ).content
        except httpx.TimeoutException:
            continue
    raise AssertionError(f"no process answers {path}")
