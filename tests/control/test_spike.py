"""A small spike before `argosy up`: a replica too many goes, others come, no stream notices."""

import asyncio
import json
import time
from pathlib import Path

import httpx

from argosy.control.scaling import LiveScaler, Signals
from argosy.fleet import load
from argosy.observability.counts import Asked
from argosy.store.control import Fenced
from argosy.store.leases import acquire
from argosy.store.schema import open_store
from tests.system.fleet_process import FleetProcess, run_argosy, wait_until

TEXT = """
fleet: spike
gateway: {port: 0, slow_start_s: 1}
pools: [{name: here, launcher: {kind: local}, start_s: 2}]
models: [{name: chat}]
deployments:
  - {model: chat, pool: here, replicas: 2, autoscale: {min: 1, max: 4},
     engine: {kind: simulated, slots: 2, decode_tokens_per_s: 20, start_s: 1}}
"""
ANSWER_TOKENS = 40  # two seconds
STREAMS = 7  # at once: three and a half replicas' worth
SPIKE_S = 9.0


def remembered(fleet_file: Path, now_s: float) -> bytes:
    """An hour in which nobody asked."""
    scaler, begin_s = LiveScaler(load.parse(fleet_file.read_text(), source="x")), now_s - 3600.0
    for at_s in (begin_s, now_s - 5.0):
        scaler.hear(Signals(at_s=at_s, asked={"chat": Asked()}, began_s=begin_s - 1.0))
    return scaler.save()


def ready(fleet: FleetProcess) -> int:
    return sum(row.replica.state == "ready" for row in fleet.replicas())


async def stream_until(client: httpx.AsyncClient, end_s: float) -> list[int]:
    """One after the other; the parts in which each came."""
    told = []
    body = {"model": "chat", "messages": [{"role": "user", "content": "Count."}],
            "max_tokens": ANSWER_TOKENS, "stream": True}  # fmt: skip
    while time.monotonic() < end_s:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            lines = [line async for line in answer.aiter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        told.append(sum('"content"' in line for line in lines))
    return told


async def spike(fleet: FleetProcess) -> tuple[list[int], int]:
    """The answers' parts, and the most replicas that were ready."""
    headers, most = {"authorization": f"Bearer {fleet.key}"}, 0
    end_s = time.monotonic() + SPIKE_S
    async with httpx.AsyncClient(
        base_url=fleet.url, headers=headers, trust_env=False, timeout=60.0
    ) as client:
        asking = asyncio.gather(*(stream_until(client, end_s) for _ in range(STREAMS)))
        while not asking.done():
            most = max(most, await asyncio.to_thread(ready, fleet))
            await asyncio.sleep(0.3)
    return [parts for told in await asking for parts in told], most


def test_replicas_go_in_the_calm_and_come_with_a_spike_and_it_is_told_why(tmp_path):
    file, state = tmp_path / "fleet.yaml", tmp_path / "state"
    file.write_text(TEXT)
    store = open_store(state / "argosy.db")
    lease = acquire(store, "spike", "the one before", ttl_s=0.001)
    Fenced(store, "spike", lease.token).keep("autoscaling", remembered(file, time.time()))
    store.dispose()
    fleet = FleetProcess(state, file)
    try:
        fleet.wait_welcome()
        wait_until(lambda: len(fleet.replicas()) == ready(fleet) == 1, 20.0, fleet)  # of two
        answers, most = asyncio.run(spike(fleet))
        assert most >= 3, fleet.said
        assert len(answers) > STREAMS
        assert len(set(answers)) == 1  # all are whole
        listed = run_argosy("events", "--kind", "scale", "--json", "--state", state).stdout
        scaled = [json.loads(line) for line in listed.splitlines()]
        assert len(scaled) >= 2
        told = run_argosy("explain", "--decision", str(scaled[-1]["seq"]), "--state", state)
        assert "the same decision" in told.stdout, told.stdout + told.stderr
    finally:
        fleet.interrupt()
        fleet.wait_exit()
        fleet.kill()
