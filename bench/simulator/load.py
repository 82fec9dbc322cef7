"""What is replayed: lengths of recorded requests, Poisson arrivals, and the replica it is for."""

from pathlib import Path

import numpy as np

from argosy.perf.step_time import StepTime
from argosy.simulator.engine import ReplicaGroup
from argosy.simulator.engine.replay import Arrivals

# Fitted by eye to DynoSim's default timing, so that as many steps are simulated: 1,155 prompt
# tokens take about 40 ms, a decode step of 20 requests 7 ms.
STEP_TIME = StepTime(
    knots_tokens=(1.0, 256.0, 8192.0),
    knots_s=(0.0056, 0.0085, 0.28),
    context_s_per_token=5e-8,
    pair_s=1e-9,
)
KV_TOKENS = 1_048_576  # DynoSim's default: 16,384 blocks of 64
RATE_PER_REPLICA = 12.0  # requests/s: prompts are read for half the time


class Lengths:
    """Pairs of prompt and output tokens, drawn with replacement."""

    def __init__(self, trace: Path | None) -> None:
        if trace is None:
            chance = np.random.default_rng(2023)
            # mean and spread of the Azure conversation trace of 2023: 1,155 and 211 tokens
            prompt = chance.lognormal(6.74, 0.79, 20_000).clip(1, 14_000)
            output = chance.lognormal(5.03, 0.80, 20_000).clip(1, 1_000)
            self.pairs = np.stack([prompt, output], axis=1).astype(np.int32)
            self.name = "drawn: lognormal, 1,155 and 211 tokens in the mean"
            return
        rows = np.loadtxt(trace, delimiter=",", skiprows=1, usecols=(1, 2))  # reads .gz too
        self.pairs = rows.astype(np.int32)
        self.name = f"{trace.name}, {len(rows):,} requests"

    def window(self, chance: np.random.Generator, count: int, rate: float, at_s: float) -> Arrivals:
        """So many after `at_s`."""
        pairs = self.pairs[chance.integers(0, len(self.pairs), count)]
        arrivals_s = at_s + np.cumsum(chance.exponential(1 / rate, count))
        return Arrivals(arrivals_s, pairs[:, 0].copy(), pairs[:, 1].copy())


def arrivals(lengths: Lengths, replicas: int, count: int) -> Arrivals:
    """The same for all who replay it."""
    return lengths.window(np.random.default_rng(7), count, RATE_PER_REPLICA * replicas, 0.0)


def group(replicas: int) -> ReplicaGroup:
    """So many of the same kind."""
    return ReplicaGroup(count=replicas, step_time=STEP_TIME, kv_tokens=KV_TOKENS)
