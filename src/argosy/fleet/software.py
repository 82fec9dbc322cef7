"""Which engine runs on whose chips, and which chips cannot train: the one table of both.

A chip without an engine serves nothing, however good it is on paper. Sources, read 2026-11: vLLM,
installation (NVIDIA CUDA, AMD ROCm in vLLM itself; Google TPU by the plugin tpu-inference, AWS
Neuron by vllm-neuron, Intel Gaudi by vllm-gaudi); SGLang, hardware platforms (NVIDIA, AMD; its TPU
backend is another engine, SGLang-JAX, that was never measured here); TensorRT-LLM, support matrix
(NVIDIA alone).
"""

from typing import Literal

from argosy.fleet.catalogue import Chip

EngineKind = Literal["vllm", "sglang", "trtllm"]
ENGINES_OF_MAKER: dict[str, tuple[EngineKind, ...]] = {
    "NVIDIA": ("vllm", "sglang", "trtllm"),
    "AMD": ("vllm", "sglang"),
    "Google": ("vllm",),
    "AWS": ("vllm",),
    "Intel": ("vllm",),
    # Sold as an endpoint: which engine is inside is not published, so it is planned as vLLM would
    # do on its data sheet, and says that nobody measured it.
    "Microsoft": ("vllm",),
}
# Sold for inference alone; no training software exists for them.
CHIPS_WITHOUT_TRAINING: dict[str, str] = {
    "Maia-200": "Microsoft's announcement of 2026-01-26 calls it an inference accelerator",
    "Inferentia2": "the AWS Neuron documentation has Inferentia serve, Trainium train",
}


def engines_of(chip: Chip) -> tuple[EngineKind, ...]:
    """Engines that run on it, the most usual first; () where none does."""
    return ENGINES_OF_MAKER.get(chip.maker, ())


def why_no_training(chip: Chip) -> str | None:
    """Why it cannot train; None where it can."""
    if chip.name in CHIPS_WITHOUT_TRAINING:
        return CHIPS_WITHOUT_TRAINING[chip.name]
    if chip.maker not in ENGINES_OF_MAKER or chip.bf16_flops is None:
        return "the catalogue has no bf16 peak of it"
    return None
