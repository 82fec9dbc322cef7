"""Scenario `mixed`: who keeps an SLO on two replicas, one at a third of the other's speed.

Independent short chats arrive at random at a fixed rate (an open loop): 70 % of what both
replicas together were measured to do in the same round. Goodput is answers per second whose first
token came within the SLO. The oracle knows the speeds: smooth weighted round robin 3:1 over two
models of one replica each, through the same gateway; no queue length, no learning.
"""

import asyncio
import contextlib
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.routing_live.client import Answer, ask
from bench.routing_live.figures import SmoothWeighted, percentile, spread, table, verdict
from bench.routing_live.fleet import MODEL, Running, fleet_of, llama, running, throttled
from bench.routing_live.words import words

POLICIES = ("predicted", "oracle", "least_loaded", "round_robin")
AIM = 0.9  # goodput of `predicted` over the oracle's
SPEED = 1 / 3  # of the slow replica
LOAD = 0.7  # of the fleet's measured capacity
SLOTS, CONTEXT_TOKENS = 4, 512
PROMPT_WORDS, ANSWER_TOKENS = 6, 6
# Times the fast replica's unloaded TTFT. At 3 the slow replica misses even alone, so the second
# is the one that counts: 6 leaves it as much time to queue as 2 leaves the fast one.
SLOS, SLO = (3, 6, 10), 6
_FAST, _SLOW = "fast", "slow"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the two replicas do, measured."""

    fast_ttft_s: float  # alone, nothing else running
    slow_ttft_s: float
    fast_per_s: float  # answers, with all slots busy on both
    slow_per_s: float

    @property
    def rate_per_s(self) -> float:
        """Of arrivals."""
        return LOAD * (self.fast_per_s + self.slow_per_s)


def calibrate(*, seed: int, window_s: float, gateway: Mapping[str, Any]) -> Calibration:
    """Ask each alone, then both with all their slots at once."""
    with _two_models(gateway) as up:
        return asyncio.run(_calibrate(up, random.Random(seed), window_s))


async def _calibrate(up: Running, chance: random.Random, window_s: float) -> Calibration:
    ttft_s = {}
    for model in (_FAST, _SLOW):
        answers = [await _one(up, chance, model) for _ in range(7)]
        ttft_s[model] = statistics.median(answer.ttft_s for answer in answers[2:])
    until_s = time.monotonic() + window_s
    done = dict.fromkeys(ttft_s, 0)

    async def keep_busy(model: str) -> None:
        while time.monotonic() < until_s:
            await _one(up, chance, model)
            done[model] += time.monotonic() < until_s

    await asyncio.gather(*(keep_busy(model) for model in ttft_s for _ in range(SLOTS)))
    return Calibration(
        fast_ttft_s=ttft_s[_FAST],
        slow_ttft_s=ttft_s[_SLOW],
        fast_per_s=done[_FAST] / window_s,
        slow_per_s=done[_SLOW] / window_s,
    )


def once(
    policy: str, found: Calibration, *, seed: int, window_s: float, gateway: Mapping[str, Any]
) -> dict[str, Any]:
    """One policy against a fresh fleet, at the rate that was found."""
    if policy == "oracle":
        turns = SmoothWeighted({_FAST: 3, _SLOW: 1})
        with _two_models(gateway) as up:
            answers = asyncio.run(_arrive(up, found, turns.next, seed=seed, window_s=window_s))
            finished = up.finished()
            fast = finished[next(name for name in finished if name.startswith(_FAST))]
    else:
        with _one_model(policy, gateway) as (up, slow):
            answers = asyncio.run(_arrive(up, found, lambda: MODEL, seed=seed, window_s=window_s))
            finished = up.finished()
            fast = sum(finished.values()) - finished[slow]
    good = [answer.ttft_s for _, answer in answers if not answer.error]
    late = [answer.ttft_s for at_s, answer in answers if at_s > window_s / 2 and not answer.error]
    return {
        "window_s": window_s,
        "arrived": len(answers),
        "ttft_s": good,
        "ttft_s_second_half": late,
        "fast_share": fast / max(1, sum(finished.values())),
        "calibration": {**asdict(found), "rate_per_s": found.rate_per_s},
        "errors": [answer.error for _, answer in answers if answer.error],
    }


async def _arrive(
    up: Running, found: Calibration, model_of: Callable[[], str], *, seed: int, window_s: float
) -> list[tuple[float, Answer]]:
    """Poisson arrivals, the same for every policy of a round; when each came, what it got."""
    chance = random.Random(seed)
    begun = time.monotonic()
    tasks: list[tuple[float, asyncio.Task[Answer]]] = []
    at_s = 0.0
    while (at_s := at_s + chance.expovariate(found.rate_per_s)) < window_s:
        await asyncio.sleep(max(0.0, begun + at_s - time.monotonic()))
        tasks.append((at_s, asyncio.create_task(_one(up, chance, model_of()))))
    return [(at_s, await task) for at_s, task in tasks]


_numbers = itertools.count(1)


async def _one(up: Running, chance: random.Random, model: str) -> Answer:
    said = f"{next(_numbers)} {words(chance, PROMPT_WORDS)}"
    messages = [{"role": "user", "content": said}]
    return await ask(up.url, up.key, messages, max_tokens=ANSWER_TOKENS, model=model)


@contextlib.contextmanager
def _two_models(gateway: Mapping[str, Any]) -> Iterator[Running]:
    """A model on the fast replica, another on the slow one: for who knows which is which."""
    deployments = [
        llama(model=name, slots=SLOTS, context_tokens=CONTEXT_TOKENS) for name in (_FAST, _SLOW)
    ]
    with running(fleet_of(deployments, gateway=gateway)) as up:
        slow = next(row for name, row in up.replicas.items() if name.startswith(_SLOW))
        with throttled(slow.pid, SPEED):
            yield up


@contextlib.contextmanager
def _one_model(policy: str, gateway: Mapping[str, Any]) -> Iterator[tuple[Running, str]]:
    """One model on both; which is the slow one."""
    deployment = llama(replicas=2, slots=SLOTS, context_tokens=CONTEXT_TOKENS)
    with running(fleet_of([deployment], gateway={**gateway, "routing": policy})) as up:
        slow = max(up.replicas)
        with throttled(up.replicas[slow].pid, SPEED):
            yield up, slow


def goodput_per_s(sample: Mapping[str, Any], slo: float) -> float:
    """Answers within `slo` times the fast replica's unloaded TTFT, per second of arrivals."""
    ttft_s_max = slo * sample["calibration"]["fast_ttft_s"]
    return sum(ttft_s <= ttft_s_max for ttft_s in sample["ttft_s"]) / sample["window_s"]


def report(rounds: list[dict[str, dict[str, Any]]]) -> str:
    """The table, and what was aimed at."""

    def ratios(name: str) -> list[float]:
        return [
            goodput_per_s(one[name], SLO) / max(1e-9, goodput_per_s(one["oracle"], SLO))
            for one in rounds
            if name in one and "oracle" in one
        ]

    rows = []
    for name in rounds[0]:
        samples = [one[name] for one in rounds]
        late = [percentile(one["ttft_s_second_half"], 0.5) * 1000 for one in samples]
        rows.append([
            name,
            *(spread([goodput_per_s(one, slo) for one in samples]) for slo in SLOS),
            spread(ratios(name)),
            spread([percentile(one["ttft_s"], 0.5) * 1000 for one in samples], ".0f"),
            spread(late, ".0f"),
            spread([percentile(one["ttft_s"], 0.95) * 1000 for one in samples], ".0f"),
            spread([one["fast_share"] for one in samples], ".0%"),
            str(sum(len(one["errors"]) for one in samples)),
        ])  # fmt: skip
    head = ["policy", *(f"good/s {slo}x" for slo in SLOS), f"/ oracle at {SLO}x", "TTFT p50 ms",
            "p50, 2nd half", "p95 ms", "to the fast", "errors"]  # fmt: skip
    said = [next(iter(one.values()))["calibration"] for one in rounds]
    ratio = statistics.median(ratios("predicted") or [math.nan])
    return "\n".join(
        (
            f"### mixed: 2 replicas, one at {SPEED:.2f} of the speed, {LOAD:.0%} load",
            "",
            f"Unloaded TTFT ms: fast {spread([c['fast_ttft_s'] * 1000 for c in said], '.0f')}, "
            f"slow {spread([c['slow_ttft_s'] * 1000 for c in said], '.0f')}. Answers/s, both full: "
            f"fast {spread([c['fast_per_s'] for c in said])}, "
            f"slow {spread([c['slow_per_s'] for c in said])}. "
            f"Arrivals/s: {spread([c['rate_per_s'] for c in said])}",
            "",
            table(head, rows),
            "",
            f"Aim: goodput at {SLO}x, predicted / oracle >= {AIM}: {ratio:.2f}, "
            f"{verdict(ratio, at_least=AIM)}",
        )
    )
