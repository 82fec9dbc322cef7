"""A Llama's folder as one GGUF file for llama.cpp, written by its own package `gguf`.

What of the folder goes where; loads no torch. The tokenizer must be byte-level BPE: how its text
is split before merging has to be one of llama.cpp's known ways, since the file only names it.
"""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from argosy.training.export import ExportError, permuted
from argosy.training.torch_island.shape import LlamaShape

# dtype as asked: the file's kind, and a matrix's. Vectors stay fp32: llama.cpp wants them so.
_KINDS = {
    "f32": (gguf.LlamaFileType.ALL_F32, gguf.GGMLQuantizationType.F32),
    "f16": (gguf.LlamaFileType.MOSTLY_F16, gguf.GGMLQuantizationType.F16),
    "bf16": (gguf.LlamaFileType.MOSTLY_BF16, gguf.GGMLQuantizationType.BF16),
}
_LAST = r"|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_GPT2 = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+" + _LAST
# llama.cpp's name of a way to split text, by its whole regular expression: others differ little.
_SPLITS = {
    r"'s|'t|'re|'ve|'m|'ll|'d|" + _GPT2: "gpt-2",
    r"'(?:[sdmt]|ll|ve|re)|" + _GPT2: "gpt-2",
    _WORDS + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+" + _LAST: "llama-bpe",  # Llama 3
    _WORDS + r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+" + _LAST: "qwen2",
}


def write(folder: Path, shape: LlamaShape, file: Path, *, dtype: str) -> None:
    """Writes it. Raises ExportError and OSError."""
    if dtype not in _KINDS:
        raise ExportError(f'dtype = "{dtype}" is not written; these are: {", ".join(_KINDS)}.')
    writer = gguf.GGUFWriter(file, "llama")
    try:
        _add_dimensions(writer, shape, dtype)
        _add_tokenizer(writer, folder, shape)
        _add_weights(writer, folder, shape, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add_dimensions(writer: gguf.GGUFWriter, shape: LlamaShape, dtype: str) -> None:
    writer.add_name("argosy")
    writer.add_file_type(_KINDS[dtype][0])
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.mlp)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, shape: LlamaShape) -> None:
    read = _read_tokenizer(folder)
    tokens = [f"[PAD{number}]" for number in range(shape.vocabulary)]
    types = [gguf.TokenType.UNUSED] * shape.vocabulary
    for token, number in read["model"]["vocab"].items():
        tokens[number], types[number] = token, gguf.TokenType.NORMAL
    for added in read.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        is_special = added.get("special", False)
        types[added["id"]] = gguf.TokenType.CONTROL if is_special else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_of(read))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    gguf.SpecialVocab(folder, load_merges=True, n_vocab=shape.vocabulary).add_to_gguf(writer)


def _read_tokenizer(folder: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads((folder / "tokenizer.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"{folder}/tokenizer.json cannot be read: {error}.") from error
    if read["model"].get("type") != "BPE":
        raise ExportError(
            f"{folder}/tokenizer.json is {read['model'].get('type')}; only byte-level BPE is "
            "written as GGUF here."
        )
    return read


def split_of(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name of how a tokenizer.json splits text. Raises ExportError where none is."""
    stage = tokenizer.get("pre_tokenizer") or {}
    stages = stage.get("pretokenizers", [stage])
    kinds = [one.get("type") for one in stages]
    last = stages[-1]
    if kinds[-1] != "ByteLevel" or last.get("add_prefix_space") or tokenizer.get("normalizer"):
        raise ExportError(
            f"the tokenizer splits text by {kinds}, its normalizer is "
            f"{tokenizer.get('normalizer')}: only byte-level BPE that changes nothing of the text "
            "is written as GGUF here."
        )
    pattern = stages[0].get("pattern", {}).get("Regex", "")
    is_split = last.get("use_regex", True)
    if kinds == ["ByteLevel"] and is_split:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and stages[0].get("individual_digits") and is_split:
        return "smollm"
    isolates = stages[0].get("behavior") == "Isolated" and not stages[0].get("invert")
    if kinds == ["Split", "ByteLevel"] and pattern in _SPLITS and isolates and not is_split:
        return _SPLITS[pattern]
    raise ExportError(
        f"llama.cpp has no name that we know for this way to split text: {kinds} {pattern}. "
        "ByteLevel alone (GPT-2's) works."
    )


def _add_weights(writer: gguf.GGUFWriter, folder: Path, shape: LlamaShape, dtype: str) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, shape.layers)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no mapping)
                if name == "lm_head.weight" and shape.tie_embeddings:
                    continue
                theirs = names.get_name(name, try_suffixes=(".weight",))
                if theirs is None:
                    raise ExportError(f"{file}: {name} is no parameter of a Llama.")
                values = _laid_out(name, weights.get_tensor(name).astype(np.float32), shape)
                _add_tensor(writer, theirs, values, dtype)


def _laid_out(name: str, values: NDArray[np.float32], shape: LlamaShape) -> NDArray[np.float32]:
    if name.endswith("q_proj.weight"):
        return permuted(values, shape.heads)
    if name.endswith("k_proj.weight"):
        return permuted(values, shape.kv_heads)
    return values


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, values: NDArray[np.float32], dtype: str
) -> None:
    kind = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else _KINDS[dtype][1]
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
