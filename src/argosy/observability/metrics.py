"""The gateway's Prometheus metrics: names, labels, buckets.

Label sets are bounded: `model` and `replica` are names of the fleet file or `none`, never what a
client wrote; `tier`, `surface`, `outcome` and `reason` are closed lists.
"""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from argosy.fleet.messages import Usage

disable_created_metrics()  # a second series for every counter, which nobody reads

_TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60.0)
_ITL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)
_REQUEST_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_WHERE = ("model", "tier", "replica")


class _Series:
    """The children of one (model, tier, replica), looked up once."""

    def __init__(self, metrics: "GatewayMetrics", where: tuple[str, str, str]) -> None:
        self.tokens_in = metrics.tokens_in.labels(*where)
        self.tokens_cached = metrics.tokens_cached.labels(*where)
        self.tokens_out = metrics.tokens_out.labels(*where)
        self.ttft = metrics.ttft.labels(*where)
        self.itl = metrics.itl.labels(*where)
        self.duration = metrics.duration.labels(*where)


class GatewayMetrics:
    """All of them, in a registry of its own so that two gateways may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "argosy_requests",
            "Requests that ended.",
            ("surface", *_WHERE, "outcome"),
            registry=registry,
        )
        self.tokens_in = Counter("argosy_tokens_in", "Prompt tokens.", _WHERE, registry=registry)
        self.tokens_cached = Counter(
            "argosy_tokens_cached",
            "Prompt tokens that a prefix cache spared.",
            _WHERE,
            registry=registry,
        )
        self.tokens_out = Counter(
            "argosy_tokens_out", "Tokens generated.", _WHERE, registry=registry
        )
        self.ttft = Histogram(
            "argosy_ttft_seconds", "Receipt to first token out, of streams.", _WHERE,
            buckets=_TTFT_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.itl = Histogram(
            "argosy_itl_seconds", "Gap between two tokens of a stream.", _WHERE,
            buckets=_ITL_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.duration = Histogram(
            "argosy_request_seconds", "Receipt to last byte out.", _WHERE,
            buckets=_REQUEST_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.attempts_failed = Counter(
            "argosy_attempts_failed", "Attempts on a replica that failed.", ("replica", "reason"),
            registry=registry,
        )  # fmt: skip
        self.http_rejected = Counter(
            "argosy_http_rejected", "Connections and requests refused before any API read them.",
            ("reason",), registry=registry,
        )  # fmt: skip
        self._in_flight = Gauge(
            "argosy_requests_in_flight", "Requests that a replica works on.", ("model", "replica"),
            registry=registry,
        )  # fmt: skip
        self._ready = Gauge(
            "argosy_replica_ready", "1 when ready.", ("model", "replica"), registry=registry
        )
        self._waiting = Gauge(
            "argosy_requests_waiting", "Requests without a replica.", registry=registry
        )
        self._connections = Gauge(
            "argosy_connections", "Client connections open.", registry=registry
        )
        self._unwritten = Gauge(
            "argosy_usage_records_unwritten", "Usage records not yet on disk.", registry=registry
        )
        self._series: dict[tuple[str, str, str], _Series] = {}

    def series(self, model: str | None, tier: str | None, replica: str | None) -> _Series:
        """The children of one place; `none` where there is none."""
        where = (model or "none", tier or "none", replica or "none")
        found = self._series.get(where)
        if found is None:
            found = self._series[where] = _Series(self, where)
        return found

    def count(self, usage: Usage) -> None:
        """Add one request that has ended."""
        series = self.series(usage.model, usage.tier, usage.replica)
        self.requests.labels(
            usage.surface,
            usage.model or "none",
            usage.tier or "none",
            usage.replica or "none",
            usage.outcome,
        ).inc()
        series.tokens_in.inc(usage.tokens_in)
        series.tokens_cached.inc(usage.tokens_cached)
        series.tokens_out.inc(usage.tokens_out)
        series.duration.observe(usage.duration_s)

    def watch(
        self,
        *,
        waiting: Callable[[], float],
        connections: Callable[[], float],
        unwritten: Callable[[], float],
    ) -> None:
        """Read these when somebody scrapes."""
        self._waiting.set_function(waiting)
        self._connections.set_function(connections)
        self._unwritten.set_function(unwritten)

    def watch_replica(
        self,
        model: str,
        replica: str,
        *,
        in_flight: Callable[[], float],
        ready: Callable[[], float],
    ) -> None:
        """Likewise, for one replica."""
        self._in_flight.labels(model, replica).set_function(in_flight)
        self._ready.labels(model, replica).set_function(ready)

    def page(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
