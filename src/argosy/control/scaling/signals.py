"""What gateways tell the autoscaling, at one moment: sums of their processes, by model and replica.

Made of the metrics that a gateway has anyway. `asked` and the replicas' tokens only grow, so that a
snapshot that is lost, late or heard twice loses and doubles nothing.
"""

from collections.abc import Sequence
from typing import get_args

import msgspec
from msgspec.structs import replace

from argosy.fleet.messages import RefusalKind
from argosy.observability.counts import Asked, Counts, Histogram, MetricsSnapshot
from argosy.policies.failover import failure_of

# Why an attempt failed, where that speaks against the replica: one that is full does no wrong.
_FAULTS = frozenset(one for one in get_args(RefusalKind) if failure_of(one) in ("lost", "silent"))


class ReplicaSignals(msgspec.Struct, frozen=True, kw_only=True):
    """Of one replica."""

    in_flight: int = 0  # now
    read_tokens: int = 0  # of prompts that were answered, without what caches spared
    output_tokens: int = 0
    ttft: Histogram | None = None  # of streams
    itl: Histogram | None = None
    finished: int = 0  # requests, streamed or not
    failed: int = 0  # attempts, by its fault


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """Of one gateway (all of its processes)."""

    at_s: float  # Unix time
    asked: dict[str, Asked] = {}  # by model, since it began
    queued: dict[str, int] = {}  # by model: without a slot or a replica; batch left out
    replicas: dict[str, ReplicaSignals] = {}
    source: str = "gateway"  # which one, where there are several
    began_s: float | None = None  # Unix time: when its counts began; None: not known
    is_whole: bool = True  # False: a process of it did not answer


def signals_of(
    metrics: MetricsSnapshot,
    *,
    at_s: float,
    source: str = "gateway",
    began_s: float | None = None,
    is_whole: bool = True,
) -> Signals:
    """Of the merged metrics of a gateway's processes, those that are gone included."""
    counts, readings = metrics.counts, metrics.readings
    in_flight: dict[str, int] = {}
    for (_, replica), count in readings.in_flight.items():
        in_flight[replica] = in_flight.get(replica, 0) + count
    replicas = {name: ReplicaSignals(in_flight=count) for name, count in in_flight.items()}
    for (_, _, replica), series in counts.series.items():
        if replica == "none":
            continue
        before = replicas.get(replica, ReplicaSignals())
        replicas[replica] = replace(
            before,
            read_tokens=before.read_tokens + series.tokens_in - series.tokens_cached,
            output_tokens=before.output_tokens + series.tokens_out,
            ttft=_sum(before.ttft, series.ttft),
            itl=_sum(before.itl, series.itl),
            finished=before.finished + series.finished(),
        )
    for name, failed in _faults(counts).items():
        replicas[name] = replace(replicas.get(name, ReplicaSignals()), failed=failed)
    return Signals(
        at_s=at_s,
        asked=dict(counts.asked),
        queued=dict(readings.queued),
        replicas=replicas,
        source=source,
        began_s=began_s,
        is_whole=is_whole,
    )


def _faults(counts: Counts) -> dict[str, int]:
    """Attempts that failed by the replica's fault, by replica."""
    faults: dict[str, int] = {}
    for (replica, reason), count in counts.attempts_failed.items():
        if reason in _FAULTS:
            faults[replica] = faults.get(replica, 0) + count
    return faults


def _sum(one: Histogram | None, other: Histogram) -> Histogram:
    """A new one: what a gateway counts in goes on growing."""
    whole = Histogram.of(other.bounds)
    for part in (one, other):
        if part is not None:
            whole.add(part)
    return whole


def queued_of(heard: Sequence[Signals], model: str) -> int:
    """Requests of a model without a slot or a replica, at all gateways."""
    return sum(one.queued.get(model, 0) for one in heard)


def in_flight_of(heard: Sequence[Signals], replica: str) -> int:
    """Requests that a replica works on, for all gateways."""
    return sum(one.replicas[replica].in_flight for one in heard if replica in one.replicas)
