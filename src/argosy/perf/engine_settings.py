"""How an engine batches: what decides the shape of its steps, whatever it runs on."""

from typing import Literal

import msgspec

EngineName = Literal["vllm", "sglang", "trtllm", "llama.cpp"]


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one replica."""

    name: EngineName = "vllm"
    requests_max: int = 256  # decoded together (vLLM: max_num_seqs)
    prefill_tokens_max: int = 8192  # tokens of one step (vLLM: max_num_batched_tokens)
    memory_share: float = 0.9  # of the chip's memory (vLLM: gpu_memory_utilization)
    block_tokens: int = 16  # KV tokens of a block
    prefix_cache: bool = True
