"""What one step asks of one chip: FLOPs, bytes of weights and KV, bytes between chips.

Arithmetic on a model's dimensions and a layout; no chip, no engine, no efficiency. Everything is
per chip of the critical path and, where it says so, per token of the whole replica. Fields hold a
float, or an array with one entry a case: what is computed from them takes both.

Parallelism: tp cuts every layer, dp gives each rank its own requests and shares the experts, pp
runs as many micro-batches as it has stages. So what grows with tokens is divided by all chips,
while weights are read in full by each stage in turn: divided by tp (experts: by tp x dp) only.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from argosy.fleet.architectures import (
    Architecture,
    attention_flops_per_pair,
    expert_parameters,
    full_attention_layers,
    kv_layers,
    moe_layers,
    non_expert_parameters,
    state_bytes,
)
from argosy.fleet.architectures import kv_bytes_per_token as kv_bytes_per_token_of
from argosy.fleet.layout import BYTES_OF, Layout

Numbers = float | NDArray[np.float64]
# Four-bit weights of a mixture are its experts' alone: attention, shared parts and the head stay
# in 16 bits (the published checkpoints of gpt-oss, Kimi-K2.5 and DeepSeek-R1-NVFP4 do so).
_FOUR_BITS = ("fp4", "int4")


class Work(NamedTuple):
    """Of one chip in one step."""

    layers: Numbers
    expert_layers: Numbers  # of them, those with routed experts
    linear_bytes: Numbers  # weights without routed experts, read in every step
    linear_flops: Numbers  # per token, without routed experts
    expert_bytes: Numbers  # all routed experts that the chip holds
    expert_flops: Numbers  # per token
    experts_idle_share: Numbers  # that one token leaves a given expert alone: 1 - k/E; dense: 1
    stage_tokens: Numbers  # of a step, the share that one micro-batch has: 1/pp
    context_bytes: Numbers  # KV read per token that a decoding request attends to
    context_flops: Numbers
    token_bytes: Numbers  # read per decoded token whatever its context: windows, states
    pair_flops: Numbers  # per (prefilled token, attended token)
    reduces: Numbers  # all-reduces of a step
    reduce_bytes: Numbers  # per token, over the links of one chip, all of the step's
    exchanges: Numbers  # all-to-alls of a step
    exchange_bytes: Numbers  # per token, as above


def work(architecture: Architecture, layout: Layout) -> Work:
    """What a step of this model cut this way asks of a chip."""
    experts = architecture.experts
    expert_values = experts * expert_parameters(architecture) * moe_layers(architecture)
    active = architecture.experts_per_token / experts if experts else 0.0
    linear = non_expert_parameters(architecture) - architecture.vocabulary * architecture.hidden
    context_bytes, token_bytes = _kv_read(architecture, layout)
    full_pairs = full_attention_layers(architecture)
    decode_flops = attention_flops_per_pair(architecture, is_decode=True)
    prefill_flops = attention_flops_per_pair(architecture, is_decode=False)
    sparse = architecture.attended_tokens_max is not None
    choosing = 2.0 * architecture.index_heads * architecture.index_head_dim
    reduces, reduce_bytes = _reduce(architecture, layout)
    exchanges, exchange_bytes = _exchange(architecture, layout)
    return Work(
        layers=float(architecture.layers),
        expert_layers=float(moe_layers(architecture)),
        linear_bytes=linear * linear_bytes_per_value(architecture, layout) / layout.tp,
        linear_flops=2.0 * linear / layout.chips,
        expert_bytes=expert_values * BYTES_OF[layout.dtype] / (layout.tp * layout.dp),
        expert_flops=2.0 * expert_values * active / layout.chips,
        experts_idle_share=1.0 - active,
        stage_tokens=1.0 / layout.pp,
        context_bytes=context_bytes,
        context_flops=full_pairs * (choosing if sparse else decode_flops) / layout.chips,
        token_bytes=token_bytes,
        pair_flops=full_pairs * (choosing if sparse else prefill_flops) / layout.chips,
        reduces=reduces,
        reduce_bytes=reduce_bytes,
        exchanges=exchanges,
        exchange_bytes=exchange_bytes,
    )


def linear_bytes_per_value(architecture: Architecture, layout: Layout) -> float:
    """Bytes of a weight outside the routed experts."""
    if architecture.experts and layout.dtype in _FOUR_BITS:
        return 2.0
    return BYTES_OF[layout.dtype]


def stack(works: list[Work]) -> Work:
    """Many cases as one, each field an array."""
    return Work(*(np.array(column, dtype=np.float64) for column in zip(*works, strict=True)))


def kv_copies(architecture: Architecture, layout: Layout) -> int:
    """Into how many parts tp cuts a request's KV: a head is not cut, MLA's latent is not either."""
    return 1 if architecture.attention == "mla" else min(layout.tp, architecture.kv_heads)


def _kv_read(architecture: Architecture, layout: Layout) -> tuple[float, float]:
    """Bytes per attended token and per decoded token, of one chip."""
    layers = kv_layers(architecture)
    if layers == 0:
        return 0.0, 2.0 * state_bytes(architecture) / layout.chips
    value_bytes = BYTES_OF[layout.kv_dtype]
    parts = kv_copies(architecture, layout) * layout.dp * layout.pp
    layer_bytes = kv_bytes_per_token_of(architecture, value_bytes) / layers / parts
    full = full_attention_layers(architecture)
    windowed = architecture.window_layers * (architecture.window_tokens or 0)
    states = 2.0 * state_bytes(architecture) / layout.chips  # read and written
    most = architecture.attended_tokens_max
    if most is None:
        return full * layer_bytes, windowed * layer_bytes + states
    index_bytes = full * architecture.index_head_dim * (1 + 4 / 128) / parts
    return index_bytes, (full * most + windowed) * layer_bytes + states


def _reduce(architecture: Architecture, layout: Layout) -> tuple[float, float]:
    """Two all-reduces a layer under tp; a ring moves 2 (tp - 1)/tp of the activations."""
    if layout.tp == 1:
        return 0.0, 0.0
    count = 2.0 * architecture.layers
    moved = 2.0 * (layout.tp - 1) / layout.tp * 2.0 * architecture.hidden
    return count, count * moved / (layout.dp * layout.pp)


def _exchange(architecture: Architecture, layout: Layout) -> tuple[float, float]:
    """Dispatch and combine of a mixture whose ranks hold different requests (dp > 1)."""
    ranks = layout.dp
    if ranks == 1 or architecture.experts == 0:
        return 0.0, 0.0
    count = 2.0 * moe_layers(architecture)
    copies = min(architecture.experts_per_token, layout.tp * ranks)
    moved = copies * (1 - 1 / ranks) * 1.5 * architecture.hidden  # 1 byte out, 2 back, on average
    return count, count * moved / (layout.dp * layout.pp)
