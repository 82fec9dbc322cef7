"""The gateway's metrics: under which names and labels they are shown.

Counting is on the path of every request and every token, so the counts are plain numbers in
Structs (`counts.py`); only a scrape makes Prometheus text of them (prometheus-client's own counters
took 10 us of a request, these take 1: 2026-11-21). The page of several processes is that of their
sum.

Label sets are bounded: `model` and `replica` are names of the fleet file or `none`, never what a
client wrote; `tier`, `surface`, `outcome` and `reason` are closed lists.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from argosy.observability.counts import (
    Asked,
    Counts,
    MetricsSnapshot,
    Readings,
    Series,
    Where,
)

_WHERE = ("model", "tier", "replica")
_UNWRITTEN = "Usage records not yet on disk."

Metric = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
Read = Callable[[], float]


class Gauges(Protocol):
    """What is read of a replica when somebody scrapes."""

    is_ready: bool

    @property
    def in_flight(self) -> int:
        """Requests that it works on."""
        ...


class GatewayMetrics:
    """All of one gateway."""

    def __init__(
        self,
        *,
        waiting: Read,
        connections: Read,
        unwritten: Read,
        queued: Callable[[], dict[str, int]] = dict,
        asked: Callable[[], dict[str, Asked]] = dict,
    ) -> None:
        """All are read when somebody scrapes; `queued` and `asked` are by model."""
        self._waiting, self._connections, self._unwritten = waiting, connections, unwritten
        self._queued, self._asked = queued, asked
        self._counts = Counts()
        self._replicas: dict[tuple[str, str], Gauges] = {}  # by model and replica

    def series(self, model: str | None, tier: str | None, replica: str | None) -> Series:
        """Where the requests of one place are counted; `none` where there is none."""
        where: Where = (model or "none", tier or "none", replica or "none")
        found = self._counts.series.get(where)
        if found is None:
            found = self._counts.series[where] = Series.empty()
        return found

    def attempt_failed(self, replica: str, reason: str) -> None:
        """One more attempt that failed."""
        key, failed = (replica, reason), self._counts.attempts_failed
        failed[key] = failed.get(key, 0) + 1

    def rejected(self, reason: str) -> None:
        """One more connection or request refused before any API read it."""
        rejected = self._counts.http_rejected
        rejected[reason] = rejected.get(reason, 0) + 1

    def watch_replica(self, model: str, replica: str, gauges: Gauges) -> None:
        """Read this replica when somebody scrapes."""
        self._replicas[model, replica] = gauges

    def snapshot(self) -> MetricsSnapshot:
        """All as it is now; to be encoded or read at once, for the counts go on growing in it."""
        self._counts.asked = self._asked()
        readings = Readings(
            in_flight={key: gauges.in_flight for key, gauges in self._replicas.items()},
            ready={key: gauges.is_ready for key, gauges in self._replicas.items()},
            queued=self._queued(),
            waiting=self._waiting(),
            connections=self._connections(),
            unwritten=self._unwritten(),
        )
        return MetricsSnapshot(counts=self._counts, readings=readings)

    def page(self) -> bytes:
        """The exposition text of this gateway alone."""
        return page_of(self.snapshot())


def page_of(snapshot: MetricsSnapshot) -> bytes:
    """The exposition text."""
    registry = CollectorRegistry()
    registry.register(_Once(snapshot))
    return generate_latest(registry)


class _Once(Collector):
    """A snapshot as Prometheus reads it."""

    def __init__(self, snapshot: MetricsSnapshot) -> None:
        self._counts, self._readings = snapshot.counts, snapshot.readings

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        yield from self._per_place()
        yield from self._per_model()
        failed = _counter(
            "argosy_attempts_failed", "Attempts on a replica that failed.", ("replica", "reason")
        )
        for key, count in self._counts.attempts_failed.items():
            failed.add_metric(key, count)
        yield failed
        said = "Connections and requests refused before any API read them."
        rejected = _counter("argosy_http_rejected", said, ("reason",))
        for reason, count in self._counts.http_rejected.items():
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
        for where, series in self._counts.series.items():
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

    def _per_model(self) -> Iterator[Metric]:
        labels = ("model", "class")
        said = "Requests that came, as autoscaling counts them; class is batch or online."
        came = _counter("argosy_requests_asked", said, labels)
        prompt = _counter("argosy_prompt_bytes_asked", "Of their prompts.", labels)
        for model, asked in self._counts.asked.items():
            came.add_metric((model, "online"), asked.requests)
            came.add_metric((model, "batch"), asked.batch_requests)
            prompt.add_metric((model, "online"), asked.prompt_bytes)
            prompt.add_metric((model, "batch"), asked.batch_prompt_bytes)
        queued = GaugeMetricFamily(
            "argosy_requests_queued",
            "Requests without a slot or a replica, without the batch tier's.",
            labels=("model",),
        )
        for model in self._counts.asked:
            queued.add_metric((model,), self._readings.queued.get(model, 0))
        yield from (came, prompt, queued)

    def _now(self) -> Iterator[Metric]:
        labels, readings = ("model", "replica"), self._readings
        in_flight = GaugeMetricFamily(
            "argosy_requests_in_flight", "Requests that a replica works on.", labels=labels
        )
        for key, count in readings.in_flight.items():
            in_flight.add_metric(key, count)
        ready = GaugeMetricFamily("argosy_replica_ready", "1 when ready.", labels=labels)
        for key, is_ready in readings.ready.items():
            ready.add_metric(key, is_ready)
        yield from (in_flight, ready)
        for name, said, value in (
            ("argosy_requests_waiting", "Requests without a replica.", readings.waiting),
            ("argosy_connections", "Client connections open.", readings.connections),
            ("argosy_usage_records_unwritten", _UNWRITTEN, readings.unwritten),
        ):
            yield GaugeMetricFamily(name, said, value=value)
        if readings.table_age_s is not None:
            said = "Since a control plane confirmed the replica table."
            yield GaugeMetricFamily("argosy_table_age_seconds", said, value=readings.table_age_s)


def _counter(name: str, said: str, labels: tuple[str, ...]) -> CounterMetricFamily:
    return CounterMetricFamily(name, said, labels=labels)


def _histogram(name: str, said: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, said, labels=_WHERE)
