"""One gateway out of several processes: what each tells of itself, and the pages of all.

Whichever process a client happens to reach, `/argosy/status` and `/metrics` speak of the whole.
How the others are asked is left to whoever starts them (`Collect`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace
from prometheus_client import CONTENT_TYPE_LATEST

from argosy.fleet.messages import (
    FleetStatus,
    GatewayProcess,
    Refusal,
    ReplicaLoad,
    ReplicaStatus,
)
from argosy.gateway.explain import Explanation
from argosy.gateway.http import Request, whole_response
from argosy.gateway.pages import EXPLAIN
from argosy.gateway.surfaces.port import Dialect
from argosy.observability.counts import Counts, MetricsSnapshot, merged
from argosy.observability.metrics import page_of
from argosy.observability.recent import nearest_rank

_COLLECT_S_MAX = 3.0  # whoever collects waits 1 s for each, all at once


class GatewaySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What one process tells of itself."""

    pid: int
    is_draining: bool
    status: FleetStatus
    ttft_s: dict[str, list[float]]  # by replica: of the last minute's streams
    metrics: MetricsSnapshot
    explained: Explanation | None = None  # the request that was asked about, where it is known here


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What all of them tell."""

    uptime_s: float
    snapshots: tuple[GatewaySnapshot, ...]  # of those that answered
    silent: tuple[int, ...]  # pids of those that did not
    gone: Counts  # by processes that have ended, and by silent ones when they were last heard
    table_age_s: float | None = None  # since the table was known to be the newest, if asked for


Collect = Callable[[str | None], Awaitable[Collected]]  # given the request to be explained


class Own(Protocol):
    """What this process tells."""

    def snapshot(self, explain: str | None = None) -> GatewaySnapshot:
        """Of itself now, and of that request."""
        ...

    def explain(self, request: str) -> Explanation | Refusal:
        """The story of one request, or why it cannot be told."""
        ...

    def dialect(self, request: Request) -> Dialect:
        """Whose shape the client expects."""
        ...


class WholePages:
    """The pages that tell of all processes; `own` is shown where the others cannot be asked."""

    def __init__(self, collect: Collect, *, own: "Own") -> None:
        self._collect = collect
        self._own = own

    async def answer(self, request: Request) -> bytes:
        """The response to one of the pages that ask all."""
        if request.path.startswith(EXPLAIN):
            return await self._explain(request)
        collected = await self._ask(None)
        if request.path == "/metrics":
            page = page_of(metrics_of(collected))
            return whole_response(200, page, request=request, content_type=CONTENT_TYPE_LATEST)
        return whole_response(200, msgspec.json.encode(status_of(collected)), request=request)

    async def _explain(self, request: Request) -> bytes:
        """By the process that served it; its id does not say which one that was."""
        asked = request.path[len(EXPLAIN) :]
        told = self._own.explain(asked)
        if isinstance(told, Refusal):
            snapshots = (await self._ask(asked)).snapshots
            told = next((one.explained for one in snapshots if one.explained), told)
        if isinstance(told, Refusal):
            status, body = self._own.dialect(request).refusal(told, request=request.id)
            return whole_response(status, body, request=request)
        return whole_response(200, msgspec.json.encode(told), request=request)

    async def _ask(self, explain: str | None) -> Collected:
        try:
            collected = await asyncio.wait_for(self._collect(explain), _COLLECT_S_MAX)
        except (TimeoutError, OSError):
            collected = None
        if collected is not None and collected.snapshots:
            return collected
        own = self._own.snapshot(explain)
        uptime_s = own.status.uptime_s
        return Collected(uptime_s=uptime_s, snapshots=(own,), silent=(), gone=Counts())


def metrics_of(collected: Collected) -> MetricsSnapshot:
    """The sum over all processes, also those that are gone: counters never go back."""
    of_all = [snapshot.metrics for snapshot in collected.snapshots]
    gone = MetricsSnapshot(counts=collected.gone)
    gone.readings.table_age_s = collected.table_age_s
    return merged((gone, *of_all))


def status_of(collected: Collected) -> FleetStatus:
    """The fleet by the newest replica table that a process has, with the load of all."""
    snapshots = collected.snapshots
    newest = _newest(snapshots)
    counts = metrics_of(collected).counts
    statuses = [one.status for one in snapshots]
    return replace(
        newest,
        uptime_s=collected.uptime_s,
        requests_in_flight=sum(status.requests_in_flight for status in statuses),
        requests_waiting=sum(status.requests_waiting for status in statuses),
        connections=sum(status.connections for status in statuses),
        usage_records_unwritten=sum(status.usage_records_unwritten for status in statuses),
        replicas=tuple(_row(row, snapshots, counts) for row in newest.replicas),
        processes=(
            *map(_process, snapshots),
            *(GatewayProcess(pid=pid, state="silent") for pid in collected.silent),
        ),
    )


def _newest(snapshots: Sequence[GatewaySnapshot]) -> FleetStatus:
    """Of a process that still serves, where there is one: a draining one has the old fleet."""
    serving = [one for one in snapshots if not one.is_draining] or list(snapshots)
    return serving[-1].status


def _process(one: GatewaySnapshot) -> GatewayProcess:
    return GatewayProcess(
        pid=one.pid,
        state="draining" if one.is_draining else "serving",
        requests_in_flight=one.status.requests_in_flight,
        connections=one.status.connections,
    )


def _row(row: ReplicaStatus, snapshots: Sequence[GatewaySnapshot], counts: Counts) -> ReplicaStatus:
    name = row.replica.name
    loads = [
        other.load
        for one in snapshots
        for other in one.status.replicas
        if other.replica.name == name
    ]
    ttft_s = sorted(seconds for one in snapshots for seconds in one.ttft_s.get(name, ()))
    load = ReplicaLoad(
        replica=name,
        requests_in_flight=sum(load.requests_in_flight for load in loads),
        requests_finished=counts.finished(name),
        tokens_out_per_s=sum(load.tokens_out_per_s for load in loads),
        ttft_s_p50=nearest_rank(ttft_s, 0.50),
        ttft_s_p95=nearest_rank(ttft_s, 0.95),
    )
    return replace(row, load=load)
