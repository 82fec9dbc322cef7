"""What a simulated gateway knows: rows of arrays, made once, changed in place by compiled code.

Everything has a number: models, pools (of one model each), tenants and replicas, these two in the
order of their live names, the replicas of a model one after the other; and requests, which are
places in a table of the caller's, free to be used again when a request has ended.

A model's views stand in its own stretch of `views`: first the ready replicas, then the suspect
ones, then those that do not listen, each by name. So the candidates of most decisions are a slice.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from argosy.fleet.config import Fleet, QueueTimeouts
from argosy.fleet.share import share_of, slots_of
from argosy.policies.admission.work import TIERS, AdmissionSettings, settings_of
from argosy.policies.rates import DEFAULT, Learned, Sums
from argosy.policies.routing import PolicyName, Tuning
from argosy.policies.routing.sessions import number_of
from argosy.simulator.compiled import Numbers, Rows
from argosy.simulator.gateway.heap import NOBODY
from argosy.simulator.gateway.prefixes import ENTRIES_MAX, Prefixes, prefixes_of
from argosy.simulator.gateway.queue import UNKNOWN
from argosy.simulator.gateway.queue_rows import Queues, queues_of
from argosy.simulator.handle import Handle, field, part

GONE, SUSPECT, READY = 0, 1, 2  # a replica's standing
TRIED_MAX = 4  # replicas that a request remembers to have failed it
NO_SESSION = -1
POLICY_CODES: dict[PolicyName, int] = {
    "predicted": 0,
    "least_loaded": 1,
    "power_of_two": 2,
    "round_robin": 3,
}
CACHE_BYTES = 16 * 2**20  # of a replica that does not say how much it holds, as live

RULES = np.dtype(
    [
        ("policy", "i8"),
        ("affinity_load_max", "f8"),  # these three are what the policies read of `Tuning`
        ("slow_start_s", "f8"),
        ("price_weight_s_per_usd", "f8"),
        ("queue_timeout_s", "f8", (3,)),  # by rank
        ("replica_wait_s", "f8"),
        ("waiting_max", "i8"),  # requests that have a slot and no replica
        ("process", "i8"),
        ("processes", "i8"),
        ("is_stale", "?"),
        ("chance", "u8"),  # the state of the generator that `power_of_two` draws from
        ("stranded", "i8"),
        ("first_stranded", "i8"),
        ("last_stranded", "i8"),
    ]
)
MODEL = np.dtype(
    [
        ("first", "i8"),  # row in `views`
        ("replicas", "i8"),
        ("ready", "i8"),
        ("listening", "i8"),  # ready or suspect
        ("slots", "i8"),  # of this gateway; UNKNOWN
        ("slots_wanted", "i8"),  # while nobody listens
        ("turn", "i8"),
        ("tells_cached", "?"),
    ]
)
VIEW = np.dtype(  # a `ReplicaView`; what policies read
    [
        ("replica", "i8"),
        ("requests_in_flight", "i8"),
        ("slots", "i8"),  # 0: unknown
        ("ready_since_s", "f8"),  # -inf: long ago
        ("prefill_bytes_queued", "i8"),
        ("prefill_s_per_byte", "f8"),
        ("base_s", "f8"),
        ("service_s", "f8"),
        ("price_usd_per_hour", "f8"),
        ("price_usd_per_mtok", "f8"),
    ]
)
REPLICA = np.dtype(
    [
        ("model", "i8"),
        ("pool", "i8"),
        ("row", "i8"),  # in `views`
        ("standing", "i8"),
        ("slots", "i8"),  # of its engine, for all gateways; 0: unknown
        ("name", "i8"),  # a hash of its name
        ("learn_from_s", "f8"),
        ("held_share", "f8"),
        ("tells_cached", "?"),
        ("is_member", "?"),  # of its pool: it has joined once
        ("fresh_at", "i8"),  # its pool's count at its last observation
        ("requests_in_flight", "i8"),  # as it is, where the views are stale
        ("prefill_bytes_queued", "i8"),
    ]
)
SUMS = np.dtype([(field, "f8") for field in Sums.__struct_fields__])
LEARNED = np.dtype([(field, "f8") for field in Learned.__struct_fields__])
POOL = np.dtype([("count", "i8"), ("members", "i8"), ("first", "i8")])
PLACED = np.dtype(  # a request: its shape, and where it was sent
    [
        ("replica", "i8"),  # NOBODY: nowhere
        ("prompt_bytes", "i8"),
        ("session", "i8"),
        ("home", "i8"),
        ("turn", "i8"),
        ("now_s", "f8"),  # when it was sent
        ("to_read_bytes", "i8"),
        ("ahead_bytes", "i8"),
        ("indexed_bytes", "i8"),
        ("believed_bytes", "i8"),
        ("turns_waited", "f8"),
        ("ttft_s", "f8"),
        ("has_first", "?"),
        ("has_read", "?"),  # its blocks are in the index
        ("has_ticket", "?"),
        ("is_stranded", "?"),
        ("blocks_begin", "i8"),
        ("blocks_end", "i8"),
        ("deadline_s", "f8"),  # while it is stranded
        ("before", "i8"),
        ("after", "i8"),
        ("tried", "i8"),
        ("tried_replicas", "i8", (TRIED_MAX,)),
    ]
)
EVENT = np.dtype([("kind", "i8"), ("request", "i8"), ("replica", "i8"), ("retry_after_s", "f8")])


class Scratch(Handle):
    """Of one decision; by place, but for the first two."""

    holders: Numbers = field(np.int64)  # replicas that hold a part of the prompt
    indexed: Numbers = field(np.int64)  # bytes
    places: Numbers = field(np.int64)
    spared: Numbers = field(np.int64)
    totals: Numbers = field(np.float64)
    loads: Numbers = field(np.float64)
    able: Rows = field(VIEW)  # copies, where the candidates are not a slice
    place_of: Numbers = field(np.int64)  # by replica
    requests: Numbers = field(np.int64)  # that expired


class Gateway(Handle):
    """One gateway process. `replace(blocks=...)` when another part of a trace begins."""

    rules: Rows = field(RULES)  # [0]
    models: Rows = field(MODEL)
    views: Rows = field(VIEW)  # see above
    replicas: Rows = field(REPLICA)
    sums: Rows = field(SUMS)  # [replica]
    believed: Rows = field(LEARNED)  # [replica]
    pools: Rows = field(POOL)
    priors: Rows = field(LEARNED)  # [pool]
    defaults: Rows = field(LEARNED)  # [pool]: the prior of its prior
    pooled: Rows = field(SUMS)  # [0], scratch
    members: Numbers = field(np.int64)  # replicas by pool, in the order in which they joined
    placed: Rows = field(PLACED)  # [request]
    blocks: Numbers = field(np.uint64)  # hashes of prompts; a request has a stretch of them
    queues: Queues = part(Queues)
    prefixes: Prefixes = part(Prefixes)
    scratch: Scratch = part(Scratch)
    events: Rows = field(EVENT)  # what the last call did, in order
    told: Numbers = field(np.int64)  # [0]: how many of `events`


class SimulatedReplica(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that may join some time."""

    name: str
    model: int = 0
    pool: int = 0
    slots: int | None = 16  # requests it decodes together; None: it does not say
    price_usd_per_hour: float = 0.0
    price_usd_per_mtok: float = 0.0


class GatewayRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a gateway behaves: what the fleet file says of it."""

    policy: PolicyName = "predicted"
    tuning: Tuning = Tuning()
    admission: AdmissionSettings = AdmissionSettings()
    queue_timeout_s: QueueTimeouts = QueueTimeouts()
    replica_wait_s: float = 30.0
    process: int = 0
    processes: int = 1
    views: Literal["exact", "stale"] = "exact"  # stale: as they were at the last `refresh`
    seed: int = 0  # of `power_of_two`'s draws
    prior: Learned = DEFAULT  # of every pool


def rules_of(fleet: Fleet, *, process: int = 0, seed: int = 0) -> GatewayRules:
    """Those of a checked fleet, of one of its gateway processes."""
    gateway, own = fleet.gateway, share_of(fleet)
    return GatewayRules(
        policy=gateway.routing,
        tuning=Tuning(
            affinity_load_max=gateway.affinity_load_max,
            slow_start_s=gateway.slow_start_s,
            price_weight_s_per_usd=gateway.price_weight_s_per_usd,
        ),
        admission=settings_of(own),
        queue_timeout_s=gateway.queue_timeout_s,
        replica_wait_s=gateway.replica_wait_s,
        process=process,
        processes=gateway.processes,
        seed=seed,
    )


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much room is made."""

    requests_max: int  # under way at once
    block_bytes: int = 2048
    blocks_max: int = 512  # of one prompt
    entries_max: int = ENTRIES_MAX


def gateway_of(
    replicas: Sequence[SimulatedReplica],
    *,
    tenants: Sequence[str],
    rules: GatewayRules,
    limits: Limits,
    slots_wanted: Sequence[int | None] | None = None,
    now_s: float = 0.0,
) -> Gateway:
    """A gateway that no replica has joined; ValueError where replicas are not in order.

    `slots_wanted` are by model what the fleet file wants, which counts while nobody listens (None:
    not known); where it is not told, it is all replicas together.
    """
    replicas = tuple(replicas)
    if list(replicas) != sorted(replicas, key=lambda each: (each.model, each.name)):
        raise ValueError("the simulator's replicas must be sorted by model and name")
    model_of = np.array([each.model for each in replicas], np.int64)
    pool_of = np.array([each.pool for each in replicas], np.int64)
    models, pools = int(model_of.max()) + 1, int(pool_of.max()) + 1
    queues = queues_of(
        rules.admission, tenants, models=models, requests_max=limits.requests_max, now_s=now_s
    )
    priors = np.zeros(pools, LEARNED)
    for name in Learned.__struct_fields__:
        priors[name] = getattr(rules.prior, name)
    gateway = Gateway(
        rules=_rules(rules),
        models=np.zeros(models, MODEL),
        views=np.zeros(len(replicas), VIEW),
        replicas=np.zeros(len(replicas), REPLICA),
        sums=np.zeros(len(replicas), SUMS),
        believed=np.zeros(len(replicas), LEARNED),
        pools=np.zeros(pools, POOL),
        priors=priors,
        defaults=priors.copy(),
        pooled=np.zeros(1, SUMS),
        members=np.zeros(len(replicas), np.int64),
        placed=np.zeros(limits.requests_max, PLACED),
        blocks=np.zeros(0, np.uint64),
        queues=queues,
        prefixes=prefixes_of(
            model_of,
            block_bytes=limits.block_bytes,
            blocks_max=limits.blocks_max,
            entries_max=limits.entries_max,
        ),
        scratch=_scratch(len(replicas), limits.requests_max),
        events=np.zeros(limits.requests_max + 8, EVENT),
        told=np.zeros(1, np.int64),
    )
    _enlist(gateway, replicas, model_of, pool_of)
    for name in ("base_s", "prefill_s_per_byte", "service_s"):
        gateway.views[name] = getattr(rules.prior, name)
    wanted = slots_wanted or [_sum(replicas, model) for model in range(models)]
    for row, slots in zip(gateway.models, wanted, strict=True):
        own = slots_of(slots, process=rules.process, processes=rules.processes)
        row["slots"] = row["slots_wanted"] = UNKNOWN if own is None else own
    return gateway


def _sum(replicas: Sequence[SimulatedReplica], model: int) -> int | None:
    slots = [each.slots for each in replicas if each.model == model]
    known = [count for count in slots if count is not None]
    return sum(known) if len(known) == len(slots) else None


def _rules(rules: GatewayRules) -> Rows:
    row = np.zeros(1, RULES)
    row["policy"] = POLICY_CODES[rules.policy]
    for name in Tuning.__struct_fields__:
        row[name] = getattr(rules.tuning, name)
    row["queue_timeout_s"] = [getattr(rules.queue_timeout_s, tier) for tier in TIERS]
    row["replica_wait_s"] = rules.replica_wait_s
    row["waiting_max"] = rules.admission.waiting_max
    row["process"], row["processes"] = rules.process, rules.processes
    row["is_stale"] = rules.views == "stale"
    row["chance"] = rules.seed
    row["first_stranded"] = row["last_stranded"] = NOBODY
    return row


def _scratch(replicas: int, requests_max: int) -> Scratch:
    return Scratch(
        holders=np.zeros(replicas, np.int64),
        indexed=np.zeros(replicas, np.int64),
        places=np.zeros(replicas, np.int64),
        spared=np.zeros(replicas, np.int64),
        totals=np.zeros(replicas),
        loads=np.zeros(replicas),
        able=np.zeros(replicas, VIEW),
        place_of=np.zeros(replicas, np.int64),
        requests=np.zeros(requests_max, np.int64),
    )


def _enlist(
    gateway: Gateway, replicas: Sequence[SimulatedReplica], model_of: Numbers, pool_of: Numbers
) -> None:
    counts = np.bincount(model_of, minlength=len(gateway.models))
    gateway.models["replicas"] = counts
    gateway.models["first"] = np.concatenate([[0], np.cumsum(counts)[:-1]])
    pooled = np.bincount(pool_of, minlength=len(gateway.pools))
    gateway.pools["first"] = np.concatenate([[0], np.cumsum(pooled)[:-1]])
    rows, views = gateway.replicas, gateway.views
    rows["model"], rows["pool"] = model_of, pool_of
    rows["row"] = views["replica"] = np.arange(len(replicas))
    rows["slots"] = [each.slots or 0 for each in replicas]
    rows["name"] = [number_of(each.name.encode()) for each in replicas]
    views["price_usd_per_hour"] = [each.price_usd_per_hour for each in replicas]
    views["price_usd_per_mtok"] = [each.price_usd_per_mtok for each in replicas]
