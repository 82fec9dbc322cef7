"""A recorded load on a live fleet: what was asked when, and what the client measured.

Lengths and gaps are drawn from a seed; what is replayed are the counts that the engine told.
"""

import asyncio
import contextlib
import csv
import itertools
import random
import time
from dataclasses import dataclass
from pathlib import Path

from bench.reality.foreign import (
    ahead_of_others,
    cores_beside_replicas,
    cores_of_own,
    foreign_cores,
    watched,
)
from bench.routing_live.client import Answer, ask
from bench.routing_live.fleet import MODEL, fleet_of, llama, running
from bench.routing_live.words import words

REPLICAS, SLOTS, CONTEXT_TOKENS = 2, 4, 4096
FLEET = fleet_of(
    [llama(replicas=REPLICAS, slots=SLOTS, context_tokens=CONTEXT_TOKENS)],
    gateway={"queue_timeout_s": {"consumer": 110.0}},  # a burst waits longer than the 20 s
)
_SETTLE_S = 2.0  # after the replicas' start


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A request to be asked."""

    at_s: float
    words: int
    tokens: int


WARM_UP = 16  # requests before what counts: pages, buffers and what the gateway learns are cold
_WARM_UP_EVERY_S, _WARM_UP_PAUSE_S = 0.7, 3.0


@dataclass(frozen=True, kw_only=True)
class Lived:
    """A request that was answered. Seconds since the first arrival."""

    at_s: float
    ttft_s: float
    whole_s: float
    tokens_read: int  # of the prompt, without those that a slot had in its cache
    tokens_cached: int
    tokens_out: int


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a fleet lived through."""

    lived: tuple[Lived, ...]
    errors: tuple[str, ...]
    foreign_cores: float  # that others used, on average
    # Until when, and cores: that all but the replicas used, or all of ours but these, if ahead.
    beside: tuple[tuple[float, float], ...]
    replicas_cpu_s: float  # that the replicas used


def planned(count: int, *, rate_per_s: float | None, seed: int) -> list[Planned]:
    """WARM_UP requests, then `count` in Poisson arrivals at that rate; None: all at once."""
    chance = random.Random(seed)
    at_s, found = 0.0, []
    for place in range(WARM_UP + count):
        if place < WARM_UP:
            at_s = place * _WARM_UP_EVERY_S
        elif place == WARM_UP:
            at_s += _WARM_UP_PAUSE_S
        elif rate_per_s is not None:
            at_s += chance.expovariate(rate_per_s)
        found.append(
            Planned(
                at_s=at_s,
                words=_drawn(chance, median=55, sigma=0.6, low=12, high=320),
                tokens=_drawn(chance, median=24, sigma=0.5, low=8, high=80),
            )
        )
    return found


def _drawn(chance: random.Random, *, median: float, sigma: float, low: int, high: int) -> int:
    while True:
        value = round(median * chance.lognormvariate(0.0, sigma))
        if low <= value <= high:
            return value


def live(plan: list[Planned], *, seed: int, is_ahead: bool = False) -> Load:
    """On a fresh fleet; `is_ahead`: that goes before all other programs."""
    with running(FLEET) as up:
        time.sleep(_SETTLE_S)
        replicas = {one.pid for one in up.replicas.values()}
        first = ahead_of_others() if is_ahead else contextlib.nullcontext()
        with first, watched(replicas) as samples:
            answers = asyncio.run(_ask_all(up.url, up.key, plan, seed))
    first_s = answers[0][0]
    beside = cores_of_own if is_ahead else cores_beside_replicas
    lived = [
        Lived(
            at_s=at_s - first_s,
            ttft_s=one.ttft_s,
            whole_s=one.whole_s,
            tokens_read=one.tokens_in - one.tokens_cached,
            tokens_cached=one.tokens_cached,
            tokens_out=one.tokens_out,
        )
        for at_s, one in answers
        if not one.error
    ]
    return Load(
        lived=tuple(sorted(lived, key=lambda one: one.at_s)),
        errors=tuple(one.error for _, one in answers if one.error),
        foreign_cores=foreign_cores(samples[0], samples[-1]),
        beside=tuple(
            (after.at_s - first_s, beside(before, after))
            for before, after in itertools.pairwise(samples)
        ),
        replicas_cpu_s=samples[-1].replicas_s - samples[0].replicas_s,
    )


async def _ask_all(
    url: str, key: str, plan: list[Planned], seed: int
) -> list[tuple[float, Answer]]:
    chance = random.Random(seed + 1)
    bodies = [f"{seed}-{number} {words(chance, one.words)}" for number, one in enumerate(plan)]
    begun_s = time.perf_counter()

    async def one_of(place: int) -> tuple[float, Answer]:
        await asyncio.sleep(max(0.0, begun_s + plan[place].at_s - time.perf_counter()))
        at_s = time.perf_counter()
        message = {"role": "user", "content": bodies[place]}
        said = await ask(url, key, [message], max_tokens=plan[place].tokens, model=MODEL)
        return at_s, said

    return await asyncio.gather(*(one_of(place) for place in range(len(plan))))


def write_trace(load: Load, path: Path) -> None:
    """As `argosy simulate --trace` reads it, with what was measured in further columns."""
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["t_s", "input_tokens", "output_tokens", "ttft_s", "whole_s", "cached_tokens"])
        for one in load.lived:
            out.writerow(
                [f"{one.at_s:.4f}", one.tokens_read, one.tokens_out, f"{one.ttft_s:.4f}",
                 f"{one.whole_s:.4f}", one.tokens_cached]
            )  # fmt: skip
