"""What a model is made of, as far as its cost goes: dimensions, parameters, KV bytes, FLOPs.

Everything here is arithmetic on the dimensions that the model's own config.json publishes. Left
out: vision towers, multi-token-prediction heads, biases of linear layers (all below 1 %).
Parameters are counts of numbers; bytes depend on the caller's bytes per value.
"""

from typing import Literal

import msgspec

AttentionKind = Literal["gqa", "mla"]
# What DeepSeek's sparse attention keeps per token and layer to choose by: 8-bit keys with a
# 4-byte scale for each 128 of them (vLLM 0.11, DeepSeek-V3.2's indexer cache).
_INDEX_SCALE_BYTES_PER_VALUE = 4 / 128


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """One model's dimensions. Layers count once each, whatever they hold."""

    name: str
    huggingface_ids: tuple[str, ...] = ()  # repositories of weights with these dimensions
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    intermediate: int | None  # width of a dense MLP; None: no layer has one
    attention: AttentionKind = "gqa"
    q_lora_rank: int | None = None  # None: queries are not compressed
    kv_lora_rank: int | None = None  # None, as the next three, unless attention is "mla"
    qk_rope_head_dim: int | None = None
    qk_nope_head_dim: int | None = None
    v_head_dim: int | None = None
    window_tokens: int | None = None  # what a windowed layer attends to; None: all layers full
    window_layers: int = 0
    experts: int = 0  # 0: dense
    experts_per_token: int = 0
    shared_experts: int = 0  # computed for every token, beside the routed ones
    expert_intermediate: int | None = None
    dense_layers: int = 0  # layers of a mixture that have a dense MLP (the first, or every other)
    mlp_matrices: int = 3  # 3: gate, up, down; 2: up, down
    tied_embeddings: bool = False  # the head reads the embedding's table
    attention_layers: int | None = None  # layers with a KV cache; None: all
    mlp_layers: int | None = None  # layers with an MLP or experts; None: all
    has_query_gate: bool = False  # queries are twice as wide: half of them gate the output
    state_layers: int = 0  # Mamba or linear attention: a state of fixed size instead of a KV cache
    state_parameters: int = 0  # of one such layer
    state_bytes_per_layer: int = 0  # of one request
    index_heads: int = 0  # sparse attention: heads that choose what the others attend to
    index_head_dim: int = 0
    attended_tokens_max: int | None = None  # tokens that sparse attention chooses; None: all
    sources: tuple[str, ...] = ()
    notes: str | None = None

    @property
    def parameters_total(self) -> int:
        """All that must be in memory."""
        parts = (_layers_parameters(self), embedding_parameters(self), head_parameters(self))
        routed = self.experts * expert_parameters(self) * moe_layers(self)
        return sum(parts) + routed + self.hidden

    @property
    def parameters_active(self) -> int:
        """What one token is multiplied with or looks up: the embedding and the head included."""
        parts = (_layers_parameters(self), embedding_parameters(self), head_parameters(self))
        routed = self.experts_per_token * expert_parameters(self) * moe_layers(self)
        return sum(parts) + routed + self.hidden


def kv_layers(architecture: Architecture) -> int:
    """Layers with a KV cache, windowed ones included."""
    own = architecture.attention_layers
    return architecture.layers if own is None else own


def full_attention_layers(architecture: Architecture) -> int:
    """Layers that attend to the whole context."""
    return kv_layers(architecture) - architecture.window_layers


def moe_layers(architecture: Architecture) -> int:
    """Layers with routed experts."""
    if architecture.experts == 0:
        return 0
    return _layers_with_mlp(architecture) - architecture.dense_layers


def dense_mlp_layers(architecture: Architecture) -> int:
    """Layers with a dense MLP."""
    return _layers_with_mlp(architecture) - moe_layers(architecture)


def attention_parameters(architecture: Architecture) -> int:
    """Of one attention layer's projections, the indexer of sparse attention included."""
    if architecture.attention == "mla":
        return _mla_parameters(architecture) + _indexer_parameters(architecture)
    hidden, width = architecture.hidden, architecture.heads * architecture.head_dim
    kv_width = architecture.kv_heads * architecture.head_dim
    queries = 2 * width if architecture.has_query_gate else width
    return hidden * (queries + 2 * kv_width) + width * hidden


def expert_parameters(architecture: Architecture) -> int:
    """Of one expert of one layer; 0 where there are none."""
    if architecture.expert_intermediate is None:
        return 0
    return architecture.mlp_matrices * architecture.hidden * architecture.expert_intermediate


def dense_mlp_parameters(architecture: Architecture) -> int:
    """Of the dense MLP of one layer that has one; 0 where none has."""
    if architecture.intermediate is None:
        return 0
    return architecture.mlp_matrices * architecture.hidden * architecture.intermediate


def router_parameters(architecture: Architecture) -> int:
    """Of the router of one layer with experts."""
    return architecture.experts * architecture.hidden


def embedding_parameters(architecture: Architecture) -> int:
    """Of the table that tokens are looked up in."""
    return architecture.vocabulary * architecture.hidden


def head_parameters(architecture: Architecture) -> int:
    """Of the output head beyond the embedding: 0 where both are one table."""
    return 0 if architecture.tied_embeddings else embedding_parameters(architecture)


def non_expert_parameters(architecture: Architecture) -> int:
    """All but the routed experts; shared experts are in it."""
    routed = architecture.experts * expert_parameters(architecture) * moe_layers(architecture)
    return architecture.parameters_total - routed


def layer_parameters_active(architecture: Architecture) -> int:
    """What one token is multiplied with in all layers, the head and the embedding left out."""
    routed = architecture.experts_per_token * expert_parameters(architecture)
    return _layers_parameters(architecture) + routed * moe_layers(architecture)


def kv_bytes_per_token(architecture: Architecture, bytes_per_value: float) -> float:
    """KV cache that one more token takes while no window is full, in bytes, over all layers."""
    return kv_layers(architecture) * _kv_bytes_per_layer(architecture, bytes_per_value)


def kv_bytes(architecture: Architecture, tokens: int, bytes_per_value: float) -> float:
    """What one request holds after so many tokens: windows that fill up, and states, included."""
    window = architecture.window_tokens
    windowed = tokens if window is None else min(tokens, window)
    held = full_attention_layers(architecture) * tokens + architecture.window_layers * windowed
    return held * _kv_bytes_per_layer(architecture, bytes_per_value) + state_bytes(architecture)


def state_bytes(architecture: Architecture) -> int:
    """What a request holds in Mamba or linear attention layers, however long it is."""
    return architecture.state_layers * architecture.state_bytes_per_layer


def linear_flops_per_token(architecture: Architecture, *, with_head: bool = True) -> float:
    """A token through all matrices, 2 FLOPs a parameter. A prefilled token needs no head."""
    matrices = layer_parameters_active(architecture)
    return 2.0 * (matrices + (embedding_parameters(architecture) if with_head else 0))


def attention_flops_per_pair(architecture: Architecture, *, is_decode: bool) -> float:
    """One token attending to one other in one layer: the score and the weighted value.

    MLA decodes in the latent space (each head as wide as the latent), and prefills in heads.
    """
    if architecture.attention == "mla":
        latent, rope, nope, value = _mla_dims(architecture)
        width = 2 * latent + rope if is_decode else nope + rope + value
        return 2.0 * architecture.heads * width
    return 4.0 * architecture.heads * architecture.head_dim


def attended_layer_tokens(architecture: Architecture, context_tokens: float) -> float:
    """Tokens that one token attends to, added over all layers, at that context length."""
    window, most = architecture.window_tokens, architecture.attended_tokens_max
    windowed = context_tokens if window is None else min(context_tokens, window)
    full = context_tokens if most is None else min(context_tokens, most)
    return full_attention_layers(architecture) * full + architecture.window_layers * windowed


def attention_flops(architecture: Architecture, context_tokens: float, *, is_decode: bool) -> float:
    """One token attending to `context_tokens` tokens, over all layers, the indexer included."""
    attended = attended_layer_tokens(architecture, context_tokens)
    chosen = 2.0 * architecture.index_heads * architecture.index_head_dim
    choosing = chosen * context_tokens * kv_layers(architecture)
    return attended * attention_flops_per_pair(architecture, is_decode=is_decode) + choosing


def _layers_with_mlp(architecture: Architecture) -> int:
    own = architecture.mlp_layers
    return architecture.layers if own is None else own


def _layers_parameters(architecture: Architecture) -> int:
    """All layers without their routed experts: two norms a layer are in it."""
    shared = architecture.shared_experts * expert_parameters(architecture)
    mixtures = moe_layers(architecture) * (shared + router_parameters(architecture))
    return (
        kv_layers(architecture) * attention_parameters(architecture)
        + architecture.state_layers * architecture.state_parameters
        + dense_mlp_layers(architecture) * dense_mlp_parameters(architecture)
        + mixtures
        + 2 * architecture.layers * architecture.hidden
    )


def _mla_dims(architecture: Architecture) -> tuple[int, int, int, int]:
    """kv_lora_rank, qk_rope_head_dim, qk_nope_head_dim, v_head_dim."""
    dims = (
        architecture.kv_lora_rank,
        architecture.qk_rope_head_dim,
        architecture.qk_nope_head_dim,
        architecture.v_head_dim,
    )
    latent, rope, nope, value = dims
    if latent is None or rope is None or nope is None or value is None:
        raise ValueError(f"{architecture.name}: mla needs all of its four dimensions, not {dims}")
    return latent, rope, nope, value


def _mla_parameters(architecture: Architecture) -> int:
    latent, rope, nope, value = _mla_dims(architecture)
    hidden, heads, rank = architecture.hidden, architecture.heads, architecture.q_lora_rank
    query_width = heads * (nope + rope)
    queries = hidden * query_width if rank is None else (hidden + query_width) * rank + rank
    keys_values = hidden * (latent + rope) + latent + latent * heads * (nope + value)
    return queries + keys_values + heads * value * hidden


def _indexer_parameters(architecture: Architecture) -> int:
    """DeepSeek sparse attention: queries out of the compressed ones, one key, weights of heads."""
    if architecture.index_heads == 0:
        return 0
    heads, width = architecture.index_heads, architecture.index_head_dim
    rank = architecture.q_lora_rank or architecture.hidden
    return rank * heads * width + architecture.hidden * (width + heads)


def _kv_bytes_per_layer(architecture: Architecture, bytes_per_value: float) -> float:
    """Of one token in one layer."""
    if architecture.attention == "mla":
        latent, rope, _, _ = _mla_dims(architecture)
        index = architecture.index_head_dim * (1 + _INDEX_SCALE_BYTES_PER_VALUE)
        return (latent + rope) * bytes_per_value + index
    return 2 * architecture.kv_heads * architecture.head_dim * bytes_per_value
