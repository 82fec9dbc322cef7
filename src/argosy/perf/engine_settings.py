"""How an engine batches: what decides the shape of its steps, whatever it runs on."""

from typing import Literal

import msgspec
from msgspec.structs import replace

from argosy.fleet.config import BatchingEngine

EngineName = Literal["vllm", "sglang", "trtllm", "llama.cpp"]


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one replica."""

    name: EngineName = "vllm"
    requests_max: int = 256  # decoded together (vLLM: max_num_seqs)
    prefill_tokens_max: int = 8192  # tokens of one step (vLLM: max_num_batched_tokens)
    memory_share: float = 0.9  # of the chip's memory (vLLM: gpu_memory_utilization)
    block_tokens: int = 16  # KV tokens of a block
    prefix_cache: bool = True


def settings_of(engine: BatchingEngine) -> EngineSettings:
    """As the fleet file has it; unset, a step has as many tokens as `EngineSettings` says."""
    found = EngineSettings(
        name=str(engine.__struct_config__.tag),  # type: ignore[arg-type]  # a tag is such a name
        requests_max=engine.requests_max,
        memory_share=engine.memory_share,
        prefix_cache=engine.prefix_cache,
    )
    if engine.prefill_tokens_max is None:
        return found
    return replace(found, prefill_tokens_max=engine.prefill_tokens_max)
