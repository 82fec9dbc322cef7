"""Reads a Hugging Face config.json into an `Architecture`.

One reader for each way of arranging layers; what a family leaves out of its config.json, because
its configuration class has a default, is in `_DEFAULTS` with that class's value.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from argosy.fleet.architectures.architecture import Architecture

T = TypeVar("T")
_Extras = dict[str, Any]  # fields of an Architecture beyond the common ones
_STATE_BYTES_PER_VALUE = 4  # engines keep recurrent states in fp32
_CONVOLVED_BYTES_PER_VALUE = 2

# What transformers' configuration classes fill in.
_DEFAULTS: dict[str, dict[str, object]] = {
    "gemma3_text": {
        "head_dim": 256,
        "vocab_size": 262_208,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    },
    "bloom": {"tie_word_embeddings": True},
    "llama4_text": {"no_rope_layer_interval": 4, "interleave_moe_layer_step": 1},
    "gpt_oss": {"layer_types": None},
}


class UnreadableConfig(ValueError):
    """A config.json that cannot be read; the message says which field is missing or unknown."""


def from_config(config: Mapping[str, Any], name: str) -> Architecture:
    """The architecture that a config.json describes, under that name.

    A model of several media is read as its text model. Raises `UnreadableConfig`.
    """
    text = config.get("text_config")
    inner: Mapping[str, Any] = {**config, **text} if isinstance(text, dict) else config
    fields = _Fields(inner, name)
    kind = fields.need("model_type", str)
    reader = _READERS.get(kind)
    if reader is None:
        raise UnreadableConfig(
            f'{name}: a config.json of model_type "{kind}" cannot be read. '
            f"These can: {', '.join(sorted(_READERS))}."
        )
    try:
        return msgspec.convert({**_common(fields), **reader(fields), "name": name}, Architecture)
    except msgspec.ValidationError as error:
        raise UnreadableConfig(f"{name}: config.json of {kind}: {error}") from error


class _Fields:
    """A config.json's fields, by their types, with the family's defaults behind them."""

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        kind = str(config.get("model_type"))
        self._config = {**_DEFAULTS.get(kind, {}), **config}
        self._name = name
        self.kind = kind

    def get(self, key: str, type_: type[T]) -> T | None:
        """The field, None where it is absent or null."""
        value = self._config.get(key)
        if value is None:
            return None
        try:
            return msgspec.convert(value, type_)
        except msgspec.ValidationError as error:
            raise UnreadableConfig(
                f"{self._name}: config.json's {key} is {value!r}: {error}"
            ) from error

    def need(self, key: str, type_: type[T], *aliases: str) -> T:
        """The field under its name or one of its older names."""
        for one in (key, *aliases):
            value = self.get(one, type_)
            if value is not None:
                return value
        names = " or ".join((key, *aliases))
        raise UnreadableConfig(
            f"{self._name}: config.json has no {names}, which a {self.kind} model needs"
        )


def _common(fields: _Fields) -> _Extras:
    hidden = fields.need("hidden_size", int, "n_embed")
    heads = fields.need("num_attention_heads", int, "n_head")
    return {
        "layers": fields.need("num_hidden_layers", int, "n_layer"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": fields.get("num_key_value_heads", int) or heads,
        "head_dim": fields.get("head_dim", int) or hidden // heads,
        "vocabulary": fields.need("vocab_size", int),
        "tied_embeddings": fields.get("tie_word_embeddings", bool) or False,
        "intermediate": None,
    }


def _dense(fields: _Fields) -> _Extras:
    """Llama, Mistral, Qwen2 and Qwen3."""
    return {"intermediate": fields.need("intermediate_size", int), **_window(fields)}


def _window(fields: _Fields) -> _Extras:
    """Sliding windows: on some layers by type, on the later ones (Qwen), on all (Mistral)."""
    window = fields.get("sliding_window", int)
    if window is None or fields.get("use_sliding_window", bool) is False:
        return {}
    layers = fields.need("num_hidden_layers", int)
    types = fields.get("layer_types", list[str])
    if types is not None:
        windowed = types.count("sliding_attention")
    else:
        windowed = layers - (fields.get("max_window_layers", int) or 0)
    return {"window_tokens": window, "window_layers": windowed} if windowed else {}


def _gemma3(fields: _Fields) -> _Extras:
    """Five windowed layers, then a full one."""
    layers = fields.need("num_hidden_layers", int)
    return {
        "intermediate": fields.need("intermediate_size", int),
        "window_tokens": fields.need("sliding_window", int),
        "window_layers": layers - layers // fields.need("sliding_window_pattern", int),
    }


def _bloom(fields: _Fields) -> _Extras:
    """An MLP of two matrices, four times as wide as the model; positions by ALiBi."""
    return {"intermediate": 4 * fields.need("hidden_size", int, "n_embed"), "mlp_matrices": 2}


def _mixtral(fields: _Fields) -> _Extras:
    """All layers have experts, as wide as `intermediate_size`: Mixtral, MiniMax-M2."""
    return {
        "experts": fields.need("num_local_experts", int),
        "experts_per_token": fields.need("num_experts_per_tok", int),
        "expert_intermediate": fields.need("intermediate_size", int),
        **_window(fields),
    }


def _gpt_oss(fields: _Fields) -> _Extras:
    """Every other layer has a window, the first too."""
    layers = fields.need("num_hidden_layers", int)
    types = fields.get("layer_types", list[str])
    windowed = (layers + 1) // 2 if types is None else types.count("sliding_attention")
    return {
        "experts": fields.need("num_local_experts", int),
        "experts_per_token": fields.need("num_experts_per_tok", int, "experts_per_token"),
        "expert_intermediate": fields.need("intermediate_size", int),
        "window_tokens": fields.need("sliding_window", int),
        "window_layers": windowed,
    }


def _qwen3_moe(fields: _Fields) -> _Extras:
    layers = fields.need("num_hidden_layers", int)
    step = fields.get("decoder_sparse_step", int) or 1
    dense = set(fields.get("mlp_only_layers", list[int]) or ())
    dense |= {place for place in range(layers) if (place + 1) % step}
    return {
        "experts": fields.need("num_experts", int),
        "experts_per_token": fields.need("num_experts_per_tok", int),
        "expert_intermediate": fields.need("moe_intermediate_size", int),
        "dense_layers": len(dense),
        "intermediate": fields.need("intermediate_size", int) if dense else None,
    }


def _glm4_moe(fields: _Fields) -> _Extras:
    """The first layers dense, then routed and shared experts: GLM-4.5, and all that have MLA."""
    first, every = (
        fields.need("first_k_dense_replace", int),
        fields.get("moe_layer_freq", int) or 1,
    )
    places = range(fields.need("num_hidden_layers", int))
    dense = sum(1 for place in places if place < first or place % every)
    return {
        "experts": fields.need("n_routed_experts", int),
        "experts_per_token": fields.need("num_experts_per_tok", int),
        "shared_experts": fields.get("n_shared_experts", int) or 0,
        "expert_intermediate": fields.need("moe_intermediate_size", int),
        "dense_layers": dense,
        "intermediate": fields.need("intermediate_size", int) if dense else None,
    }


def _deepseek(fields: _Fields) -> _Extras:
    """Multi-head latent attention; with an indexer where attention is sparse (V3.2, GLM-5)."""
    return {
        **_glm4_moe(fields),
        "attention": "mla",
        "q_lora_rank": fields.get("q_lora_rank", int),
        "kv_lora_rank": fields.need("kv_lora_rank", int),
        "qk_rope_head_dim": fields.need("qk_rope_head_dim", int),
        "qk_nope_head_dim": fields.need("qk_nope_head_dim", int),
        "v_head_dim": fields.need("v_head_dim", int),
        "index_heads": fields.get("index_n_heads", int) or 0,
        "index_head_dim": fields.get("index_head_dim", int) or 0,
        "attended_tokens_max": fields.get("index_topk", int),
    }


def _llama4(fields: _Fields) -> _Extras:
    """Experts in every layer or every other; three of four layers attend within chunks.

    A chunk is taken as a window of its length, which is the most that a token there attends to.
    """
    layers = fields.need("num_hidden_layers", int)
    dense = layers - layers // fields.need("interleave_moe_layer_step", int)
    full = layers // fields.need("no_rope_layer_interval", int)
    return {
        "experts": fields.need("num_local_experts", int),
        "experts_per_token": fields.need("num_experts_per_tok", int),
        "shared_experts": 1,
        "expert_intermediate": fields.need("intermediate_size", int),
        "dense_layers": dense,
        "intermediate": fields.need("intermediate_size_mlp", int) if dense else None,
        "window_tokens": fields.need("attention_chunk_size", int),
        "window_layers": layers - full,
    }


def _qwen3_next(fields: _Fields) -> _Extras:
    """Three gated DeltaNet layers, then one of full attention: Qwen3-Next and Qwen3.5."""
    layers = fields.need("num_hidden_layers", int)
    full = layers // fields.need("full_attention_interval", int)
    hidden = fields.need("hidden_size", int)
    key_dim, value_dim = (fields.need(f"linear_{one}_head_dim", int) for one in ("key", "value"))
    value_heads = fields.need("linear_num_value_heads", int)
    keys, values = fields.need("linear_num_key_heads", int) * key_dim, value_heads * value_dim
    kernel, convolved = fields.need("linear_conv_kernel_dim", int), 2 * keys + values
    expert = fields.need("moe_intermediate_size", int)
    shared = fields.need("shared_expert_intermediate_size", int)
    return {
        "experts": fields.need("num_experts", int),
        "experts_per_token": fields.need("num_experts_per_tok", int),
        "shared_experts": shared // expert,
        "expert_intermediate": expert,
        "attention_layers": full,
        "has_query_gate": True,
        "state_layers": layers - full,
        # queries, keys, values, their gate and output; two numbers a head; the convolution
        "state_parameters": hidden * (convolved + 2 * values + 2 * value_heads)
        + kernel * convolved,
        "state_bytes_per_layer": _STATE_BYTES_PER_VALUE * values * key_dim
        + _CONVOLVED_BYTES_PER_VALUE * convolved * (kernel - 1),
    }


def _nemotron_h(fields: _Fields) -> _Extras:
    """Each layer is one thing, as its letter says: M Mamba-2, * attention, - an MLP."""
    pattern = fields.need("hybrid_override_pattern", str)
    hidden = fields.need("hidden_size", int)
    heads = fields.need("mamba_num_heads", int)
    inner = heads * fields.need("mamba_head_dim", int)
    state = fields.need("ssm_state_size", int, "mamba_state_dim")
    kernel = fields.need("conv_kernel", int)
    convolved = inner + 2 * fields.need("n_groups", int, "mamba_num_groups") * state
    return {
        "intermediate": fields.need("intermediate_size", int),
        "mlp_matrices": 2,
        "attention_layers": pattern.count("*"),
        "mlp_layers": pattern.count("-"),
        "state_layers": pattern.count("M"),
        "state_parameters": hidden * (inner + convolved + heads)
        + (kernel + 1) * convolved
        + inner * hidden,
        "state_bytes_per_layer": _STATE_BYTES_PER_VALUE * inner * state
        + _CONVOLVED_BYTES_PER_VALUE * convolved * (kernel - 1),
    }


_READERS: dict[str, Callable[[_Fields], _Extras]] = {
    "bloom": _bloom,
    "deepseek_v3": _deepseek,
    "deepseek_v32": _deepseek,
    "gemma3_text": _gemma3,
    "glm4_moe": _glm4_moe,
    "glm_moe_dsa": _deepseek,
    "gpt_oss": _gpt_oss,
    "kimi_k2": _deepseek,
    "kimi_k25": _deepseek,
    "llama": _dense,
    "llama4_text": _llama4,
    "minimax_m2": _mixtral,
    "mistral": _dense,
    "mixtral": _mixtral,
    "nemotron_h": _nemotron_h,
    "qwen2": _dense,
    "qwen3": _dense,
    "qwen3_5_moe_text": _qwen3_next,
    "qwen3_moe": _qwen3_moe,
    "qwen3_next": _qwen3_next,
}
