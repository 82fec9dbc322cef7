"""The live gateway's own objects (`Admission`, `Router`), in the order in which it calls them.

What `gateway/dispatch.py` and `exchange.py` do between them without sockets, on a virtual clock.
"""

import asyncio
from collections import deque
from collections.abc import Iterator

import msgspec
from agreement_hour import REPLICAS, Arrival

from argosy.fleet.config import Fleet
from argosy.fleet.messages import Key, Refusal, ReplicaTable, Usage
from argosy.fleet.messages import Replica as Row
from argosy.gateway.admission import Admission, Ticket
from argosy.gateway.explain import Decisions
from argosy.gateway.replicas import LiveReplica, Watch
from argosy.gateway.router import Placed, Prompt, Router
from argosy.gateway.surfaces.port import Ask, Served
from argosy.policies.routing import NoRoute, Tuning

SERVED = Served(
    name="m", created_at_s=0, system_prompt=None, context_tokens=None, counts_every_choice=True,
    embeddings=False,
)  # fmt: skip


def split_mix_64(seed: int) -> Iterator[float]:
    """Steele, Lea, Flood 2014; 53 bits of each."""
    bits, state = 2**64 - 1, seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & bits
        mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & bits
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & bits
        yield ((mixed ^ mixed >> 31) >> 11) * 2.0**-53


class Exchange:
    """One request, as the gateway's `Applicant`."""

    def __init__(self, body: "LiveBody", arrival: Arrival) -> None:
        tenant = arrival.tenant
        self.body, self.request = body, arrival.request
        self.id = str(arrival.request)
        self.key = Key(
            id=tenant.name, sha256="", tenant=tenant.name, tier=tenant.tier, name="",
            created_at_s=0.0,
        )  # fmt: skip
        self.prompt = Prompt(
            length=arrival.prompt_bytes, blocks=arrival.blocks, session=arrival.session
        )
        self.ticket: Ticket | None = None
        self.placed: Placed | None = None
        self.tried: frozenset[str] = frozenset()
        self.deadline_s = float("inf")
        self.is_over = False

    def route(self) -> None:
        body = self.body
        placed = body.router.choose(
            self.id, self.prompt, tried=self.tried, received_s=body.now_s, now_s=body.now_s
        )
        if not isinstance(placed, NoRoute):
            self.placed = placed
            body.tell("sent", self, placed.live.name)
            body.sent.append((self.request, placed.live.name))
        elif len(body.stranded) >= body.fleet.gateway.waiting_max:
            self.refuse(Refusal(kind="no_replica", message="", retry_after_s=placed.retry_after_s))
        else:
            self.deadline_s = body.now_s + body.fleet.gateway.replica_wait_s
            body.stranded.append(self)

    def refuse(self, refusal: Refusal) -> None:
        if refusal.kind == "rate_limited":
            what = "asks most"
        elif not refusal.message:
            what = "no replica"
        else:
            what = "expired" if refusal.message.startswith("No slot came free") else "no room"
        self.body.tell(what, self, "", refusal.retry_after_s)
        self.body.settle(self, "refused", (0, 0, 0))


class LiveBody:
    """One model's."""

    def __init__(self, fleet: Fleet, *, seed: int = 0, learns: bool = True) -> None:
        self.fleet, self.now_s, self.learns = fleet, 0.0, learns
        self.log: list[tuple] = []
        self.sent: list[tuple[int, str]] = []
        self.stranded: deque[Exchange] = deque()
        self.under_way: dict[int, Exchange] = {}
        gateway = fleet.gateway
        self.router = Router(
            policy=gateway.routing,
            tuning=Tuning(
                affinity_load_max=gateway.affinity_load_max,
                slow_start_s=gateway.slow_start_s,
                price_weight_s_per_usd=gateway.price_weight_s_per_usd,
            ),
            decisions=Decisions(),
            chance=split_mix_64(seed).__next__,
        )
        self.admission = Admission(
            fleet, ledger=None, unix_time_s=lambda: 0.0, now_s=lambda: self.now_s
        )
        self.watches = {each.name: Watch(each.name) for each in REPLICAS}
        self.lives: dict[str, LiveReplica] = {}

    def tell(self, what: str, exchange: Exchange, replica: str, retry_s: float | None = 0) -> None:
        self.log.append((self.now_s, what, exchange.request, replica, retry_s))

    # What the hour calls.

    def arrive(self, arrival: Arrival, now_s: float) -> None:
        self.now_s = now_s
        exchange = self.under_way[arrival.request] = Exchange(self, arrival)
        ask = Ask(
            model="m", path="", fields={}, answer_tokens_max=arrival.answer_tokens_asked or None
        )
        size = arrival.prompt_bytes
        if self.admission.admit(exchange, ask, SERVED, id_=exchange.id, size=size):
            exchange.route()

    def first_token(self, request: int, now_s: float) -> None:
        self.now_s = now_s
        placed = self.under_way[request].placed
        if placed is not None and self.learns:
            self.router.first_token(placed, now_s)

    def finished(self, request: int, tokens: tuple[int, int, int], now_s: float) -> None:
        self.now_s = now_s
        self.settle(self.under_way[request], "finished", tokens)

    def cancelled(self, request: int, now_s: float) -> None:
        self.now_s = now_s
        self.settle(self.under_way[request], "cancelled", (0, 0, 0))

    def retried(self, request: int, now_s: float) -> None:
        self.now_s = now_s
        exchange = self.under_way[request]
        if exchange.placed is not None:
            exchange.tried |= {exchange.placed.live.name}
            self.router.release(exchange.placed)
            exchange.placed = None
        exchange.route()

    def sweep(self, now_s: float) -> None:
        self.now_s = now_s
        for exchange in tuple(self.stranded):
            if not exchange.is_over and now_s >= exchange.deadline_s:
                exchange.refuse(Refusal(kind="no_replica", message="", retry_after_s=5.0))
        self.admission.sweep(now_s)
        self.route_stranded()

    def change(self, replicas: tuple[str, ...], what: str, now_s: float) -> None:
        self.now_s = now_s
        for name in replicas:
            if what == "leaves":
                del self.lives[name]
                self.router.leave(name)
            elif what == "joins":
                asyncio.run(self.join(name))
            else:
                row = msgspec.structs.replace(
                    self.row(name), state="suspect" if what == "is suspect" else "ready"
                )
                self.lives[name].become(row)
        rows = tuple(
            msgspec.structs.replace(self.row(name), state=live.state)
            for name, live in self.lives.items()
        )
        self.admission.replace_table(ReplicaTable(version=1, replicas=rows))
        self.route_stranded()

    # Its steps.

    def row(self, name: str) -> Row:
        [each] = [each for each in REPLICAS if each.name == name]
        return Row(
            name=name, deployment=name, model="m", pool=each.pool, engine=each.engine,
            state="ready", url="http://127.0.0.1:1", pid=1,
        )  # fmt: skip

    async def join(self, name: str) -> None:
        """Its connections want a loop, which is never used."""
        live = LiveReplica(self.row(name), watch=self.watches[name], bearer=None)
        self.lives[name] = live
        self.router.join(live, self.now_s)

    def route_stranded(self) -> None:
        for _ in range(len(self.stranded)):
            exchange = self.stranded.popleft()
            if exchange.is_over:
                continue
            if self.lives:
                exchange.route()
            else:
                self.stranded.append(exchange)

    def settle(self, exchange: Exchange, outcome: str, tokens: tuple[int, int, int]) -> None:
        exchange.is_over = True
        del self.under_way[exchange.request]
        usage = Usage(
            request=exchange.id, at_s=0.0, tenant=None, key=None, tier=None, surface="chat",
            outcome=outcome, status=200, reason="", attempts=1, tokens_in=tokens[0],
            tokens_cached=tokens[1], tokens_out=tokens[2], duration_s=0.0,
        )  # fmt: skip
        placed, exchange.placed = exchange.placed, None
        if placed is not None:
            if outcome == "finished":
                self.router.finished(placed, exchange.prompt, usage, self.now_s)
            self.router.release(placed)
        ticket, exchange.ticket = exchange.ticket, None
        if ticket is not None:
            self.admission.end(ticket, usage)
