"""The gateway: listens, knows the replicas, gives each request its exchange.

It is handed what it needs (`Wiring`) and imports neither the store nor the control plane: keys
are looked up by a function, usage goes to a function, the replica table is pushed into
`replace_table`. Cut off from all of them it serves on from what it last knew.
"""

import asyncio
import contextlib
import hmac
import itertools
import logging
import random
import secrets
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

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
from argosy.gateway.admission import Admission
from argosy.gateway.catalog import catalog_of
from argosy.gateway.client import ClientConnection
from argosy.gateway.exchange import Exchange
from argosy.gateway.http import Request, retry_after, whole_response
from argosy.gateway.ledger import Ledger
from argosy.gateway.pages import Pages
from argosy.gateway.replicas import LiveReplica, Watch
from argosy.gateway.router import Decisions, Placed, Router, prompt_of
from argosy.gateway.surfaces.port import Ask, Dialect
from argosy.gateway.surfaces.registry import dialect_of, surfaces
from argosy.observability.metrics import GatewayMetrics
from argosy.policies.routing import NoRoute, Tuning

log = logging.getLogger(__name__)

_SWEEP_S = 0.25


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
        self.url = ""
        self._started_s = 0.0
        self.table = ReplicaTable(version=0, replicas=())
        self._ids = itertools.count()
        self._id_prefix = f"req_{int(wiring.unix_time_s() * 1000):012x}{secrets.token_hex(2)}"
        self._surfaces = surfaces(wiring.unix_time_s)
        self._pages = Pages(self)
        self._connections: set[ClientConnection] = set()
        self._exchanges: set[Exchange] = set()
        self._waiting: deque[Exchange] = deque()  # admitted, and no replica listens
        self.decisions = Decisions()
        self._routers = {model.name: self._router() for model in fleet.models}
        self._admission = Admission(
            fleet, ledger=wiring.ledger, unix_time_s=wiring.unix_time_s, now_s=self.now_s
        )
        self._all_done = asyncio.Event()
        self._live: dict[str, LiveReplica] = {}
        self._watches: dict[str, Watch] = {}
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._operator = Key(
            id="operator", sha256="", tenant="operator", tier="consumer", name="operator",
            created_at_s=wiring.unix_time_s(),
        )  # fmt: skip

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
        )

    # Its life.

    async def start(self) -> str:
        """Listen; the URL. Raises `OSError` when the address is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ClientConnection(self),
            self.settings.host,
            self.settings.port,
            backlog=1024,
            reuse_address=True,
        )
        self._sweeper = loop.create_task(self._sweep_forever())
        self._started_s = loop.time()
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        self.url = f"http://{host}:{self._server.sockets[0].getsockname()[1]}"
        return self.url

    async def drain(self, timeout_s: float) -> int:
        """Take no more; let what runs end. How many had to be cut after `timeout_s`."""
        self.is_draining = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            if connection.is_idle:
                connection.close()
        for exchange in tuple(self._exchanges):
            if exchange.is_waiting:
                exchange.refuse(_draining())
        if self._exchanges:
            self._all_done.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_done.wait(), timeout_s)
        cut = tuple(self._exchanges)
        for exchange in cut:
            message = "The gateway is stopping."
            exchange.refuse(Refusal(kind="no_replica", message=message, retry_after_s=5.0))
        return len(cut)

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
        """Route on this from now on."""
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
            return _draining()
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
        return _unknown_path(request, sorted(self._surfaces))

    def authenticate(self, request: Request) -> Refusal | None:
        """Put the key on the request, or say what is wrong with it."""
        secret = request.secret()
        if secret is not None:
            request.key = self.wiring.find_key(secret) or self._operator_of(secret)
        if request.key is not None or self.settings.keys == "none":
            return None
        if secret is None:
            message = (
                "No API key: send 'Authorization: Bearer argosy-…' or 'x-api-key: argosy-…'. "
                "Keys are made by: argosy keys create"
            )
            return Refusal(kind="no_key", message=message)
        return Refusal(kind="wrong_key", message="This API key is unknown or revoked.")

    def _operator_of(self, secret: str) -> Key | None:
        token = self.wiring.operator_token.encode()
        is_operator = hmac.compare_digest(secret.encode(errors="replace"), token)
        return self._operator if is_operator else None

    def serve(self, connection: ClientConnection, request: Request) -> Exchange | None:
        """Answer a request that passed `precheck`."""
        spoken = self._surfaces.get(request.path)
        if spoken is None:
            connection.write(self._pages.answer(request))
            return None
        at_s = self.wiring.unix_time_s()
        exchange = Exchange(self, connection, request, spoken=spoken, at_s=at_s)
        self._exchanges.add(exchange)
        if self.is_draining:
            request.keep_alive = False
            exchange.refuse(_draining())
        elif self.wiring.usage_is_overloaded():
            message = "Usage cannot be written to disk; no work is taken until it can."
            exchange.refuse(Refusal(kind="no_replica", message=message, retry_after_s=5.0))
        else:
            self._guarded(exchange, exchange.begin)
        return None if exchange.is_over else exchange

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
        return self._admission.admit(exchange, ask, served, id_=request.id, size=len(body))

    def move(self, exchange: Exchange, model: str) -> bool:
        """A slot of another model."""
        return exchange.ticket is None or self._admission.move(exchange, exchange.ticket, model)

    def route(self, exchange: Exchange, *, stream: bool) -> Placed | None:
        """The policy's choice; where there is none the exchange waits, or falls back."""
        now_s = self.now_s()
        router = self._routers[exchange.model or ""]
        if exchange.next_model is not None and not router.has_trusted(now_s):
            exchange.fall_back()
            return None
        request = exchange.request.id
        placed = router.choose(request, exchange.prompt, tried=exchange.tried, now_s=now_s)
        if isinstance(placed, NoRoute):
            self._wait(exchange, placed.reason, placed.retry_after_s, now_s)
            return None
        exchange.placed = placed
        live, key, settings = placed.live, exchange.key, self.settings
        exchange.series = self.metrics.series(live.model, key.tier if key else None, live.name)
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

    def has_untried(self, exchange: Exchange) -> bool:
        """True when a replica of its model is ready that has not failed it."""
        return self._routers[exchange.model or ""].has_trusted(self.now_s(), but=exchange.tried)

    def route_later(self, exchange: Exchange, delay_s: float) -> None:
        """Route it again: after `delay_s` and a little more, so that many do not come at once."""
        self.released(exchange)
        exchange.deadline_s = self.now_s() + delay_s + self.settings.replica_wait_s
        jittered_s = delay_s * (1.0 + self.wiring.chance.random() / 2)
        asyncio.get_running_loop().call_later(jittered_s, self._guarded, exchange, exchange.route)

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
            router.finished(placed, self.now_s(), tokens_out=usage.tokens_out)
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

    def attempt_failed(self, exchange: Exchange, kind: str, *, is_its_fault: bool) -> None:
        """Count a failed attempt, whatever becomes of the request."""
        if exchange.replica is not None:
            self.metrics.attempt_failed(exchange.replica.name, kind)
            if is_its_fault:
                exchange.replica.failed(self.now_s())

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


def _draining() -> Refusal:
    message = "The gateway is stopping and takes no new requests."
    return Refusal(kind="no_replica", message=message, retry_after_s=5.0)


def _unknown_path(request: Request, paths: list[str]) -> Refusal:
    message = f"{request.method} {request.path[:200]}: no such path. APIs: {', '.join(paths)}."
    return Refusal(kind="unknown_path", message=message)
