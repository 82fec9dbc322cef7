"""What models are made of: dimensions out of their config.json, and the arithmetic on them.

Belongs here: parameters, KV bytes and FLOPs of a model, whatever it runs on. Does not: seconds
and what fits where (`perf`). Read `architecture.py` first; `data/` holds the shipped models.
"""

from argosy.fleet.architectures.architecture import (
    Architecture,
    AttentionKind,
    attended_layer_tokens,
    attention_flops,
    attention_flops_per_pair,
    attention_parameters,
    dense_mlp_layers,
    dense_mlp_parameters,
    embedding_parameters,
    expert_parameters,
    full_attention_layers,
    head_parameters,
    kv_bytes,
    kv_bytes_per_token,
    kv_layers,
    layer_parameters_active,
    linear_flops_per_token,
    moe_layers,
    non_expert_parameters,
    router_parameters,
    state_bytes,
)
from argosy.fleet.architectures.from_config import UnreadableConfig, from_config
from argosy.fleet.architectures.published import architecture, architectures

__all__ = [
    "Architecture",
    "AttentionKind",
    "UnreadableConfig",
    "architecture",
    "architectures",
    "attended_layer_tokens",
    "attention_flops",
    "attention_flops_per_pair",
    "attention_parameters",
    "dense_mlp_layers",
    "dense_mlp_parameters",
    "embedding_parameters",
    "expert_parameters",
    "from_config",
    "full_attention_layers",
    "head_parameters",
    "kv_bytes",
    "kv_bytes_per_token",
    "kv_layers",
    "layer_parameters_active",
    "linear_flops_per_token",
    "moe_layers",
    "non_expert_parameters",
    "router_parameters",
    "state_bytes",
]
