"""What a gateway process counts, as plain numbers that can be sent and added up.

Names, labels and buckets are `metrics.py`'s; this imports no Prometheus, so that whoever only adds
up does not load it.
"""

from bisect import bisect_left
from collections.abc import Hashable, Iterable
from typing import TypeVar

import msgspec

from argosy.fleet.messages import Usage

K = TypeVar("K", bound=Hashable)
Where = tuple[str, str, str]  # model, tier, replica; `none` where there is none

_TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60.0)
_ITL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)
_REQUEST_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Histogram(msgspec.Struct):
    """Counts per bucket, the last one past all bounds, and the sum of what was observed."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    @classmethod
    def of(cls, bounds: tuple[float, ...]) -> "Histogram":
        """An empty one."""
        return cls(bounds, [0] * (len(bounds) + 1))

    def observe(self, value: float, count: int = 1) -> None:
        """`count` times that value."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulated, as Prometheus has them."""
        seen, rows = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            seen += count
            rows.append((bound, float(seen)))
        return rows

    def since(self, before: "Histogram | None") -> "Histogram | None":
        """What came since; None where it began anew, or has other bounds."""
        if before is None:
            return self
        if before.bounds != self.bounds:
            return None
        counts = [now - old for now, old in zip(self.counts, before.counts, strict=True)]
        if min(counts) < 0:
            return None
        return Histogram(self.bounds, counts, max(0.0, self.total - before.total))

    def quantile(self, share: float) -> float | None:
        """Values are even within a bucket, and the last bound is the most; None: it is empty."""
        rank, below = share * sum(self.counts), 0
        if not rank:
            return None
        for low, high, count in zip((0.0, *self.bounds), self.bounds, self.counts, strict=False):
            if below + count >= rank:
                return low + (high - low) * (rank - below) / count
            below += count
        return self.bounds[-1]

    def add(self, other: "Histogram") -> None:
        """Its counts too; those of other bounds (another version's) cannot be added and are not."""
        if self.bounds == other.bounds:
            self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
            self.total += other.total


class Series(msgspec.Struct):
    """What is counted of one (model, tier, replica)."""

    ttft: Histogram
    itl: Histogram
    duration: Histogram
    ended: dict[tuple[str, str], int]  # requests by surface and outcome
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0

    @classmethod
    def empty(cls) -> "Series":
        """Nothing counted yet."""
        return cls(
            ttft=Histogram.of(_TTFT_BUCKETS_S),
            itl=Histogram.of(_ITL_BUCKETS_S),
            duration=Histogram.of(_REQUEST_BUCKETS_S),
            ended={},
        )

    def count(self, usage: Usage) -> None:
        """Add one request that has ended."""
        ended, how = self.ended, (usage.surface, usage.outcome)
        ended[how] = ended.get(how, 0) + 1
        self.tokens_in += usage.tokens_in
        self.tokens_cached += usage.tokens_cached
        self.tokens_out += usage.tokens_out
        self.duration.observe(usage.duration_s)

    def finished(self) -> int:
        """Requests that ended well."""
        return sum(count for (_, how), count in self.ended.items() if how == "finished")

    def add(self, other: "Series") -> None:
        """Its counts too."""
        self.ttft.add(other.ttft)
        self.itl.add(other.itl)
        self.duration.add(other.duration)
        _add(self.ended, other.ended)
        self.tokens_in += other.tokens_in
        self.tokens_cached += other.tokens_cached
        self.tokens_out += other.tokens_out


class Asked(msgspec.Struct, frozen=True):
    """What came for one model, and how much of it was answered: what autoscaling counts.

    A request counts when it comes, once for each model that it comes to (a fallback is another);
    not one that its tenant's budget refuses. Prompts count in bytes then: how many tokens they
    have is known of those that were answered.
    """

    requests: int = 0  # of the enterprise and consumer tiers
    prompt_bytes: int = 0  # of these
    batch_requests: int = 0
    batch_prompt_bytes: int = 0
    answered: int = 0  # of all tiers, when they end well
    output_tokens: int = 0  # of these
    read_bytes: int = 0  # of these prompts, where the engine says how many tokens they had
    read_tokens: int = 0

    def plus(self, other: "Asked") -> "Asked":
        """Both together."""
        return Asked(
            requests=self.requests + other.requests,
            prompt_bytes=self.prompt_bytes + other.prompt_bytes,
            batch_requests=self.batch_requests + other.batch_requests,
            batch_prompt_bytes=self.batch_prompt_bytes + other.batch_prompt_bytes,
            answered=self.answered + other.answered,
            output_tokens=self.output_tokens + other.output_tokens,
            read_bytes=self.read_bytes + other.read_bytes,
            read_tokens=self.read_tokens + other.read_tokens,
        )


class Counts(msgspec.Struct):
    """What only grows."""

    series: dict[Where, Series] = {}
    asked: dict[str, Asked] = {}  # by model
    attempts_failed: dict[tuple[str, str], int] = {}  # by replica and reason
    http_rejected: dict[str, int] = {}  # by reason

    def add(self, other: "Counts") -> None:
        """Its counts too; `other` stays as it is."""
        for where, series in other.series.items():
            self.series.setdefault(where, Series.empty()).add(series)
        for model, asked in other.asked.items():
            self.asked[model] = self.asked.get(model, Asked()).plus(asked)
        _add(self.attempts_failed, other.attempts_failed)
        _add(self.http_rejected, other.http_rejected)

    def finished(self, replica: str) -> int:
        """Requests that this replica has finished."""
        return sum(
            series.finished() for where, series in self.series.items() if where[2] == replica
        )


class Readings(msgspec.Struct):
    """What goes up and down, as it is now."""

    in_flight: dict[tuple[str, str], int] = {}  # by model and replica
    ready: dict[tuple[str, str], bool] = {}
    queued: dict[str, int] = {}  # by model: no slot, no replica; the batch tier left out
    waiting: float = 0.0
    connections: float = 0.0
    unwritten: float = 0.0
    table_age_s: float | None = None  # since the replica table was known to be the newest

    def add(self, other: "Readings") -> None:
        """Of another process: its requests too. A replica is ready when one process says so."""
        _add(self.in_flight, other.in_flight)
        _add(self.queued, other.queued)
        for key, is_ready in other.ready.items():
            self.ready[key] = is_ready or self.ready.get(key, False)
        self.waiting += other.waiting
        self.connections += other.connections
        self.unwritten += other.unwritten
        if other.table_age_s is not None:
            self.table_age_s = max(self.table_age_s or 0.0, other.table_age_s)


class MetricsSnapshot(msgspec.Struct):
    """All metrics of one gateway process at one moment, or of several together."""

    counts: Counts = msgspec.field(default_factory=Counts)
    readings: Readings = msgspec.field(default_factory=Readings)


def merged(snapshots: Iterable[MetricsSnapshot]) -> MetricsSnapshot:
    """The sum of all."""
    whole = MetricsSnapshot()
    for snapshot in snapshots:
        whole.counts.add(snapshot.counts)
        whole.readings.add(snapshot.readings)
    return whole


def _add(sums: dict[K, int], more: dict[K, int]) -> None:
    for key, count in more.items():
        sums[key] = sums.get(key, 0) + count
