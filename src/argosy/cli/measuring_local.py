"""Times the replicas of a deployment on this machine: what `argosy calibrate --local` does.

Starts as many replicas as the deployment wants, by the launcher and engine that `argosy up` uses,
and asks one of them over HTTP, once while the others are idle and once while they work: replicas
of one machine share its caches and memory. `perf/local_fit.py` makes a StepTime of it. What is
timed is how long a replica had a core where that can be told: what else runs disturbs little then.
"""

import asyncio
import contextlib
import os
import platform
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from argosy.cli.asking_local import Asks, MeasuringError, Timed, cpu_s_of, now_s
from argosy.cli.wanted import threads_each
from argosy.control.plan import plan_deployments
from argosy.fleet.config import Deployment, Fleet, LlamaCppEngine
from argosy.fleet.launchers import LocalLauncher
from argosy.launchers.local import LocalProcess, start_process
from argosy.perf.local import (
    FILE,
    PREFILL_TOKENS_MAX,
    LocalCalibration,
    load_local,
    save_local,
)
from argosy.perf.local_fit import StepSample, fit

Say = Callable[[str, float], None]  # what is being measured, and the share that is done

_PROMPT_WORDS = (4, 24, 60, 120, 240, 480)
_DECODE_WORDS = (16, 240)
_DECODED_TOKENS = 24
_TOGETHER_MIN = 4  # tokens of a request while all decode
_REPEATS = 3
_START_S = 60.0
_TRIES = 3  # of decoding together for long enough


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was timed."""

    steps: tuple[StepSample, ...]  # of each the fastest
    overheads_s: tuple[float, ...]
    every: tuple[StepSample, ...] = ()  # of all rounds


def calibrate_local(
    fleet: Fleet, *, weights: Mapping[str, Path | None], state: Path, say: Say
) -> tuple[LocalCalibration, ...]:
    """Measure every llama.cpp deployment of this machine, and keep that in the state folder.

    Raises MeasuringError, LaunchError, ReplicaEndedError, UnreadableLocalCalibrationError.
    """
    kept = load_local(state / FILE)
    ours = [
        one
        for one in fleet.deployments
        if isinstance(one.engine, LlamaCppEngine)
        and isinstance(fleet.pool(one.pool).launcher, LocalLauncher)
    ]
    if not ours:
        raise MeasuringError(
            f"fleet {fleet.fleet} has no llama.cpp deployment on a local pool, so there is nothing "
            "to measure here. Leave the fleet file out for the embedded fleet."
        )
    made: list[LocalCalibration] = []
    for one in ours:
        found = asyncio.run(
            measure(fleet, one, weights=weights.get(one.model), state=state, say=say)
        )
        made.append(found)
        kept = kept.with_(found)
        save_local(state / FILE, kept)
    return tuple(made)


async def measure(
    fleet: Fleet, deployment: Deployment, *, weights: Path | None, state: Path, say: Say
) -> LocalCalibration:
    """Start its replicas, time them, end them. One to three minutes.

    `state` is a folder for logs. Raises MeasuringError, LaunchError, ReplicaEndedError.
    """
    engine = deployment.engine
    if not isinstance(engine, LlamaCppEngine):
        raise MeasuringError(
            f"{deployment.name} runs {engine.__struct_config__.tag}; measured here are llama.cpp "
            "replicas. For others give load tests: argosy calibrate MY.csv"
        )
    threads = engine.threads or threads_each(fleet)[deployment.name]
    begun_s, load_before = now_s(), os.getloadavg()[0]
    async with _replicas(fleet, deployment, weights=weights, state=state) as pids:
        asks = _asks(engine.context_tokens, pids if threads == 1 else {})
        measured = await _measure_all(tuple(pids), asks, engine.slots, say)
    # Times by the clock hold the waits for a core that others had: then only the fastest count.
    fitted = fit(measured.steps, measured.every if threads == 1 else ())
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
        pace=fitted.pace,
        slowdown=fitted.slowdown,
        overhead_s=statistics.median(measured.overheads_s),
        interval=fitted.interval,
        residuals=fitted.residuals,
        measured_on=time.strftime("%Y-%m-%d"),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        load_before=load_before,
        seconds=now_s() - begun_s,
    )


@contextlib.asynccontextmanager
async def _replicas(
    fleet: Fleet, deployment: Deployment, *, weights: Path | None, state: Path
) -> AsyncIterator[dict[str, int | None]]:
    """The deployment's replicas, all listening: their pids by URL. Ended afterwards."""
    plans = plan_deployments(
        fleet, weights={deployment.model: weights}, threads=threads_each(fleet)
    )
    plan = next(one for one in plans if one.name == deployment.name)
    assert plan.spec.command is not None, "a local deployment starts something"
    started: list[LocalProcess] = []
    try:
        for number in range(1, plan.replicas + 1):
            name = f"calibrate-{plan.names}-{number}"
            process = await start_process(state, name, plan.spec.command)
            started.append(process)  # one by one: what has started is ended, whatever comes
        async with asyncio.timeout(_START_S):
            pids = {await process.listening(): process.pid for process in started}
        yield pids
    finally:
        for process in started:
            await process.stop(grace_s=2.0)


def _asks(context_tokens: int, pids: Mapping[str, int | None]) -> Asks:
    """Where each replica has one thread, its CPU time says what it took, whatever else runs.

    Of several threads it would not: some of their time is spent waiting for each other.
    """

    def cpu_s(url: str) -> float | None:
        pid = pids.get(url)
        return None if pid is None else cpu_s_of(pid)

    return Asks(context_tokens, cpu_s)


async def _measure_all(urls: Sequence[str], asks: Asks, slots: int, say: Say) -> Measured:
    target, *others = urls
    for url in urls:  # each slot once, so that none is new when it counts
        await asyncio.gather(*(asks.ask(url, 30, 2) for _ in range(slots)))
    rounds: dict[bool, list[Measured]] = {}
    for round_ in range(_REPEATS):
        for is_busy in (False, True) if others else (False,):
            done = (round_ + 0.5 * is_busy) / _REPEATS
            say(f"round {round_ + 1}, others {'busy' if is_busy else 'idle'}", done)
            async with _kept_busy(asks, others if is_busy else []):
                rounds.setdefault(is_busy, []).append(
                    await _measure_once(asks, target, slots, is_busy)
                )
    say("fitting", 1.0)
    return Measured(
        steps=tuple(step for each in rounds.values() for step in _fastest(each)),
        overheads_s=tuple(each for one in rounds[False] for each in one.overheads_s),
        every=tuple(step for each in rounds.values() for one in each for step in one.steps),
    )


def _fastest(rounds: Sequence[Measured]) -> Iterator[StepSample]:
    """Of each step the fastest round: what else runs on a machine only ever adds."""
    for same in zip(*(one.steps for one in rounds), strict=True):
        yield min(same, key=lambda step: step.seconds)


async def _measure_once(asks: Asks, url: str, slots: int, is_busy: bool) -> Measured:
    read = await _read_prompts(asks, url, is_busy)
    short, long = _DECODE_WORDS
    shapes = [*((batch, short) for batch in range(1, slots + 1)), (slots, long)]
    steps = [await _decode(asks, url, batch, words, is_busy) for batch, words in shapes]
    return Measured(steps=(*read.steps, *steps), overheads_s=read.overheads_s)


async def _read_prompts(asks: Asks, url: str, is_busy: bool) -> Measured:
    """Prompts of several lengths, one at a time."""
    steps: list[StepSample] = []
    overheads_s: list[float] = []
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
                seconds=one.prompt_s * _core_share(one, 0, 1, one.tokens_s[0] - one.asked_s),
                is_busy=is_busy,
            )
        )
        overheads_s.append(max(0.0, one.tokens_s[0] - one.asked_s - one.prompt_s))
    return Measured(steps=tuple(steps), overheads_s=tuple(overheads_s))


async def _decode(asks: Asks, url: str, batch: int, words: int, is_busy: bool) -> StepSample:
    """The mean step while exactly so many requests decode."""
    for _ in range(_TRIES):
        asked = (asks.ask(url, words, _DECODED_TOKENS) for _ in range(batch))
        answers = await asyncio.gather(*asked)
        begin_s = max(one.tokens_s[0] for one in answers)
        end_s = min(one.tokens_s[-1] for one in answers)
        inside = [[at_s for at_s in one.tokens_s if begin_s <= at_s <= end_s] for one in answers]
        longest = max(inside, key=len)
        if len(longest) >= _TOGETHER_MIN:
            break
    else:
        raise MeasuringError(
            f"{batch} requests to {url} never decoded together for {_TOGETHER_MIN} tokens; "
            "try again while less else runs on this machine"
        )
    contexts = sum(
        one.prompt_tokens + one.cached_tokens + len(one.tokens_s) - len(within) / 2
        for one, within in zip(answers, inside, strict=True)
    )
    return StepSample(
        tokens=batch,
        contexts=contexts,
        pairs=0.0,
        seconds=_seconds_each(answers[inside.index(longest)], longest),
        is_busy=is_busy,
    )


def _seconds_each(answer: Timed, times_s: Sequence[float]) -> float:
    """Of the steps between the first and the last of these tokens."""
    first = 1 + answer.tokens_s.index(times_s[0])
    took_s = times_s[-1] - times_s[0]
    share = _core_share(answer, first, first + len(times_s) - 1, took_s)
    return took_s * share / (len(times_s) - 1)


def _core_share(answer: Timed, begin: int, end: int, took_s: float) -> float:
    """The share of that time for which the replica had a core; 1 where that is not known."""
    before_s, after_s = answer.cpu_s[begin], answer.cpu_s[end]
    if before_s is None or after_s is None:
        return 1.0
    return min(1.0, (after_s - before_s) / took_s)


@contextlib.asynccontextmanager
async def _kept_busy(asks: Asks, urls: Sequence[str]) -> AsyncIterator[None]:
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


def _cpu() -> str:
    """The processor's own name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
