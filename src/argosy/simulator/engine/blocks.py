"""KV blocks: who takes how many, and for how many decode steps those that are free suffice.

A request holds the blocks of its prompt from its admission on, and takes another whenever a token
begins one. The replica counts how many of its requests do so at which step (`State.phases`), so
that k steps cost no more to count than `block_tokens`.
"""

from argosy.simulator.engine import prefix
from argosy.simulator.engine.kernels import inlined
from argosy.simulator.engine.state import DECODING, Replica, Request, State


@inlined
def blocks_for(tokens: int, block_tokens: int) -> int:
    """That hold so many tokens."""
    return (tokens + block_tokens - 1) // block_tokens


@inlined
def take(state: State, it: Replica, blocks: int) -> None:
    """Blocks that are free, whether the prefix cache uses them or not."""
    it.blocks_free -= blocks
    if it.unreferenced > 0:
        prefix.evict(state, it)


@inlined
def give_back(state: State, it: Replica, request: Request) -> None:
    """All that a request holds: it ends, leaves, or is preempted."""
    tokens = request.total
    if request.phase == DECODING:
        tokens = request.context_base + it.decode_steps
    it.blocks_free += blocks_for(tokens, it.block_tokens) - request.hashes_held * it.entry_blocks
    if request.hashes_held > 0:
        prefix.release(state, it, request)


@inlined
def phase_of_step(it: Replica) -> int:
    """Whose requests begin a block in the next decode step: State.phases, counted down by step."""
    return (-it.decode_steps) % it.block_tokens


@inlined
def blocks_of_steps(state: State, it: Replica, steps: int) -> int:
    """That the next `steps` decode steps take, with the batch as it is."""
    cycles = steps // it.block_tokens
    blocks = cycles * it.decoding
    phase = phase_of_step(it)
    for _ in range(steps - cycles * it.block_tokens):
        blocks += state.phases[it.phases_at + phase]
        phase = phase - 1 if phase > 0 else it.block_tokens - 1
    return blocks


@inlined
def steps_with_blocks(state: State, it: Replica, steps: int) -> int:
    """How many of the next `steps` decode steps the free blocks suffice for."""
    left = it.blocks_free + it.blocks_taken
    if (steps // it.block_tokens + 1) * it.decoding <= left:  # mostly
        return steps
    cycles = left // it.decoding
    left -= cycles * it.decoding
    able = cycles * it.block_tokens
    phase = phase_of_step(it)
    while able < steps:
        left -= state.phases[it.phases_at + phase]
        if left < 0:
            break
        able += 1
        phase = phase - 1 if phase > 0 else it.block_tokens - 1
    return min(able, steps)
