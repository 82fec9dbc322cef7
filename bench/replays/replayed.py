"""A recorded run's arrivals and lengths through the simulator's engine."""

from typing import NamedTuple

import numpy as np

from argosy.perf.step_time import StepTime
from argosy.simulator.engine import ReplicaGroup, account, build
from argosy.simulator.engine.replay import Arrivals, replay
from bench.replays.recorded import Recorded, Times

# vLLM 0.19 admits to the last free block: its watermark came later (vllm-project/vllm#44594,
# 2026-06) and is off unless asked for.
_WATERMARK = 0.0
_ODD = np.uint64(0x9E3779B97F4A7C15)  # spreads the names of hash blocks


class Replica(NamedTuple):
    """What one replica is taken for."""

    step_time: StepTime
    kv_tokens: int
    overhead_s: float = 0.0  # of a request, before a step can take it


class Replayed(NamedTuple):
    """What the simulator says."""

    times: Times
    preemptions: int
    tokens_spared: int  # of prompts read again after a preemption, found in the prefix cache


def replayed(recorded: Recorded, replica: Replica) -> Replayed:
    """All requests of the run, alone on one replica.

    Every prompt's blocks have names of their own: no two prompts begin alike as far as the records
    say, but one that was preempted finds what is left of its own blocks, as in vLLM.
    """
    block_tokens = recorded.settings.block_tokens
    ends = np.cumsum(recorded.prompt_tokens.astype(np.int64) // block_tokens)
    state = build(
        [
            ReplicaGroup(
                count=1,
                step_time=replica.step_time,
                kv_tokens=replica.kv_tokens,
                settings=recorded.settings,
                watermark=_WATERMARK,
            )
        ],
        requests_max_alive=recorded.at_s.size + 1,
        hash_tokens=block_tokens,
        hashes=np.arange(1, int(ends[-1]) + 1, dtype=np.uint64) * _ODD,
    )
    arrivals = Arrivals(
        at_s=recorded.at_s + replica.overhead_s,
        prompt_tokens=recorded.prompt_tokens,
        output_tokens=recorded.output_tokens,
        hashes=np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1),
    )
    answers = replay(state, arrivals)
    first_s = arrivals.at_s + answers.ttft_s
    done = account(state)
    return Replayed(
        times=Times(
            ttft_s=first_s - recorded.at_s,
            tpot_s=(answers.finish_s - first_s) / (recorded.output_tokens - 1),
        ),
        preemptions=done.preemptions,
        tokens_spared=done.tokens_spared,
    )
