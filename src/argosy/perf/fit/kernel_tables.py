"""What kernel tables say of chips that no whole deployment was measured on.

For each class of operation the shares of peak that a chip's kernels reach are fitted, and divided
by those of the reference chip, of which whole deployments were measured as well: the factor carries
the general efficiencies over. A class without a table keeps the factor 1.
"""

import csv
import gzip
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from argosy.fleet.architectures import Architecture, architecture
from argosy.fleet.catalogue import Chip, chip

Array = NDArray[np.float64]
REFERENCE = "H100-SXM"
CHIPS = ("A100-80GB", "TPU-v6e")  # measured by kernels alone
# Chips whose arithmetic units are those of a measured one: its factors are theirs too.
_ALIKE = {"A100-80GB": ("A100-40GB",), "B200": ("B300", "GB200", "GB300")}
KERNEL_FILES = (
    "kernels_gemm.csv.gz",
    "kernels_moe.csv.gz",
    "kernels_attention.csv.gz",
    "kernels_all_reduce.csv.gz",
    "layers_llama_3.1_8b.csv.gz",
    "attention_decode_llama_3.1_8b_tpu_v6e.csv.gz",
)
_BOUNDS = (0.2, 5.0)  # of a factor: beyond, the table measures something else


class Shares(NamedTuple):
    """Of one class of operation on one chip."""

    compute: float  # of the peak FLOPs
    memory: float  # of the peak bandwidth
    fixed_s: float
    error_median: float  # |fit/measured - 1|
    rows: int


class Asked(NamedTuple):
    """Operations: what the datasheet says they need at least, and what they took."""

    compute_s: Array
    memory_s: Array
    seconds: Array


def chip_factors(folder: Path) -> dict[str, dict[str, float]]:
    """Factors on the general efficiencies, by chip; `folder` is `measurements/`. 10 s."""
    classes: tuple[tuple[Callable[[Path, str], Asked | None], str | None, str | None], ...] = (
        (_gemms, "linear_compute", "linear_memory"),
        (_layers, "linear_compute", "linear_memory"),
        (_experts, "expert_compute", "expert_memory"),
        (_decode_attention, None, "context_memory"),
        (_prefill_attention, "pair_compute", None),
        (_all_reduces, None, "link"),
    )
    factors: dict[str, dict[str, float]] = {}
    for name in (*CHIPS, "B200"):
        found: dict[str, float] = {}
        for read, compute, memory in classes:
            own, other = read(folder, name), read(folder, REFERENCE)
            if own is None or other is None:
                continue
            mine, reference = fit_shares(own), fit_shares(other)
            if compute is not None:
                found.setdefault(compute, _factor(mine.compute, reference.compute))
            if memory is not None:
                found.setdefault(memory, _factor(mine.memory, reference.memory))
        for alike in (name, *_ALIKE.get(name, ())):
            factors[alike] = found
    return factors


def fit_shares(asked: Asked) -> Shares:
    """The shares under which a roofline fits best, in logarithms."""

    def seconds(point: Array) -> Array:
        compute, memory = asked.compute_s / np.exp(point[0]), asked.memory_s / np.exp(point[1])
        larger, smaller = np.maximum(compute, memory), np.minimum(compute, memory)
        return np.exp(point[2]) + larger * (1.0 + (smaller / larger) ** 4) ** 0.25

    start = np.log([0.6, 0.7, 5e-6])
    fitted = least_squares(
        lambda point: np.log(seconds(point) / asked.seconds), start, loss="soft_l1", f_scale=0.1
    )
    error = np.abs(seconds(fitted.x) / asked.seconds - 1)
    compute, memory, fixed = np.exp(fitted.x)
    return Shares(float(compute), float(memory), float(fixed), float(np.median(error)), len(error))


def _factor(mine: float, reference: float) -> float:
    low, high = _BOUNDS
    return round(min(high, max(low, mine / reference)), 4)


def _read(folder: Path, name: str) -> list[dict[str, str]]:
    text = gzip.decompress((folder / name).read_bytes()).decode()
    return list(csv.DictReader(io.StringIO(text)))


def _columns(rows: Iterable[Mapping[str, str]], *names: str) -> tuple[Array, ...]:
    some = list(rows)
    return tuple(np.array([float(row[name]) for row in some]) for name in names)


def _peaks(name: str) -> tuple[float, float, float]:
    """bf16 FLOPs, bytes of memory, bytes over links in one direction: each per second."""
    found: Chip = chip(name)
    return (
        found.bf16_flops or 1.0,
        found.memory_bytes_per_s or 1.0,
        (found.scale_up_bytes_per_s or 64e9) / 2,
    )


def _gemms(folder: Path, name: str) -> Asked | None:
    rows = [
        row
        for row in _read(folder, "kernels_gemm.csv.gz")
        if row["chip"] == name and row["dtype"] == "bfloat16"
    ]
    if not rows:
        return None
    flops, bandwidth, _ = _peaks(name)
    m, n, k, micro = _columns(rows, "m", "n", "k", "latency_us")
    return Asked(2 * m * n * k / flops, 2 * (n * k + m * k + m * n) / bandwidth, micro * 1e-6)


def _layers(folder: Path, name: str) -> Asked | None:
    """Linear layers of Llama-3.1-8B, by how many tokens go through."""
    rows = [row for row in _read(folder, "layers_llama_3.1_8b.csv.gz") if row["chip"] == name]
    if not rows:
        return None
    sizes = _llama_layers(architecture("Llama-3.1-8B"))
    flops, bandwidth, _ = _peaks(name)
    tokens, micro = _columns(rows, "tokens", "latency_us")
    values = np.array([sizes[row["layer"]] for row in rows])
    return Asked(2 * tokens * values / flops, 2 * values / bandwidth, micro * 1e-6)


def _llama_layers(model: Architecture) -> dict[str, float]:
    hidden, wide = model.hidden, model.intermediate or 0
    width = model.heads * model.head_dim
    return {
        "q_proj": hidden * width,
        "o_proj": hidden * width,
        "gate_proj": hidden * wide,
        "up_proj": hidden * wide,
        "down_proj": hidden * wide,
        "lm_head": hidden * model.vocabulary,
    }


def _experts(folder: Path, name: str) -> Asked | None:
    rows = [
        row
        for row in _read(folder, "kernels_moe.csv.gz")
        if row["chip"] == name and row["dtype"] == "bfloat16"
    ]
    if not rows:
        return None
    flops, bandwidth, _ = _peaks(name)
    tokens, hidden, wide, each, experts, tp, ep, micro = _columns(
        rows,
        "tokens",
        "hidden",
        "intermediate",
        "experts_per_token",
        "experts",
        "moe_tp",
        "moe_ep",
        "latency_us",
    )
    values = 3 * hidden * wide / tp
    touched = experts * (1 - (1 - each / experts) ** tokens) / ep
    return Asked(
        2 * tokens * each * values / ep / flops, 2 * touched * values / bandwidth, micro * 1e-6
    )


def _decode_attention(folder: Path, name: str) -> Asked | None:
    if name == "TPU-v6e":
        rows = _read(folder, "attention_decode_llama_3.1_8b_tpu_v6e.csv.gz")
        tokens, batch, micro = _columns(rows, "context_tokens", "batch", "latency_us")
        kv_width, heads, width = 8.0 * 128, 32.0, 128.0
    else:
        rows = [
            row
            for row in _read(folder, "kernels_attention.csv.gz")
            if (row["chip"], row["phase"], row["dtype"]) == (name, "generation", "bfloat16")
        ]
        if not rows:
            return None
        tokens, batch, heads, kv_heads, width, micro = _columns(
            rows, "tokens", "batch", "heads", "kv_heads", "head_dim", "latency_us"
        )
        kv_width = kv_heads * width
    flops, bandwidth, _ = _peaks(name)
    reads = batch * np.maximum(tokens, 1.0)
    return Asked(
        4 * reads * heads * width / flops, 2 * 2 * reads * kv_width / bandwidth, micro * 1e-6
    )


def _prefill_attention(folder: Path, name: str) -> Asked | None:
    rows = [
        row
        for row in _read(folder, "kernels_attention.csv.gz")
        if (row["chip"], row["phase"], row["dtype"]) == (name, "context", "bfloat16")
    ]
    if not rows:
        return None
    flops, bandwidth, _ = _peaks(name)
    tokens, batch, heads, kv_heads, width, micro = _columns(
        rows, "tokens", "batch", "heads", "kv_heads", "head_dim", "latency_us"
    )
    pairs = batch * tokens * tokens / 2
    moved = 2 * batch * tokens * width * (2 * heads + 2 * kv_heads)
    return Asked(4 * pairs * heads * width / flops, moved / bandwidth, micro * 1e-6)


def _all_reduces(folder: Path, name: str) -> Asked | None:
    """Ring traffic over the links; there is nothing to compute."""
    rows = [
        row
        for row in _read(folder, "kernels_all_reduce.csv.gz")
        if row["chip"] == name and row["implementation"] == "nccl"
    ]
    if not rows:
        return None
    *_, links = _peaks(name)
    chips, values, micro = _columns(rows, "chips", "message_values", "latency_us")
    moved = 2 * (chips - 1) / chips * 2 * values / links
    return Asked(moved * 1e-6, moved, micro * 1e-6)
