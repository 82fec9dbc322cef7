"""Which adapter speaks for which engine of a fleet file."""

from argosy.engines.batching import Batching
from argosy.engines.endpoint import Endpoint
from argosy.engines.llama_cpp import LlamaCpp
from argosy.engines.port import Engine
from argosy.engines.simulated import Simulated
from argosy.fleet.config import (
    EndpointEngine,
    EngineConfig,
    LlamaCppEngine,
    SglangEngine,
    SimulatedEngine,
    TrtllmEngine,
    VllmEngine,
)


def adapter(config: EngineConfig) -> Engine:
    """The adapter of that engine."""
    match config:
        case LlamaCppEngine():
            return LlamaCpp()
        case EndpointEngine():
            return Endpoint()
        case SimulatedEngine():
            return Simulated()
        case VllmEngine() | SglangEngine() | TrtllmEngine():
            return Batching(str(config.__struct_config__.tag))
