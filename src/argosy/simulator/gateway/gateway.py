"""A gateway in virtual time: what a driver calls. All is done in the live gateway's order.

    arrive -> (first_token) -> finished | cancelled | again (its replica failed)
    replica_joins, replica_leaves, replica_is_suspect (`standing.py`), then table_changed
    sweep, a few times a second

Each call leaves what it did in `gateway.events[: gateway.told[0]]`, in order; the next call begins
anew. A request that was SENT is the driver's to run on that replica; one that was refused in any
way has ended. Budgets, retries' budgets, hedges, breakers and fallbacks to other models are not
simulated: the driver says when a request is to be sent again, and which replicas are suspect.
"""

from typing import NamedTuple

import numpy as np

from argosy.simulator.compiled import compiled, inner
from argosy.simulator.gateway import queue, router
from argosy.simulator.gateway.heap import NOBODY
from argosy.simulator.gateway.queue import ADMITTED, UNKNOWN
from argosy.simulator.gateway.standing import sum_slots
from argosy.simulator.gateway.state import TRIED_MAX, Gateway

# What happened to a request.
SENT = 1  # to `replica`
QUEUED = 2  # it waits for a slot
STRANDED = 3  # it has a slot, and no replica listens
NO_ROOM = 4  # refused: the queue is full (503)
ASKS_MOST = 5  # refused: the queue is full, mostly by its tenant (429)
EXPIRED = 6  # refused: its time to wait for a slot is over
NO_REPLICA = 7  # refused: no replica came in time, or too many wait for one
WORDS = (
    "", "sent", "queued", "stranded", "no room", "asks most", "expired", "no replica",
)  # fmt: skip


class Ask(NamedTuple):
    """A request that comes; `rank` is its tier's place in `TIERS`."""

    model: int
    tenant: int
    rank: int
    cost_tokens: int  # predicted: `policies/admission/bounds.cost_predicted_tokens`
    prompt_bytes: int
    session: int = -1  # `policies/routing/sessions.number_of`; NO_SESSION
    blocks_begin: int = 0  # of its prompt's hashes, in `gateway.blocks`
    blocks_end: int = 0


@compiled
def arrive(gateway: Gateway, request: int, ask: Ask, now_s: float) -> int:
    """A request comes; what became of it: SENT, QUEUED, STRANDED, NO_ROOM, ASKS_MOST, NO_REPLICA.

    Others may have been refused or sent by this: see the events.
    """
    gateway.told[0] = 0
    _take_in(gateway, request, ask, now_s)
    model = ask.model
    slots = gateway.models[model].slots
    if slots == UNKNOWN and gateway.queues.lines[model].waiting == 0:
        return _route(gateway, request, now_s)  # its replicas queue by themselves
    gateway.placed[request].has_ticket = True
    code, victim, asks_most, retry_s = queue.offer(gateway.queues, request, slots, now_s)
    if code == ADMITTED:
        return _route_on(gateway, request, now_s)
    if victim != request:
        _tell(gateway, QUEUED, request, NOBODY, 0.0)
    if code == queue.QUEUED:
        return QUEUED
    why = ASKS_MOST if asks_most else NO_ROOM
    _refuse(gateway, victim, why, retry_s, now_s)
    return why if victim == request else QUEUED


@compiled
def first_token(gateway: Gateway, request: int, now_s: float) -> None:
    """Its replica has read its prompt."""
    gateway.told[0] = 0
    router.first_token(gateway, request, now_s)


@compiled
def finished(gateway: Gateway, request: int, tokens: tuple[int, int, int], now_s: float) -> int:
    """It was answered, with tokens in, of these cached, and tokens out; how many events."""
    gateway.told[0] = 0
    router.finished(gateway, request, tokens, now_s)
    router.release(gateway, request)
    _end_ticket(gateway, request, tokens[0] + tokens[2], now_s)
    return gateway.told[0]


@compiled
def cancelled(gateway: Gateway, request: int, tokens_used: int, now_s: float) -> int:
    """Its client left, or it failed for good, wherever it was; how many events."""
    gateway.told[0] = 0
    _unstrand(gateway, request)
    router.release(gateway, request)
    _end_ticket(gateway, request, tokens_used, now_s)
    return gateway.told[0]


@compiled
def let_go(gateway: Gateway, request: int) -> None:
    """Its attempt failed: it keeps its slot, and that replica comes last for it. Then `again`."""
    gateway.told[0] = 0
    placed = gateway.placed[request]
    if placed.replica == NOBODY:
        return
    placed.tried_replicas[placed.tried % TRIED_MAX] = placed.replica
    placed.tried += 1
    router.release(gateway, request)


@compiled
def again(gateway: Gateway, request: int, now_s: float) -> int:
    """Send it to another replica; what became of it: SENT, STRANDED or NO_REPLICA."""
    gateway.told[0] = 0
    return _route_on(gateway, request, now_s)


@compiled
def table_changed(gateway: Gateway, now_s: float) -> int:
    """Replicas joined, left, or became suspect or ready; how many events."""
    gateway.told[0] = 0
    for model in range(len(gateway.models)):
        sum_slots(gateway, model)
        _start_next(gateway, model, now_s)
    _route_stranded(gateway, now_s)
    return gateway.told[0]


@compiled
def sweep(gateway: Gateway, now_s: float) -> int:
    """By the clock: refuse those whose time to wait is over; how many events."""
    gateway.told[0] = 0
    rules = gateway.rules[0]
    while rules.first_stranded != NOBODY:
        request = rules.first_stranded
        if gateway.placed[request].deadline_s > now_s:
            break
        _unstrand(gateway, request)
        _refuse(gateway, request, NO_REPLICA, 5.0, now_s)
    for model in range(len(gateway.models)):
        _expire(gateway, model, now_s)
        _start_next(gateway, model, now_s)
    _route_stranded(gateway, now_s)
    return gateway.told[0]


# Its steps.


@inner
def _take_in(gateway: Gateway, request: int, ask: Ask, now_s: float) -> None:
    work, placed = gateway.queues.works[request], gateway.placed[request]
    work.model, work.tenant, work.rank = ask.model, ask.tenant, ask.rank
    work.cost_tokens = ask.cost_tokens
    work.arrived_s = now_s
    work.deadline_s = now_s + gateway.rules[0].queue_timeout_s[ask.rank]
    placed.replica = NOBODY
    placed.prompt_bytes = ask.prompt_bytes
    placed.session = ask.session
    placed.blocks_begin, placed.blocks_end = ask.blocks_begin, ask.blocks_end
    placed.tried = 0
    placed.has_ticket = placed.is_stranded = False


@inner
def _route(gateway: Gateway, request: int, now_s: float) -> int:
    """Send it; where no replica listens it waits for one, or is refused."""
    replica = router.choose(gateway, request, now_s)
    if replica != NOBODY:
        _tell(gateway, SENT, request, replica, 0.0)
        return SENT
    if gateway.rules[0].stranded >= gateway.rules[0].waiting_max:
        _tell(gateway, NO_REPLICA, request, NOBODY, 1.0)
        _give_up(gateway, request, 0, now_s)
        return NO_REPLICA
    _strand(gateway, request, now_s)
    _tell(gateway, STRANDED, request, NOBODY, 0.0)
    return STRANDED


@inner
def _route_on(gateway: Gateway, request: int, now_s: float) -> int:
    """`_route`; where it was refused, its slot may start others."""
    had_ticket = gateway.placed[request].has_ticket
    what = _route(gateway, request, now_s)
    if what == NO_REPLICA and had_ticket:
        _start_next(gateway, gateway.queues.works[request].model, now_s)
    return what


@inner
def _refuse(gateway: Gateway, request: int, why: int, retry_s: float, now_s: float) -> None:
    """It has ended; what it held may start others."""
    _tell(gateway, why, request, NOBODY, 1.0 if np.isnan(retry_s) else retry_s)
    _end_ticket(gateway, request, 0, now_s)


@inner
def _end_ticket(gateway: Gateway, request: int, tokens: int, now_s: float) -> None:
    if not gateway.placed[request].has_ticket:
        return
    _give_up(gateway, request, tokens, now_s)
    _start_next(gateway, gateway.queues.works[request].model, now_s)


@inner
def _give_up(gateway: Gateway, request: int, tokens: int, now_s: float) -> None:
    """Its slot or its place in the queue; a refused one has neither."""
    if not gateway.placed[request].has_ticket:
        return
    gateway.placed[request].has_ticket = False
    if not queue.cancel(gateway.queues, request) and queue.holds(gateway.queues, request):
        queue.settle(gateway.queues, request, tokens, now_s)


@inner
def _start_next(gateway: Gateway, model: int, now_s: float) -> None:
    """Start those that wait, as far as slots go."""
    while gateway.queues.lines[model].waiting > 0:
        slots = gateway.models[model].slots
        request = queue.next_start(gateway.queues, model, slots, now_s)
        if request == NOBODY:
            return
        _route(gateway, request, now_s)


@inner
def _expire(gateway: Gateway, model: int, now_s: float) -> None:
    expired, count = gateway.scratch.requests, 0
    while True:
        request, _, retry_s = queue.expire_one(gateway.queues, model, now_s)
        if request == NOBODY:
            break
        expired[count] = request
        gateway.placed[request].deadline_s = retry_s  # kept there until it is told
        count += 1
    queue.forget_idle(gateway.queues, model)
    for index in range(count):
        request = expired[index]
        _refuse(gateway, request, EXPIRED, gateway.placed[request].deadline_s, now_s)


@inner
def _tell(gateway: Gateway, kind: int, request: int, replica: int, retry_after_s: float) -> None:
    event = gateway.events[gateway.told[0]]
    event.kind, event.request, event.replica = kind, request, replica
    event.retry_after_s = retry_after_s
    gateway.told[0] += 1


# Those that have a slot and no replica, in the order in which they came.


@inner
def _strand(gateway: Gateway, request: int, now_s: float) -> None:
    rules, placed = gateway.rules[0], gateway.placed[request]
    placed.is_stranded = True
    placed.deadline_s = now_s + rules.replica_wait_s
    placed.before, placed.after = rules.last_stranded, NOBODY
    if rules.last_stranded == NOBODY:
        rules.first_stranded = request
    else:
        gateway.placed[rules.last_stranded].after = request
    rules.last_stranded = request
    rules.stranded += 1


@inner
def _unstrand(gateway: Gateway, request: int) -> None:
    rules, placed = gateway.rules[0], gateway.placed[request]
    if not placed.is_stranded:
        return
    placed.is_stranded = False
    if placed.before == NOBODY:
        rules.first_stranded = placed.after
    else:
        gateway.placed[placed.before].after = placed.after
    if placed.after == NOBODY:
        rules.last_stranded = placed.before
    else:
        gateway.placed[placed.after].before = placed.before
    rules.stranded -= 1


@inner
def _route_stranded(gateway: Gateway, now_s: float) -> None:
    """Send those whose model has a replica again."""
    request = gateway.rules[0].first_stranded
    while request != NOBODY:
        after = gateway.placed[request].after
        model = gateway.models[gateway.queues.works[request].model]
        if model.listening > 0:
            _unstrand(gateway, request)
            _route(gateway, request, now_s)
        request = after
