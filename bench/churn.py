"""An hour of churn on a real control plane: whether its memory is bounded, and requests lost.

    python -m bench.churn [--minutes 60] [--kill-every-s 10] [--rate 2]

`argosy up examples/pretend.yaml --pretend` runs in processes; every few seconds a replica is killed
with -9, every three minutes a cloud is lost for twenty seconds, every five a deployment is held at
another number or let free; streamed requests come all the while. Each half minute the memory (RSS)
of the control plane and of the gateway's processes is taken. Table to stdout, progress to stderr.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from argosy.cli.operator_socket import Back, Hold, Lose, ask_operator
from bench.region_loss import (
    MORE,
    RATES,
    Asked,
    key_of,
    rows,
    running,
    stream,
)

_SAMPLE_S, _LOSE_EVERY_S, _LOST_S, _HOLD_EVERY_S = 30.0, 180.0, 20.0, 260.0


@dataclass(kw_only=True)
class Churn:
    """All that was seen; MiB by process's part."""

    asked: list[Asked] = field(default_factory=list)
    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kill-every-s", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2.0, help="requests per second")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    churn = Churn()
    with running() as (state, url):
        key = key_of(state, "web", "consumer")
        time.sleep(1.0)  # processes of the gateway look for new keys
        asyncio.run(_churned(churn, state, url, key, options))
    told(churn, options.minutes)


async def _churned(
    churn: Churn, state: Path, url: str, key: str, options: argparse.Namespace
) -> None:
    began_s = time.monotonic()
    until_s = began_s + options.minutes * 60
    chance = random.Random(1)
    acting = [
        asyncio.create_task(_kill(churn, state, url, options.kill_every_s, chance)),
        asyncio.create_task(_lose(churn, state, chance)),
        asyncio.create_task(_hold(churn, state, url, chance)),
        asyncio.create_task(_sample(churn, state, url, began_s)),
    ]
    streams: set[asyncio.Task[None]] = set()
    while time.monotonic() < until_s:
        await asyncio.sleep(chance.expovariate(options.rate))
        one = Asked(
            at_s=time.monotonic() - began_s, model=chance.choice(list(RATES)), tier="consumer"
        )
        churn.asked.append(one)
        task = asyncio.create_task(stream(one, url, key, began_s))
        streams.add(task)
        task.add_done_callback(streams.discard)
        for each in acting:
            if each.done():
                each.result()
    await asyncio.gather(*streams)
    for each in acting:
        each.cancel()


async def _kill(churn: Churn, state: Path, url: str, every_s: float, chance: random.Random) -> None:
    while True:
        await asyncio.sleep(every_s)
        found = await asyncio.to_thread(rows, state, url)
        ready = [row for row in found if row["state"] == "ready" and row["pid"]]
        if len(ready) > 1:
            os.kill(chance.choice(ready)["pid"], signal.SIGKILL)
            churn.done["replicas killed"] += 1


async def _lose(churn: Churn, state: Path, chance: random.Random) -> None:
    while True:
        await asyncio.sleep(_LOSE_EVERY_S - _LOST_S)
        domain = chance.choice(MORE)
        await asyncio.to_thread(ask_operator, state, Lose(domain=domain), timeout_s=30.0)
        await asyncio.sleep(_LOST_S)
        await asyncio.to_thread(ask_operator, state, Back(domain=domain), timeout_s=30.0)
        churn.done["domains lost and back"] += 1


async def _hold(churn: Churn, state: Path, url: str, chance: random.Random) -> None:
    while True:
        await asyncio.sleep(_HOLD_EVERY_S)
        found = sorted({row["deployment"] for row in await asyncio.to_thread(rows, state, url)})
        one = chance.choice(found)
        for replicas in (chance.randint(1, 3), None):
            request = Hold(deployment=one, replicas=replicas)
            await asyncio.to_thread(ask_operator, state, request, timeout_s=30.0)
            await asyncio.sleep(_LOST_S)
        churn.done["deployments held and let free"] += 1


async def _sample(churn: Churn, state: Path, url: str, began_s: float) -> None:
    while True:
        await asyncio.sleep(_SAMPLE_S)
        at_s = time.monotonic() - began_s
        found = await asyncio.to_thread(_memory_mib, state, url)
        churn.samples.append((at_s, found))
        shown = ", ".join(f"{name} {mib:.1f} MiB" for name, mib in found.items())
        print(f"{at_s:7.0f} s  {shown}  {dict(churn.done)}", file=sys.stderr, flush=True)


def _memory_mib(state: Path, url: str) -> dict[str, float]:
    """Of the control plane, and of all that are not replicas' processes beneath it."""
    replicas = {row["pid"] for row in rows(state, url)}
    (control,) = [
        one
        for one in psutil.Process().children()
        if "argosy.cli.main" in one.cmdline() and str(state) in one.cmdline()
    ]
    gateways = [one for one in control.children() if one.pid not in replicas]
    parts = {"control plane": [control], "gateway": [g for g in gateways if _is_gateway(g)]}
    return {
        name: sum(one.memory_info().rss for one in found) / 2**20 for name, found in parts.items()
    }


def _is_gateway(process: psutil.Process) -> bool:
    try:
        return any("gateway" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def told(churn: Churn, minutes: float) -> None:
    """Requests, what was done to them, and memory: early, late, and its slope in the last half."""
    ends = Counter(one.end for one in churn.asked)
    doings = ", ".join(f"{count} {what}" for what, count in churn.done.items())
    print(f"{minutes:g} minutes, load {os.getloadavg()[0]:.1f}: {doings}")
    print(f"{len(churn.asked):,} requests: {dict(ends)}")
    print(f"{'RSS, MiB':<16}{'after 1/6':>10}{'half':>8}{'end':>8}{'most':>8}{'MiB/h late':>12}")
    for name in churn.samples[0][1]:
        values = [(at_s, found[name]) for at_s, found in churn.samples if name in found]
        mib = [value for _, value in values]
        early, half = mib[len(mib) // 6], mib[len(mib) // 2]
        slope = _slope(values[len(values) // 2 :]) * 3600
        print(f"{name:<16}{early:>10.1f}{half:>8.1f}{mib[-1]:>8.1f}{max(mib):>8.1f}{slope:>12.2f}")


def _slope(values: Sequence[tuple[float, float]]) -> float:
    """Least squares."""
    count = len(values)
    mean_x, mean_y = (sum(one[k] for one in values) / count for k in (0, 1))
    over = sum((x - mean_x) ** 2 for x, _ in values)
    return sum((x - mean_x) * (y - mean_y) for x, y in values) / over if over else 0.0


if __name__ == "__main__":
    main()
