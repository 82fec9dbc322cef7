"""What a router or a report reads of an engine.

As of `now_s`, up to which the driver has popped all events. Running and waiting change at
boundaries alone; KV tokens are counted to the step in flight.
"""

import msgspec
import numpy as np

from argosy.simulator.engine import blocks, prefix, steps
from argosy.simulator.engine.histogram import quantile_s
from argosy.simulator.engine.kernels import kernel
from argosy.simulator.engine.state import STEPPING, State


@kernel
def requests_running(state: State, replica: int) -> int:
    """Admitted: they decode, or their prompt is being read."""
    return state.replicas[replica].decoding + state.replicas[replica].reading


@kernel
def requests_waiting(state: State, replica: int) -> int:
    """Queued in the engine: new, or preempted."""
    return state.replicas[replica].waiting


@kernel
def prompt_tokens_unread(state: State, replica: int) -> int:
    """Left to prefill, of running and waiting requests; a chunk counts until its step has ended."""
    return state.replicas[replica].unread_tokens


@kernel
def kv_tokens_free(state: State, replica: int, now_s: float) -> int:
    """Capacity less what requests hold at `now_s`, in whole blocks; the prefix cache's are free."""
    it = state.replicas[replica]
    free = it.blocks_free
    if it.phase == STEPPING and it.decoding > 0:
        begun = steps.steps_until(it, now_s)  # at least 1: whose blocks were taken at its start
        if begun < it.steps and steps.end_of(it, begun) == now_s:
            begun += 1
        free -= blocks.blocks_of_steps(state, it, begun) - it.blocks_taken
    return free * it.block_tokens


@kernel
def prefix_tokens_cached(state: State, replica: int, hash_from: int, hash_until: int) -> int:
    """Of the prompt that a range of State.hashes names, as of the replica's last boundary."""
    it = state.replicas[replica]
    if it.entry_blocks == 0:
        return 0
    place = hash_from
    while place < hash_until and prefix.find(state, it, state.hashes[place]) >= 0:
        place += 1
    return (place - hash_from) * state.hash_tokens[0]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica, or several together, did since the start, up to their last boundary."""

    busy_s: float
    batch_s: float  # integral of the running requests over time
    steps: int
    tokens_prefilled: int
    tokens_decoded: int  # by decode steps; each prompt that was read gave one token more
    tokens_spared: int  # by the prefix cache
    prompts_read: int  # again after each preemption
    preemptions: int
    submitted: int
    refused: int
    finished: int
    cancelled: int
    killed: int

    @property
    def tokens_out(self) -> int:
        """Output tokens that were computed."""
        return self.tokens_decoded + self.prompts_read


def account(state: State, replicas: slice | int = slice(None)) -> Account:
    """Of one replica, or the sum over some; of all if not said."""
    rows = state.replicas[replicas]
    names = {"steps": "steps_done"}
    values = {name: rows[names.get(name, name)].sum().item() for name in Account.__struct_fields__}
    return Account(**values)


def itl_counts(state: State, group: int | None = None) -> np.ndarray:
    """Gaps between a request's tokens, int64 by logarithmic bin of `histogram.bin_edges_s`."""
    return state.itl_counts.sum(axis=0) if group is None else state.itl_counts[group].copy()


def itl_s(state: State, share: float, group: int | None = None) -> float | None:
    """The quantile `share` of the gaps between a request's tokens, to 1 %; None of none."""
    return quantile_s(itl_counts(state, group), share)
