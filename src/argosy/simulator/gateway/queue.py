"""The fair queues of a gateway's models, as `policies/admission/fair_queue.py` decides, on arrays.

That file says what is decided and why; here is the same with tenants and models as numbers (tenants
in the order of their names), a tenant's line as links from request to request, and heaps in rows.
The arithmetic is the live one's own text; `tests/laws` hold the rest to it, decision by decision.

`slots` are those of a model's ready replicas together, `UNKNOWN` where they are not known.
"""

import numpy as np

from argosy.policies.admission.lanes import charge
from argosy.policies.admission.lanes import settle as settle_lane
from argosy.policies.admission.rates import (
    add_to_drain,
    drained_tokens_per_s,
    has_tokens,
    is_drain_known,
    take,
)
from argosy.policies.admission.shares import may_hold, part_of, retry_after_s
from argosy.simulator.compiled import Row, Rows, compiled, inner
from argosy.simulator.gateway import texts  # noqa: F401 (makes the policies' texts callable)
from argosy.simulator.gateway.heap import NOBODY, push, remove
from argosy.simulator.gateway.queue_rows import Queues

UNKNOWN = -1  # slots
ADMITTED, QUEUED, SHED = 1, 2, 3  # what `offer` says
_UNBOUNDED = 2**62
_ABSENT, _WAITS, _RUNS = 0, 1, 2

# What a caller does.


@compiled
def offer(queues: Queues, request: int, slots: int, now_s: float) -> tuple[int, int, bool, float]:
    """Start it, queue it, or refuse one; its `works` row is filled in but for the last three.

    What happened (ADMITTED, QUEUED or SHED); where SHED, who is refused (then `request` waits, or
    is itself the one), whether for asking most, and after how many seconds it may come back, nan
    where that is not known.
    """
    work = queues.works[request]
    if slots == UNKNOWN:
        _start(queues, request, now_s)
        return ADMITTED, NOBODY, False, np.nan
    line = queues.lines[work.model]
    if slots != line.slots:
        fit(queues, work.model, slots)
    if line.waiting == 0 and _may_start(queues, work.model, work.tenant, work.rank, now_s):
        _start(queues, request, now_s)
        return ADMITTED, NOBODY, False, np.nan
    return _line_up(queues, request, now_s)


@compiled
def next_start(queues: Queues, model: int, slots: int, now_s: float) -> int:
    """The request that has a slot from now on; NOBODY where none waits or none may start."""
    line = queues.lines[model]
    if line.waiting == 0:
        return NOBODY
    if slots != line.slots:
        fit(queues, model, slots)
    rank, tenant = _best(queues, model, now_s)
    if tenant == NOBODY:
        return NOBODY
    request = queues.lanes[model, rank, tenant].oldest
    _leave(queues, request)
    _start(queues, request, now_s)
    return request


@compiled
def expire_one(queues: Queues, model: int, now_s: float) -> tuple[int, bool, float]:
    """One whose time to wait is over, as `offer` tells of a refused one; NOBODY at the end.

    After the end call `forget_idle`.
    """
    request = queues.lines[model].first_to_expire
    if request == NOBODY or queues.deadlines[request].number > now_s:
        return NOBODY, False, np.nan
    retry_s = _retry_after_s(queues, model, queues.works[request].rank, now_s)
    _leave(queues, request)
    return request, False, retry_s


@compiled
def forget_idle(queues: Queues, model: int) -> None:
    """Drop idle lanes whose counter no longer matters. O(tenants)."""
    for rank in range(3):
        tier, lanes = queues.tiers[model, rank], queues.lanes[model, rank]
        is_any_known = is_any_busy = False
        for lane in lanes:
            is_any_known = is_any_known or lane.is_known
            is_any_busy = is_any_busy or lane.waiting > 0 or lane.in_flight != 0
        if not is_any_known:
            continue
        lift = _lift(tier, lanes) if is_any_busy else np.inf
        for lane in lanes:
            if lane.waiting == 0 and lane.in_flight == 0 and not lane.counter > lift:
                lane.is_known = False
                lane.counter = 0.0
        if not is_any_busy:
            tier.level = tier.largest = 0.0


@compiled
def settle(queues: Queues, request: int, tokens_true: int, now_s: float) -> None:
    """It ended, and held a slot: that is free, and its tenant is charged what it used."""
    work = queues.works[request]
    work.stage = _ABSENT
    model, tenant, rank = work.model, work.tenant, work.rank
    _count(queues, model, tenant, rank, -1)
    unused_tokens = work.cost_tokens - tokens_true
    lane = queues.lanes[model, rank, tenant]
    settle_lane(lane, unused_tokens / queues.tenants[tenant].weight)
    if rank == 0 and queues.tenants[tenant].is_reserved:
        take(queues.buckets[model, tenant], -unused_tokens, now_s)
    add_to_drain(queues.lines[model], work.cost_tokens, now_s)


@compiled
def cancel(queues: Queues, request: int) -> bool:
    """Its client left: it no longer waits. False when it did not wait."""
    if queues.works[request].stage != _WAITS:
        return False
    _leave(queues, request)
    return True


@compiled
def holds(queues: Queues, request: int) -> bool:
    """True while it holds a slot."""
    return queues.works[request].stage == _RUNS


# Slots.


@compiled
def fit(queues: Queues, model: int, slots: int) -> None:
    """What the shares are in slots."""
    line, shares = queues.lines[model], queues.shares[0]
    line.slots = slots
    if slots == UNKNOWN:
        line.tenant_max = _UNBOUNDED
        for rank in range(3):
            line.held_max[rank] = _UNBOUNDED
        return
    line.tenant_max = part_of(slots, shares.tenant_share_max)
    line.held_max[0] = slots
    line.held_max[1] = part_of(slots, shares.lower_share_max)
    line.held_max[2] = part_of(slots, shares.batch_share_max)


@inner
def _may_start(queues: Queues, model: int, tenant: int, rank: int, now_s: float) -> bool:
    line = queues.lines[model]
    if not may_hold(line.held, line.held_max, rank):
        return False
    if queues.in_flight[model, tenant] < line.tenant_max:
        return True
    return rank == 0 and _is_reserved(queues, model, tenant, now_s)


@inner
def _is_reserved(queues: Queues, model: int, tenant: int, now_s: float) -> bool:
    return queues.tenants[tenant].is_reserved and has_tokens(queues.buckets[model, tenant], now_s)


@inner
def _start(queues: Queues, request: int, now_s: float) -> None:
    work = queues.works[request]
    model, tenant, rank = work.model, work.tenant, work.rank
    lane = queues.lanes[model, rank, tenant]
    lane.is_known = True
    tokens = work.cost_tokens / queues.tenants[tenant].weight
    charge(queues.tiers[model, rank], lane, tokens)
    if rank == 0 and queues.tenants[tenant].is_reserved:
        take(queues.buckets[model, tenant], work.cost_tokens, now_s)
    _count(queues, model, tenant, rank, 1)
    work.stage = _RUNS


@inner
def _count(queues: Queues, model: int, tenant: int, rank: int, change: int) -> None:
    line = queues.lines[model]
    for lower in range(rank + 1):
        line.held[lower] += change
    line.in_flight += change
    queues.in_flight[model, tenant] += change


# Those that wait.


@inner
def _line_up(queues: Queues, request: int, now_s: float) -> tuple[int, int, bool, float]:
    work = queues.works[request]
    model, tenant, rank = work.model, work.tenant, work.rank
    line = queues.lines[model]
    _enter(queues, request)
    if queues.lanes[model, rank, tenant].waiting == 1:
        best_rank, best = _best(queues, model, now_s)
        if best == tenant and best_rank == rank:
            _leave(queues, request)
            _start(queues, request, now_s)
            return ADMITTED, NOBODY, False, np.nan
    if line.waiting > queues.shares[0].waiting_max:
        victim, asks_most, retry_s = _make_room(queues, model, now_s)
        return SHED, victim, asks_most, retry_s
    return QUEUED, NOBODY, False, np.nan


@inner
def _enter(queues: Queues, request: int) -> None:
    """Into its tenant's line; one that had nothing waiting is lifted first."""
    work = queues.works[request]
    model, tenant, rank = work.model, work.tenant, work.rank
    line, tier = queues.lines[model], queues.tiers[model, rank]
    lanes = queues.lanes[model, rank]
    lane = lanes[tenant]
    lane.is_known = True
    if lane.waiting == 0:
        lane.counter = max(lane.counter, _lift(tier, lanes))
        lane.before, lane.after = tier.last, NOBODY
        if tier.last == NOBODY:
            tier.first = tenant
        else:
            lanes[tier.last].after = tenant
        tier.last = tenant
        lane.oldest = request
    else:
        queues.works[lane.newest].after = request
    work.before, work.after = lane.newest, NOBODY
    work.stage = _WAITS
    lane.newest = request
    lane.waiting += 1
    lane.waiting_tokens += work.cost_tokens
    tier.waiting_tokens += work.cost_tokens
    line.waiting += 1
    line.pushes += 1
    lane.costliest = push(
        queues.costs, lane.costliest, request, -float(work.cost_tokens), line.pushes
    )
    line.first_to_expire = push(
        queues.deadlines, line.first_to_expire, request, work.deadline_s, line.pushes
    )


@inner
def _leave(queues: Queues, request: int) -> None:
    """Out of its tenant's line, wherever it stands."""
    work = queues.works[request]
    model, tenant, rank = work.model, work.tenant, work.rank
    line, tier = queues.lines[model], queues.tiers[model, rank]
    lanes = queues.lanes[model, rank]
    lane = lanes[tenant]
    if work.before == NOBODY:
        lane.oldest = work.after
    else:
        queues.works[work.before].after = work.after
    if work.after == NOBODY:
        lane.newest = work.before
    else:
        queues.works[work.after].before = work.before
    work.stage = _ABSENT
    lane.waiting -= 1
    lane.waiting_tokens -= work.cost_tokens
    tier.waiting_tokens -= work.cost_tokens
    line.waiting -= 1
    lane.costliest = remove(queues.costs, lane.costliest, request)
    line.first_to_expire = remove(queues.deadlines, line.first_to_expire, request)
    if lane.waiting == 0:
        _unlist(tier, lanes, lane)


@inner
def _unlist(tier: Row, lanes: Rows, lane: Row) -> None:
    """Its tenant is no longer among those that are lined up."""
    if lane.before == NOBODY:
        tier.first = lane.after
    else:
        lanes[lane.before].after = lane.after
    if lane.after == NOBODY:
        tier.last = lane.before
    else:
        lanes[lane.after].before = lane.before


@inner
def _best(queues: Queues, model: int, now_s: float) -> tuple[int, int]:
    """Rank and tenant of whose work goes next. O(tenants that wait)."""
    line = queues.lines[model]
    if line.held[0] >= line.held_max[0]:
        return 0, NOBODY
    if queues.shares[0].is_any_reserved:
        tenant = _next_reserved(queues, model, now_s)
        if tenant != NOBODY:
            return 0, tenant
    for rank in range(3):
        if line.held[rank] >= line.held_max[rank]:
            break  # a cap holds for the tiers below as well
        tenant = _next_fair(queues, model, rank)
        if tenant != NOBODY:
            return rank, tenant
    return 0, NOBODY


@inner
def _next_reserved(queues: Queues, model: int, now_s: float) -> int:
    """The smallest counter of those within their reserved throughput; the name breaks ties.

    Those are asked whom the live queue asks, in its order: to ask fills a bucket.
    """
    lanes = queues.lanes[model, 0]
    best, tenant = NOBODY, queues.tiers[model, 0].first
    while tenant != NOBODY:
        is_before = best == NOBODY or _is_before(lanes, tenant, best)
        if is_before and _is_reserved(queues, model, tenant, now_s):
            best = tenant
        tenant = lanes[tenant].after
    return best


@inner
def _next_fair(queues: Queues, model: int, rank: int) -> int:
    """The smallest counter of those below their share; the name breaks ties."""
    lanes, tenant_max = queues.lanes[model, rank], queues.lines[model].tenant_max
    in_flight = queues.in_flight[model]
    best, tenant = NOBODY, queues.tiers[model, rank].first
    while tenant != NOBODY:
        if in_flight[tenant] < tenant_max and (best == NOBODY or _is_before(lanes, tenant, best)):
            best = tenant
        tenant = lanes[tenant].after
    return best


@inner
def _is_before(lanes: Rows, one: int, other: int) -> bool:
    counter, best = lanes[one].counter, lanes[other].counter
    return counter < best or (counter == best and one < other)


@inner
def _lift(tier: Row, lanes: Rows) -> float:
    """Below it a counter does not matter."""
    least = tier.level if tier.first == NOBODY else np.inf
    tenant = tier.first
    while tenant != NOBODY:
        least = min(least, lanes[tenant].counter)
        tenant = lanes[tenant].after
    return least - tier.largest


@inner
def _make_room(queues: Queues, model: int, now_s: float) -> tuple[int, bool, float]:
    """Of the lowest tier that waits, the tenant with most, its largest prediction goes."""
    rank = 2
    while queues.tiers[model, rank].first == NOBODY:
        rank -= 1
    lanes = queues.lanes[model, rank]
    most, most_tokens, tenant = NOBODY, -1.0, queues.tiers[model, rank].first
    while tenant != NOBODY:
        tokens = lanes[tenant].waiting_tokens / queues.tenants[tenant].weight
        if tokens > most_tokens or (tokens == most_tokens and tenant > most):
            most, most_tokens = tenant, tokens
        tenant = lanes[tenant].after
    victim = lanes[most].costliest
    waiting_tokens = 0
    for tier in queues.tiers[model]:
        waiting_tokens += tier.waiting_tokens
    asks_most = queues.shares[0].tenants_named > 1
    asks_most = asks_most and 2 * lanes[most].waiting_tokens > waiting_tokens
    retry_s = _retry_after_s(queues, model, rank, now_s)
    _leave(queues, victim)
    return victim, asks_most, retry_s


@inner
def _retry_after_s(queues: Queues, model: int, rank: int, now_s: float) -> float:
    """Until those of its tier and above that wait would be served; nan where nothing was."""
    line = queues.lines[model]
    if not is_drain_known(line, now_s):
        return np.nan
    ahead_tokens = 0
    for higher in range(rank + 1):
        ahead_tokens += queues.tiers[model, higher].waiting_tokens
    return retry_after_s(ahead_tokens, drained_tokens_per_s(line, now_s))
