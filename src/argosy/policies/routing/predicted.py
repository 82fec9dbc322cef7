"""The default policy: where the first token is predicted soonest. Pure; computed in `places.py`.

    seconds = wait for a slot                (in flight - slots + 1) x service_s / slots
            + prompts queued ahead           prefill_bytes_queued x prefill_s_per_byte
            + this prompt, less what that replica's prefix cache spares     x the same rate
            + base_s
            + the request's price            x price_weight_s_per_usd

**Bounded affinity.** What the cache spares counts only while the replica's load (in flight per
slot) is at most `affinity_load_max` above the least loaded candidate's. Seconds alone are no
bound: a free slot costs nothing in them, so one hot prefix would fill a replica to its last slot,
slowing what decodes there, while others idle; and a rate learned wrong could hold it there.
Past the bound the prompt is computed once more elsewhere, and then there are two that have it.

**Sessions.** The home of a session (`home_of`) is hoped to hold half of what is not known to be
cached there: enough to prefer it over equals, not over a replica known to hold most.

**Slow start.** A replica that is ready since `age_s` < `slow_start_s` counts as having only that
share of its slots (one at least): an empty queue must not draw everything to a cold replica.

**Equals.** Predictions within 5 % and a millisecond are the same; the least loaded of these wins,
and then they take turns. Learned rates are never quite equal: without this, one replica of a quiet
fleet would have all the work.
"""

from collections.abc import Sequence

import msgspec

from argosy.policies.routing.places import (
    SLOTS_ASSUMED,
    TIE_S,
    TIE_SHARE,
    Known,
    predicted_place,
    price_usd,
    slots_so_far,
    turn_by_name,
)
from argosy.policies.routing.views import (
    ANY_REQUEST,
    DEFAULT_TUNING,
    NO_REPLICA,
    NONE_TRIED,
    NoRoute,
    ReplicaView,
    RequestShape,
    Route,
    Tuning,
    best_kind,
)

__all__ = ["TIE_S", "TIE_SHARE", "Score", "predicted", "scores"]

_NOBODY: Known = ((), [])


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What is predicted of one replica, in its parts (seconds); for people who ask why."""

    replica: str
    load: float  # in flight per slot, slow start counted
    wait_s: float
    queued_s: float
    prompt_s: float
    base_s: float
    price_s: float
    spared_bytes: int

    @property
    def total_s(self) -> float:
        """What is compared."""
        return self.wait_s + self.queued_s + self.prompt_s + self.base_s + self.price_s


def predicted(
    replicas: Sequence[ReplicaView],
    *,
    request: RequestShape = ANY_REQUEST,
    tried: frozenset[str] = NONE_TRIED,
    tuning: Tuning = DEFAULT_TUNING,
) -> Route | NoRoute:
    """Where the first token is predicted soonest, as the module says.

    `scores` is the same, written plainly; `laws/` hold them together.
    """
    able = best_kind(replicas, tried)
    if not able:
        return NO_REPLICA
    count = len(able)
    totals, loads = [0.0] * count, [0.0] * count
    known = _NOBODY
    if request.prompt_bytes and (request.cached or request.home):
        cached = request.cached.get
        known = range(count), [cached(view.replica, 0) for view in able]
    choice = predicted_place(able, request, tuning, known, (totals, loads))
    place = choice[0]
    if choice[1] > 1:
        place = turn_by_name(able, totals, loads, choice, request.turn)
    view = able[place]
    return Route(
        replica=view.replica,
        policy="predicted",
        candidates=count,
        requests_in_flight=view.requests_in_flight,
        score_s=totals[place],
        spared_bytes=known[1][place] if known is not _NOBODY else 0,
    )


def scores(
    replicas: Sequence[ReplicaView],
    *,
    request: RequestShape = ANY_REQUEST,
    tried: frozenset[str] = NONE_TRIED,
    tuning: Tuning = DEFAULT_TUNING,
) -> tuple[Score, ...]:
    """The parts of each candidate's prediction, by name: plainly, and never in a request's way."""
    able = best_kind(replicas, tried)
    slots = {view.replica: _slots_now(view, request, tuning) for view in able}
    loads = {view.replica: view.requests_in_flight / slots[view.replica] for view in able}
    load_max = min(loads.values(), default=0.0) + tuning.affinity_load_max

    def score(view: ReplicaView) -> Score:
        name, count = view.replica, slots[view.replica]
        ahead = view.requests_in_flight - count + 1 if view.requests_in_flight >= count else 0
        spared = _spared_bytes(name, request) if loads[name] <= load_max else 0
        return Score(
            replica=name,
            load=loads[name],
            wait_s=ahead * view.service_s / count,
            queued_s=view.prefill_bytes_queued * view.prefill_s_per_byte,
            prompt_s=(request.prompt_bytes - spared) * view.prefill_s_per_byte,
            base_s=view.base_s,
            price_s=price_usd(view, request.prompt_bytes) * tuning.price_weight_s_per_usd,
            spared_bytes=spared,
        )

    return tuple(score(view) for view in sorted(able, key=lambda view: view.replica))


def _slots_now(view: ReplicaView, request: RequestShape, tuning: Tuning) -> float:
    slots = view.slots or SLOTS_ASSUMED
    if view.ready_since_s is None:
        return slots
    return slots_so_far(slots, request.now_s - view.ready_since_s, tuning.slow_start_s)


def _spared_bytes(name: str, request: RequestShape) -> int:
    known = min(request.prompt_bytes, request.cached.get(name, 0))
    hoped = (request.prompt_bytes - known) // 2 if name == request.home else 0
    return known + hoped
