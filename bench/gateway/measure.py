"""What is counted: work per CPU-second of a gateway's processes, in rounds that take turns.

In a round every scenario asks every gateway, one after the other, within a minute or two; the next
round begins with another one. A ratio is made within a round, so that a machine that was slower for
a while was slower for both. `direct` is the upstream without a gateway: what the load generator and
the upstream can do at most, on their one core.
"""

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import uvloop

from bench.gateway import processes
from bench.gateway.load import Load, Tally
from bench.gateway.peers import Running
from bench.gateway.scenarios import Scenario

WARM_S = 1.0
_SETTLE_S_MAX, _SETTLE_STEP_S = 20.0, 0.3
REFERENCE = "vllm-router-rr"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Whom to ask; `process` is None for the upstream itself."""

    name: str
    port: int
    key: str | None = None
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of(cls, running: Running) -> "Target":
        """A peer that runs."""
        return cls(name=running.name, port=running.port, key=running.key, process=running.process)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One scenario against one target, once."""

    work: int  # requests or events, in the window
    requests: int
    window_s: float
    cpu_s: float | None  # None: direct
    rss_bytes: int | None
    others_share: float  # of the gateway's core, used by somebody else
    stalls: int
    latency_s: tuple[float, ...]  # p50, p99; of the first token where it streams
    gap_s_p99: float | None
    errors: dict[str, int]

    @property
    def work_per_s(self) -> float:
        """By the clock on the wall."""
        return self.work / self.window_s

    @property
    def work_per_cpu_s(self) -> float | None:
        """What one core would do if nothing but this ran on it."""
        return self.work / self.cpu_s if self.cpu_s else None


Samples = dict[tuple[str, str], list[Sample]]  # by scenario and target, one a round


def measure(
    targets: Sequence[Target],
    scenarios: Sequence[Scenario],
    *,
    rounds: int,
    window_s: float,
    core: int,
) -> Samples:
    """All rounds."""
    samples: Samples = {(s.name, t.name): [] for s in scenarios for t in targets}
    for number in range(rounds):
        turn = number % len(targets)
        order = (*targets[turn:], *targets[:turn])
        for scenario in scenarios:
            for target in order:
                sample = uvloop.run(_once(scenario, target, window_s, core))
                samples[scenario.name, target.name].append(sample)
                _let_settle(target, core)
                _progress(number + 1, rounds, scenario, target, sample)
    return samples


def _let_settle(target: Target, core: int) -> None:
    """What it still has to do must not be the next one's burden."""
    if target.process is None:
        return
    ends_s = time.monotonic() + _SETTLE_S_MAX
    before_s = processes.read(target.process.pid, core).cpu_s
    while time.monotonic() < ends_s:
        time.sleep(_SETTLE_STEP_S)
        now_s = processes.read(target.process.pid, core).cpu_s
        if now_s - before_s < 0.1 * _SETTLE_STEP_S:
            return
        before_s = now_s


async def _once(scenario: Scenario, target: Target, window_s: float, core: int) -> Sample:
    load = Load(scenario, port=target.port, key=target.key)
    loop = asyncio.get_running_loop()
    pid = target.process.pid if target.process else None
    gc.collect()
    gc.disable()  # its pauses would be counted as the gateway's
    try:
        await load.warm(WARM_S)
        before, began_s = processes.read(pid, core), loop.time()
        await asyncio.sleep(window_s)
        after, took_s = processes.read(pid, core), loop.time() - began_s
        tally = load.tally
        counted = tally.requests, tally.events, tally.stalls
        await load.stop()
    finally:
        gc.enable()
    return _sample(scenario, tally, counted, before, after, took_s)


def _sample(
    scenario: Scenario,
    tally: Tally,
    counted: tuple[int, int, int],
    before: processes.Reading,
    after: processes.Reading,
    took_s: float,
) -> Sample:
    requests, events, stalls = counted
    cpu_s = after.cpu_s - before.cpu_s
    return Sample(
        work=events if scenario.events else requests,
        requests=requests,
        window_s=took_s,
        cpu_s=cpu_s if after.rss_bytes else None,
        rss_bytes=after.rss_bytes or None,
        others_share=max(0.0, (after.core_s - before.core_s - cpu_s) / took_s),
        stalls=stalls,
        latency_s=_p50_p99(tally.ttft_s if scenario.events else tally.latency_s),
        gap_s_p99=_p50_p99(tally.gap_s)[1] if scenario.pace_s and tally.gap_s else None,
        errors=dict(tally.errors),
    )


def _p50_p99(values: Iterable[float]) -> tuple[float, ...]:
    ordered = sorted(values)
    if not ordered:
        return float("nan"), float("nan")
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def ratios(samples: Samples, scenario: str, one: str, other: str) -> list[float]:
    """`one` over `other` in work per CPU-second, a number for each round that has both."""
    pairs = zip(samples[scenario, one], samples[scenario, other], strict=True)
    return [
        a.work_per_cpu_s / b.work_per_cpu_s
        for a, b in pairs
        if a.work_per_cpu_s and b.work_per_cpu_s
    ]


def median(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _progress(number: int, rounds: int, scenario: Scenario, target: Target, s: Sample) -> None:
    per_cpu = f"{s.work_per_cpu_s:,.0f} per CPU-s" if s.work_per_cpu_s else ""
    said = f"{number}/{rounds} {scenario.name:12} {target.name:18} {s.work_per_s:>10,.0f}/s"
    others = f"others {s.others_share:.0%}"
    print(f"{said}  {per_cpu}  {others}  {s.errors or ''}", file=sys.stderr, flush=True)
