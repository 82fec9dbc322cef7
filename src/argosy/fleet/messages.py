"""What rooms tell each other: the replica table, usage, load, refusals. Values, never methods.

The gateway routes on the last `ReplicaTable` that the control plane published; the store keeps
`Usage` and `Key`; every API shapes a `Refusal` in its own way.
"""

from typing import Literal

import msgspec

from argosy.fleet.config import EngineConfig, Tier
from argosy.fleet.layout import Layout

ReplicaState = Literal["starting", "ready", "suspect", "unreachable", "stopping", "dead"]
Outcome = Literal["finished", "failed", "refused", "cancelled"]

RefusalKind = Literal[
    "bad_request",  # 400 the request is wrong
    "unsupported",  # 400 the request asks for what is not served
    "context_overflow",  # 400 prompt longer than the model's context
    "no_key",  # 401
    "wrong_key",  # 401
    "unknown_model",  # 404
    "unknown_path",  # 404
    "wrong_method",  # 405
    "slow_request",  # 408 the client took too long to send it
    "too_large",  # 413
    "head_too_large",  # 431
    "upstream_refused",  # 400 the engine cannot do it; its own reason is in the message
    "rate_limited",  # 429
    "internal",  # 500
    "upstream_failed",  # 502 replicas died, none answered
    "no_replica",  # 503 none is ready, or the fleet drains
    "upstream_timeout",  # 504
]


class Message(msgspec.Struct, frozen=True):
    """The base of what crosses a room, a process or a disk."""


class Refusal(Message, frozen=True, kw_only=True):
    """Why a request is not answered, in words for whoever sent it; each API has its own shape."""

    kind: RefusalKind
    message: str
    param: str | None = None  # the field at fault
    code: str | None = None  # the engine's own, where it gave one
    retry_after_s: float | None = None


class Replica(Message, frozen=True, kw_only=True):
    """The smallest thing that answers a request alone, as the control plane sees it."""

    name: str  # e.g. "smollm2-135m-1"
    deployment: str
    model: str
    pool: str
    engine: EngineConfig
    state: ReplicaState
    url: str | None = None  # None until it listens
    pid: int | None = None  # None for an endpoint
    restarts: int = 0
    reason: str = ""  # why it is in that state
    node: str | None = None  # None: its launcher knows no nodes
    share: float = 1.0  # of the requests that a like one takes; less on probation


class Command(Message, frozen=True, kw_only=True):
    """How to start a replica's process.

    The process prints one line of JSON, `{"url": "http://127.0.0.1:PORT"}`, on stdout when it
    listens, logs to stderr, and exits when its stdin ends: a parent that dies takes it along.
    """

    argv: tuple[str, ...]
    env: dict[str, str]  # on top of the parent's


class ReplicaSpec(Message, frozen=True, kw_only=True):
    """One replica as it is to be started, wherever that is."""

    fleet: str
    name: str  # unique in the fleet, e.g. "smollm2-135m-1"
    deployment: str
    model: str
    pool: str
    engine: EngineConfig
    layout: Layout = Layout()
    chips: int = 0  # of the pool's kind that it takes; 0: it runs on the processor
    command: Command | None  # None: its launcher knows, or nothing is to be started
    url: str | None = None  # where it is, of one that is not started
    health_path: str
    generation: str  # a hash of all the rest but the name: two of one generation are alike


class ObservedReplica(Message, frozen=True, kw_only=True):
    """A replica as its launcher finds it, whoever asked for it."""

    name: str
    generation: str
    state: Literal[
        "starting", "listening", "ended", "unreachable"
    ]  # the last: its node is not seen
    url: str | None = None  # once it listens
    node: str | None = None
    pid: int | None = None
    detail: str = ""  # how it ended; what it waits for


class ObservedNode(Message, frozen=True, kw_only=True):
    """A machine of a pool."""

    name: str
    state: Literal["up", "draining", "lost"]
    chips: int = 0
    chips_free: int | None = None  # None: not known


class Observation(Message, frozen=True, kw_only=True):
    """All that there is of a fleet on one pool. What ended stays in it until it is stopped."""

    replicas: tuple[ObservedReplica, ...]
    nodes: tuple[ObservedNode, ...] = ()  # empty: the launcher knows no nodes
    wanted: tuple[int, ...] = ()  # a guest is told: chips of each replica that finds no room


class ReplicaTable(Message, frozen=True, kw_only=True):
    """All replicas at one moment; `version` grows with each change."""

    version: int
    replicas: tuple[Replica, ...]


class Key(Message, frozen=True, kw_only=True):
    """An API key as the store knows it: never the secret, only its SHA-256."""

    id: str
    sha256: str
    tenant: str
    tier: Tier
    name: str
    created_at_s: float  # Unix time
    revoked_at_s: float | None = None


class LiveKeys(Message, frozen=True, kw_only=True):
    """All keys that may be used, at one moment; `revision` grows with each change."""

    revision: int
    keys: tuple[Key, ...]


class Usage(Message, frozen=True, kw_only=True):
    """What one request cost: exactly one per finished, failed, refused or cancelled request."""

    request: str  # its id, e.g. "req_…"
    at_s: float  # Unix time of receipt
    tenant: str | None  # None: no valid key
    key: str | None
    tier: Tier | None
    surface: str  # the API that was spoken, e.g. "chat", "messages"
    model: str | None = None
    replica: str | None = None  # the last that was tried
    outcome: Outcome
    status: int  # HTTP status sent, 0 when the client left before one
    reason: str  # "" when finished
    attempts: int = 0
    tokens_in: int = 0  # of a stream that was cut: as far as the engine had said
    tokens_cached: int = 0
    tokens_out: int = 0
    ttft_s: float | None = None  # None: not streamed, or no token came
    duration_s: float


class ReplicaLoad(Message, frozen=True, kw_only=True):
    """What the gateway sees of one replica, now and over the last minute."""

    replica: str
    requests_in_flight: int
    requests_finished: int
    tokens_out_per_s: float
    ttft_s_p50: float | None
    ttft_s_p95: float | None


class ReplicaStatus(Message, frozen=True, kw_only=True):
    """A row of `argosy status`: the control plane's view beside the gateway's."""

    replica: Replica
    load: ReplicaLoad


class GatewayProcess(Message, frozen=True, kw_only=True):
    """One process of the gateway, as `argosy status` shows it."""

    pid: int
    # draining: it ends its streams after a reload; silent: it did not answer in time
    state: Literal["serving", "draining", "silent"]
    requests_in_flight: int = 0
    connections: int = 0


class QuotaStatus(Message, frozen=True, kw_only=True):
    """The room left of an endpoint pool's quota."""

    pool: str
    requests_per_min: int | None
    requests_left: int | None  # that may be sent at once; None: no limit
    tokens_per_min: int | None
    tokens_left: int | None  # below 0: the last request was larger than all that may come at once
    closed_s: float | None = None  # so long it takes nothing, as it said itself


class FleetStatus(Message, frozen=True, kw_only=True):
    """What `argosy status --json` prints: all gateway processes together."""

    fleet: str
    gateway_url: str
    uptime_s: float
    requests_in_flight: int
    requests_waiting: int
    connections: int
    usage_records_unwritten: int
    replicas: tuple[ReplicaStatus, ...]
    processes: tuple[GatewayProcess, ...] = ()
    quotas: tuple[QuotaStatus, ...] = ()  # of this gateway host


class RunFile(Message, frozen=True, kw_only=True):
    """`run.json` in the state folder: how `argosy status` and `chat` find a running fleet."""

    pid: int
    started_at_s: float  # the process's creation time: tells it from a stranger with its pid
    gateway_url: str
    operator_token: str  # opens /argosy/status; lives as long as the run
    tls_cert: str | None = None  # the file of its certificate; None: it speaks no TLS
