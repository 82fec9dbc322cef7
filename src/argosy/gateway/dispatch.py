"""Between an exchange and its replicas: admitted, routed, placed, hedged, released, settled.

What every exchange asks of the gateway (`exchange_port.Floor`). It holds the replica table as the
gateway sees it, one router a model and the queues; the decisions are the policies'. Listening,
connections and pages are `server.py`'s.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Literal

from msgspec.structs import replace

from argosy.fleet.config import Fleet
from argosy.fleet.messages import Refusal, ReplicaStatus, ReplicaTable, Usage
from argosy.gateway.admission import Admission, Ticket
from argosy.gateway.exchange import Exchange
from argosy.gateway.explain import Decisions, Explanation, StepKind
from argosy.gateway.pages import draining
from argosy.gateway.replicas import LiveReplica, Watch
from argosy.gateway.router import Placed, Router, prompt_of
from argosy.gateway.surfaces.port import Ask, Catalog
from argosy.gateway.wiring import Wiring
from argosy.observability.counts import Asked
from argosy.observability.metrics import GatewayMetrics, Series
from argosy.policies.admission.bounds import ANSWER_TOKENS_PREDICTED, cost_predicted_tokens
from argosy.policies.failover import RetryBudget
from argosy.policies.hedging import HedgeBudget
from argosy.policies.routing import NoRoute, Tuning
from argosy.policies.silence import DOUBTED, GONE_S, patience_s

log = logging.getLogger(__name__)


class Dispatch:
    """The exchanges and the replicas of one gateway process."""

    def __init__(
        self, fleet: Fleet, wiring: Wiring, *, catalog: Catalog, metrics: GatewayMetrics
    ) -> None:
        self.settings = fleet.gateway
        self.now_s = asyncio.get_running_loop().time
        self.catalog = catalog
        self.is_draining = False
        self.table = ReplicaTable(version=0, replicas=())
        self.watches: dict[str, Watch] = {}
        self._wiring = wiring
        self._metrics = metrics
        self._exchanges: set[Exchange] = set()
        self._waiting: deque[Exchange] = deque()  # admitted, and no replica listens
        self._decisions = Decisions()
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
            decisions=self._decisions,
            chance=self._wiring.chance.random,
            processes=settings.processes,
            quotas=self._wiring.quotas,
        )

    # Its life.

    def begin(self, exchange: Exchange) -> None:
        """A request came."""
        self._exchanges.add(exchange)
        if self.is_draining:
            exchange.request.keep_alive = False
            exchange.refuse(draining())
        elif self._wiring.usage_is_overloaded():
            message = "Usage cannot be written to disk; no work is taken until it can."
            exchange.refuse(Refusal(kind="no_replica", message=message, retry_after_s=5.0))
        else:
            self._guarded(exchange, exchange.begin)

    async def drain(self, timeout_s: float) -> int:
        """Take no more; let what runs end. How many had to be cut after `timeout_s`."""
        self.is_draining = True
        for exchange in tuple(self._exchanges):
            if exchange.is_waiting:
                exchange.refuse(draining())
        if self._exchanges:
            self._all_done.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_done.wait(), timeout_s)
        cut = tuple(self._exchanges)
        for exchange in cut:
            message = "The gateway is stopping."
            exchange.refuse(Refusal(kind="no_replica", message=message, retry_after_s=5.0))
        return len(cut)

    def close(self) -> None:
        """Close all connections to replicas; after `drain`."""
        for live in self._live.values():
            live.link.close()
            live.link.sweep(float("inf"))

    def sweep(self, now_s: float) -> None:
        """Called a few times a second: deadlines, connections that idle, queues."""
        for exchange in tuple(self._exchanges):
            self._guarded(exchange, partial(exchange.expire, now_s))
        for live in self._live.values():
            live.link.sweep(now_s)
        self._admission.sweep(now_s)
        self._route_waiting()

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
                bearer = self._wiring.upstream_keys.get(replica.pool)
                watch = self._watch(name, replica.model)
                live = self._live[name] = LiveReplica(replica, watch=watch, bearer=bearer)
                self._routers[live.model].join(live, self.now_s())
            live.become(replica)
        for replica in table.replicas:
            self._watch(replica.name, replica.model).is_ready = replica.state == "ready"
        self._admission.replace_table(table)
        self._note_doubts(table)
        self._move_off_doubted()
        self._route_waiting()

    def _watch(self, name: str, model: str) -> Watch:
        watch = self.watches.get(name)
        if watch is None:
            watch = self.watches[name] = Watch(name)
            self._metrics.watch_replica(model, name, watch)
        return watch

    def _note_doubts(self, table: ReplicaTable) -> None:
        """Also about those that listen no more, while requests are on them."""
        patience, rows = patience_s(table.replicas), {row.name: row for row in table.replicas}
        lives = {live for one in self._exchanges if (live := one.replica) is not None}
        for live in lives.union(self._live.values()):
            row = rows.get(live.name)
            if row is None:
                continue
            if not live.is_same(row):  # its process is gone, which it says itself, or its machine
                live.state, live.patience_s = "dead", GONE_S
                continue
            live.state = row.state
            live.patience_s = patience.get(live.name)

    def _move_off_doubted(self) -> None:
        """Requests without a byte do not wait for a replica that may be hung, or lost."""
        ready = {live.model for live in self._live.values() if live.state == "ready"}
        for exchange in tuple(self._exchanges):
            on = exchange.replica
            if on is not None and on.state in DOUBTED and on.model in ready:
                exchange.move()

    # From an exchange.

    def admit(self, exchange: Exchange, ask: Ask, body: bytes) -> bool:
        """Its budget and a slot; True when it may be routed now."""
        request = exchange.request
        session = request.headers.get(b"x-session-id")
        exchange.prompt = prompt_of(body, session)
        served = self.catalog[ask.model]
        self._routers[ask.model].retries.add_request()
        size = exchange.body_bytes = len(body)
        if self._wiring.quotas is not None:
            most = ask.answer_tokens_max
            exchange.tokens_predicted = cost_predicted_tokens(
                size, ANSWER_TOKENS_PREDICTED if most is None else most
            )
        may_start = self._admission.admit(exchange, ask, served, id_=request.id, size=size)
        return may_start or self._queued(exchange)

    def move(self, exchange: Exchange, ask: Ask, model: str) -> bool:
        """A slot of another model."""
        ticket, size = exchange.ticket, exchange.body_bytes
        if ticket is not None:
            may_start = self._admission.move(exchange, ticket, model, size=size)
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
        placed = self._choose(router, exchange, exchange.tries.replicas, now_s)
        if isinstance(placed, NoRoute):
            if router.lacks_quota:
                self._wait_for_quota(exchange, placed, now_s)
            else:
                self._wait(exchange, placed.reason, placed.retry_after_s, now_s)
            return None
        exchange.placed, exchange.gives_up_s = placed, None
        exchange.series = self.series(exchange, placed.live)
        settings = self.settings
        wait_s = settings.ttft_timeout_s if stream else settings.answer_timeout_s
        exchange.deadline_s = now_s + wait_s
        return placed

    def _wait_for_quota(self, exchange: Exchange, why: NoRoute, now_s: float) -> None:
        """Another model answers, where one may; else for as long as for a replica, all in all."""
        if exchange.next_model is not None:
            self.happened(exchange, "fell_back", f"{why.reason}: to {exchange.next_model}")
            exchange.fall_back()
            return
        if exchange.gives_up_s is None:
            exchange.gives_up_s = now_s + self.settings.replica_wait_s
        if now_s + why.retry_after_s > exchange.gives_up_s:
            message = f"{why.reason[:1].upper()}{why.reason[1:]}."
            exchange.refuse(
                Refusal(kind="rate_limited", message=message, retry_after_s=why.retry_after_s)
            )
            return
        self._wait(exchange, why.reason, why.retry_after_s, now_s)

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
        return self._routers[exchange.model or ""].has_trusted(
            self.now_s(), but=exchange.tries.replicas
        )

    def route_later(self, exchange: Exchange, delay_s: float) -> None:
        """Route it again: after `delay_s` and a little more, so that many do not come at once."""
        self.released(exchange)
        exchange.deadline_s = self.now_s() + delay_s + self.settings.replica_wait_s
        jittered_s = delay_s * (1.0 + self._wiring.chance.random() / 2)
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
            tokens=exchange.tokens_predicted,
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
        self._wiring.record(usage)  # first: what follows may fail, the bill may not
        placed = exchange.placed
        if placed is not None:
            placed.used_tokens = usage.tokens_in + usage.tokens_out
        if placed is not None and usage.outcome == "finished":
            router = self._routers[placed.live.model]
            router.finished(placed, exchange.prompt, usage, self.now_s())
        self.released(exchange)
        self._exchanges.discard(exchange)
        if not self._exchanges:
            self._all_done.set()
        replica = exchange.replica
        if replica is None:
            self._metrics.series(usage.model, usage.tier, None).count(usage)
            self._end_ticket(exchange, usage)
            return
        if usage.outcome == "finished":
            recent = replica.watch.recent
            recent.add(self.now_s(), tokens_out=usage.tokens_out, ttft_s=usage.ttft_s)
            self._admission.arrivals[replica.model].answered(usage, exchange.body_bytes)
        exchange.series.count(usage)
        self._end_ticket(exchange, usage)

    def _end_ticket(self, exchange: Exchange, usage: Usage) -> None:
        """Last of all: it may start another request."""
        ticket, exchange.ticket = exchange.ticket, None
        if ticket is not None:
            self._admission.end(ticket, usage)

    def asked_to_wait(self, replica: LiveReplica, seconds: float) -> None:
        """It said so with a 429: nobody else of its quota need try before."""
        if self._wiring.quotas is not None:
            self._wiring.quotas.close(replica.pool, seconds)

    def attempt_failed(self, replica: LiveReplica, kind: str, *, is_its_fault: bool) -> None:
        """Count a failed attempt, whatever becomes of the request."""
        self._metrics.attempt_failed(replica.name, kind)
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
        router, tried = self._routers[first.model], exchange.tries.replicas | {first.name}
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
        return self._metrics.series(replica.model, key.tier if key else None, replica.name)

    def happened(
        self, exchange: Exchange, kind: StepKind, text: str, ticket: Ticket | None = None
    ) -> None:
        """Something unusual, for whoever asks to have the request explained."""
        now_s = self.now_s()
        self._decisions.happened(exchange.request, kind, text, now_s=now_s, ticket=ticket)

    # By the clock.

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

    @property
    def requests_waiting(self) -> int:
        """For a slot or a replica."""
        waiting = sum(not exchange.is_over for exchange in self._waiting)
        return waiting + self._admission.waiting

    def asked(self) -> dict[str, Asked]:
        """By model, what came and what was answered, of those that anybody asked for."""
        counts = {name: one.counts() for name, one in self._admission.arrivals.items()}
        return {name: one for name, one in counts.items() if one.requests or one.batch_requests}

    def queued(self) -> dict[str, int]:
        """By model, those without a slot or a replica; the batch tier waits for troughs anyway."""
        counts = self._admission.queued()
        for exchange in self._waiting:
            is_batch = exchange.key is not None and exchange.key.tier == "batch"
            if exchange.model is not None and not exchange.is_over and not is_batch:
                counts[exchange.model] += 1
        return counts

    def rows(self, now_s: float) -> tuple[ReplicaStatus, ...]:
        """The control plane's table beside what is seen here."""
        return tuple(
            ReplicaStatus(replica=row, load=self.watches[row.name].load(row.name, now_s))
            for row in self.table.replicas
        )

    def unready_models(self) -> list[str]:
        """Those that no ready replica serves."""
        ready = {live.model for live in self._live.values() if live.state == "ready"}
        return [name for name in self.catalog if name not in ready]

    def explain(self, request: str) -> Explanation | Refusal:
        """The story of one request, or why it cannot be told."""
        running = any(exchange.request.id == request for exchange in self._exchanges)
        return self._decisions.explain(request, now_s=self.now_s(), is_running=running)
