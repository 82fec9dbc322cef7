"""What the autoscaling policy is told at one tick, and what it answers. Pure data.

Demand is counted as it arrives: requests and prompt tokens when they come, answers and their tokens
when they end, for nobody knows an answer's length before. Load is demand in replicas: how many of
the model's first deployment it would keep busy, all of the time, within the SLO.
"""

from typing import Literal

import msgspec

DomainKind = Literal["cloud", "maker", "region", "pool"]


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive whole steps of time, the oldest first; all tuples are of one length."""

    step_s: float
    until_s: float  # when the last of them ended
    requests: tuple[int, ...]  # of the enterprise and consumer tiers
    prompt_tokens: tuple[int, ...]
    batch_requests: tuple[int, ...]
    batch_prompt_tokens: tuple[int, ...]
    answered: tuple[int, ...]  # of all tiers
    output_tokens: tuple[int, ...]


class Sustains(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica does within its model's SLO: each, if it did nothing else."""

    prefill_tokens_per_s: float
    decode_tokens_per_s: float


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas of one deployment as they are known to be."""

    name: str
    ready: int
    pending: tuple[float, ...]  # asked for and not ready, since when
    draining: tuple[float, ...]  # they end what they have, since when
    sustains: Sustains
    start_s_p95: float  # measured, of this model on this pool: from asking to ready
    min: int
    max: int
    price_usd_per_hour: float | None = None  # of one replica
    domains: tuple[tuple[DomainKind, str], ...] = ()  # it is lost with these
    in_flight: int = 0  # requests that its replicas have
    waiting: int = 0  # of these, in their engines' queues
    slots: int | None = None  # of one replica; None: it does not say
    kv_used_share: float | None = None  # of the ready ones' KV cache


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What the calendar knows: so many times the usual demand for some time."""

    name: str
    from_s: float
    until_s: float
    times: float


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """One model at one tick. Times are the caller's clock, seconds; midnight UTC is at 86,400 n."""

    model: str
    now_s: float
    age_s: float  # how old what is said here is
    history: Demand  # steps of a minute, days or weeks of them
    recent: Demand  # steps of some seconds, some minutes of them
    queued: int  # requests at the gateway, without a slot
    deployments: tuple[DeploymentView, ...]
    survive: tuple[DomainKind, ...] = ()
    events: tuple[Event, ...] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How careful the rule is."""

    quantile: float = 0.99  # of what may come at the horizon, that is provided for
    utilisation_max: float = 0.95  # of what a replica sustains
    beyond_max: float = 1.1  # of the largest load that was remembered: errors lead no farther
    decision_s: float = 10.0  # between two ticks: it adds to the horizon
    jump_memory_s: float = 1800.0  # for how long the largest jump is remembered
    error_memory_s: float = 2 * 86_400.0  # of the forecast's errors
    burst_s: float = 30.0  # what the panic guard looks at; the horizon, where that is less
    backlog_s: float = 60.0  # in which what waits is to be worked off; the same of it
    soon_s_min: float = 10.0  # neither is less
    down_s_min: float = 120.0  # all that was wanted in so long must be less, before one is removed
    down_s_max: float = 600.0  # as long as a cold start, between these
    panic_hold_s: float = 120.0  # after the last time that too little was ready
    removal_share_max: float = 0.2  # of the ready ones, in an interval; one is always allowed
    removal_interval_s: float = 60.0
    idle_s: float = 900.0  # without a request, before the last replica goes
    pending_starts_max: float = 3.0  # cold starts after which a pending replica has expired
    retry_s: float = 600.0  # until a deployment whose replicas expired is asked again
    output_tokens_assumed: float = 256.0  # of an answer, until one was seen


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas a deployment is to have, ready and pending together."""

    deployment: str
    replicas: int
    reason: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """All targets of a model, and what they were made from. Loads are in replicas."""

    targets: tuple[Target, ...]
    load_now: float = 0.0  # of the last seconds, with what waits
    load_forecast: float = 0.0  # at the horizon, as likely as not
    load_quantile: float = 0.0
    headroom: float = 0.0  # beyond the forecast
    horizon_s: float = 0.0
    is_panic: bool = False
