"""The adapter of engines that are programs of their own: vLLM, SGLang, TensorRT-LLM.

They speak the OpenAI shape, and their health page is `/health`. In an image of its own it is its
launcher who starts one (`launchers/kubernetes`); elsewhere it is the Python that runs Argosy there.
"""

import sys
from pathlib import Path

import msgspec

from argosy.engines.endpoint import read_openai_refusal
from argosy.engines.port import NODE_PORT, THIS_MACHINE, Abilities, Place
from argosy.fleet import command_lines
from argosy.fleet.config import BatchingEngine, EngineConfig, Model, SglangEngine, VllmEngine
from argosy.fleet.messages import Command, Refusal
from argosy.perf.engine_settings import settings_of

# What their own commands run: vllm's entry point in its pyproject.toml, and SGLang's documentation
_VLLM = ("vllm.entrypoints.cli.main", "serve")
_SGLANG = ("sglang.launch_server",)


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
        self,
        config: EngineConfig,
        *,
        model: Model,
        weights: Path | None,
        threads: int,
        place: Place = THIS_MACHINE,
    ) -> Command | None:
        if place == THIS_MACHINE or not isinstance(config, VllmEngine | SglangEngine):
            return None  # its image's own
        told = command_lines.Asked(
            model=model.name,
            weights=command_lines.found_at(model),
            layout=place.layout,
            chip=place.chip,
            prefill_tokens_max=settings_of(config).prefill_tokens_max,
            address=(place.host, NODE_PORT),
        )
        match config:
            case VllmEngine():
                words = [*_VLLM, *command_lines.vllm(config, told)]
            case SglangEngine():
                words = [*_SGLANG, *command_lines.sglang(config, told)]
        return Command(argv=(sys.executable, "-P", "-m", *words), env={})

    def needs_weights(self) -> bool:
        return False

    def adapt(
        self, fields: dict[str, msgspec.Raw], *, config: EngineConfig, model: str
    ) -> dict[str, msgspec.Raw]:
        return {**fields, "model": msgspec.Raw(msgspec.json.encode(model))}

    def read_refusal(self, status: int, body: bytes) -> Refusal:
        return read_openai_refusal(status, body)
