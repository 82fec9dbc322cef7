"""Asks a replica on this machine over HTTP, and says when each token came.

For `measuring_local.py`. A bare request over `asyncio.open_connection`: what is timed is the
replica, and a client library would be timed with it. Prompts are never twice the same, so that no
cache spares what is to be measured.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

_ASK_S = 120.0
_WORDS = [
    *("ship", "storm", "harbour", "light", "water", "wind", "morning", "people", "house", "road"),
    *("letter", "winter", "garden", "stone", "river", "bridge", "market", "bread", "table"),
]


CpuTime = Callable[[str], float | None]  # of the replica at a URL, so far; None: not known


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. Times are the loop's."""

    asked_s: float
    tokens_s: tuple[float, ...]  # when each token came
    prompt_tokens: int  # computed
    cached_tokens: int  # of the prompt, computed before
    prompt_s: float  # that the engine took to compute them, by its own clock
    cpu_s: tuple[float | None, ...]  # the replica's CPU time: when asked, then at each token


class MeasuringError(Exception):
    """A replica did not answer as it should; the message says what came."""


class Asks:
    """Asks replicas, each time something that was never asked before."""

    def __init__(self, context_tokens: int, cpu_s: CpuTime) -> None:
        self._cpu_s = cpu_s
        self.chance = random.Random(0)
        self._count = 0
        self._words_max = context_tokens // 3

    async def ask(self, url: str, words: int, tokens: int) -> Timed:
        """A chat of about so many words, answered in exactly so many tokens."""
        self._count += 1
        said = " ".join(
            [str(self._count), *self.chance.choices(_WORDS, k=min(words, self._words_max))]
        )
        body = {
            "messages": [{"role": "user", "content": said}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        async with asyncio.timeout(_ASK_S):
            return await _ask(url, msgspec.json.encode(body), self._cpu_s)


async def _ask(url: str, body: bytes, cpu_s: CpuTime) -> Timed:
    parts = urlsplit(url)
    asked_s, asked_cpu_s = now_s(), cpu_s(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        status = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0]
        if b" 200 " not in status + b" ":
            raise MeasuringError(f"{url} answered {status.decode(errors='replace')}")
        return await _read(reader, asked_s, asked_cpu_s, lambda: cpu_s(url))
    finally:
        writer.close()


async def _read(
    reader: asyncio.StreamReader,
    asked_s: float,
    asked_cpu_s: float | None,
    cpu_s: Callable[[], float | None],
) -> Timed:
    times_s: list[float] = []
    cpu: list[float | None] = [asked_cpu_s]
    timings: dict[str, Any] = {}
    async for event in _events(reader):
        if event == b"[DONE]":
            break
        chunk = msgspec.json.decode(event)
        timings = chunk.get("timings") or timings
        for choice in chunk["choices"]:
            if choice["delta"].get("content") is not None:
                times_s.append(now_s())
                cpu.append(cpu_s())
    if not times_s or "prompt_ms" not in timings:
        raise MeasuringError("a replica's answer had no token or no timings")
    return Timed(
        asked_s=asked_s,
        tokens_s=tuple(times_s),
        prompt_tokens=timings["prompt_n"],
        cached_tokens=timings.get("cache_n", 0),
        prompt_s=timings["prompt_ms"] / 1000.0,
        cpu_s=tuple(cpu),
    )


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The data of each event of a chunked body."""
    kept = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        kept += (await reader.readexactly(size + 2))[:-2]
        *events, kept = kept.split(b"\n\n")
        for event in events:
            if event.startswith(b"data: "):
                yield event[6:]


def now_s() -> float:
    """The loop's clock."""
    return asyncio.get_running_loop().time()


def cpu_s_of(pid: int) -> float | None:
    """CPU time of all threads of a process, to the nanosecond; None where the system has no such.

    Linux: the first number of each thread's `schedstat`. What psutil tells counts in 10 ms.
    """
    total_ns = 0
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total_ns += int((thread / "schedstat").read_bytes().split()[0])
    except (OSError, IndexError, ValueError):
        return None
    return total_ns / 1e9
