"""What the simulated fair queues keep: rows by model, tier, tenant and request.

`queue.py` changes them. Tenants are numbers in the order of their names.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from argosy.policies.admission.rates import RESERVED_BURST_S
from argosy.policies.admission.work import TIERS, AdmissionSettings, TenantShare
from argosy.simulator.compiled import Numbers, Rows
from argosy.simulator.gateway.heap import NOBODY, NODE
from argosy.simulator.handle import Handle, field

SHARES = np.dtype(
    [
        ("waiting_max", "i8"),
        ("tenant_share_max", "f8"),
        ("lower_share_max", "f8"),
        ("batch_share_max", "f8"),
        ("tenants_named", "i8"),
        ("is_any_reserved", "?"),
    ]
)
TENANT = np.dtype([("weight", "f8"), ("is_reserved", "?")])
LINE = np.dtype(  # a model's queue
    [
        ("slots", "i8"),
        ("tenant_max", "i8"),
        ("held", "i8", (3,)),  # slots held by a tier and those below it
        ("held_max", "i8", (3,)),
        ("in_flight", "i8"),
        ("waiting", "i8"),
        ("pushes", "i8"),
        ("first_to_expire", "i8"),  # a heap
        ("began_s", "f8"),  # of the drain rate; inf: nothing has ended yet
        ("at_s", "f8"),
        ("tokens", "f8"),
    ]
)
TIER = np.dtype(
    [
        ("level", "f8"),
        ("largest", "f8"),
        ("waiting_tokens", "i8"),
        ("first", "i8"),  # tenants with works waiting, in the order in which they lined up
        ("last", "i8"),
    ]
)
LANE = np.dtype(
    [
        ("counter", "f8"),
        ("in_flight", "i8"),
        ("waiting", "i8"),
        ("waiting_tokens", "i8"),
        ("oldest", "i8"),
        ("newest", "i8"),
        ("costliest", "i8"),  # a heap
        ("before", "i8"),  # tenants, among those that are lined up
        ("after", "i8"),
        ("is_known", "?"),
    ]
)
BUCKET = np.dtype([("tokens_per_s", "f8"), ("full", "f8"), ("tokens", "f8"), ("at_s", "f8")])
WORK = np.dtype(
    [
        ("model", "i8"),
        ("tenant", "i8"),
        ("rank", "i8"),
        ("cost_tokens", "i8"),
        ("arrived_s", "f8"),
        ("deadline_s", "f8"),
        ("stage", "i8"),
        ("before", "i8"),  # in its tenant's line
        ("after", "i8"),
    ]
)


class Queues(Handle):
    """All queues of a gateway. Memory: 240 B a request, 80 B a tenant, tier and model."""

    shares: Rows = field(SHARES)  # [0]
    tenants: Rows = field(TENANT)  # [tenant]
    lines: Rows = field(LINE)  # [model]
    tiers: Rows = field(TIER, 2)  # [model, rank]
    lanes: Rows = field(LANE, 3)  # [model, rank, tenant]
    buckets: Rows = field(BUCKET, 2)  # [model, tenant]
    in_flight: Numbers = field(np.int64, 2)  # [model, tenant]
    works: Rows = field(WORK)  # [request]
    deadlines: Rows = field(NODE)  # [request]
    costs: Rows = field(NODE)  # [request]


def queues_of(
    settings: AdmissionSettings,
    tenants: Sequence[str],
    *,
    models: int,
    requests_max: int,
    now_s: float,
) -> Queues:
    """Empty queues with these settings; ValueError where `tenants` are not sorted, or not all."""
    if list(tenants) != sorted({*tenants, *settings.tenants}):
        raise ValueError(
            f"tenants {list(tenants)} must be sorted and contain those with a share: "
            f"{sorted({*tenants, *settings.tenants})} would do"
        )
    ranks, count = len(TIERS), len(tenants)
    queues = Queues(
        shares=np.zeros(1, SHARES),
        tenants=np.zeros(count, TENANT),
        lines=np.zeros(models, LINE),
        tiers=np.zeros((models, ranks), TIER),
        lanes=np.zeros((models, ranks, count), LANE),
        buckets=np.zeros((models, count), BUCKET),
        in_flight=np.zeros((models, count), np.int64),
        works=np.zeros(requests_max, WORK),
        deadlines=np.zeros(requests_max, NODE),
        costs=np.zeros(requests_max, NODE),
    )
    _set_shares(queues, settings, dict(settings.tenants), tenants)
    queues.buckets["at_s"] = now_s
    queues.lines["first_to_expire"] = NOBODY
    queues.lines["began_s"] = np.inf
    queues.tiers["first"] = queues.tiers["last"] = NOBODY
    for links in ("oldest", "newest", "costliest", "before", "after"):
        queues.lanes[links] = NOBODY
    return queues


def _set_shares(
    queues: Queues,
    settings: AdmissionSettings,
    shares: Mapping[str, TenantShare],
    tenants: Sequence[str],
) -> None:
    row = queues.shares[0]
    row["waiting_max"] = settings.waiting_max
    row["tenant_share_max"] = settings.tenant_share_max
    row["lower_share_max"] = settings.lower_share_max
    row["batch_share_max"] = settings.batch_share_max
    row["tenants_named"] = len(shares)
    for number, tenant in enumerate(tenants):
        share = shares.get(tenant, TenantShare())
        queues.tenants[number]["weight"] = share.weight
        rate = share.reserved_tokens_per_s
        if rate is None:
            continue
        row["is_any_reserved"] = queues.tenants[number]["is_reserved"] = True
        queues.buckets[:, number]["tokens_per_s"] = rate
        queues.buckets[:, number]["full"] = rate * RESERVED_BURST_S
        queues.buckets[:, number]["tokens"] = rate * RESERVED_BURST_S
