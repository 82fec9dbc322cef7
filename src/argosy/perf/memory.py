"""What a replica holds in memory: weights, and how many tokens of KV fit beside them.

Per chip: weights + activations + KV <= memory x the engine's share. Activations are what an
engine's profile run sets aside: a few buffers of one step's tokens, and its graphs.
"""

import msgspec

from argosy.fleet.architectures import (
    Architecture,
    expert_parameters,
    kv_bytes_per_token,
    moe_layers,
    non_expert_parameters,
)
from argosy.fleet.architectures import kv_bytes as kv_bytes_of_request
from argosy.fleet.catalogue import Chip
from argosy.fleet.layout import BYTES_OF, Layout
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.work import kv_copies, linear_bytes_per_value

_GRAPHS_BYTES = 1.0e9  # captured graphs, workspaces, communication buffers: vLLM logs 0.5 to 2 GB
_ACTIVATION_BUFFERS = 6.0  # of a step's tokens x hidden x 2 bytes, alive at once
_REQUEST_TOKENS = 8192.0  # a windowed or stateful model's KV is counted for requests this long


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Of one replica; bytes are per chip, tokens of the whole replica."""

    weights_bytes: float
    activation_bytes: float
    usable_bytes: float  # memory x the engine's share
    kv_bytes_per_token: float  # on the chip, per token of the replica
    kv_tokens: int  # 0: the weights leave no room


def plan_memory(
    architecture: Architecture, chip: Chip, layout: Layout, engine: EngineSettings
) -> MemoryPlan | None:
    """What fits; None where the catalogue does not know the chip's memory."""
    if chip.memory_bytes is None:
        return None
    usable = chip.memory_bytes * engine.memory_share
    weights = weights_bytes_per_chip(architecture, layout)
    tokens = min(engine.prefill_tokens_max, 16384)
    activations = _GRAPHS_BYTES + _ACTIVATION_BUFFERS * tokens * architecture.hidden * 2 / layout.tp
    each = kv_bytes_per_chip(architecture, layout)
    left = usable - weights - activations
    blocks = int(left / each // engine.block_tokens) if left > 0 and each > 0 else 0
    return MemoryPlan(
        weights_bytes=weights,
        activation_bytes=activations,
        usable_bytes=usable,
        kv_bytes_per_token=each,
        kv_tokens=blocks * engine.block_tokens,
    )


def weights_bytes_per_chip(architecture: Architecture, layout: Layout) -> float:
    """Attention's copies on every dp rank included."""
    experts = architecture.experts * expert_parameters(architecture) * moe_layers(architecture)
    rest = non_expert_parameters(architecture) * linear_bytes_per_value(architecture, layout)
    spread = layout.tp * layout.dp * layout.pp
    return experts * BYTES_OF[layout.dtype] / spread + rest / (layout.tp * layout.pp)


def weights_bytes(architecture: Architecture, layout: Layout) -> float:
    """Of the model, one copy."""
    experts = architecture.experts * expert_parameters(architecture) * moe_layers(architecture)
    rest = non_expert_parameters(architecture) * linear_bytes_per_value(architecture, layout)
    return experts * BYTES_OF[layout.dtype] + rest


def kv_bytes_per_chip(architecture: Architecture, layout: Layout) -> float:
    """Of one token of the replica on one chip, over a request of 8192 tokens."""
    value_bytes = BYTES_OF[layout.kv_dtype]
    whole = kv_bytes_of_request(architecture, int(_REQUEST_TOKENS), value_bytes) / _REQUEST_TOKENS
    each = whole or kv_bytes_per_token(architecture, value_bytes)
    return each / (kv_copies(architecture, layout) * layout.dp * layout.pp)
