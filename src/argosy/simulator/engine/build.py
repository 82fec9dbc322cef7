"""Building the state: groups of identical replicas, room for so many requests at once.

A group's settings are checked here, once; the kernels trust them.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from argosy.perf.engine_settings import EngineSettings
from argosy.perf.step_time import StepTime
from argosy.simulator.engine import state as states
from argosy.simulator.engine.histogram import bin_edges_s
from argosy.simulator.engine.state import NOBODY, SLOT_MASK, State

_NO_HASHES = np.zeros(0, np.uint64)


class ReplicaGroup(msgspec.Struct, frozen=True, kw_only=True):
    """So many replicas that are alike."""

    count: int
    step_time: StepTime
    kv_tokens: int  # capacity, for prompts and what is generated
    settings: EngineSettings = EngineSettings()
    watermark: float = 0.0  # share of KV blocks that an admission leaves free; vLLM leaves none


class EngineRefusedError(ValueError):
    """A group or a size that cannot be simulated; says which and what would do."""


def build(
    groups: Sequence[ReplicaGroup],
    *,
    requests_max_alive: int = 4096,
    hash_tokens: int = 0,
    hashes: np.ndarray = _NO_HASHES,
) -> State:
    """All replicas idle, numbered group by group.

    `hash_tokens` is how many tokens a block hash names (a trace's block size); 0: no prefix cache.
    """
    for place, group in enumerate(groups):
        _check(group, place, hash_tokens)
    if not groups or not 0 < requests_max_alive < SLOT_MASK:
        raise EngineRefusedError(
            f"{len(groups)} groups and {requests_max_alive} requests alive; needs a group at "
            f"least and 1 to {SLOT_MASK - 1} requests"
        )
    replicas = np.zeros(sum(group.count for group in groups), states.REPLICA)
    kinds = _fill(replicas, groups, hash_tokens)
    running, phases, entries, buckets = _lay_out(replicas)
    queue_max = 2 * int(replicas["requests_max"].max()) + 2
    edges_s = bin_edges_s()
    state = State(
        replicas=replicas,
        requests=np.zeros(requests_max_alive, states.REQUEST),
        running=np.zeros(running, np.int64),
        phases=np.zeros(phases, np.int32),
        linear_s=kinds,
        heap=np.zeros(replicas.size, states.HEAP_ENTRY),
        places=np.full(replicas.size, NOBODY, np.int32),
        marks=np.zeros(3, np.int64),
        queue=np.zeros(queue_max, states.EVENT),
        entries=np.zeros(entries, states.CACHE_ENTRY),
        buckets=np.zeros(buckets, np.int32),
        hashes=np.ascontiguousarray(hashes, np.uint64),
        hash_tokens=np.array([hash_tokens], np.int64),
        itl_counts=np.zeros((len(groups), edges_s.size - 1), np.int64),
        bin_edges_s=edges_s,
    )
    for replica in range(replicas.size):
        states.reset_replica(state, replica)
    return state


def grow(state: State, requests_max_alive: int) -> None:
    """Room for more requests alive, between calls."""
    if requests_max_alive >= SLOT_MASK:
        raise EngineRefusedError(f"{requests_max_alive} requests alive; at most {SLOT_MASK - 1}")
    requests = np.zeros(max(requests_max_alive, state.requests.size), states.REQUEST)
    requests[: state.requests.size] = state.requests
    state.replace(requests=requests)


def use_hashes(state: State, hashes: np.ndarray) -> None:
    """Other block hashes, between calls; ranges of requests alive must name what they named."""
    state.replace(hashes=np.ascontiguousarray(hashes, np.uint64))


def _check(group: ReplicaGroup, place: int, hash_tokens: int) -> None:
    settings = group.settings
    block_tokens = settings.block_tokens
    wrong = None
    if min(group.count, settings.requests_max, block_tokens) < 1:
        wrong = "count, requests_max and block_tokens are 1 at least"
    elif settings.prefill_tokens_max < settings.requests_max:
        wrong = (
            f"prefill_tokens_max {settings.prefill_tokens_max} is below requests_max "
            f"{settings.requests_max}: a step could not decode them all"
        )
    elif group.kv_tokens < block_tokens:
        wrong = f"kv_tokens {group.kv_tokens} is not one block of {block_tokens}"
    elif not 0 <= group.watermark < 1:
        wrong = f"watermark {group.watermark} is not a share below 1"
    elif hash_tokens % block_tokens and settings.prefix_cache:
        wrong = f"hashes of {hash_tokens} tokens are not whole KV blocks of {block_tokens}"
    elif group.step_time.linear_s(1) <= 0:
        wrong = "a step of one token takes no time"
    if wrong:
        raise EngineRefusedError(f"groups[{place}]: {wrong}")


def _fill(replicas: np.ndarray, groups: Sequence[ReplicaGroup], hash_tokens: int) -> np.ndarray:
    """Write each group's settings; the tables of StepTime's linear part, each kind once."""
    tables: dict[tuple[tuple[float, ...], tuple[float, ...], int], int] = {}
    parts: list[np.ndarray] = []
    first = 0
    for number, group in enumerate(groups):
        of = replicas[first : first + group.count]
        first += group.count
        settings, time = group.settings, group.step_time
        of["group"] = number
        of["slowness"] = 1.0
        of["block_tokens"] = settings.block_tokens
        of["blocks"] = group.kv_tokens // settings.block_tokens
        of["blocks_watermark"] = int(group.watermark * (group.kv_tokens // settings.block_tokens))
        of["requests_max"] = settings.requests_max
        of["step_tokens_max"] = settings.prefill_tokens_max
        of["context_s_per_token"] = time.context_s_per_token
        of["pair_s"] = time.pair_s
        if hash_tokens and settings.prefix_cache:
            of["entry_blocks"] = hash_tokens // settings.block_tokens
        key = (time.knots_tokens, time.knots_s, settings.prefill_tokens_max)
        if key not in tables:
            tables[key] = sum(part.size for part in parts)
            parts.append(_linear_s(time, settings.prefill_tokens_max))
        of["linear_at"] = tables[key]
    return np.concatenate(parts)


def _linear_s(step_time: StepTime, tokens_max: int) -> np.ndarray:
    return np.array([step_time.linear_s(tokens) for tokens in range(tokens_max + 1)])


def _lay_out(replicas: np.ndarray) -> tuple[int, int, int, int]:
    """Say where each replica's parts begin; the sizes of what they are parts of."""
    # an odd number of cache lines each: at a power of two all heaps would share a few cache sets
    lines = -(-replicas["requests_max"] // 8) | 1
    running = _offsets(replicas, "running_at", 8 * lines)
    phases = _offsets(replicas, "phases_at", replicas["block_tokens"])
    cached = replicas["entry_blocks"] > 0
    entries_max = np.where(cached, replicas["blocks"] // np.maximum(1, replicas["entry_blocks"]), 0)
    replicas["entry_blocks"][entries_max == 0] = 0  # too small to cache one hash block
    replicas["entries_max"] = entries_max
    entries = _offsets(replicas, "entries_at", entries_max)
    logs = np.ceil(np.log2(np.maximum(1, entries_max))).astype(np.int64)
    buckets_of = np.where(entries_max > 0, np.int64(1) << logs, 0)
    replicas["buckets_mask"] = buckets_of - 1
    buckets = _offsets(replicas, "buckets_at", buckets_of)
    return running, phases, entries, buckets


def _offsets(replicas: np.ndarray, field: str, sizes: np.ndarray) -> int:
    ends = np.cumsum(sizes)
    replicas[field] = ends - sizes
    return int(ends[-1])
