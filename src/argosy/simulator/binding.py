"""What bound first: for each model the first time its promise broke, and what was full then.

A promise is looked at in stretches of time that hold `REQUESTS_MIN` requests, and as a whole.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.simulator.engine.histogram import quantile_s
from argosy.simulator.outcomes import DONE, LOST, OUTCOMES, TOO_LONG
from argosy.simulator.scenario import Group
from argosy.simulator.serving import Ran
from argosy.simulator.tally import share_within

BROKEN_BELOW = 0.95  # of the requests that arrive in a stretch of time
REQUESTS_MIN = 200  # in it: of fewer, one long prompt is many
_FULL = 0.95
_FAR_SHARE = 0.05  # of a model's requests, from one origin: less breaks no 95th percentile


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model."""

    model: str
    at_s: float | None  # None: at no one time
    slo_met_share: float  # then
    what: str  # replicas | slots | KV cache | context | distance | prefill | decode
    reason: str


def first_bounds(ran: Ran) -> tuple[Bound, ...]:
    """By time; models that kept their promise throughout have none."""
    found = [bound for model in range(len(ran.scenario.models)) if (bound := _first(ran, model))]
    return tuple(sorted(found, key=lambda bound: (bound.at_s or 0.0, bound.model)))


def _first(ran: Ran, model: int) -> Bound | None:
    tally, slo = ran.tally, ran.scenario.slos[model]
    if slo.ttft_s_p95 is None and slo.itl_s_p99 is None and not tally.over_time["refused"].any():
        return None
    for part, arrived, met in _stretches(ran, model):
        if met >= BROKEN_BELOW * arrived:
            continue
        what, reason = _why(ran, model, part)
        return Bound(
            model=ran.scenario.models[model],
            at_s=part.start * tally.bucket_s,
            slo_met_share=met / arrived,
            what=what,
            reason=reason,
        )
    return _gaps(ran, model)


def _stretches(ran: Ran, model: int) -> Iterator[tuple[slice, int, int]]:
    """Buckets of time that hold enough requests together; how many, and how many met the SLO.

    What is left over at the end belongs to the last stretch; of few requests, all are one.
    """
    arrivals = ran.tally.over_time["arrived"][:, model]
    mets = ran.tally.over_time["met"][:, model]
    buckets = int(ran.fed_s / ran.tally.bucket_s) + 1
    left, begin, arrived = int(arrivals[:buckets].sum()), 0, 0
    for place in range(buckets):
        arrived += int(arrivals[place])
        left -= int(arrivals[place])
        if left and (arrived < REQUESTS_MIN or left < REQUESTS_MIN):
            continue
        if arrived:
            part = slice(begin, place + 1)
            yield part, arrived, int(mets[part].sum())
        begin, arrived = place + 1, 0


def _gaps(ran: Ran, model: int) -> Bound | None:
    """Requests were answered in time on the whole, but too many single tokens were late."""
    promised_s = ran.scenario.slos[model].itl_s_p99
    gaps = [
        counts
        for counts, group in zip(ran.itl, ran.scenario.groups, strict=True)
        if group.model == model
    ]
    counts = np.sum(gaps, axis=0)
    if promised_s is None or not counts.sum() or (share_within(counts, promised_s) or 0.0) >= 0.99:
        return None
    typical_s = quantile_s(counts, 0.5) or 0.0
    is_slow = typical_s > promised_s
    told = f"ITL p99 is {quantile_s(counts, 0.99):.3g} s, promised are {promised_s:g} s"
    why = "so long takes a step" if is_slow else "the long ones are steps that read prompts as well"
    return Bound(
        model=ran.scenario.models[model],
        at_s=None,
        slo_met_share=int(ran.tally.met[model].sum()) / int(ran.tally.outcomes[model].sum()),
        what="decode" if is_slow else "prefill",
        reason=f"{told}: half of the gaps are below {typical_s:.3g} s, {why}",
    )


def _why(ran: Ran, model: int, part: slice) -> tuple[str, str]:
    groups = [
        (number, group) for number, group in enumerate(ran.scenario.groups) if group.model == model
    ]
    rows = _samples(ran, part.stop * ran.tally.bucket_s)
    found = None
    if rows is not None:
        found = _full(ran, model, rows, groups)
    return found or _refused(ran, model, part) or _slow(ran, model, part, groups)


def _full(
    ran: Ran, model: int, rows: NDArray[np.void], groups: list[tuple[int, Group]]
) -> tuple[str, str] | None:
    """What there was none of."""
    if not any(int(rows["listening"][number]) for number, _ in groups):
        return "replicas", "none of its replicas listens"
    done = int(ran.tally.outcomes[model, :, DONE].sum())
    prompt_tokens = int(ran.tally.tokens_in[model].sum()) / max(1, done)
    for number, group in groups:
        row, blocks = rows[number], group.perf.kv_tokens // group.engine.block_tokens
        used = float(row["blocks_used"]) / max(1, int(row["listening"]) * blocks)
        tokens = blocks * group.engine.block_tokens
        if row["waiting"] and (used > _FULL or (1 - used) * tokens < prompt_tokens):
            told = f"{int(row['waiting']):,} requests wait for KV cache on {group.name}"
            return "KV cache", f"{told}: {used:.0%} of {tokens:,} tokens a replica are in use"
    # Requests that wait for KV cache hold slots, so those at the gateway tell less.
    queued = max(int(rows["queued"][number]) for number, _ in groups)
    return _slots(queued, rows, groups) if queued else None


def _slots(queued: int, rows: NDArray[np.void], groups: list[tuple[int, Group]]) -> tuple[str, str]:
    held = ", ".join(_held(rows[number], group) for number, group in groups)
    free = sum(_most(rows[number], group) - _holds(rows[number]) for number, group in groups)
    kept = ""
    if free > (1 - _FULL) * sum(_most(rows[number], group) for number, group in groups):
        kept = (
            f"; {free:,} slots are kept for other tenants and tiers (gateway.tenant_share_max, "
            "consumer_share_max, batch_share_max)"
        )
    return "slots", f"{queued:,} requests wait at the gateway: {held}{kept}"


def _refused(ran: Ran, model: int, part: slice) -> tuple[str, str] | None:
    """So many that the others could not keep the promise; the commonest reason of all the time."""
    arrived = int(ran.tally.over_time["arrived"][part, model].sum())
    refused = int(ran.tally.over_time["refused"][part, model].sum())
    if refused <= (1 - BROKEN_BELOW) * arrived:
        return None
    outcomes = ran.tally.outcomes[model].sum(axis=0)
    outcomes[DONE] = 0
    commonest = int(outcomes.argmax())
    told = f"{refused:,} of {arrived:,} requests were refused"
    if commonest == TOO_LONG:
        return "context", f"{told}: longer than its replicas take"
    if commonest == LOST:
        return "replicas", f"{told}: their replicas were gone, and no other was there in time"
    return "slots", f"{told}: most were {OUTCOMES[commonest]}, at the gateway"


def _slow(ran: Ran, model: int, part: slice, groups: list[tuple[int, Group]]) -> tuple[str, str]:
    """Nothing is full: the steps are too long, or the way is."""
    slo = ran.scenario.slos[model]
    ttft_s = ran.tally.ttft_s_in(model, part, 0.95)
    is_late = slo.ttft_s_p95 is not None and ttft_s is not None and ttft_s > slo.ttft_s_p95
    if slo.itl_s_p99 is not None and not is_late:
        return "decode", f"answers take more than itl_s_p99 = {slo.itl_s_p99:g} s a token"
    origin, trip_s = _farthest(ran, model, groups)
    if slo.ttft_s_p95 is not None and trip_s > 0.5 * slo.ttft_s_p95:
        return "distance", f"from {origin}, the nearest replica is {trip_s:g} s away and back"
    told = f"TTFT p95 is {ttft_s or 0.0:.3g} s with slots and KV cache free"
    return "prefill", f"{told}: prompts wait for prompts and for steps of decoding"


def _farthest(ran: Ran, model: int, groups: list[tuple[int, Group]]) -> tuple[str, float]:
    """The origin, of those that matter, that has the longest way to its nearest replica."""
    name = ran.scenario.models[model]
    demand = [one for one in ran.scenario.fleet.demand if one.model == name]
    least = _FAR_SHARE * sum(one.requests_per_s for one in demand)
    named = {one.origin for one in demand if one.requests_per_s >= least}
    # A recorded trace has origins of its own, and does not say how many requests come from each.
    origins = sorted(named & set(ran.origins) or set(ran.origins) or named)
    ways = [
        (min(ran.scenario.round_trip_s(origin, group.region) for _, group in groups), origin)
        for origin in origins
        if origin != "unnamed"
    ]
    trip_s, origin = max(ways, default=(0.0, ""))
    return origin, trip_s


def _samples(ran: Ran, at_s: float) -> NDArray[np.void] | None:
    """The sample of each group nearest after `at_s`."""
    if not len(ran.samples):
        return None
    times = ran.samples["at_s"][:, 0]
    return ran.samples[min(int(np.searchsorted(times, at_s)), len(times) - 1)]


def _held(row: NDArray[np.void], group: Group) -> str:
    return f"{group.name} holds {_holds(row):,} of {_most(row, group):,}"


def _holds(row: NDArray[np.void]) -> int:
    return int(row["running"]) + int(row["waiting"])


def _most(row: NDArray[np.void], group: Group) -> int:
    return int(row["listening"]) * group.engine.requests_max
