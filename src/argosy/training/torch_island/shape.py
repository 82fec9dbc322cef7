"""Dimensions of a Llama-family model and its config.json; loads no torch.

Names of parameters and keys of config.json are those of Hugging Face's `LlamaForCausalLM`, so that
a folder with both is read by transformers, vLLM and llama.cpp's converters as it stands.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from argosy.fleet.runs import NewModel

Keys = dict[str, Any]  # a config.json: written by others, so of any types


class LlamaShape(msgspec.Struct, frozen=True, kw_only=True):
    """What decides every parameter's size, and the arithmetic between them."""

    vocabulary: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    context_tokens: int  # longest input that it is meant for
    rope_theta: float
    norm_epsilon: float
    tie_embeddings: bool


class NotOurs(ValueError):
    """A config.json of another architecture, or of a Llama with parts that ours lacks."""


def new_shape(model: NewModel, *, vocabulary: int, context_tokens: int) -> LlamaShape:
    """The shape of a run's new model. Raises ValueError where its heads do not divide."""
    if model.hidden % model.heads or (model.hidden // model.heads) % 2:
        raise ValueError(
            f"hidden = {model.hidden} over heads = {model.heads}: each head needs a whole, even "
            f"width. Nearest that works: hidden = {model.heads * 2 * _halves(model)}."
        )
    if model.heads % model.kv_heads:
        raise ValueError(
            f"heads = {model.heads} is no multiple of kv_heads = {model.kv_heads}; "
            "kv_heads = heads always works."
        )
    return LlamaShape(
        vocabulary=vocabulary,
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.hidden // model.heads,
        mlp=model.mlp,
        context_tokens=context_tokens,
        rope_theta=model.rope_theta,
        norm_epsilon=model.norm_epsilon,
        tie_embeddings=model.tie_embeddings,
    )


def _halves(model: NewModel) -> int:
    return max(1, round(model.hidden / model.heads / 2))


def sizes_of(shape: LlamaShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each parameter, in the vector's order; a tied head is left out."""
    width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", (shape.vocabulary, shape.hidden)
    for layer in range(shape.layers):
        own = f"model.layers.{layer}"
        yield f"{own}.self_attn.q_proj.weight", (width, shape.hidden)
        yield f"{own}.self_attn.k_proj.weight", (kv_width, shape.hidden)
        yield f"{own}.self_attn.v_proj.weight", (kv_width, shape.hidden)
        yield f"{own}.self_attn.o_proj.weight", (shape.hidden, width)
        yield f"{own}.mlp.gate_proj.weight", (shape.mlp, shape.hidden)
        yield f"{own}.mlp.up_proj.weight", (shape.mlp, shape.hidden)
        yield f"{own}.mlp.down_proj.weight", (shape.hidden, shape.mlp)
        yield f"{own}.input_layernorm.weight", (shape.hidden,)
        yield f"{own}.post_attention_layernorm.weight", (shape.hidden,)
    yield "model.norm.weight", (shape.hidden,)
    if not shape.tie_embeddings:
        yield "lm_head.weight", (shape.vocabulary, shape.hidden)


def to_config(shape: LlamaShape, *, bos: int | None = None, eos: int | None = None) -> Keys:
    """Its config.json; `bos` and `eos` are ids of the tokenizer's, where it has them."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context_tokens,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_theta,  # transformers < 5, vLLM
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},  # 5
        "tie_word_embeddings": shape.tie_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": None,
        "torch_dtype": "float32",
        "dtype": "float32",
        "use_cache": True,
    }


def from_config(config: Keys) -> LlamaShape:
    """The shape that a config.json describes. Raises NotOurs with what ours lacks of it."""
    if config.get("architectures") != ["LlamaForCausalLM"]:
        raise NotOurs(f"architectures = {config.get('architectures')}, not LlamaForCausalLM")
    rope = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or rope
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    lacking = {
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        f"hidden_act = {config.get('hidden_act')}": config.get("hidden_act", "silu") != "silu",
        f"rope_type = {kind}": kind != "default",
        "quantization_config": "quantization_config" in config,
        "partial_rotary_factor": rope.get("partial_rotary_factor", 1.0) != 1.0,
    }
    if any(lacking.values()):
        raise NotOurs(f"a Llama with {', '.join(key for key, is_so in lacking.items() if is_so)}")
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return LlamaShape(
        vocabulary=config["vocab_size"],
        layers=config["num_hidden_layers"],
        hidden=hidden,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        mlp=config["intermediate_size"],
        context_tokens=config.get("max_position_embeddings", 2048),
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))),
        norm_epsilon=config.get("rms_norm_eps", 1e-6),
        tie_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def parameters_of(shape: LlamaShape) -> int:
    """All trained values."""
    total = 0
    for _, size in sizes_of(shape):
        values = 1
        for side in size:
            values *= side
        total += values
    return total


def flops_per_token(shape: LlamaShape, *, context_tokens: int) -> float:
    """Forward and backward of one token in a block of `context_tokens`, recomputation left out.

    6 for each value of a matrix (the head's included, the embedding's look-up not), and 6 x layers
    x width x context for attention: half of the square, since a token sees only those before it.
    PaLM's appendix B counts the whole square; by it the same run shows a higher MFU.
    """
    matrices = parameters_of(shape)
    if not shape.tie_embeddings:
        matrices -= shape.vocabulary * shape.hidden
    return 6.0 * matrices + 6.0 * shape.layers * shape.heads * shape.head_dim * context_tokens
