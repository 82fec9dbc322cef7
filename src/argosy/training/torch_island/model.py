"""A decoder-only transformer of the Llama family, and any causal model of `transformers`.

Plain PyTorch: no kernel of one maker. Weights are fp32 (the optimizer's own copy); autocast
decides what matrix products are computed in. Parameters have the names of Hugging Face's
`LlamaForCausalLM`; a tied head has none. Shapes:

    B blocks   T tokens   V vocabulary   C hidden   H heads   K kv heads   D head width   M mlp
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from argosy.training.export import write_folder
from argosy.training.torch_island.shape import LlamaShape, NotOurs, from_config

INITIAL_STD = 0.02  # GPT-2's, and Llama's initializer_range


class ModelError(Exception):
    """A folder holds no causal model that can be trained; the message says what it lacks."""


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.is_grouped = shape.heads != shape.kv_heads
        self.q_proj = nn.Linear(shape.hidden, width, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv_width, bias=False)
        self.o_proj = nn.Linear(width, shape.hidden, bias=False)

    def forward(self, x_BTC: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        B, T, _ = x_BTC.shape
        q_BHTD = self.q_proj(x_BTC).view(B, T, -1, self.head_dim).transpose(1, 2)
        k_BKTD = self.k_proj(x_BTC).view(B, T, -1, self.head_dim).transpose(1, 2)
        v_BKTD = self.v_proj(x_BTC).view(B, T, -1, self.head_dim).transpose(1, 2)
        y_BHTD = functional.scaled_dot_product_attention(
            _rotated(q_BHTD, *turns),
            _rotated(k_BKTD, *turns),
            v_BKTD,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self.is_grouped,
        )
        return self.o_proj(y_BHTD.transpose(1, 2).reshape(B, T, -1))


def _rotated(x_BHTD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Pairs are value i and i + D/2, as Hugging Face's weights are laid out."""
    one, two = x_BHTD.chunk(2, dim=-1)
    turned = torch.cat((-two, one), dim=-1)
    # cos and sin are fp32, so the product is: bf16 angles err by 0.4 % at any position.
    return (x_BHTD * cos_TD + turned * sin_TD).to(x_BHTD.dtype)


class GatedMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.down_proj = nn.Linear(shape.mlp, shape.hidden, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x_BTC)) * self.up_proj(x_BTC))


class Layer(nn.Module):
    """Attention, then the MLP, each normalized before and added."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = GatedMlp(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)

    def forward(self, x_BTC: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        x_BTC = x_BTC + self.self_attn(self.input_layernorm(x_BTC), turns, mask)
        return x_BTC + self.mlp(self.post_attention_layernorm(x_BTC))


class Body(nn.Module):
    """All but the head."""

    cos_TD: Tensor
    sin_TD: Tensor

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        cos_TD, sin_TD = _turns(shape)
        self.register_buffer("cos_TD", cos_TD, persistent=False)
        self.register_buffer("sin_TD", sin_TD, persistent=False)

    def forward(self, ids_BT: Tensor, mask: Tensor | None) -> Tensor:
        T = ids_BT.shape[1]
        turns = self.cos_TD[:T], self.sin_TD[:T]
        x_BTC = self.embed_tokens(ids_BT)
        for layer in self.layers:
            x_BTC = layer(x_BTC, turns, mask)
        return self.norm(x_BTC)


def _turns(shape: LlamaShape) -> tuple[Tensor, Tensor]:
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angles = torch.outer(
        torch.arange(shape.context_tokens, dtype=torch.float32), 1.0 / shape.rope_theta**exponents
    )
    both_TD = torch.cat((angles, angles), dim=-1)
    return both_TD.cos(), both_TD.sin()


class Llama(nn.Module):
    """Token ids to logits. `separator`: attention does not pass this id, the last of a document."""

    def __init__(self, shape: LlamaShape, *, separator: int | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.separator = separator
        self.model = Body(shape)
        if not shape.tie_embeddings:
            self.lm_head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        mask = None if self.separator is None else document_mask(input_ids, self.separator)
        x_BTC = self.model(input_ids, mask)
        if self.shape.tie_embeddings:
            return functional.linear(x_BTC, self.model.embed_tokens.weight)
        return self.lm_head(x_BTC)


def document_mask(ids_BT: Tensor, separator: int) -> Tensor:
    """[B, 1, T, T], true where a token may look: not ahead, and not past a separator."""
    ends_BT = (ids_BT == separator).cumsum(dim=1)
    document_BT = functional.pad(ends_BT[:, :-1], (1, 0))  # the separator is its document's last
    same_BTT = document_BT[:, :, None] == document_BT[:, None, :]
    return same_BTT.tril()[:, None]


def new_llama(shape: LlamaShape, *, seed: int, separator: int | None = None) -> Llama:
    """With random weights: the same from the same seed on any machine, drawn on the CPU.

    Normal with a deviation of 0.02; what is added to the residual stream less by the root of how
    often that happens (GPT-2), so that depth does not decide its size.
    """
    with torch.device("cpu"):
        model = Llama(shape, separator=separator)
    generator = torch.Generator().manual_seed(seed)
    deep = INITIAL_STD / math.sqrt(2 * shape.layers)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
            continue
        std = deep if name.endswith(("o_proj.weight", "down_proj.weight")) else INITIAL_STD
        nn.init.normal_(parameter, std=std, generator=generator)
    return model


def load_pretrained(path: str | Path, *, separator: int | None = None) -> nn.Module:
    """The causal model in a folder, fp32: ours where it is a plain Llama, else transformers'.

    Raises ModelError where there is none, or where `separator` is given and attention is
    transformers' own.
    """
    folder = Path(path)
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder}/config.json cannot be read: {error}. Give a folder in Hugging Face's "
            "format: config.json and *.safetensors."
        ) from error
    try:
        shape = from_config(config)
    except NotOurs as why:
        return _from_transformers(folder, why=str(why), separator=separator)
    return _our_llama(folder, shape, separator=separator)


def _our_llama(folder: Path, shape: LlamaShape, *, separator: int | None) -> Llama:
    with torch.device("cpu"):
        model = Llama(shape, separator=separator)
    found = _weights(folder)
    if shape.tie_embeddings:
        found.pop("lm_head.weight", None)  # some folders hold it twice
    wanted = {name: tuple(one.shape) for name, one in model.named_parameters()}
    unlike = [name for name in wanted if name not in found or found[name].shape != wanted[name]]
    unlike += sorted(found.keys() - wanted.keys())
    if unlike:
        raise ModelError(
            f"{folder}: {len(unlike)} parameters are missing, of another shape or unknown, the "
            f"first is {unlike[0]}. Its config.json and its *.safetensors do not belong together."
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(found[name])
    return model


def _weights(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(
            f"{folder} has no *.safetensors. Weights in other formats are not read: pickled ones "
            "run code when they are loaded."
        )
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            found |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged: {error}. Fetch it again.") from error
    return found


def _from_transformers(folder: Path, *, why: str, separator: int | None) -> nn.Module:
    if separator is not None:
        raise ModelError(
            f"{folder}: attention cannot stop at documents here ({why}); only our own Llama can. "
            "Leave the separator out."
        )
    try:
        from transformers import AutoModelForCausalLM  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ModelError(
            f"{folder} is {why}: the package transformers can load it. "
            "Install it: pip install transformers"
        ) from error
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=torch.float32,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
    )
    return model.train()


def logits_of(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """[B, T, V] of either kind of model."""
    shape = getattr(model, "shape", None)
    if isinstance(shape, LlamaShape):  # also when FSDP or torch.compile changed its class
        return model(ids_BT)
    return model(input_ids=ids_BT, use_cache=False).logits


def save_pretrained(model: Llama, path: str | Path, *, tokenizer: str | Path | None = None) -> None:
    """Writes config.json and model.safetensors [and the tokenizer's files] to a new folder."""
    values: Mapping[str, np.ndarray] = {
        name: one.detach().cpu().numpy() for name, one in model.named_parameters()
    }
    write_folder(model.shape, values, Path(path), tokenizer=tokenizer)
