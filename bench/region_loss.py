"""A pretended fleet in four clouds under load: a region is lost, then a cloud, and each comes back.

    python -m bench.region_loss [--seed 1] [--scale 1.0] [--faults 12] [--picture FILE.png]

`argosy up examples/pretend.yaml --pretend` runs in a process; requests come open loop (Poisson,
seeded), all streamed, by tier. TTFT counts from when a request was due. A request meets its SLO if
it ends whole, its TTFT is at most the model's `ttft_s_p95` and its mean gap between tokens at most
`itl_s_p99`. After a warm-up and the pictured two minutes, `--faults` more losses take turns, for
the percentiles of how long a cut stream was silent. Tables go to stdout, progress to stderr.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from argosy.cli.files import load_fleet
from argosy.cli.operator_socket import Back, Lose, ask_operator
from argosy.fleet.config import Fleet
from argosy.fleet.messages import Usage

FILE = Path("examples/pretend.yaml")
PICTURE = Path("docs/pictures/region-loss.png")
REGION, CLOUD = "own/frankfurt", "azure"
WARM_S = 100.0  # of load before what is counted: an autoscaler that has seen nothing knows nothing
MOMENTS_S = (25.0, 50.0, 70.0, 95.0, 120.0)  # lost, back, lost, back, end
RATES = {"large": 12.0, "small": 8.0, "reasoning": 4.0}  # per s; an answer has 40 tokens
TIERS = {"enterprise": ("acme", 0.4), "consumer": ("web", 0.4), "batch": ("nightly", 0.2)}
MORE = (REGION, "azure", "aws/us-east-2", "gcp")  # lost in turns, for 4 s, then back for 9 s
LOST_S, THERE_S = 4.0, 9.0
SOON_S = 2.0
PROMPT_WORDS = 150
_START_S = 90.0
_STATUS_EVERY_S = 0.5
_ARGOSY = (sys.executable, "-m", "argosy.cli.main")


@dataclass(kw_only=True)
class Asked:
    """One request; times are seconds since the pictured two minutes began."""

    at_s: float
    model: str
    tier: str
    token_at_s: list[float] = field(default_factory=list)
    end: str = "cut"  # whole, or why not
    request: str = ""
    ended_s: float = 0.0

    def meets(self, fleet: Fleet) -> bool:
        slo, times = fleet.model(self.model).slo, self.token_at_s
        if self.end != "whole" or not times or slo.ttft_s_p95 is None or slo.itl_s_p99 is None:
            return False
        tpot_s = (times[-1] - times[0]) / max(1, len(times) - 1)
        return times[0] - self.at_s <= slo.ttft_s_p95 and tpot_s <= slo.itl_s_p99


@dataclass(kw_only=True)
class Fault:
    """A domain's loss, between when it was asked for and when all there was dead."""

    domain: str
    asked_s: float
    dead_s: float


@dataclass(kw_only=True)
class Load:
    """All that was seen."""

    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    ready: list[tuple[float, Counter[str]]] = field(default_factory=list)  # replicas, by cloud


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="times as many requests")
    parser.add_argument("--faults", type=int, default=12, help="losses after the pictured ones")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    fleet = load_fleet(FILE)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, "
          f"load before: {os.getloadavg()[0]:.1f}")  # fmt: skip
    with running() as (state, url):
        keys = {tier: key_of(state, tenant, tier) for tier, (tenant, _) in TIERS.items()}
        time.sleep(1.0)  # processes of the gateway look for new keys
        load = asyncio.run(_loaded(fleet, state, url, keys, options))
        seen = records_of(state)
        cut = cut_streams(seen, load)
    told(fleet, load, cut)
    told_where(fleet, seen, load)
    draw(fleet, load, options.picture)


# The fleet.


@contextlib.contextmanager
def running() -> Iterator[tuple[Path, str]]:
    """The fleet, all ready, gone afterwards: its state folder and address."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(
                [*_ARGOSY, "up", str(FILE), "--pretend", "--port", "0", "--state", str(state)],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            try:
                url = _until_ready(state, Path(folder) / "log")
                yield state, url
            finally:
                process.terminate()
                process.terminate()
                process.wait(60)


def _until_ready(state: Path, log: Path) -> str:
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s:
        time.sleep(0.2)
        found = re.search(r"^Argosy serves .* at (http://\S+)$", log.read_text(), re.MULTILINE)
        if found and all(row["state"] == "ready" for row in rows(state, found[1])):
            return found[1]
    raise SystemExit(f"not all was ready in {_START_S:g} s:\n{log.read_text()}")


def rows(state: Path, url: str) -> list[Mapping[str, Any]]:
    """The replicas, as `argosy status --json` shows them."""
    import httpx

    token = json.loads((state / "run.json").read_text())["operator_token"]
    headers = {"authorization": f"Bearer {token}"}
    answer = httpx.get(f"{url}/argosy/status", headers=headers, trust_env=False, timeout=5.0)
    return [row["replica"] for row in answer.json()["replicas"]]


def key_of(state: Path, tenant: str, tier: str) -> str:
    said = subprocess.check_output(
        [*_ARGOSY, "keys", "create", "--tenant", tenant, "--tier", tier, "--name", tenant,
         "--state", str(state), "--json"]
    )  # fmt: skip
    return json.loads(said)["api_key"]


# The load.


def arrivals(chance: random.Random, until_s: float, scale: float) -> list[Asked]:
    """Poisson, of each model and tier its own."""
    found = [
        Asked(at_s=at_s, model=model, tier=tier)
        for model, per_s in RATES.items()
        for tier, (_, share) in TIERS.items()
        for at_s in _poisson(chance, per_s * share * scale, until_s)
    ]
    return sorted(found, key=lambda one: one.at_s)


def _poisson(chance: random.Random, per_s: float, until_s: float) -> Iterator[float]:
    at_s = chance.expovariate(per_s) - WARM_S
    while at_s < until_s:
        yield at_s
        at_s += chance.expovariate(per_s)


async def _loaded(
    fleet: Fleet, state: Path, url: str, keys: Mapping[str, str], options: argparse.Namespace
) -> Load:
    chance, load = random.Random(options.seed), Load()
    lost_s, back_s, cloud_lost_s, cloud_back_s, end_s = MOMENTS_S
    steps = [(lost_s, REGION, True), (back_s, REGION, False),
             (cloud_lost_s, CLOUD, True), (cloud_back_s, CLOUD, False)]  # fmt: skip
    for number in range(options.faults):
        at_s, domain = end_s + number * (LOST_S + THERE_S), MORE[number % len(MORE)]
        steps += [(at_s, domain, True), (at_s + LOST_S, domain, False)]
    until_s = end_s + options.faults * (LOST_S + THERE_S)
    load.asked = arrivals(chance, until_s, options.scale)
    began_s = time.monotonic() + WARM_S
    watching = asyncio.create_task(_watch(fleet, state, url, began_s, load))
    breaking = asyncio.create_task(_break(state, began_s, steps, load))
    streams = []
    for one in load.asked:
        await asyncio.sleep(one.at_s - (time.monotonic() - began_s))
        streams.append(asyncio.create_task(stream(one, url, keys[one.tier], began_s)))
    await asyncio.gather(*streams, breaking)
    watching.cancel()
    return load


async def _break(
    state: Path, began_s: float, steps: Sequence[tuple[float, str, bool]], load: Load
) -> None:
    for at_s, domain, is_lost in steps:
        await asyncio.sleep(at_s - (time.monotonic() - began_s))
        asked_s = time.monotonic() - began_s
        request = Lose(domain=domain) if is_lost else Back(domain=domain)
        reply = await asyncio.to_thread(ask_operator, state, request, timeout_s=30.0)
        print(f"{asked_s:6.1f} s  {reply.said}", file=sys.stderr)
        if is_lost:
            dead_s = time.monotonic() - began_s
            load.faults.append(Fault(domain=domain, asked_s=asked_s, dead_s=dead_s))


async def _watch(fleet: Fleet, state: Path, url: str, began_s: float, load: Load) -> None:
    clouds = {pool.name: str(pool.region).split("/")[0] for pool in fleet.pools}
    while True:
        found = await asyncio.to_thread(rows, state, url)
        ready = Counter(clouds[row["pool"]] for row in found if row["state"] == "ready")
        load.ready.append((time.monotonic() - began_s, ready))
        await asyncio.sleep(_STATUS_EVERY_S)


async def stream(one: Asked, url: str, key: str, began_s: float) -> None:
    """Never raises for what the gateway does."""
    try:
        async with asyncio.timeout(60.0):
            await _streamed(one, url, key, began_s)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        one.end = f"{type(error).__name__}: {error}"
    one.ended_s = time.monotonic() - began_s


async def _streamed(one: Asked, url: str, key: str, began_s: float) -> None:
    parts = urlsplit(url)
    question = f"{one.at_s} " + "word " * PROMPT_WORDS
    body = json.dumps({
        "model": one.model, "stream": True, "messages": [{"role": "user", "content": question}],
    }).encode()  # fmt: skip
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: "
            f"Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        found = re.search(r"^x-request-id: (\S+)", answer, re.MULTILINE | re.IGNORECASE)
        one.request = found[1] if found else ""
        if " 200 " not in answer.split("\r\n", 1)[0]:
            one.end = f"HTTP {answer[9:12]}: {(await reader.read(300)).decode(errors='replace')}"
            return
        await _read(one, reader, began_s)
    finally:
        writer.close()


async def _read(one: Asked, reader: asyncio.StreamReader, began_s: float) -> None:
    async for event in _events(reader):
        if event == b"[DONE]":
            one.end = "whole"
        elif b'"error"' in event:
            one.end = event.decode()
        elif b'"content":"' in event and b'"content":""' not in event:
            one.token_at_s.append(time.monotonic() - began_s)


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The data of each event of a chunked body."""
    kept = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        kept += (await reader.readexactly(size + 2))[:-2]
        *events, kept = kept.split(b"\n\n")
        for event in events:
            if event.startswith(b"data: "):
                yield event[6:]


# What came of it.


def records_of(state: Path) -> dict[str, Usage]:
    """What the gateway wrote down, by request."""
    from argosy.store.schema import open_store
    from argosy.store.usage import records

    time.sleep(2.0)  # it is written behind the requests
    store = open_store(state / "argosy.db")
    found = {one.request: one for one in records(store, limit=100_000)}
    store.dispose()
    return found


def cut_streams(seen: Mapping[str, Usage], load: Load) -> dict[str, list[float]]:
    """Of the streams that each loss cut: seconds from the fault to the next token, by domain.

    Cut is one that was under way and took more than one attempt by the usage records. The time
    begins when the loss was asked for; a token counts once all that was lost was dead.
    """
    attempts = {name: one.attempts for name, one in seen.items()}
    found: dict[str, list[float]] = {}
    for fault in load.faults:
        for one in load.asked:
            is_under_way = one.at_s < fault.dead_s and one.ended_s > fault.asked_s
            later = [at_s for at_s in one.token_at_s if at_s > fault.dead_s]
            if is_under_way and attempts.get(one.request, 0) > 1 and later:
                found.setdefault(fault.domain, []).append(later[0] - fault.asked_s)
    return found


def phases() -> Iterator[tuple[str, float, float]]:
    """What was so, from when, until when."""
    lost_s, back_s, cloud_lost_s, cloud_back_s, end_s = MOMENTS_S
    yield "before", 0.0, lost_s
    yield f"{REGION} lost", lost_s, back_s
    yield f"{REGION} back", back_s, cloud_lost_s
    yield f"{CLOUD} lost", cloud_lost_s, cloud_back_s
    yield f"{CLOUD} back", cloud_back_s, end_s


def told(fleet: Fleet, load: Load, cut: Mapping[str, Sequence[float]]) -> None:
    print(f"\n{'':<22}" + "".join(f"{tier:>24}" for tier in TIERS))
    for name, from_s, until_s in phases():
        cells = []
        for tier in TIERS:
            own = [o for o in load.asked if from_s <= o.at_s < until_s and o.tier == tier]
            ttft = [o.token_at_s[0] - o.at_s for o in own if o.token_at_s]
            met = statistics.mean(o.meets(fleet) for o in own)
            cells.append(f"{met:8.1%} of {len(own):<4} {quantile(ttft, 0.95) * 1e3:4.0f} ms")
        print(f"{name:<22}" + "".join(f"{cell:>24}" for cell in cells))
    print("SLO met, requests, p95 of TTFT")
    failed = Counter(one.end[:120] for one in load.asked if one.end != "whole")
    print(f"\n{len(load.asked)} requests in all, {failed.total()} failed before their clients"
          + "".join(f"\n  {count} x {end}" for end, count in failed.items()))  # fmt: skip
    print("\nstreams cut by a loss: seconds from the fault to the next token, from elsewhere")
    for domain, seconds in [*cut.items(), ("all", [s for own in cut.values() for s in own])]:
        if seconds:
            print(f"  {domain:<16}{len(seconds):>4} cut   p50 {quantile(seconds, 0.5):.3f}   "
                  f"p99 {quantile(seconds, 0.99):.3f}   most {max(seconds):.3f}")  # fmt: skip
    soon = [one.token_at_s[0] - one.at_s for fault in load.faults for one in load.asked
            if 0 <= one.at_s - fault.asked_s < SOON_S and one.token_at_s]  # fmt: skip
    print(f"requests due within {SOON_S:g} s of a fault, to their first token\n  {len(soon)}   "
          f"p50 {quantile(soon, 0.5):.3f}   p99 {quantile(soon, 0.99):.3f}")  # fmt: skip
    killing = [one.dead_s - one.asked_s for one in load.faults]
    print(f"  (of these up to {max(killing):.3f} s until all processes there were dead)")


def told_where(fleet: Fleet, seen: Mapping[str, Usage], load: Load) -> None:
    """In which cloud requests were ended."""
    clouds = {pool.name: str(pool.region).split("/")[0] for pool in fleet.pools}
    names = sorted(set(clouds.values()))
    print("\nrequests served in" + "".join(f"{name:>8}" for name in names))
    for phase, from_s, until_s in phases():
        served: Counter[str] = Counter()
        for one in load.asked:
            replica = seen[one.request].replica if one.request in seen else None
            if from_s <= one.at_s < until_s and replica is not None:
                served[clouds[replica.partition("@")[2].rpartition("-")[0]]] += 1
        shares = (served[name] / max(1, served.total()) for name in names)
        print(f"{phase:<18}" + "".join(f"{share:8.0%}" for share in shares))


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest that is not below that share; 0 of none."""
    found = sorted(values)
    return found[min(len(found) - 1, int(share * len(found)))] if found else 0.0


def draw(fleet: Fleet, load: Load, path: Path) -> None:
    """SLO by tier, replicas by cloud, over the first two minutes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(9, 7), sharex=True, layout="constrained", height_ratios=(3, 3, 2)
    )
    _draw_tiers(top, load, lambda own: 100 * statistics.mean(o.meets(fleet) for o in own))
    _draw_tiers(middle, load, _ttft_ms_p95)
    _draw_failed(top, load)
    top.set_ylim(0, 110)
    top.set_yticks(range(0, 101, 25))
    top.set_ylabel("requests within the SLO, %")
    top.legend(loc="lower left", ncols=4, frameon=False, fontsize=9)
    middle.set_ylim(bottom=0)
    middle.set_ylabel("TTFT, p95, ms")
    _draw_replicas(bottom, load)
    for axes in (top, middle, bottom):
        for name, from_s, until_s in phases():
            if name.endswith("lost"):
                axes.axvspan(from_s, until_s, color="0.9", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    for name, from_s, _ in phases():
        if name.endswith("lost"):
            top.text(from_s + 0.5, 103, name, fontsize=9, color="0.3")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"\ndrawn: {path}")


def _draw_tiers(axes: Any, load: Load, of: Callable[[Sequence[Asked]], float]) -> None:
    """The wider lines lie below."""
    step_s = 5.0
    styles = {"enterprise": ("#1b6ca8", 7), "consumer": ("#e08e1b", 4), "batch": ("#4b6b1f", 1.5)}
    for tier, (colour, width) in styles.items():
        xs, ys = [], []
        for number in range(int(MOMENTS_S[-1] / step_s)):
            from_s = number * step_s
            own = [o for o in load.asked
                   if from_s <= o.at_s < from_s + step_s and o.tier == tier]  # fmt: skip
            if own:
                xs.append(from_s + step_s / 2)
                ys.append(of(own))
        axes.plot(xs, ys, label=tier, color=colour, linewidth=width, solid_capstyle="round")


def _ttft_ms_p95(own: Sequence[Asked]) -> float:
    return 1e3 * quantile((o.token_at_s[0] - o.at_s for o in own if o.token_at_s), 0.95)


def _draw_failed(axes: Any, load: Load) -> None:
    failed = [o.at_s for o in load.asked if o.end != "whole" and 0 <= o.at_s < MOMENTS_S[-1]]
    if failed:
        axes.plot(failed, [2] * len(failed), "x", color="#b02318", label="failed")


def _draw_replicas(axes: Any, load: Load) -> None:
    clouds = sorted({cloud for _, ready in load.ready for cloud in ready})
    shades = ("#8c6bb1", "#41ae76", "#4292c6", "#fe9929")
    seen = [(at_s, ready) for at_s, ready in load.ready if 0 <= at_s <= MOMENTS_S[-1]]
    axes.stackplot(
        [at_s for at_s, _ in seen],
        *([ready[cloud] for _, ready in seen] for cloud in clouds),
        labels=clouds, colors=shades, step="post",
    )  # fmt: skip
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("replicas ready")
    axes.set_xlabel("seconds")
    axes.set_xlim(0, MOMENTS_S[-1])
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.3), ncols=4, frameon=False, fontsize=9)


if __name__ == "__main__":
    main()
