"""The adapter of the simulated engine, whose program is `simulated_server.py`."""

import sys
from pathlib import Path

import msgspec

from argosy.engines.endpoint import read_openai_refusal
from argosy.engines.port import THIS_MACHINE, Abilities, Place
from argosy.fleet.config import EngineConfig, Model, SimulatedEngine
from argosy.fleet.messages import Command, Refusal


class SimulatedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The argument of `python -m argosy.engines.simulated_server`, as JSON."""

    model: str  # the name that it answers to
    engine: SimulatedEngine
    host: str = "127.0.0.1"  # that it binds


class Simulated:
    """Real HTTP at given rates, invented words."""

    kind = "simulated"
    health_path = "/health"

    def abilities(self, config: EngineConfig) -> Abilities:
        assert isinstance(config, SimulatedEngine)
        return Abilities(
            forces_tool_choice=True,
            reports_stop_sequence=True,
            continuation="trailing",
            running_counts="timings_per_token",
            counts_every_choice=True,
            counts_tokens_at_messages=False,
            embeddings=True,
            context_tokens=config.context_tokens,
            slots=config.slots,
            keeps_body=True,
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
        assert isinstance(config, SimulatedEngine)
        spec = SimulatedSpec(model=model.name, engine=config, host=place.host)
        module = "argosy.engines.simulated_server"
        argument = msgspec.json.encode(spec).decode()
        return Command(argv=(sys.executable, "-P", "-m", module, argument), env={})

    def needs_weights(self) -> bool:
        return False

    def adapt(
        self, fields: dict[str, msgspec.Raw], *, config: EngineConfig, model: str
    ) -> dict[str, msgspec.Raw]:
        return {**fields, "model": msgspec.Raw(msgspec.json.encode(model))}

    def read_refusal(self, status: int, body: bytes) -> Refusal:
        return read_openai_refusal(status, body)
