"""What bound first: for each model the first time its promise broke, and what was full then."""

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.simulator.scenario import Group
from argosy.simulator.serving import Ran

BROKEN_BELOW = 0.95  # of the requests that arrive in a stretch of time
REQUESTS_MIN = 200  # in it: of fewer, one long prompt is many
_FULL = 0.95


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model."""

    model: str
    at_s: float
    slo_met_share: float  # then
    what: str  # replicas | KV cache | slots | prefill | decode | distance
    reason: str


def first_bounds(ran: Ran) -> tuple[Bound, ...]:
    """By time; models that kept their promise throughout have none."""
    found = [bound for model in range(len(ran.scenario.models)) if (bound := _first(ran, model))]
    return tuple(sorted(found, key=lambda bound: (bound.at_s, bound.model)))


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
    return None


def _stretches(ran: Ran, model: int) -> Iterator[tuple[slice, int, int]]:
    """Buckets of time that hold enough requests together; how many, and how many met the SLO."""
    arrivals = ran.tally.over_time["arrived"][:, model]
    mets = ran.tally.over_time["met"][:, model]
    begin = arrived = 0
    for place in range(int(ran.fed_s / ran.tally.bucket_s) + 1):
        arrived += int(arrivals[place])
        if arrived >= REQUESTS_MIN:
            part = slice(begin, place + 1)
            yield part, arrived, int(mets[part].sum())
            begin, arrived = place + 1, 0


def _why(ran: Ran, model: int, part: slice) -> tuple[str, str]:
    groups = [
        (number, group) for number, group in enumerate(ran.scenario.groups) if group.model == model
    ]
    rows = _samples(ran, part.stop * ran.tally.bucket_s)
    if rows is None:
        return "replicas", "it ended before anything was sampled"
    listening = sum(int(rows["listening"][number].max()) for number, _ in groups)
    if not listening:
        return "replicas", "none of its replicas listens"
    queued = max(int(rows["queued"][number].max()) for number, _ in groups)
    if queued:
        held = ", ".join(_held(rows[number], group) for number, group in groups)
        return "slots", f"{queued} requests wait at the gateway: {held}"
    for number, group in groups:
        row, blocks = rows[number], group.perf.kv_tokens // group.engine.block_tokens
        used = float(row["blocks_used"]) / max(1, int(row["listening"]) * blocks)
        if row["waiting"] and used > _FULL:
            told = f"{int(row['waiting'])} requests wait for KV cache on {group.name}"
            return "KV cache", f"{told}: {used:.0%} of {blocks * group.engine.block_tokens} tokens"
    return _slow(ran, model, part, groups)


def _slow(ran: Ran, model: int, part: slice, groups: list[tuple[int, Group]]) -> tuple[str, str]:
    """Nothing is full: the steps are too long, or the way is."""
    slo = ran.scenario.slos[model]
    ttft_s = ran.tally.ttft_s_in(model, part, 0.95)
    if slo.ttft_s_p95 is None or ttft_s is None or ttft_s <= slo.ttft_s_p95:
        return "decode", f"answers take more than itl_s_p99 = {slo.itl_s_p99:g} s a token"
    trip_s = min(
        ran.scenario.round_trip_s(demand.origin, group.region)
        for _, group in groups
        for demand in ran.scenario.fleet.demand
        if demand.model == ran.scenario.models[model]
    ) if ran.scenario.fleet.demand else 0.0  # fmt: skip
    if trip_s > 0.5 * slo.ttft_s_p95:
        return "distance", f"the nearest replica is {trip_s:g} s away and back"
    told = f"TTFT p95 is {ttft_s:.3g} s with slots and KV cache free"
    return "prefill", f"{told}: prompts wait for prompts and for steps of decoding"


def _samples(ran: Ran, at_s: float) -> NDArray[np.void] | None:
    """The sample of each group nearest after `at_s`."""
    if not len(ran.samples):
        return None
    times = ran.samples["at_s"][:, 0]
    return ran.samples[min(int(np.searchsorted(times, at_s)), len(times) - 1)]


def _held(row: NDArray[np.void], group: Group) -> str:
    most = int(row["listening"]) * group.engine.requests_max
    return f"{group.name} runs {int(row['running'])} of {most}"
