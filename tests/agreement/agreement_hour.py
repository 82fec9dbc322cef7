"""One hour of arrivals, and replicas of a simple kind, for either body of the gateway.

What a body is told and what it decides is the same for both; the loop here knows no difference.
"""

import csv
import gzip
import heapq
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from argosy.fleet.config import (
    Deployment,
    Fleet,
    Gateway,
    Model,
    Pool,
    QueueTimeouts,
    SimulatedEngine,
    Tenant,
)
from argosy.fleet.launchers import EndpointLauncher

TRACE = Path(__file__).parents[2] / "traces" / "azure_llm_2023_conv.csv.gz"
SWEEP_S = 0.25
BLOCK_BYTES, BLOCKS_MAX = 128, 32  # the live index's first blocks, which are of one length


@dataclass(frozen=True)
class Replica:
    """What it does with a request: reads prompts one at a time, decodes in its slots."""

    name: str
    pool: str
    slots: int
    prefill_tokens_per_s: float
    token_s: float
    tells_cached: bool = False

    @property
    def engine(self) -> SimulatedEngine:
        return SimulatedEngine(slots=self.slots, context_tokens=4096)

    @property
    def cache_bytes(self) -> int:
        return self.slots * 4096 * 4


REPLICAS = (
    Replica("fast-0", "fast", 14, 12_000.0, 0.012, tells_cached=True),
    Replica("fast-1", "fast", 14, 12_000.0, 0.012),
    Replica("fast-2", "fast", 10, 9_000.0, 0.016),
    Replica("slow-0", "slow", 6, 2_500.0, 0.035),
    Replica("slow-1", "slow", 6, 2_000.0, 0.045, tells_cached=True),
)
TENANTS = (
    Tenant(name="acme", tier="enterprise", reserved_tokens_per_s=600.0),
    Tenant(name="bank", tier="enterprise"),
    Tenant(name="cafe", tier="consumer", weight=2.0),
    Tenant(name="night", tier="batch"),
    Tenant(name="shop", tier="consumer"),
)
# When, which replicas, and what becomes of them. Nobody listens at first, and once again.
CHANGES = (
    (3.0, ("fast-0", "fast-1", "fast-2", "slow-0"), "joins"),
    (400.0, ("slow-1",), "joins"),
    (900.0, ("fast-0",), "is suspect"),
    (905.0, ("fast-0",), "leaves"),
    (1000.0, ("fast-1",), "leaves"),
    (1500.0, ("fast-0",), "joins"),
    (1800.0, ("slow-0",), "is suspect"),
    (1830.0, ("slow-0",), "is ready"),
    (1900.0, ("fast-0", "fast-2", "slow-0", "slow-1"), "leaves"),
    (1912.0, ("fast-0", "fast-1", "fast-2", "slow-0", "slow-1"), "joins"),
)


def fleet(**settings: object) -> Fleet:
    """What both bodies are configured by."""
    gateway = Gateway(
        **{
            "waiting_max": 40,
            "queue_timeout_s": QueueTimeouts(enterprise=20.0, consumer=6.0, batch=60.0),
            "replica_wait_s": 9.0,
            "affinity_load_max": 0.25,
            "tenant_share_max": 0.45,  # so that a reservation is worth something
            **settings,
        }  # type: ignore[arg-type]
    )
    return Fleet(
        fleet="hour",
        gateway=gateway,
        pools=tuple(
            Pool(name=name, launcher=EndpointLauncher(url="http://127.0.0.1:1/v1"))
            for name in ("fast", "slow")
        ),
        models=(Model(name="m"),),
        deployments=tuple(
            Deployment(model="m", pool=each.pool, engine=each.engine) for each in REPLICAS
        ),
        tenants=TENANTS,
    )


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    request: int
    at_s: float
    tenant: Tenant
    tokens_in: int
    tokens_out: int
    prompt_bytes: int
    answer_tokens_asked: int  # 0: the request names no limit
    session: bytes | None
    blocks: list[int]

    @property
    def leaves_s(self) -> float | None:
        """When its client gives up, if it has no answer by then."""
        return self.at_s + 4.0 if self.request % 37 == 5 else None


def arrivals(begin: int = 0, end: int | None = None) -> list[Arrival]:
    """Rows of the trace: who asks, which chat it is of, and what it limits is made up."""
    with gzip.open(TRACE, "rt") as file:
        rows = list(csv.DictReader(file))[begin:end]
    return [
        arrival(number, float(row["t_s"]), int(row["input_tokens"]), int(row["output_tokens"]))
        for number, row in enumerate(rows)
    ]


def arrival(number: int, at_s: float, tokens_in: int, tokens_out: int) -> Arrival:
    prompt_bytes, chat = 4 * tokens_in + number % 4, number * 7 % 61
    whole = min(BLOCKS_MAX, prompt_bytes // BLOCK_BYTES)
    shared = min(whole, 4 + chat % 20)  # what all of a chat begin with
    return Arrival(
        request=number,
        at_s=at_s,
        tenant=TENANTS[(number * 13 + number // 50) % len(TENANTS)],
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        prompt_bytes=prompt_bytes,
        answer_tokens_asked=(0, 64, 500)[number % 3],
        session=b"chat-%d" % chat if number % 2 else None,
        blocks=[
            _mixed(chat * 64 + block if block < shared else 2**20 + number * 64 + block)
            for block in range(whole)
        ],
    )


def _mixed(number: int) -> int:
    return (number + 1) * 0x9E3779B97F4A7C15 % 2**64


class Body(Protocol):
    """A gateway: what it does is in `log`, and what it sends in `sent` until that is taken."""

    log: list[tuple]  # (second, what, request, replica, retry_after_s)
    sent: list[tuple[int, str]]

    def arrive(self, arrival: Arrival, now_s: float) -> None: ...
    def first_token(self, request: int, now_s: float) -> None: ...
    def finished(self, request: int, tokens: tuple[int, int, int], now_s: float) -> None: ...
    def cancelled(self, request: int, now_s: float) -> None: ...
    def retried(self, request: int, now_s: float) -> None: ...
    def sweep(self, now_s: float) -> None: ...
    def change(self, replicas: tuple[str, ...], what: str, now_s: float) -> None: ...


@dataclass
class Busy:
    """A replica at work."""

    replica: Replica
    reading_until_s: float = 0.0
    free_s: list[float] = field(default_factory=list)

    def take(self, arrival: Arrival, now_s: float) -> tuple[float, float]:
        """When its first token comes and when it ends."""
        free_s = heapq.heappop(self.free_s) if len(self.free_s) == self.replica.slots else now_s
        begins_s = max(now_s, free_s, self.reading_until_s)
        self.reading_until_s = begins_s + arrival.tokens_in / self.replica.prefill_tokens_per_s
        first_s = self.reading_until_s + 0.02
        end_s = first_s + arrival.tokens_out * self.replica.token_s
        heapq.heappush(self.free_s, end_s)
        return first_s, end_s


class Hour:
    """Runs a body through arrivals; events of one moment in the order in which they were set."""

    def __init__(self, body: Body, asked: list[Arrival]) -> None:
        self.body, self.asked = body, asked
        self.busy = {each.name: Busy(each) for each in REPLICAS}
        self.events: list[tuple[float, int, str, object]] = []
        self.count = 0
        self.attempts: dict[int, int] = {}  # by request under way: which of its attempts it is
        self.on: dict[int, str] = {}

    def run(self) -> None:
        for arrival in self.asked:
            self.at(arrival.at_s, "arrive", arrival)
        for at_s, names, what in CHANGES:
            self.at(at_s, "change", (names, what))
        end_s = self.asked[-1].at_s + 120.0
        for turn in range(int(self.asked[0].at_s / SWEEP_S), int(end_s / SWEEP_S)):
            self.at(turn * SWEEP_S, "sweep", None)
        while self.events:
            at_s, _, what, about = heapq.heappop(self.events)
            before = len(self.body.log)
            getattr(self, what)(about, at_s)
            self.forget_refused(before)
            self.start_sent(at_s)

    def at(self, at_s: float, what: str, about: object) -> None:
        heapq.heappush(self.events, (at_s, self.count, what, about))
        self.count += 1

    def start_sent(self, now_s: float) -> None:
        sent, self.body.sent = self.body.sent, []
        for request, name in sent:
            attempt = self.attempts[request] = self.attempts.get(request, 0) + 1
            self.on[request] = name
            first_s, end_s = self.busy[name].take(self.asked[request], now_s)
            self.at(first_s, "first_token", (request, attempt))
            self.at(end_s, "finish", (request, attempt))

    def arrive(self, arrival: Arrival, now_s: float) -> None:
        self.attempts[arrival.request] = 0
        self.body.arrive(arrival, now_s)
        if arrival.leaves_s is not None:
            self.at(arrival.leaves_s, "leave", arrival.request)

    def first_token(self, about: tuple[int, int], now_s: float) -> None:
        request, attempt = about
        if self.attempts.get(request) == attempt:
            self.body.first_token(request, now_s)

    def finish(self, about: tuple[int, int], now_s: float) -> None:
        request, attempt = about
        if self.attempts.get(request) != attempt:
            return
        del self.attempts[request]
        arrival = self.asked[request]
        tells = self.busy[self.on[request]].replica.tells_cached
        cached = arrival.tokens_in * (request % 3) // 4 if tells else 0
        self.body.finished(request, (arrival.tokens_in, cached, arrival.tokens_out), now_s)

    def leave(self, request: int, now_s: float) -> None:
        if self.attempts.pop(request, None) is not None:
            self.body.cancelled(request, now_s)

    def sweep(self, _: None, now_s: float) -> None:
        self.body.sweep(now_s)

    def change(self, about: tuple[tuple[str, ...], str], now_s: float) -> None:
        names, what = about
        self.body.change(names, what, now_s)
        if what != "leaves":
            return
        for name in names:
            self.busy[name] = Busy(self.busy[name].replica)
        lost = [request for request in self.attempts if self.on.get(request) in names]
        for request in lost:
            self.attempts[request] += 1  # what its replica would have said never comes
            del self.on[request]
            self.body.retried(request, now_s)

    def forget_refused(self, before: int) -> None:
        for entry in self.body.log[before:]:
            if entry[1] != "sent":
                self.attempts.pop(entry[2], None)
