"""The tenants of one tier, each with its virtual counter and its line of works.

The counter is that of VTC (Sheng et al., OSDI 2024): tokens served, divided by the tenant's
weight. The smallest goes next, so two tenants that always have work waiting stay within one
request of each other. A tenant that comes back is lifted to the smallest of those that wait, less
one request: what it did not use while nobody missed it is no credit. In VTC it is lifted all the
way, and then a client that asks for one thing after the other, whose line is empty for a moment
after each start, gets as many requests as its neighbour instead of as many tokens.

`charge` and `settle` are compiled by the simulator too, over rows of arrays.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from argosy.policies.admission.ranked import Ranked
from argosy.policies.admission.work import Work

_LARGEST_KEPT = 0.999  # a thousand works later the largest counts for a third


class Counted(Protocol):
    """A lane's numbers."""

    counter: float  # tokens / weight
    in_flight: int


class Tier(Protocol):
    """A tier's numbers."""

    level: float  # the largest counter from which a work was started
    largest: float  # what a request of the tier is charged at most, lately


def charge(tier: Tier, lane: Counted, tokens: float) -> None:
    """A work of so many tokens, by its tenant's weight, begins."""
    if lane.counter > tier.level:
        tier.level = lane.counter
    largest = tier.largest * _LARGEST_KEPT
    tier.largest = tokens if tokens > largest else largest
    lane.counter += tokens
    lane.in_flight += 1


def settle(lane: Counted, tokens_unused: float) -> None:
    """It ended, and was charged so much too much."""
    lane.counter -= tokens_unused
    lane.in_flight -= 1


class Lane:
    """One tenant in one tier."""

    __slots__ = ("_by_cost", "counter", "in_flight", "tenant", "waiting", "waiting_tokens")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.counter = 0.0  # tokens / weight
        self.in_flight = 0
        self.waiting: OrderedDict[str, Work] = OrderedDict()  # by request id, the oldest first
        self.waiting_tokens = 0
        self._by_cost: Ranked | None = None  # most tenants never wait

    def add(self, work: Work) -> None:
        """At the end of the line."""
        if self._by_cost is None:
            self._by_cost = Ranked()
        self.waiting[work.request] = work
        self.waiting_tokens += work.cost_tokens
        self._by_cost.push(
            -work.cost_tokens, work.request, alive=self.waiting, count=len(self.waiting)
        )

    def remove(self, request: str) -> Work:
        """Wherever it stands in the line."""
        work = self.waiting.pop(request)
        self.waiting_tokens -= work.cost_tokens
        return work

    def oldest(self) -> Work:
        """Who goes next of this tenant."""
        return next(iter(self.waiting.values()))

    def costliest(self) -> Work:
        """The largest prediction in the line, the newest among equals."""
        found = self._by_cost.first(alive=self.waiting) if self._by_cost else None
        assert found is not None, "asked of an empty line"
        return self.waiting[found[1]]


class TierLanes:
    """The lanes of one tier."""

    def __init__(self) -> None:
        self.lanes: dict[str, Lane] = {}
        self.lined_up: dict[str, Lane] = {}  # those with works waiting
        self.waiting_tokens = 0
        self.level = 0.0
        self.largest = 0.0

    def lane(self, tenant: str) -> Lane:
        """That tenant's, a new one if need be."""
        lane = self.lanes.get(tenant)
        if lane is None:
            lane = self.lanes[tenant] = Lane(tenant)
        return lane

    def charge(self, tenant: str, tokens: float) -> None:
        """A work of so many tokens, by its tenant's weight, begins."""
        charge(self, self.lanes.get(tenant) or self.lane(tenant), tokens)

    def settle(self, tenant: str, tokens_unused: float) -> None:
        """It ended, and was charged so much too much."""
        settle(self.lanes[tenant], tokens_unused)

    def add(self, work: Work) -> Lane:
        """Into its tenant's line; one that had nothing waiting is lifted first. O(tenants)."""
        lane = self.lane(work.tenant)
        if not lane.waiting:
            lane.counter = max(lane.counter, self._lift())
            self.lined_up[work.tenant] = lane
        lane.add(work)
        self.waiting_tokens += work.cost_tokens
        return lane

    def remove(self, work: Work) -> None:
        """Out of its tenant's line."""
        lane = self.lined_up[work.tenant]
        lane.remove(work.request)
        self.waiting_tokens -= work.cost_tokens
        if not lane.waiting:
            del self.lined_up[work.tenant]

    def next_lane(self, may_start: Callable[[str], bool]) -> Lane | None:
        """The smallest counter of those that may start; the name breaks ties. O(tenants)."""
        best: Lane | None = None
        for tenant, lane in self.lined_up.items():
            if best is not None and (best.counter, best.tenant) <= (lane.counter, tenant):
                continue
            if may_start(tenant):
                best = lane
        return best

    def forget_idle(self) -> None:
        """Drop idle lanes whose counter no longer matters: a new one would be lifted as high.

        Where the whole tier is idle nobody is owed anything, and all begin again at 0. O(tenants).
        """
        if not self.lanes:
            return
        busy = [lane for lane in self.lanes.values() if lane.waiting or lane.in_flight]
        if not busy:
            self.lanes.clear()
            self.level = self.largest = 0.0
            return
        lift = self._lift()
        kept = (lane for lane in self.lanes.values()
                if lane.waiting or lane.in_flight or lane.counter > lift)  # fmt: skip
        self.lanes = {lane.tenant: lane for lane in kept}

    def _lift(self) -> float:
        """Below it a counter does not matter."""
        counters = (lane.counter for lane in self.lined_up.values())
        return min(counters, default=self.level) - self.largest
