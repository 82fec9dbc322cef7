"""The gateway: listens, knows the replicas, gives each request its exchange.

It is handed what it needs (`Wiring`) and imports neither the store nor the control plane: keys
are looked up by a function, usage goes to a function, the replica table is pushed into
`replace_table`. Cut off from all of them it serves on from what it last knew.
"""

import asyncio
import itertools
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from functools import partial

from argosy.fleet.config import Fleet
from argosy.fleet.messages import (
    FleetStatus,
    Outcome,
    Refusal,
    Usage,
)
from argosy.gateway.callers import Callers
from argosy.gateway.catalog import catalog_of
from argosy.gateway.client import ClientConnection
from argosy.gateway.dispatch import Dispatch
from argosy.gateway.exchange import Exchange
from argosy.gateway.explain import Explanation
from argosy.gateway.http import Request, retry_after, whole_response
from argosy.gateway.pages import Pages, draining, unknown_path
from argosy.gateway.slow_pages import SlowAnswer, SlowPages
from argosy.gateway.surfaces.port import Dialect
from argosy.gateway.surfaces.registry import dialect_of, surfaces
from argosy.gateway.together import GatewaySnapshot, WholePages
from argosy.gateway.wiring import Wiring
from argosy.observability.metrics import GatewayMetrics

log = logging.getLogger(__name__)

BACKLOG = 1024  # connections that wait to be accepted
_SWEEP_S = 0.25
_IDLE_GRACE_S = 5.0  # a client that reuses a connection does so sooner; then closing it hurts none


class Gateway:
    """The data plane of one process."""

    def __init__(self, fleet: Fleet, wiring: Wiring) -> None:
        self.settings = fleet.gateway
        self.now_s = asyncio.get_running_loop().time
        self.fleet = fleet
        self.wiring = wiring
        self.catalog = catalog_of(fleet, created_at_s=int(wiring.unix_time_s()))
        self.metrics = GatewayMetrics(
            waiting=lambda: float(self.dispatch.requests_waiting),
            connections=lambda: float(len(self._connections)),
            unwritten=lambda: float(wiring.usage_unwritten()),
            queued=lambda: self.dispatch.queued(),
            asked=lambda: self.dispatch.asked(),
        )
        self.dispatch = Dispatch(fleet, wiring, catalog=self.catalog, metrics=self.metrics)
        self.replace_table = self.dispatch.replace_table
        self.body_bytes_pending = 0
        self.is_retiring = False
        self.url = ""
        self._started_s = 0.0
        self._ids = itertools.count()
        self._id_prefix = f"req_{int(wiring.unix_time_s() * 1000):012x}{secrets.token_hex(2)}"
        self._surfaces = surfaces(wiring.unix_time_s)
        self._pages = Pages(self)
        self._slow_pages = SlowPages(wiring.batches)
        collect = wiring.collect
        self._whole_pages = WholePages(collect, own=self) if collect else None
        self.upload_bytes_max = self._slow_pages.upload_bytes_max
        self._connections: set[ClientConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None
        self.authenticate = Callers(
            find_key=wiring.find_key,
            find_key_by_id=wiring.find_key_by_id,
            operator_token=wiring.operator_token,
            are_anonymous=self.settings.keys == "none",
            created_at_s=wiring.unix_time_s(),
        ).authenticate

    # Its life.

    async def start(self, listeners: Sequence[socket.socket] = ()) -> str:
        """Listen, on those sockets where some are given; the URL. OSError: the address is taken."""
        loop = asyncio.get_running_loop()
        settings = self.settings

        def connect() -> ClientConnection:
            return ClientConnection(self)

        tls = self.wiring.tls
        # A connection is one of ours when it has shaken hands; until then only this ends it.
        patience_s = None if tls is None else settings.head_timeout_s
        listen = partial(
            loop.create_server, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=patience_s
        )
        self._servers = [await listen(connect, sock=listener) for listener in listeners] or [
            await listen(connect, settings.host, settings.port, reuse_address=True)
        ]
        self._sweeper = loop.create_task(self._sweep_forever())
        self._started_s = loop.time()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://{host}:{self._servers[0].sockets[0].getsockname()[1]}"
        return self.url

    async def retire(self, timeout_s: float) -> None:
        """Leave the address to a successor; returns when nobody is connected, or at the end of it.

        Who is connected notices nothing: what they ask is answered, each answer says that the
        connection ends with it, and those that nobody uses are closed later. `drain` comes next.
        """
        self.is_retiring = True
        self._stop_listening()
        end_s = self.now_s() + timeout_s
        idle_since_s: dict[ClientConnection, float] = {}
        while True:
            # At least once: a connection that was just accepted is not counted yet.
            await asyncio.sleep(_SWEEP_S)
            now_s = self.now_s()
            if not self._connections or now_s >= end_s:
                return
            idle_since_s = {
                connection: idle_since_s.get(connection, now_s)
                for connection in self._connections
                if connection.is_idle
            }
            for connection, since_s in idle_since_s.items():
                if now_s - since_s >= _IDLE_GRACE_S:
                    connection.close()

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()

    async def drain(self, timeout_s: float) -> int:
        """Take no more; let what runs end. How many had to be cut after `timeout_s`."""
        self._stop_listening()
        for connection in tuple(self._connections):
            if connection.is_idle:
                connection.close()
        cut = await asyncio.gather(
            self._slow_pages.drain(timeout_s), self.dispatch.drain(timeout_s)
        )
        return sum(cut)

    async def stop(self) -> None:
        """Close everything; after `drain`."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._connections):
            connection.close()
        self.dispatch.close()
        await asyncio.sleep(0)  # lets the transports close

    # From a connection.

    def new_request_id(self) -> str:
        """`req_`, when this gateway began, and a count: later ids sort after earlier ones.

        They are the usage table's primary key. Random ones land on a page of their own each and
        cost 15 to 25 us of CPU a row; these 5 (measured 2026-11-21).
        """
        return f"{self._id_prefix}{next(self._ids):09x}"

    def opened(self, connection: ClientConnection) -> Refusal | None:
        """Count it; refuse one too many."""
        self._connections.add(connection)
        if self.dispatch.is_draining:
            return draining()
        if len(self._connections) <= self.settings.connections_max:
            return None
        message = f"{self.settings.connections_max} connections are open; try later."
        return Refusal(kind="no_replica", message=message, retry_after_s=1.0)

    def closed(self, connection: ClientConnection) -> None:
        """It is gone."""
        self._connections.discard(connection)

    def precheck(self, request: Request) -> Refusal | None:
        """What the head alone tells: the path, the method, the key."""
        if request.path in self._surfaces:
            if request.method != "POST":
                message = f"{request.method} {request.path}: this path takes POST."
                return Refusal(kind="wrong_method", message=message)
            return self.authenticate(request)
        if self._pages.has(request.path):
            return self._pages.precheck(request)
        if self._slow_pages.has(request.path):
            return self._slow_pages.precheck(request) or self.authenticate(request)
        return unknown_path(request, sorted(self._surfaces))

    def serve(self, connection: ClientConnection, request: Request) -> Exchange | SlowAnswer | None:
        """Answer a request that passed `precheck`."""
        if self.is_retiring:
            request.keep_alive = False
        spoken = self._surfaces.get(request.path)
        if spoken is None:
            return self._serve_page(connection, request)
        at_s = self.wiring.unix_time_s()
        exchange = Exchange(self.dispatch, connection, request, spoken=spoken, at_s=at_s)
        self.dispatch.begin(exchange)
        return None if exchange.is_over else exchange

    def _serve_page(self, connection: ClientConnection, request: Request) -> SlowAnswer | None:
        if self._whole_pages is not None and self._pages.asks_all(request.path):
            return self._slow_pages.serve(connection, request, by=self._whole_pages)
        if self._pages.has(request.path):
            connection.write(self._pages.answer(request))
            return None
        if self.dispatch.is_draining:
            request.keep_alive = False
            self.refuse(connection, request, draining())
            return None
        return self._slow_pages.serve(connection, request)

    def refuse(self, connection: ClientConnection, request: Request, refusal: Refusal) -> None:
        """Answer with an error; a request to an API leaves its usage record, others a count."""
        status, body = self.dialect(request).refusal(refusal, request=request.id)
        extra = retry_after(refusal)
        connection.write(whole_response(status, body, request=request, extra=extra))
        if request.path not in self._surfaces:
            self.metrics.rejected(refusal.kind)
            return
        self._record_unserved(request, "refused", status, refusal.message)

    def left(self, request: Request) -> None:
        """The client left before this request's turn came."""
        if request.path in self._surfaces:
            self._record_unserved(request, "cancelled", 0, "the client left before its turn")

    def _record_unserved(
        self, request: Request, outcome: Outcome, status: int, reason: str
    ) -> None:
        key = request.key
        usage = Usage(
            request=request.id,
            at_s=self.wiring.unix_time_s(),
            tenant=key.tenant if key else None,
            key=key.id if key else None,
            tier=key.tier if key else None,
            surface=self._surfaces[request.path][0].name,
            outcome=outcome,
            status=status,
            reason=reason[:500],
            duration_s=self.now_s() - request.received_s,
        )
        self.metrics.series(None, usage.tier, None).count(usage)
        self.wiring.record(usage)

    def dialect(self, request: Request) -> Dialect:
        """Whose shape this client expects."""
        has_header = b"anthropic-version" in request.headers
        return dialect_of(request.path, has_anthropic_header=has_header)

    # By the clock.

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            try:
                self._sweep(self.now_s())
            except Exception:  # the sweeper must outlive a bug in one of its duties
                log.exception("sweeping")

    def _sweep(self, now_s: float) -> None:
        for connection in tuple(self._connections):
            connection.sweep(now_s)
        self.dispatch.sweep(now_s)

    # For the pages.

    def status(self) -> FleetStatus:
        """The fleet as it is now: the control plane's table beside what the gateway sees."""
        now_s = self.now_s()
        rows = self.dispatch.rows(now_s)
        return FleetStatus(
            fleet=self.fleet.fleet,
            gateway_url=self.url,
            uptime_s=now_s - self._started_s,
            requests_in_flight=sum(row.load.requests_in_flight for row in rows),
            requests_waiting=self.dispatch.requests_waiting,
            connections=len(self._connections),
            usage_records_unwritten=self.wiring.usage_unwritten(),
            replicas=rows,
            quotas=() if self.wiring.quotas is None else self.wiring.quotas.status(),
        )

    def explain(self, request: str) -> Explanation | Refusal:
        """The story of one request, or why it cannot be told."""
        return self.dispatch.explain(request)

    def snapshot(self, explain: str | None = None) -> GatewaySnapshot:
        """What this process tells of itself, where another asks on behalf of a client."""
        now_s = self.now_s()
        told = None if explain is None else self.explain(explain)
        return GatewaySnapshot(
            pid=os.getpid(),
            is_draining=self.dispatch.is_draining or self.is_retiring,
            status=self.status(),
            ttft_s={
                name: watch.recent.all_ttft_s(now_s)
                for name, watch in self.dispatch.watches.items()
            },
            metrics=self.metrics.snapshot(),
            explained=None if told is None or isinstance(told, Refusal) else told,
        )

    def not_ready(self) -> list[str]:
        """Why not every model can be served now."""
        missing = [f"no replica of {name} is ready" for name in self.dispatch.unready_models()]
        if self.dispatch.is_draining:
            missing.append("the gateway is stopping")
        if self.wiring.usage_is_overloaded():
            missing.append("usage cannot be written to disk")
        return missing

    def metrics_page(self) -> bytes:
        """Prometheus text."""
        return self.metrics.page()
