"""Scenario `flood`: what a tenant that asks a short chat a second feels of one that floods.

Phases, one after the other on one fleet: alone; `beside`, where a neighbour of the same tier keeps
exactly the slots busy that admission lets it hold, so nothing waits at the gateway; `flood`, where
it asks for three times all slots; `nightly`, where a tenant of the batch tier does so. What
`beside` adds to `alone` is the engine's: it decodes and reads other prompts in the same steps on
the same cores. What `flood` adds to `beside` is what admission lets through.

`unlimited` is the same with real replicas behind a second gateway that does not know their slots
(endpoint pools) and has `tenant_share_max: 1.0`: it queues nothing, and the engine does.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

from bench.routing_live.client import Answer, ask
from bench.routing_live.figures import percentile, spread, table, verdict
from bench.routing_live.fleet import MODEL, SYSTEM_PROMPT, Running, fleet_of, llama, running
from bench.routing_live.words import words

POLICIES = ("default", "unlimited")
AIM = 1.2  # the victim's p95 TTFT with the flood over without
REPLICAS, SLOTS, CONTEXT_TOKENS = 2, 4, 512
TENANTS = (
    {"name": "victim", "tier": "consumer"},
    {"name": "neighbour", "tier": "consumer"},
    {"name": "nightly", "tier": "batch"},
)
SHARE_MAX = 0.75  # the default of tenant_share_max
ASK_EVERY_S, VICTIM_WORDS, VICTIM_TOKENS = 1.0, 12, 4
FLOOD_WORDS, FLOOD_TOKENS = 24, 32
_ALL = REPLICAS * SLOTS
# Phase: who floods, with how many requests at a time.
PHASES: dict[str, tuple[str, int]] = {
    "alone": ("neighbour", 0),
    "beside": ("neighbour", int(_ALL * SHARE_MAX)),
    "flood": ("neighbour", 3 * _ALL),
    "nightly": ("nightly", 3 * _ALL),
}
_SETTLE_S = 2.0  # of a phase's beginning that are not counted


def once(
    way: str, *, seed: int, phase_s: float, gateway: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """All phases against a fresh fleet."""
    with _fleet(way, gateway) as up:
        return asyncio.run(_phases(up, _phases_of(way), random.Random(seed), phase_s))


def _phases_of(way: str) -> tuple[str, ...]:
    return tuple(PHASES) if way == "default" else ("alone", "flood")


@contextlib.contextmanager
def _fleet(way: str, gateway: Mapping[str, Any]) -> Iterator[Running]:
    names = [tenant["name"] for tenant in TENANTS]
    local = [llama(replicas=REPLICAS, slots=SLOTS, context_tokens=CONTEXT_TOKENS)]
    if way == "default":
        with running(fleet_of(local, gateway=gateway, tenants=TENANTS), tenants=names) as up:
            yield up
        return
    with running(fleet_of(local, gateway=gateway)) as behind:
        urls = [row.url for row in behind.replicas.values()]
        with running(_unlimited(urls, gateway), tenants=names) as up:
            yield up


def _unlimited(urls: list[str], gateway: Mapping[str, Any]) -> dict[str, Any]:
    pools = [f"replica-{number}" for number in range(len(urls))]
    return {
        "fleet": "unlimited",
        "gateway": {**gateway, "tenant_share_max": 1.0},
        "pools": [
            {"name": pool, "launcher": {"kind": "endpoint", "url": f"{url.rstrip('/')}/v1"}}
            for pool, url in zip(pools, urls, strict=True)
        ],
        "models": [{"name": MODEL, "system_prompt": SYSTEM_PROMPT}],
        "deployments": [
            {"model": MODEL, "pool": pool, "engine": {"kind": "endpoint"}} for pool in pools
        ],
        "tenants": list(TENANTS),
    }


async def _phases(
    up: Running, names: tuple[str, ...], chance: random.Random, phase_s: float
) -> dict[str, dict[str, Any]]:
    return {name: await _phase(up, chance, *PHASES[name], phase_s) for name in names}


async def _phase(
    up: Running, chance: random.Random, flooder: str, count: int, phase_s: float
) -> dict[str, Any]:
    """The victim asks every second while the others, `count` at a time, ask on and on."""
    others: list[Answer] = []
    flood = [asyncio.create_task(_keep_asking(up, chance, flooder, others)) for _ in range(count)]
    await asyncio.sleep(_SETTLE_S)
    begun, before = time.monotonic(), len(others)
    asked: list[asyncio.Task[Answer]] = []
    while (at_s := len(asked) * ASK_EVERY_S) < phase_s:
        await asyncio.sleep(max(0.0, begun + at_s + chance.uniform(0, 0.1) - time.monotonic()))
        asked.append(asyncio.create_task(_one(up, chance, "victim", VICTIM_WORDS, VICTIM_TOKENS)))
    victims = [await task for task in asked]
    took_s, served = time.monotonic() - begun, len(others) - before
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    await _until_idle(up)
    return {
        "ttft_s": [answer.ttft_s for answer in victims if not answer.error],
        "others_per_s": served / took_s,
        "errors": [answer.error for answer in (*victims, *others) if answer.error],
    }


async def _keep_asking(
    up: Running, chance: random.Random, tenant: str, answers: list[Answer]
) -> None:
    while True:
        answer = await _one(up, chance, tenant, FLOOD_WORDS, FLOOD_TOKENS)
        answers.append(answer)
        if answer.error:
            await asyncio.sleep(0.5)


_numbers = itertools.count(1)


async def _one(
    up: Running, chance: random.Random, tenant: str, word_count: int, tokens: int
) -> Answer:
    said = f"{next(_numbers)} {words(chance, word_count)}"
    messages = [{"role": "user", "content": said}]
    return await ask(up.url, up.keys[tenant], messages, max_tokens=tokens, model=MODEL)


async def _until_idle(up: Running) -> None:
    """Until the engines have let go of what was cancelled."""
    for _ in range(100):
        if not (await asyncio.to_thread(up.status))["requests_in_flight"]:
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)


def report(rounds: list[dict[str, dict[str, dict[str, Any]]]]) -> str:
    """The table, and what was aimed at: p95 of all rounds' requests together."""
    rows = []
    p95_s: dict[tuple[str, str], float] = {}
    for way in rounds[0]:
        for phase in _phases_of(way):
            samples = [one[way][phase] for one in rounds]
            pooled = [ttft_s for one in samples for ttft_s in one["ttft_s"]]
            p95_s[way, phase] = percentile(pooled, 0.95)
            alone_s = p95_s[way, "alone"]
            rows.append([
                f"{way}, {phase}",
                str(len(pooled)),
                spread([percentile(one["ttft_s"], 0.5) * 1000 for one in samples], ".0f"),
                f"{p95_s[way, phase] * 1000:.0f}",
                spread([percentile(one["ttft_s"], 0.95) * 1000 for one in samples], ".0f"),
                f"{p95_s[way, phase] / alone_s:.2f}",
                spread([one["others_per_s"] for one in samples]),
                str(sum(len(one["errors"]) for one in samples)),
            ])  # fmt: skip
    head = ["admission, phase", "asked", "TTFT p50 ms", "p95 ms, all", "p95 ms by round",
            "p95 / alone", "others' answers/s", "errors"]  # fmt: skip
    lines = [
        f"### flood: {REPLICAS} replicas of {SLOTS} slots, {3 * _ALL} requests at a time",
        "",
        table(head, rows),
        "",
    ]
    for phase in ("flood", "nightly") if "default" in rounds[0] else ():
        ratio = p95_s["default", phase] / p95_s["default", "alone"]
        engine = p95_s["default", phase] / p95_s["default", "beside"]
        lines.append(
            f"Aim: victim's p95 TTFT, {phase} / alone <= {AIM}: {ratio:.2f}, "
            f"{verdict(ratio, at_most=AIM)}; {phase} / beside: {engine:.2f}"
        )
    return "\n".join(lines)
