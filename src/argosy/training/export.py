"""A finished run as a model that engines serve: a Hugging Face folder, and of that a GGUF file.

The folder (config.json, model.safetensors, tokenizer) is what vLLM and transformers load as it
stands; llama.cpp reads the GGUF. Loads no torch: a run's end is a vector of numpy's. The GGUF is
written by `gguf` (MIT), llama.cpp's own package; its converter script is not published as a
package, and of it only the reordering of rotary pairs is needed for a Llama.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from argosy.training.inner import Tensor, Vector
from argosy.training.torch_island.shape import Keys, LlamaShape, NotOurs, from_config, to_config
from argosy.training.torch_island.tensor_files import Values, write_tensors

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class ExportError(Exception):
    """A run cannot be written as a model, or a model not as GGUF; the message says why."""


def export_vector(
    vector: Vector,
    tensors: Sequence[Tensor],
    path: Path,
    *,
    source: LlamaShape | Path,
    tokenizer: Path | None,
) -> None:
    """Writes a run's parameters to the new folder `path`.

    `source` is the shape of a new model, or the folder that a pretrained one came from: its
    config.json is taken over, and its tokenizer where `tokenizer` is None. `tokenizer` is a
    tokenizer.json or a folder with one. Raises ExportError.
    """
    values: dict[str, Values] = {}
    start = 0
    for tensor in tensors:
        size = int(np.prod(tensor.shape))
        values[tensor.name] = vector[start : start + size].reshape(tensor.shape)
        start += size
    if start != vector.size:
        raise ExportError(
            f"the vector has {vector.size} values and its tensors {start}: they are of two models."
        )
    write_folder(source, values, path, tokenizer=tokenizer)


def write_folder(
    source: LlamaShape | Path,
    values: Mapping[str, Values],
    path: Path,
    *,
    tokenizer: str | Path | None = None,
) -> None:
    """Writes a model's folder, whole or not at all. Raises ExportError."""
    if path.exists():
        raise ExportError(f"{path} exists. Give a folder that does not, or take it away.")
    if tokenizer is None and isinstance(source, Path):
        tokenizer = source
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        temporary.chmod(0o755)
        special = {} if tokenizer is None else _copy_tokenizer(Path(tokenizer), temporary)
        config = _config_of(source, special)
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        write_tensors(temporary / "model.safetensors", values, metadata={"format": "pt"})
        temporary.rename(path)
    except OSError as error:
        needed_mb = sum(4 * one.size for one in values.values()) / 1e6
        raise ExportError(
            f"{path} could not be written: {error}. Nothing was left there; free some space "
            f"({needed_mb:.0f} MB are needed) and try again."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _config_of(source: LlamaShape | Path, special: Mapping[str, int]) -> Keys:
    if isinstance(source, LlamaShape):
        return to_config(source, bos=special.get("bos"), eos=special.get("eos"))
    config: Keys = json.loads((source / "config.json").read_bytes())
    return config | {"torch_dtype": "float32", "dtype": "float32"}


def _copy_tokenizer(source: Path, folder: Path) -> dict[str, int]:
    """Copies its files, writes the missing ones; the ids of "bos" and "eos" where it has them."""
    if source.is_dir():
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    else:
        shutil.copyfile(source, folder / "tokenizer.json")
    if not (folder / "tokenizer.json").is_file():
        raise ExportError(f"{source} has no tokenizer.json. Without one no text can be served.")
    if not (folder / "tokenizer_config.json").is_file():
        _write_tokenizer_config(folder)
    return _special_ids(folder)


_END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "<|im_end|>")
_BEGIN_NAMES = ("<|begin_of_text|>", "<s>", "<bos>")


def _write_tokenizer_config(folder: Path) -> None:
    known = _added_tokens(folder)
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
    }
    for key, names in (("eos_token", _END_NAMES), ("bos_token", _BEGIN_NAMES)):
        found = next((name for name in names if name in known), None)
        if found is not None:
            config[key] = found
    if "bos_token" not in config and "eos_token" in config:
        config["bos_token"] = config["eos_token"]  # as GPT-2's: llama.cpp wants one to exist
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _added_tokens(folder: Path) -> dict[str, int]:
    read = json.loads((folder / "tokenizer.json").read_bytes())
    return {one["content"]: one["id"] for one in read.get("added_tokens", [])}


def _special_ids(folder: Path) -> dict[str, int]:
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    known = _added_tokens(folder)
    found: dict[str, int] = {}
    for short in ("bos", "eos"):
        token = config.get(f"{short}_token")
        name = token.get("content") if isinstance(token, dict) else token
        if name in known:
            found[short] = known[name]
    return found


def write_gguf(folder: Path, file: Path, *, dtype: str = "f32") -> None:
    """Of a Llama's folder, a GGUF file in "f32", "f16" or "bf16", whole or not at all.

    Raises ExportError where it is no plain Llama, has no byte-level BPE tokenizer, or the disk is
    full.
    """
    from argosy.training.torch_island.gguf_file import write

    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    try:
        shape = from_config(config)
    except NotOurs as why:
        raise ExportError(
            f"{folder} is {why}. Only plain Llamas are written as GGUF here; llama.cpp's "
            "convert_hf_to_gguf.py knows more."
        ) from why
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(folder, shape, temporary, dtype=dtype)
        temporary.replace(file)
    except OSError as error:
        raise ExportError(
            f"{file} could not be written: {error}. Nothing was left there."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def permuted(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of a query's or key's projection in llama.cpp's order: pairs are rows 2i and 2i + 1.

    Hugging Face's are i and i + D/2 of each head.
    """
    rows, columns = weight.shape
    split = weight.reshape(heads, 2, rows // heads // 2, columns)
    return split.swapaxes(1, 2).reshape(rows, columns)
