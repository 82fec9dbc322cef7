"""The adapter of engines that run in images of their own: vLLM, SGLang, TensorRT-LLM.

They speak the OpenAI shape, and their health page is `/health`. How one is started is its
launcher's business, which knows the image, the chip and the layout (`launchers/kubernetes`).
"""

from pathlib import Path

import msgspec

from argosy.engines.endpoint import read_openai_refusal
from argosy.engines.port import Abilities
from argosy.fleet.config import BatchingEngine, EngineConfig, Model
from argosy.fleet.messages import Command, Refusal


class Batching:
    """One of them."""

    health_path = "/health"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def abilities(self, config: EngineConfig) -> Abilities:
        assert isinstance(config, BatchingEngine)
        is_vllm = self.kind == "vllm"
        return Abilities(
            forces_tool_choice=True,
            reports_stop_sequence=self.kind in ("vllm", "sglang"),
            continuation="flags" if is_vllm else None,
            running_counts=None,
            counts_every_choice=True,
            counts_tokens_at_messages=False,
            embeddings=False,
            context_tokens=config.context_tokens,
            slots=config.requests_max,
        )

    def command(
        self, config: EngineConfig, *, model: Model, weights: Path | None, threads: int
    ) -> Command | None:
        return None  # its image's own

    def needs_weights(self) -> bool:
        return False

    def adapt(
        self, fields: dict[str, msgspec.Raw], *, config: EngineConfig, model: str
    ) -> dict[str, msgspec.Raw]:
        return {**fields, "model": msgspec.Raw(msgspec.json.encode(model))}

    def read_refusal(self, status: int, body: bytes) -> Refusal:
        return read_openai_refusal(status, body)
