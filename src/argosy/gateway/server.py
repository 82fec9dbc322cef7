"""The gateway: listens, knows the replicas, gives each request its exchange.

It is handed what it needs (`Wiring`) and imports neither the store nor the control plane: keys
are looked up by a function, usage goes to a function, the replica table is pushed into
`replace_table`. Cut off from all of them it serves on from what it last knew.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import random
import secrets
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import msgspec
from msgspec.structs import replace

from argosy.fleet.config import Fleet
from argosy.fleet.messages import (
    FleetStatus,
    Key,
    Outcome,
    Refusal,
    ReplicaStatus,
    ReplicaTable,
    Usage,
)
from argosy.gateway.admission import Admission, Ticket
from argosy.gateway.batches.api import BatchApi
from argosy.gateway.callers import Callers
from argosy.gateway.catalog import catalog_of
from argosy.gateway.client import ClientConnection
from argosy.gateway.exchange import Exchange
from argosy.gateway.explain import Decisions, Explanation, StepKind
from argosy.gateway.http import Request, retry_after, whole_response
from argosy.gateway.ledger import Ledger
from argosy.gateway.pages import Pages, draining, unknown_path
from argosy.gateway.replicas import LiveReplica, Watch
from argosy.gateway.router import Placed, Router, prompt_of
from argosy.gateway.slow_pages import SlowAnswer, SlowPages
from argosy.gateway.surfaces.port import Ask, Dialect
from argosy.gateway.surfaces.registry import dialect_of, surfaces
from argosy.gateway.together import Collect, GatewaySnapshot, WholePages
from argosy.observability.metrics import GatewayMetrics, Series
from argosy.policies.failover import RetryBudget
from argosy.policies.hedging import HedgeBudget
from argosy.policies.routing import NoRoute, Tuning

log = logging.getLogger(__name__)

BACKLOG = 1024  # connections that wait to be accepted
_SWEEP_S = 0.25
_IDLE_GRACE_S = 5.0  # a client that reuses a connection does so sooner; then closing it hurts none


def _no_key(_: str) -> Key | None:
    return None


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway is given by whoever starts it."""

    find_key: Callable[[str], Key | None]
    record: Callable[[Usage], None]  # must not block
    usage_unwritten: Callable[[], int]
    usage_is_overloaded: Callable[[], bool]
    unix_time_s: Callable[[], float]
    operator_token: str  # opens the status page, and chats as `operator`
    upstream_keys: Mapping[str, str] = {}  # pool name to the bearer key of its endpoint
    chance: random.Random  # jitters retries
    ledger: Ledger | None = None  # None: no tenant has a budget
    find_key_by_id: Callable[[str], Key | None] = _no_key  # of the owner of a batch
    batches: BatchApi | None = None  # None: their paths are unknown
    process: int = 0  # its number among the `processes` of the fleet file
    collect: Collect | None = None  # asks all processes for the pages; None: there is but this one


class Gateway:
    """The data plane of one process."""

    def __init__(self, fleet: Fleet, wiring: Wiring) -> None:
        self.settings = fleet.gateway
        self.now_s = asyncio.get_running_loop().time
        self.fleet = fleet
        self.wiring = wiring
        self.catalog = catalog_of(fleet, created_at_s=int(wiring.unix_time_s()))
        self.metrics = GatewayMetrics(
            waiting=lambda: float(len(self._waiting) + self._admission.waiting),
            connections=lambda: float(len(self._connections)),
            unwritten=lambda: float(wiring.usage_unwritten()),
        )
        self.body_bytes_pending = 0
        self.is_draining = False
        self.is_retiring = False
        self.url = ""
        self._started_s = 0.0
        self.table = ReplicaTable(version=0, replicas=())
        self._ids = itertools.count()
        self._id_prefix = f"req_{int(wiring.unix_time_s() * 1000):012x}{secrets.token_hex(2)}"
        self._surfaces = surfaces(wiring.unix_time_s)
        self._pages = Pages(self)
        self._slow_pages = SlowPages(wiring.batches)
        collect = wiring.collect
        self._whole_pages = WholePages(collect, own=self) if collect else None
        self.upload_bytes_max = self._slow_pages.upload_bytes_max
        self._connections: set[ClientConnection] = set()
        self._exchanges: set[Exchange] = set()
        self._waiting: deque[Exchange] = deque()  # admitted, and no replica listens
        self.decisions = Decisions()
        self._hedges = HedgeBudget(share_max=self.settings.hedge_share_max)
        self._routers = {model.name: self._router() for model in fleet.models}
        self._admission = Admission(
            fleet,
            ledger=wiring.ledger,
            unix_time_s=wiring.unix_time_s,
            now_s=self.now_s,
            process=wiring.process,
        )
        self._all_done = asyncio.Event()
        self._live: dict[str, LiveReplica] = {}
        self._watches: dict[str, Watch] = {}
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None
        self.authenticate = Callers(
            find_key=wiring.find_key,
            find_key_by_id=wiring.find_key_by_id,
            operator_token=wiring.operator_token,
            are_anonymous=self.settings.keys == "none",
            created_at_s=wiring.unix_time_s(),
        ).authenticate

    def _router(self) -> Router:
        settings = self.settings
        tuning = Tuning(
            affinity_load_max=settings.affinity_load_max,
            slow_start_s=settings.slow_start_s,
            price_weight_s_per_usd=settings.price_weight_s_per_usd,
        )
        return Router(
            policy=settings.routing,
            tuning=tuning,
            decisions=self.decisions,
            chance=self.wiring.chance.random,
            processes=settings.processes,
        )

    # Its life.

    async def start(self, listeners: Sequence[socket.socket] = ()) -> str:
        """Listen, on those sockets where some are given; the URL. OSError: the address is taken."""
        loop = asyncio.get_running_loop()
        settings = self.settings

        def connect() -> ClientConnection:
            return ClientConnection(self)

        self._servers = [
            await loop.create_server(connect, sock=listener, backlog=BACKLOG)
            for listener in listeners
        ] or [
            await loop.create_server(
                connect, settings.host, settings.port, backlog=BACKLOG, reuse_address=True
            )
        ]
        self._sweeper = loop.create_task(self._sweep_forever())
        self._started_s = loop.time()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"http://{host}:{self._servers[0].sockets[0].getsockname()[1]}"
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
        self.is_draining = True
        self._stop_listening()
        for connection in tuple(self._connections):
            if connection.is_idle:
                connection.close()
        for exchange in tuple(self._exchanges):
            if exchange.is_waiting:
                exchange.refuse(draining())
        slow_cut, _ = await asyncio.gather(
            self._slow_pages.drain(timeout_s), self._wait_for_exchanges(timeout_s)
        )
        cut = tuple(self._exchanges)
        for exchange in cut:
            message = "The gateway is stopping."
            exchange.refuse(Refusal(kind="no_replica", message=message, retry_after_s=5.0))
        return len(cut) + slow_cut

    async def _wait_for_exchanges(self, timeout_s: float) -> None:
        if self._exchanges:
            self._all_done.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_done.wait(), timeout_s)

    async def stop(self) -> None:
        """Close everything; after `drain`."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._connections):
            connection.close()
        for live in self._live.values():
            live.link.close()
            live.link.sweep(float("inf"))
        await asyncio.sleep(0)  # lets the transports close

    # From the control plane.

    def replace_table(self, table: ReplicaTable) -> None:
        """Route on this from now on.

        While the fleet file changes it may have replicas of models that are not served here.
        """
        table = replace(table, replicas=tuple(r for r in table.replicas if r.model in self.catalog))
        self.table = table
        listening = {r.name: r for r in table.replicas if r.url and r.state in ("ready", "suspect")}
        for name in [name for name in self._live if name not in listening]:
            gone = self._live.pop(name)
            gone.link.close()
            self._routers[gone.model].leave(name)
        for name, replica in listening.items():
            live = self._live.get(name)
            if live is None or not live.is_same(replica):
                if live is not None:
                    live.link.close()
                bearer = self.wiring.upstream_keys.get(replica.pool)
                watch = self._watch(name, replica.model)
                live = self._live[name] = LiveReplica(replica, watch=watch, bearer=bearer)
                self._routers[live.model].join(live, self.now_s())
            live.become(replica)
        for replica in table.replicas:
            self._watch(replica.name, replica.model).is_ready = replica.state == "ready"
        self._admission.replace_table(table)
        self._move_off_suspects()
        self._route_waiting()

    def _watch(self, name: str, model: str) -> Watch:
        watch = self._watches.get(name)
        if watch is None:
            watch = self._watches[name] = Watch(name)
            self.metrics.watch_replica(model, name, watch)
        return watch

    def _move_off_suspects(self) -> None:
        """Requests without a byte do not wait for a replica that may be hung."""
        ready = {live.model for live in self._live.values() if live.state == "ready"}
        for exchange in tuple(self._exchanges):
            on = exchange.replica
            if on is not None and on.state == "suspect" and on.model in ready:
                exchange.move()

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
        if self.is_draining:
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
        exchange = Exchange(self, connection, request, spoken=spoken, at_s=at_s)
        self._exchanges.add(exchange)
        if self.is_draining:
            request.keep_alive = False
            exchange.refuse(draining())
        elif self.wiring.usage_is_overloaded():
            message = "Usage cannot be written to disk; no work is taken until it can."
            exchange.refuse(Refusal(kind="no_replica", message=message, retry_after_s=5.0))
        else:
            self._guarded(exchange, exchange.begin)
        return None if exchange.is_over else exchange

    def _serve_page(self, connection: ClientConnection, request: Request) -> SlowAnswer | None:
        if self._whole_pages is not None and self._pages.asks_all(request.path):
            return self._slow_pages.serve(connection, request, by=self._whole_pages)
        if self._pages.has(request.path):
            connection.write(self._pages.answer(request))
            return None
        if self.is_draining:
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

    # From an exchange.

    def admit(self, exchange: Exchange, ask: Ask, body: bytes) -> bool:
        """Its budget and a slot; True when it may be routed now."""
        request = exchange.request
        session = request.headers.get(b"x-session-id")
        exchange.prompt = prompt_of(body, session)
        served = self.catalog[ask.model]
        self._routers[ask.model].retries.add_request()
        may_start = self._admission.admit(exchange, ask, served, id_=request.id, size=len(body))
        return may_start or self._queued(exchange)

    def move(self, exchange: Exchange, ask: Ask, model: str) -> bool:
        """A slot of another model."""
        ticket, size = exchange.ticket, exchange.prompt.length
        if ticket is not None:
            may_start = self._admission.move(exchange, ticket, model)
        else:
            served, id_ = self.catalog[model], exchange.request.id
            may_start = self._admission.admit(exchange, ask, served, id_=id_, size=size)
        return may_start or self._queued(exchange)

    def _queued(self, exchange: Exchange) -> Literal[False]:
        """It may not start now; remember why, unless it was refused, which says why."""
        if not exchange.is_over and exchange.ticket is not None:
            self.happened(exchange, "queued", exchange.ticket.reason, exchange.ticket)
        return False

    def route(self, exchange: Exchange, *, stream: bool) -> Placed | None:
        """The policy's choice; where there is none the exchange waits, or falls back."""
        now_s = self.now_s()
        router = self._routers[exchange.model or ""]
        if exchange.next_model is not None and not router.has_trusted(now_s):
            text = f"no replica of {exchange.model} can be trusted now: to {exchange.next_model}"
            self.happened(exchange, "fell_back", text)
            exchange.fall_back()
            return None
        placed = self._choose(router, exchange, exchange.tried, now_s)
        if isinstance(placed, NoRoute):
            self._wait(exchange, placed.reason, placed.retry_after_s, now_s)
            return None
        exchange.placed = placed
        exchange.series = self.series(exchange, placed.live)
        settings = self.settings
        wait_s = settings.ttft_timeout_s if stream else settings.answer_timeout_s
        exchange.deadline_s = now_s + wait_s
        return placed

    def _wait(self, exchange: Exchange, reason: str, retry_after_s: float, now_s: float) -> None:
        if len(self._waiting) >= self.settings.waiting_max:
            message = f"{reason}, and {len(self._waiting)} requests wait already."
            refusal = Refusal(kind="no_replica", message=message, retry_after_s=retry_after_s)
            exchange.refuse(refusal)
            return
        exchange.deadline_s = now_s + self.settings.replica_wait_s
        self._waiting.append(exchange)

    def retries(self, exchange: Exchange) -> RetryBudget:
        """What its model may still be tried again."""
        return self._routers[exchange.model or ""].retries

    def has_untried(self, exchange: Exchange) -> bool:
        """True when a replica of its model is ready that has not failed it."""
        return self._routers[exchange.model or ""].has_trusted(self.now_s(), but=exchange.tried)

    def route_later(self, exchange: Exchange, delay_s: float) -> None:
        """Route it again: after `delay_s` and a little more, so that many do not come at once."""
        self.released(exchange)
        exchange.deadline_s = self.now_s() + delay_s + self.settings.replica_wait_s
        jittered_s = delay_s * (1.0 + self.wiring.chance.random() / 2)
        asyncio.get_running_loop().call_later(jittered_s, self._guarded, exchange, exchange.route)

    def _choose(
        self, router: Router, exchange: Exchange, tried: frozenset[str], now_s: float
    ) -> Placed | NoRoute:
        request = exchange.request
        return router.choose(
            request.id,
            exchange.prompt,
            tried=tried,
            received_s=request.received_s,
            now_s=now_s,
        )

    def released(self, exchange: Exchange) -> None:
        """Its attempt is over."""
        placed, exchange.placed = exchange.placed, None
        if placed is not None:
            self._routers[placed.live.model].release(placed)

    def first_token(self, exchange: Exchange, now_s: float) -> None:
        """Its replica has read its prompt."""
        if exchange.placed is not None:
            self._routers[exchange.placed.live.model].first_token(exchange.placed, now_s)

    def settled(self, exchange: Exchange, usage: Usage) -> None:
        """One record, whatever happened."""
        self.wiring.record(usage)  # first: what follows may fail, the bill may not
        placed = exchange.placed
        if placed is not None and usage.outcome == "finished":
            router = self._routers[placed.live.model]
            router.finished(placed, exchange.prompt, usage, self.now_s())
        self.released(exchange)
        self._exchanges.discard(exchange)
        if not self._exchanges:
            self._all_done.set()
        replica = exchange.replica
        if replica is None:
            self.metrics.series(usage.model, usage.tier, None).count(usage)
            self._end_ticket(exchange, usage)
            return
        if usage.outcome == "finished":
            recent = replica.watch.recent
            recent.add(self.now_s(), tokens_out=usage.tokens_out, ttft_s=usage.ttft_s)
        exchange.series.count(usage)
        self._end_ticket(exchange, usage)

    def _end_ticket(self, exchange: Exchange, usage: Usage) -> None:
        """Last of all: it may start another request."""
        ticket, exchange.ticket = exchange.ticket, None
        if ticket is not None:
            self._admission.end(ticket, usage)

    def attempt_failed(self, replica: LiveReplica, kind: str, *, is_its_fault: bool) -> None:
        """Count a failed attempt, whatever becomes of the request."""
        self.metrics.attempt_failed(replica.name, kind)
        if is_its_fault:
            replica.failed(self.now_s())

    def hedge_later(self, exchange: Exchange, attempts: int) -> None:
        """Its second replica is asked in a while, where it is of the enterprise tier."""
        after_s, key = self.settings.hedge_after_s, exchange.key
        if after_s is None or key is None or key.tier != "enterprise":
            return
        self._hedges.add_request()
        loop = asyncio.get_running_loop()
        loop.call_later(after_s, self._guarded, exchange, partial(exchange.hedge, attempts))

    def hedge(self, exchange: Exchange) -> Placed | None:
        """Another replica that may be relied on, while the share of hedges is not used up."""
        if exchange.placed is None:
            return None
        now_s, first = self.now_s(), exchange.placed.live
        router, tried = self._routers[first.model], exchange.tried | {first.name}
        if not router.has_trusted(now_s, but=tried) or not self._hedges.take():
            return None
        placed = self._choose(router, exchange, tried, now_s)
        return None if isinstance(placed, NoRoute) else placed

    def release(self, placed: Placed) -> None:
        """That attempt is over."""
        self._routers[placed.live.model].release(placed)

    def series(self, exchange: Exchange, replica: LiveReplica) -> Series:
        """Where the tokens of that replica's answer are counted."""
        key = exchange.key
        return self.metrics.series(replica.model, key.tier if key else None, replica.name)

    def happened(
        self, exchange: Exchange, kind: StepKind, text: str, ticket: Ticket | None = None
    ) -> None:
        """Something unusual, for whoever asks to have the request explained."""
        now_s = self.now_s()
        self.decisions.happened(exchange.request, kind, text, now_s=now_s, ticket=ticket)

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
        for exchange in tuple(self._exchanges):
            exchange.expire(now_s)
        for live in self._live.values():
            live.link.sweep(now_s)
        self._admission.sweep(now_s)
        self._route_waiting()

    def _route_waiting(self) -> None:
        able = {live.model for live in self._live.values()}
        for _ in range(len(self._waiting)):
            exchange = self._waiting.popleft()
            if exchange.is_over:
                continue
            if exchange.model in able:
                self._guarded(exchange, exchange.route)
            else:
                self._waiting.append(exchange)

    def _guarded(self, exchange: Exchange, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:  # a bug must end this request alone, with an answer
            log.exception("request %s", exchange.request.id)
            exchange.refuse(Refusal(kind="internal", message="The gateway failed on this request."))

    # For the pages.

    def status(self) -> FleetStatus:
        """The fleet as it is now: the control plane's table beside what the gateway sees."""
        now_s = self.now_s()
        rows = tuple(
            ReplicaStatus(
                replica=replica, load=self._watches[replica.name].load(replica.name, now_s)
            )
            for replica in self.table.replicas
        )
        return FleetStatus(
            fleet=self.fleet.fleet,
            gateway_url=self.url,
            uptime_s=now_s - self._started_s,
            requests_in_flight=sum(row.load.requests_in_flight for row in rows),
            requests_waiting=sum(not exchange.is_over for exchange in self._waiting)
            + self._admission.waiting,
            connections=len(self._connections),
            usage_records_unwritten=self.wiring.usage_unwritten(),
            replicas=rows,
        )

    def explain(self, request: str) -> Explanation | Refusal:
        """The story of one request, or why it cannot be told."""
        running = any(exchange.request.id == request for exchange in self._exchanges)
        return self.decisions.explain(request, now_s=self.now_s(), is_running=running)

    def snapshot(self, explain: str | None = None) -> GatewaySnapshot:
        """What this process tells of itself, where another asks on behalf of a client."""
        now_s = self.now_s()
        told = None if explain is None else self.explain(explain)
        return GatewaySnapshot(
            pid=os.getpid(),
            is_draining=self.is_draining or self.is_retiring,
            status=self.status(),
            ttft_s={name: watch.recent.all_ttft_s(now_s) for name, watch in self._watches.items()},
            metrics=self.metrics.snapshot(),
            explained=None if told is None or isinstance(told, Refusal) else told,
        )

    def not_ready(self) -> list[str]:
        """Why not every model can be served now."""
        ready = {live.model for live in self._live.values() if live.state == "ready"}
        missing = [f"no replica of {name} is ready" for name in self.catalog if name not in ready]
        if self.is_draining:
            missing.append("the gateway is stopping")
        if self.wiring.usage_is_overloaded():
            missing.append("usage cannot be written to disk")
        return missing

    def metrics_page(self) -> bytes:
        """Prometheus text."""
        return self.metrics.page()
