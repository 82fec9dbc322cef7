"""The gateway's metrics: what is counted, under which names, labels and buckets.

Counting is on the path of every request and every token, so the counts are plain numbers in
Structs; only a scrape makes Prometheus text of them (prometheus-client's own counters took 10 us
of a request, these take 1: 2026-11-21).

Label sets are bounded: `model` and `replica` are names of the fleet file or `none`, never what a
client wrote; `tier`, `surface`, `outcome` and `reason` are closed lists.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from argosy.fleet.messages import Usage

_TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60.0)
_ITL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)
_REQUEST_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_WHERE = ("model", "tier", "replica")

Where = tuple[str, str, str]  # model, tier, replica; `none` where there is none
Metric = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
Read = Callable[[], float]


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


class Gauges(Protocol):
    """What is read of a replica when somebody scrapes."""

    is_ready: bool

    @property
    def in_flight(self) -> int:
        """Requests that it works on."""
        ...


class GatewayMetrics(Collector):
    """All of them, in a registry of its own so that two gateways may live in one process."""

    def __init__(self, *, waiting: Read, connections: Read, unwritten: Read) -> None:
        """The three are read when somebody scrapes."""
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._waiting, self._connections, self._unwritten = waiting, connections, unwritten
        self._series: dict[Where, Series] = {}
        self._attempts_failed: dict[tuple[str, str], int] = {}  # by replica and reason
        self._http_rejected: dict[str, int] = {}
        self._replicas: dict[tuple[str, str], Gauges] = {}  # by model and replica

    def series(self, model: str | None, tier: str | None, replica: str | None) -> Series:
        """Where the requests of one place are counted; `none` where there is none."""
        where = (model or "none", tier or "none", replica or "none")
        found = self._series.get(where)
        if found is None:
            found = self._series[where] = Series.empty()
        return found

    def attempt_failed(self, replica: str, reason: str) -> None:
        """One more attempt that failed."""
        key = (replica, reason)
        self._attempts_failed[key] = self._attempts_failed.get(key, 0) + 1

    def rejected(self, reason: str) -> None:
        """One more connection or request refused before any API read it."""
        self._http_rejected[reason] = self._http_rejected.get(reason, 0) + 1

    def watch_replica(self, model: str, replica: str, gauges: Gauges) -> None:
        """Read this replica when somebody scrapes."""
        self._replicas[model, replica] = gauges

    def page(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """For the registry: all metrics as they are now."""
        yield from self._per_place()
        failed = _counter(
            "argosy_attempts_failed", "Attempts on a replica that failed.", ("replica", "reason")
        )
        for key, count in self._attempts_failed.items():
            failed.add_metric(key, count)
        yield failed
        said = "Connections and requests refused before any API read them."
        rejected = _counter("argosy_http_rejected", said, ("reason",))
        for reason, count in self._http_rejected.items():
            rejected.add_metric((reason,), count)
        yield rejected
        yield from self._now()

    def _per_place(self) -> Iterator[Metric]:
        requests = _counter(
            "argosy_requests", "Requests that ended.", ("surface", *_WHERE, "outcome")
        )
        tokens_in = _counter("argosy_tokens_in", "Prompt tokens.", _WHERE)
        said = "Prompt tokens that a prefix cache spared."
        tokens_cached = _counter("argosy_tokens_cached", said, _WHERE)
        tokens_out = _counter("argosy_tokens_out", "Tokens generated.", _WHERE)
        ttft = _histogram("argosy_ttft_seconds", "Receipt to first token out, of streams.")
        itl = _histogram("argosy_itl_seconds", "Gap between two tokens of a stream.")
        duration = _histogram("argosy_request_seconds", "Receipt to last byte out.")
        for where, series in self._series.items():
            for (surface, outcome), count in series.ended.items():
                requests.add_metric((surface, *where, outcome), count)
            tokens_in.add_metric(where, series.tokens_in)
            tokens_cached.add_metric(where, series.tokens_cached)
            tokens_out.add_metric(where, series.tokens_out)
            for family, seen in (
                (ttft, series.ttft), (itl, series.itl), (duration, series.duration),
            ):  # fmt: skip
                family.add_metric(where, seen.buckets(), seen.total)
        yield from (requests, tokens_in, tokens_cached, tokens_out, ttft, itl, duration)

    def _now(self) -> Iterator[Metric]:
        labels = ("model", "replica")
        in_flight = GaugeMetricFamily(
            "argosy_requests_in_flight", "Requests that a replica works on.", labels=labels
        )
        ready = GaugeMetricFamily("argosy_replica_ready", "1 when ready.", labels=labels)
        for key, gauges in self._replicas.items():
            in_flight.add_metric(key, gauges.in_flight)
            ready.add_metric(key, gauges.is_ready)
        yield from (in_flight, ready)
        for name, said, read in (
            ("argosy_requests_waiting", "Requests without a replica.", self._waiting),
            ("argosy_connections", "Client connections open.", self._connections),
            ("argosy_usage_records_unwritten", "Usage records not yet on disk.", self._unwritten),
        ):
            yield GaugeMetricFamily(name, said, value=read())


def _counter(name: str, said: str, labels: tuple[str, ...]) -> CounterMetricFamily:
    return CounterMetricFamily(name, said, labels=labels)


def _histogram(name: str, said: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, said, labels=_WHERE)
