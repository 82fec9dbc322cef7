"""Times the replicas of a deployment on this machine: what `argosy calibrate --local` does.

Starts as many replicas as the deployment wants, by the launcher and engine that `argosy up` uses,
and asks one of them over HTTP, once while the others are idle and once while they work: replicas
of one machine share its cores, caches and memory. `perf/local_fit.py` makes a StepTime of it.
"""

import asyncio
import contextlib
import os
import platform
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from argosy.cli.wanted import threads_each
from argosy.control.plan import plan_replicas
from argosy.fleet.config import Deployment, Fleet, LlamaCppEngine
from argosy.launchers.local import LocalProcess, LocalProcesses
from argosy.perf.local import PREFILL_TOKENS_MAX, LocalCalibration
from argosy.perf.local_fit import StepSample, fit

Say = Callable[[str, float], None]  # what is being measured, and the share that is done

_PROMPT_WORDS = (4, 24, 60, 120, 240, 480)
_DECODE_WORDS = (16, 240)
_DECODED_TOKENS = 24
_REPEATS = 3
_START_S, _ASK_S = 60.0, 120.0
_WORDS = (
    "ship storm harbour light water wind morning people house road letter winter garden stone "
    "river bridge market bread table window story child teacher number animal forest summer"
).split()


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. Times are the loop's."""

    asked_s: float
    tokens_s: tuple[float, ...]  # when each token came
    prompt_tokens: int  # computed
    cached_tokens: int  # of the prompt, computed before
    prompt_s: float  # that the engine took to compute them, by its own clock


class MeasuringError(Exception):
    """A replica did not answer as it should; the message says what came."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All that was timed."""

    steps: tuple[StepSample, ...]
    overheads_s: tuple[float, ...]


async def measure(
    fleet: Fleet, deployment: Deployment, *, weights: Path | None, state: Path, say: Say
) -> LocalCalibration:
    """Start its replicas, time them, end them. One to three minutes.

    `state` is a folder for logs. Raises MeasuringError, ReplicaEndedError.
    """
    engine = deployment.engine
    if not isinstance(engine, LlamaCppEngine):
        raise MeasuringError(
            f"{deployment.name} runs {engine.__struct_config__.tag}; measured here are llama.cpp "
            "replicas. For others give load tests: argosy calibrate MY.csv"
        )
    threads = engine.threads or threads_each(fleet)[deployment.name]
    begun_s, load_before = _now_s(), os.getloadavg()[0]
    async with _replicas(fleet, deployment, weights=weights, state=state) as urls:
        measured = await _measure_all(urls, engine.slots, engine.context_tokens, say)
    fitted = fit(measured.steps)
    return LocalCalibration(
        deployment=deployment.name,
        engine="llama.cpp",
        engine_version=version("xllamacpp"),
        model=deployment.model,
        replicas=deployment.replicas,
        threads=threads,
        slots=engine.slots,
        context_tokens=engine.context_tokens,
        prefill_tokens_max=min(PREFILL_TOKENS_MAX, engine.context_tokens),
        step_time=fitted.step_time,
        slowdown=fitted.slowdown,
        overhead_s=statistics.median(measured.overheads_s),
        interval=fitted.interval,
        residuals=fitted.residuals,
        measured_on=time.strftime("%Y-%m-%d"),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        load_before=load_before,
        seconds=_now_s() - begun_s,
    )


@contextlib.asynccontextmanager
async def _replicas(
    fleet: Fleet, deployment: Deployment, *, weights: Path | None, state: Path
) -> AsyncIterator[list[str]]:
    """The URLs of the deployment's replicas, all listening; ended afterwards."""
    plans = plan_replicas(
        fleet, weights={deployment.model: weights}, threads=threads_each(fleet)
    )
    launcher = LocalProcesses(state)
    started: list[LocalProcess] = []
    try:
        for plan in plans:
            if plan.replica.deployment == deployment.name:
                started.append(await launcher.start(f"calibrate-{plan.name}", plan.command))
        async with asyncio.timeout(_START_S):
            urls = [await process.listening() for process in started]
        yield urls
    finally:
        for process in started:
            await process.stop(grace_s=2.0)


async def _measure_all(urls: Sequence[str], slots: int, context_tokens: int, say: Say) -> Measured:
    asks = _Asks(context_tokens)
    target, *others = urls
    for url in urls:  # each slot once, so that none is new when it counts
        await asyncio.gather(*(asks.ask(url, 30, 2) for _ in range(slots)))
    steps: list[StepSample] = []
    overheads_s: list[float] = []
    states = (False, True) if others else (False,)
    done, total = 0, len(states) * _REPEATS * (1 + slots + 1)
    for is_busy in states:
        async with _kept_busy(asks, others if is_busy else []):
            for _ in range(_REPEATS):
                for what in (0, *range(1, slots + 1), -1):
                    where = "others busy" if is_busy else "others idle"
                    if what == 0:
                        say(f"reading prompts, {where}", done / total)
                        read, over = await _read_prompts(asks, target, is_busy)
                        steps += read
                        overheads_s += over
                    else:
                        batch = slots if what < 0 else what
                        say(f"decoding {batch} together, {where}", done / total)
                        steps.append(
                            await _decode(asks, target, batch, _DECODE_WORDS[what < 0], is_busy)
                        )
                    done += 1
    say("fitting", 1.0)
    return Measured(steps=tuple(steps), overheads_s=tuple(overheads_s))


async def _read_prompts(
    asks: "_Asks", url: str, is_busy: bool
) -> tuple[list[StepSample], list[float]]:
    """Prompts of several lengths, one at a time."""
    steps, overheads_s = [], []
    for words in _PROMPT_WORDS:
        one = await asks.ask(url, words, 1)
        read, kept = one.prompt_tokens, one.cached_tokens
        if read > PREFILL_TOKENS_MAX:
            continue  # it was read in more than one step
        steps.append(
            StepSample(
                tokens=read,
                contexts=0.0,
                pairs=read * (kept + (read + 1) / 2),
                seconds=one.prompt_s,
                is_busy=is_busy,
            )
        )
        overheads_s.append(max(0.0, one.tokens_s[0] - one.asked_s - one.prompt_s))
    return steps, overheads_s


async def _decode(asks: "_Asks", url: str, batch: int, words: int, is_busy: bool) -> StepSample:
    """The mean step while exactly so many requests decode."""
    answers = await asyncio.gather(*(asks.ask(url, words, _DECODED_TOKENS) for _ in range(batch)))
    begin_s = max(one.tokens_s[0] for one in answers)
    end_s = min(one.tokens_s[-1] for one in answers)
    inside = [
        [at_s for at_s in one.tokens_s if begin_s <= at_s <= end_s] for one in answers
    ]
    longest = max(inside, key=len)
    if len(longest) < 4:  # noqa: PLR2004  too short a time in which all decoded
        return await _decode(asks, url, batch, words, is_busy)
    contexts = sum(
        one.prompt_tokens + one.cached_tokens + len(one.tokens_s) - len(within) / 2
        for one, within in zip(answers, inside, strict=True)
    )
    return StepSample(
        tokens=batch,
        contexts=contexts,
        pairs=0.0,
        seconds=(longest[-1] - longest[0]) / (len(longest) - 1),
        is_busy=is_busy,
    )


@contextlib.asynccontextmanager
async def _kept_busy(asks: "_Asks", urls: Sequence[str]) -> AsyncIterator[None]:
    """These replicas read and write without a pause, two requests each."""

    async def keep_asking(url: str) -> None:
        while True:
            await asks.ask(url, asks.chance.randint(20, 120), 16)

    tasks = [asyncio.create_task(keep_asking(url)) for url in urls for _ in range(2)]
    try:
        if tasks:
            await asyncio.sleep(0.5)
        yield
    finally:
        for task in tasks:
            task.cancel()
        for said in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(said, MeasuringError):
                raise said


class _Asks:
    """Asks replicas, each time something that was never asked before."""

    def __init__(self, context_tokens: int) -> None:
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
            return await _ask(url, msgspec.json.encode(body))


async def _ask(url: str, body: bytes) -> Timed:
    parts = urlsplit(url)
    asked_s = _now_s()
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
        return await _read(reader, asked_s)
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader, asked_s: float) -> Timed:
    times_s: list[float] = []
    timings: dict[str, Any] = {}
    async for event in _events(reader):
        if event == b"[DONE]":
            break
        chunk = msgspec.json.decode(event)
        timings = chunk.get("timings") or timings
        times_s += [
            _now_s() for choice in chunk["choices"] if choice["delta"].get("content") is not None
        ]
    if not times_s or "prompt_ms" not in timings:
        raise MeasuringError("a replica's answer had no token or no timings")
    return Timed(
        asked_s=asked_s,
        tokens_s=tuple(times_s),
        prompt_tokens=timings["prompt_n"],
        cached_tokens=timings.get("cache_n", 0),
        prompt_s=timings["prompt_ms"] / 1000.0,
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


def _cpu() -> str:
    """The processor's own name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
