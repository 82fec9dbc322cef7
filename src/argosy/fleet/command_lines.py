"""What engines with programs of their own are told, vLLM and SGLang, wherever they are started.

Flags are the engines' own (vLLM, "CLI reference: vllm serve"; SGLang, "Server arguments"), read
November 2026 for vLLM 0.28 and SGLang 0.5. What no flag of theirs can say is refused. The program
itself, and where its nodes meet, is its launcher's matter.
"""

import msgspec

from argosy.fleet.config import EngineConfig, Model, SglangEngine, VllmEngine
from argosy.fleet.layout import KvDtype, Layout

# Ranks that one chip counts as in an engine's tensor parallelism, where it is not one.
RANKS_OF_CHIP: dict[str, int] = {
    # Neuron documentation, "Best practices for training": four logical cores a chip (LNC 2)
    "Trainium2": 4,
    # Google Cloud, "TPU7x (Ironwood)": tpu7x-standard-4t is 4 chips and 8 devices
    "TPU-v7": 2,
}
_KV_DTYPE: dict[str, dict[KvDtype, str]] = {
    "vllm": {"fp8": "fp8"},
    "sglang": {"fp8": "fp8_e4m3"},
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Of one replica."""

    model: str  # the name that it answers to
    weights: str  # a path on its nodes, or a name that the engine knows
    layout: Layout
    chip: str | None  # as the catalogue names it
    prefill_tokens_max: int  # of one step
    address: tuple[str, str] | None  # host and port; None: it is not spoken to


def found_at(model: Model) -> str:
    """What an engine is told to load: a path on its nodes, or the name, which it then knows."""
    weights = model.weights or ""
    return weights.removeprefix("file:") if weights.startswith("file:") else model.name


def why_not(engine: EngineConfig, layout: Layout, *, chip: str | None, maker: str | None) -> str:
    """What cannot be said to this engine, and what can; empty where all can be."""
    if maker == "AWS" and chip not in RANKS_OF_CHIP:
        told = f"how many ranks of an engine one {chip} is, is not known here."
        return f"{told} Chips of AWS that it is known of: Trainium2"
    whole = layout.tp * layout.dp
    if isinstance(engine, VllmEngine) and layout.ep not in (1, whole):
        # Whether experts are spread is a switch of vLLM, no number: over all ranks or none.
        told = f"vllm spreads experts over all tp x dp = {whole} chips or none,"
        return f"{told} not over ep = {layout.ep}. Write ep: {whole}, or none"
    return ""


def vllm(engine: VllmEngine, asked: Asked) -> list[str]:
    """After `vllm serve`."""
    layout = asked.layout
    words = [asked.weights, "--served-model-name", asked.model, *_address(asked)]
    words += ["--tensor-parallel-size", str(layout.tp * RANKS_OF_CHIP.get(asked.chip or "", 1))]
    words += ["--pipeline-parallel-size", str(layout.pp)]
    if layout.dp > 1:
        words += ["--data-parallel-size", str(layout.dp)]
    if layout.ep > 1:
        words += ["--enable-expert-parallel"]
    words += _numbers(layout, kind="vllm")
    words += ["--max-model-len", str(engine.context_tokens)]
    words += ["--max-num-seqs", str(engine.requests_max)]
    words += ["--max-num-batched-tokens", str(asked.prefill_tokens_max)]
    words += ["--gpu-memory-utilization", f"{engine.memory_share:g}"]
    words += ["--enable-prefix-caching" if engine.prefix_cache else "--no-enable-prefix-caching"]
    return words


def sglang(engine: SglangEngine, asked: Asked) -> list[str]:
    """After `python3 -m sglang.launch_server`."""
    layout = asked.layout
    words = ["--model-path", asked.weights, "--served-model-name", asked.model, *_address(asked)]
    # Its tensor ranks are cut into dp groups for attention, so they count both.
    ranks = layout.tp * layout.dp * RANKS_OF_CHIP.get(asked.chip or "", 1)
    words += ["--tp-size", str(ranks), "--pp-size", str(layout.pp)]
    if layout.dp > 1:
        words += ["--dp-size", str(layout.dp), "--enable-dp-attention"]
    if layout.ep > 1:
        words += ["--ep-size", str(layout.ep)]
    words += _numbers(layout, kind="sglang")
    words += ["--context-length", str(engine.context_tokens)]
    words += ["--max-running-requests", str(engine.requests_max)]
    words += ["--chunked-prefill-size", str(asked.prefill_tokens_max)]
    words += ["--mem-fraction-static", f"{engine.memory_share:g}"]
    return words if engine.prefix_cache else [*words, "--disable-radix-cache"]


def _address(asked: Asked) -> list[str]:
    if asked.address is None:
        return []
    host, port = asked.address
    return ["--host", host, "--port", port]


def _numbers(layout: Layout, *, kind: str) -> list[str]:
    """In what numbers it computes. Weights below 8 bits say themselves how they are packed."""
    words = ["--dtype", "bfloat16"]
    if layout.dtype == "fp8":
        words += ["--quantization", "fp8"]
    kv_dtype = _KV_DTYPE[kind].get(layout.kv_dtype)
    return words if kv_dtype is None else [*words, "--kv-cache-dtype", kv_dtype]
