"""The recorded runs of real vLLM: what was asked, when, and when each token came.

Their source's request times are on two clocks: `arrival_time` on the calendar's, all others on the
engine's. The clocks are joined where the engine took a request soonest after it arrived, so each
arrival here is too late by that soonest hand-over (a millisecond or two).
"""

import csv
import gzip
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.fleet.architectures import Architecture, architecture
from argosy.fleet.catalogue import Chip, chip
from argosy.fleet.layout import Layout
from argosy.perf.engine_settings import EngineSettings

MEASUREMENTS = Path(__file__).parents[2] / "measurements"
_COLUMNS = (
    "input_toks",
    "output_toks",
    "arrival_time",
    "queued_ts",
    "first_token_ts",
    "last_token_ts",
)
FIRST = 100  # requests that a fit may see; the others judge it
Floats = NDArray[np.float64]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What ran, as far as its files do not say it."""

    name: str  # of its files
    chip: Chip
    model: Architecture


class Times(NamedTuple):
    """Of each request, in order of arrival."""

    ttft_s: Floats
    tpot_s: Floats  # mean time between its tokens, the first left out


class Recorded(NamedTuple):
    """One run."""

    run: Run
    layout: Layout
    settings: EngineSettings
    kv_tokens: int | None  # capacity, where the engine's was written down
    at_s: Floats  # arrivals, the first at 0: sent by the clock, whatever was answered before
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    measured: Times


class _EngineKwargs(msgspec.Struct, frozen=True, kw_only=True):
    tensor_parallel_size: int
    max_num_seqs: int
    max_num_batched_tokens: int


class _KvCache(msgspec.Struct, frozen=True, kw_only=True):
    block_size: int
    gpu_memory_utilization: float
    enable_prefix_caching: bool
    num_kv_tokens: int


class _Meta(msgspec.Struct, frozen=True, kw_only=True):
    engine_kwargs: _EngineKwargs
    kv_cache: _KvCache | None = None


# Not in the catalogue: no cloud there rents it out. Dense peaks, 16-bit products summed in 32 bits,
# at 2520 MHz, and bandwidth: waredb.com/processor/nvidia-geforce-rtx-4090; memory: the run's own
# meta.json; power: NVIDIA's board rating.
RTX_4090 = Chip(
    name="RTX-4090",
    maker="NVIDIA",
    title="GeForce RTX 4090",
    kind="gpu",
    bf16_flops=165.15e12,
    fp8_flops=330.3e12,
    memory_bytes=25_250_627_584.0,
    memory_bytes_per_s=1.008e12,
    power_w_max=450.0,
    collected=date(2026, 11, 21),
)


def runs() -> tuple[Run, ...]:
    """All that there are."""
    pro, llama = chip("RTX-PRO-6000"), architecture("Llama-3.1-8B")
    return (
        Run(name="RTXPRO6000_Llama-3.1-8B", chip=pro, model=llama),
        Run(name="RTXPRO6000_Qwen3-32B", chip=pro, model=architecture("Qwen3-32B")),
        Run(name="RTX4090_Llama-3.1-8B", chip=RTX_4090, model=llama),
    )


def read(run: Run) -> Recorded:
    """Its files. A column that is missing or no number raises."""
    stem = f"vllm_replay_{run.name}"
    raw = (MEASUREMENTS / f"{stem}.meta.json").read_bytes()
    meta = msgspec.json.decode(raw, type=_Meta)
    with gzip.open(MEASUREMENTS / f"{stem}.requests.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    column = {name: np.array([float(row[name]) for row in rows]) for name in _COLUMNS}
    arrival = column["arrival_time"]
    at_s = arrival + np.min(column["queued_ts"] - arrival)
    first_s, last_s = column["first_token_ts"], column["last_token_ts"]
    return Recorded(
        run=run,
        layout=Layout(tp=meta.engine_kwargs.tensor_parallel_size),
        settings=_settings(meta),
        kv_tokens=meta.kv_cache.num_kv_tokens if meta.kv_cache else None,
        at_s=at_s - at_s[0],
        prompt_tokens=column["input_toks"].astype(np.int32),
        output_tokens=column["output_toks"].astype(np.int32),
        measured=Times(
            ttft_s=first_s - at_s, tpot_s=(last_s - first_s) / (column["output_toks"] - 1)
        ),
    )


def _settings(meta: _Meta) -> EngineSettings:
    """Two runs did not write their cache's settings down: vLLM 0.19's defaults, as the third's."""
    asked, cache = meta.engine_kwargs, meta.kv_cache
    return EngineSettings(
        name="vllm",
        requests_max=asked.max_num_seqs,
        prefill_tokens_max=asked.max_num_batched_tokens,
        memory_share=cache.gpu_memory_utilization if cache else 0.9,
        block_tokens=cache.block_size if cache else 16,
        prefix_cache=cache.enable_prefix_caching if cache else True,
    )
