"""What comes into the admission policy and what goes out of it: works, settings, decisions."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

from argosy.fleet.config import Fleet, Tier

TIERS: tuple[Tier, ...] = ("enterprise", "consumer", "batch")  # the first goes first
RANKS: dict[str, int] = {tier: rank for rank, tier in enumerate(TIERS)}


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One request that wants a slot of a model."""

    request: str  # its id, unique among those that wait or run
    tenant: str
    tier: Tier
    cost_tokens: int  # predicted, prompt plus answer; corrected when it is settled
    arrived_s: float
    deadline_s: float  # until when it may wait


class TenantShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one tenant is entitled to on one model."""

    weight: float = 1.0
    reserved_tokens_per_s: float | None = None


class AdmissionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the queue of one model behaves."""

    waiting_max: int = 1024
    tenant_share_max: float = 1.0  # of the slots, beyond reserved throughput
    lower_share_max: float = 1.0  # of the slots, consumer and batch together
    batch_share_max: float = 1.0
    tenants: Mapping[str, TenantShare] = {}  # who is not named has weight 1 and no reservation


def settings_of(fleet: Fleet) -> AdmissionSettings:
    """The settings of a checked fleet; a cap without anybody to protect is 1."""
    gateway = fleet.gateway
    tiers = {tenant.tier for tenant in fleet.tenants}
    return AdmissionSettings(
        waiting_max=gateway.waiting_max,
        tenant_share_max=gateway.tenant_share_max if len(fleet.tenants) > 1 else 1.0,
        lower_share_max=gateway.consumer_share_max if "enterprise" in tiers else 1.0,
        batch_share_max=gateway.batch_share_max if tiers != {"batch"} else 1.0,
        tenants={
            tenant.name: TenantShare(
                weight=tenant.weight, reserved_tokens_per_s=tenant.reserved_tokens_per_s
            )
            for tenant in fleet.tenants
        },
    )


class Admit(msgspec.Struct, frozen=True):
    """It starts now, and holds a slot until it is settled."""

    reason: str


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """It waits; `FairQueue.next` gives it out."""

    slots: int
    in_flight: int
    waiting: int  # itself included

    @property
    def reason(self) -> str:
        """Made when it is read: most are not."""
        if self.in_flight < self.slots:
            told = f"{self.slots - self.in_flight} of {self.slots} slots are kept for others"
        else:
            told = f"{self.in_flight} requests hold the {self.slots} slots"
        return f"{told}, {self.waiting} wait"


class Shed(msgspec.Struct, frozen=True, kw_only=True):
    """`victim` is refused: the request that came, or one that waited and makes room for it."""

    victim: Work
    kind: Literal["rate_limited", "no_replica"]  # 429: its tenant asks most; 503: all ask too much
    retry_after_s: float | None  # 1 to 60, by what was served lately; None: nothing was
    why: Literal["full", "expired"]
    waiting: int
    tenant_waiting: int  # of the victim's tenant
    waited_s: float

    @property
    def reason(self) -> str:
        """Made when it is read."""
        if self.why == "expired":
            return f"no slot came free in {self.waited_s:.1f} s; {self.waiting} requests wait"
        told = f"{self.waiting} requests wait already"
        return told + (f", {self.tenant_waiting} of them yours" if self.tenant_waiting > 1 else "")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A work that waited has a slot now."""

    work: Work
    reason: str


Decision: TypeAlias = Admit | Queue | Shed
