"""The fair queue of one model: who may start, who waits, who goes next, who is refused. Pure.

The order of those that wait: an enterprise tenant within its reserved throughput; then strictly
by tier; inside a tier the tenant with the smallest virtual counter (`lanes.py`); inside a tenant
first come, first served. Batch may starve for as long as the tiers above it fill the slots: it
runs in troughs, and its time limit is long.

What runs is counted here, in the step that decides, and not read from the replicas' pages: a
count that is old admits too many. A slot is held from `Admit` or `Start` until `settle`, through
all attempts. A caller that runs several such queues for one model gives each its part of the
slots.

Shares are caps and not work-conserving: under a flood of one tenant a quarter of the slots stays
free, so a newcomer starts at once instead of waiting for a slot to come free. What that costs and
gives, by `bench/admission.py` (2026-11-21; 16 slots, answers of 4 s, a second tenant that asks
every 4 s): with a cap of 0.75 the flood holds 75 % of the slots and the other's requests wait
0.008 s at the gateway (p95 0.000 s); without one it holds 94 % and they wait 0.297 s (p95 0.924 s).
Nothing here sees how a full engine slows down what it answers.

After every call that may free a slot, and after each change of the slots, call `next` until it
gives None; call `expire` a few times a second.
"""

from typing import Literal

from argosy.policies.admission.lanes import Lane, TierLanes
from argosy.policies.admission.ranked import Ranked
from argosy.policies.admission.rates import DrainRate, TokenBucket
from argosy.policies.admission.shares import (
    RETRY_AFTER_S_MAX,
    RETRY_AFTER_S_MIN,
    may_hold,
    part_of,
    retry_after_s,
)
from argosy.policies.admission.work import (
    RANKS,
    TIERS,
    AdmissionSettings,
    Admit,
    Decision,
    Queue,
    Shed,
    Start,
    TenantShare,
    Work,
)

__all__ = ["RETRY_AFTER_S_MAX", "RETRY_AFTER_S_MIN", "FairQueue"]

_UNKNOWN = Admit("its replicas do not say how many slots they have")
_FREE = Admit("a slot is free and nobody waits")
_BEFORE_OTHERS = Admit("a slot is free that none of those that wait may take")
_RESERVED = "within its tenant's reserved throughput"
_FAIR = tuple(f"the {tier} tenant that was served least" for tier in TIERS)
_DEFAULT = TenantShare()
_UNBOUNDED = 2**62  # slots, where they are not known


class FairQueue:
    """The works of one model that wait or run."""

    def __init__(self, settings: AdmissionSettings, *, now_s: float) -> None:
        self._tiers = tuple(TierLanes() for _ in TIERS)
        self._in_flight: dict[str, Work] = {}
        self._tenant_in_flight: dict[str, int] = {}
        self._held = [0, 0, 0]  # slots held by a tier and those below it
        self._waiting: dict[str, Work] = {}
        self._deadlines = Ranked()
        self._drain = DrainRate()
        self._buckets: dict[str, TokenBucket] = {}
        self.configure(settings, now_s=now_s)

    def configure(self, settings: AdmissionSettings, *, now_s: float) -> None:
        """From now on; what waits and runs stays, also beyond the new limits."""
        self._settings = settings
        self._weights = {name: share.weight for name, share in settings.tenants.items()}
        self._fit(0)
        old, self._buckets = self._buckets, {}
        for tenant, share in settings.tenants.items():
            if share.reserved_tokens_per_s is None:
                continue
            bucket = old.get(tenant) or TokenBucket(share.reserved_tokens_per_s, now_s=now_s)
            bucket.set_rate(share.reserved_tokens_per_s, now_s)
            self._buckets[tenant] = bucket

    @property
    def waiting(self) -> int:
        """Works that wait."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Works that hold a slot."""
        return len(self._in_flight)

    def tier_waiting(self) -> tuple[int, ...]:
        """Works that wait, by tier in the order of `TIERS`; for metrics. O(tenants)."""
        return tuple(
            sum(len(lane.waiting) for lane in tier.lined_up.values()) for tier in self._tiers
        )

    def offer(self, work: Work, slots: int | None, now_s: float) -> Decision:
        """Start it, queue it, or refuse one: this one, or one that waited (then this one waits).

        `slots` are those of all ready replicas of the model together: 0 when none is ready, None
        when they are not known, and then everything is admitted. ValueError when it is here.
        """
        if slots is None:
            self._start(work, now_s)
            return _UNKNOWN
        if slots != self._slots:
            self._fit(slots)
        if not self._waiting and self._may_start(work.tenant, RANKS[work.tier], now_s):
            self._start(work, now_s)
            return _FREE
        return self._line_up(work, now_s)

    def next(self, slots: int | None, now_s: float) -> Start | None:
        """The work that has a slot from now on; None when nobody waits or none may start."""
        if not self._waiting:
            return None
        if slots != self._slots:
            self._fit(slots)
        lane, reason = self._best(now_s)
        if lane is None:
            return None
        work = lane.oldest()
        self._leave(work)
        self._start(work, now_s)
        return Start(work=work, reason=reason)

    def expire(self, now_s: float) -> tuple[Shed, ...]:
        """Those whose time to wait is over; they no longer wait."""
        expired: list[Shed] = []
        while True:
            first = self._deadlines.first(alive=self._waiting)
            if first is None or first[0] > now_s:
                break
            work = self._waiting[first[1]]
            shed = self._shed(work, now_s, why="expired")
            self._leave(work)
            expired.append(shed)
        for tier in self._tiers:
            tier.forget_idle()
        return tuple(expired)

    def settle(self, work: Work, tokens_true: int, now_s: float) -> None:
        """It ended, however it ended: its slot is free, and its tenant is charged what it used.

        KeyError when it holds no slot.
        """
        del self._in_flight[work.request]
        rank = RANKS[work.tier]
        self._count(work.tenant, rank, -1)
        unused_tokens = work.cost_tokens - tokens_true
        weight = self._weights.get(work.tenant, 1.0)
        self._tiers[rank].settle(work.tenant, unused_tokens / weight)
        if rank == 0 and (bucket := self._buckets.get(work.tenant)) is not None:
            bucket.take(-unused_tokens, now_s)
        self._drain.add(work.cost_tokens, now_s)

    def holds(self, work: Work) -> bool:
        """True while it holds a slot."""
        return work.request in self._in_flight

    def cancel(self, work: Work) -> bool:
        """Its client left: it no longer waits. False when it did not wait."""
        if work.request not in self._waiting:
            return False
        self._leave(work)
        return True

    # Slots.

    def _fit(self, slots: int | None) -> None:
        """What the shares are in slots; no caps where these are not known."""
        self._slots = slots
        settings = self._settings
        if slots is None:
            self._tenant_max = _UNBOUNDED
            self._held_max = (_UNBOUNDED, _UNBOUNDED, _UNBOUNDED)
            return
        self._tenant_max = part_of(slots, settings.tenant_share_max)
        lower_max = part_of(slots, settings.lower_share_max)
        self._held_max = (slots, lower_max, part_of(slots, settings.batch_share_max))

    def _may_start(self, tenant: str, rank: int, now_s: float) -> bool:
        if not may_hold(self._held, self._held_max, rank):
            return False
        if self._tenant_in_flight.get(tenant, 0) < self._tenant_max:
            return True
        return rank == 0 and self._is_reserved(tenant, now_s)

    def _is_reserved(self, tenant: str, now_s: float) -> bool:
        bucket = self._buckets.get(tenant)
        return bucket is not None and bucket.has_tokens(now_s)

    def _start(self, work: Work, now_s: float) -> None:
        if work.request in self._in_flight:
            raise ValueError(f"{work.request} holds a slot already: settle it first")
        rank = RANKS[work.tier]
        tenant = work.tenant
        self._tiers[rank].charge(tenant, work.cost_tokens / self._weights.get(tenant, 1.0))
        if rank == 0 and (bucket := self._buckets.get(tenant)) is not None:
            bucket.take(work.cost_tokens, now_s)
        self._count(tenant, rank, 1)
        self._in_flight[work.request] = work

    def _count(self, tenant: str, rank: int, change: int) -> None:
        held, counts = self._held, self._tenant_in_flight
        held[0] += change
        if rank:
            held[1] += change
            if rank > 1:
                held[2] += change
        count = counts.get(tenant, 0) + change
        if count:
            counts[tenant] = count
        else:
            del counts[tenant]

    # Those that wait.

    def _line_up(self, work: Work, now_s: float) -> Decision:
        if work.request in self._waiting:
            raise ValueError(f"{work.request} waits already: cancel it first")
        self._waiting[work.request] = work
        lane = self._tiers[RANKS[work.tier]].add(work)
        if len(lane.waiting) == 1 and self._best(now_s)[0] is lane:
            self._leave(work)
            self._start(work, now_s)
            return _BEFORE_OTHERS
        count = len(self._waiting)
        self._deadlines.push(work.deadline_s, work.request, alive=self._waiting, count=count)
        if count > self._settings.waiting_max:
            return self._make_room(now_s)
        return Queue(slots=self._held_max[0], in_flight=len(self._in_flight), waiting=count)

    def _leave(self, work: Work) -> None:
        del self._waiting[work.request]
        self._tiers[RANKS[work.tier]].remove(work)

    def _best(self, now_s: float) -> tuple[Lane | None, str]:
        """Whose work goes next, and why. O(tenants that wait)."""
        if self._held[0] >= self._held_max[0]:
            return None, ""
        if self._buckets:
            lane = self._tiers[0].next_lane(lambda tenant: self._is_reserved(tenant, now_s))
            if lane is not None:
                return lane, _RESERVED
        for rank, tier in enumerate(self._tiers):
            if self._held[rank] >= self._held_max[rank]:
                break  # a cap holds for the tiers below as well
            counts, count_max = self._tenant_in_flight, self._tenant_max
            lane = tier.next_lane(lambda tenant: counts.get(tenant, 0) < count_max)  # noqa: B023
            if lane is not None:
                return lane, _FAIR[rank]
        return None, ""

    def _make_room(self, now_s: float) -> Shed:
        """Of the lowest tier that waits, the tenant with most, its largest prediction goes."""
        tier = next(tier for tier in reversed(self._tiers) if tier.lined_up)

        def most(lane: Lane) -> tuple[float, str]:
            return lane.waiting_tokens / self._weights.get(lane.tenant, 1.0), lane.tenant

        lane = max(tier.lined_up.values(), key=most)
        victim = lane.costliest()
        shed = self._shed(victim, now_s, why="full")
        self._leave(victim)
        return shed

    def _shed(self, victim: Work, now_s: float, *, why: Literal["full", "expired"]) -> Shed:
        lane = self._tiers[RANKS[victim.tier]].lined_up[victim.tenant]
        waiting_tokens = sum(tier.waiting_tokens for tier in self._tiers)
        asks_most = why == "full" and len(self._settings.tenants) > 1
        asks_most = asks_most and 2 * lane.waiting_tokens > waiting_tokens
        return Shed(
            victim=victim,
            kind="rate_limited" if asks_most else "no_replica",
            retry_after_s=self._retry_after_s(RANKS[victim.tier], now_s),
            why=why,
            waiting=len(self._waiting),
            tenant_waiting=len(lane.waiting),
            waited_s=max(0.0, now_s - victim.arrived_s),
        )

    def _retry_after_s(self, rank: int, now_s: float) -> float | None:
        """Until those of its tier and above that wait would be served."""
        tokens_per_s = self._drain.tokens_per_s(now_s)
        if tokens_per_s is None:
            return None
        ahead_tokens = sum(tier.waiting_tokens for tier in self._tiers[: rank + 1])
        return retry_after_s(ahead_tokens, tokens_per_s)
