"""python -m bench.spike: a spike of five times the load, live: our rule beside reactive ones.

A real fleet on this machine for each rule and round: gateway process, control plane and replicas
that take some seconds to start (simulated engines, real HTTP). After some calm, of which an hour
is given as history, five times as many requests come for a minute: open loop, Poisson, streams,
the same arrivals for all rules of a round. The peers' rules (`bench/autoscaling/peers.py`) decide
on the same signals by `LiveScaler`'s `rule`; each at its own interval.

Examples: python -m bench.spike                          # a round: about twenty minutes
          python -m bench.spike --rules argosy,kalman --rounds 2 --json spike.json
"""

import argparse
import asyncio
import itertools
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import msgspec
import uvloop

from argosy.cli.gateways import Gateways, GatewayTerms
from argosy.cli.listeners import Listeners
from argosy.cli.state import STORE_FILE
from argosy.cli.wanted import Launchers, threads_each, wanted
from argosy.control.autoscaling import Autoscaling
from argosy.control.controller import Controller
from argosy.control.probe import HttpProber
from argosy.control.scaling import LiveScaler, Signals, signals_of
from argosy.control.scaling.scaler import Rule
from argosy.fleet import load
from argosy.fleet.config import Fleet
from argosy.fleet.messages import Key
from argosy.gateway.together import metrics_of
from argosy.observability.counts import Asked
from argosy.policies.autoscaling import (
    Decision,
    ModelView,
    ScaleState,
    Settings,
    Sustains,
    Target,
    scale,
)
from argosy.store.schema import open_store
from bench.autoscaling import peers

SLOTS, TOKENS_PER_S, ANSWER_TOKENS = 4, 20.0, 40  # two seconds a request, four at once
START_S = 4.0  # that an engine takes to load; a process takes a second more
SLO_TTFT_S = 2.0
TIMES = 5.0
CALM_RATE = 1.5  # requests a second, of 2 that a replica sustains
BEFORE_S = 3600.0  # of calm, that is given as history
OTHERWISE_S = 7.0  # by which every other round's calm is longer: intervals fall otherwise
BODY_BYTES = 103  # of a request's body, as it is counted
KNOWN = f", start_s: {START_S + 1.0}"
FLEET = f"""
fleet: spike
gateway: {{port: 0, keys: none}}
pools: [{{name: here, launcher: {{kind: local}}{KNOWN}}}]
models: [{{name: chat, slo: {{ttft_s_p95: {SLO_TTFT_S}, itl_s_p99: 0.2}}}}]
deployments:
  - {{model: chat, pool: here, replicas: 1, autoscale: {{min: 1, max: 16}},
     engine: {{kind: simulated, slots: {SLOTS}, prefill_tokens_per_s: 2000,
              decode_tokens_per_s: {TOKENS_PER_S}, start_s: {START_S}}}}}
"""
QUESTION = {
    "model": "chat",
    "messages": [{"role": "user", "content": "Count."}],
    "max_tokens": ANSWER_TOKENS,
    "stream": True,
}


class Phases(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds."""

    calm_s: float = 30.0
    spike_s: float = 60.0
    after_s: float = 30.0

    @property
    def all_s(self) -> float:
        return self.calm_s + self.spike_s + self.after_s


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """One request; times from the beginning of the calm."""

    at_s: float
    status: int | None  # None: the connection broke
    ttft_s: float | None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet at one moment."""

    at_s: float
    wanted: int
    ready: int
    paid: int  # all that are there, ready or not


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One rule in one round; times from the spike's begin, None: never."""

    rule: str
    round: int
    asked: int  # requests from the spike's begin on
    refused: int
    late: int  # answered, the first token after the SLO
    first_asked_s: float | None
    first_ready_s: float | None
    last_ready_s: float | None
    replicas_before: int
    replicas_max: int
    replica_s: float  # calm, spike and after
    deadline_s: float
    course: tuple[tuple[float, int], ...]  # replicas wanted, from when on
    load: float | None = None  # of this machine in the last minute, at the end

    @property
    def is_in_time(self) -> bool:
        """A new replica was ready before the first request that waited had to be refused."""
        return self.first_ready_s is not None and self.first_ready_s < self.deadline_s


# The rules.


class Reactive:
    """A peer's rule as `LiveScaler` calls ours: asked at its own interval, else as it said last."""

    def __init__(self, peer: peers.Peer) -> None:
        self._peer, self._said, self._next_s = peer, Decision(targets=()), 0.0

    def __call__(
        self, state: ScaleState, view: ModelView, settings: Settings
    ) -> tuple[ScaleState, Decision]:
        if view.now_s >= self._next_s:
            self._said = self._peer.decide(view)
            self._next_s = view.now_s + self._peer.every_s - 0.5  # looks are a second apart
        return state, self._said


SUSTAINS = Sustains(prefill_tokens_per_s=2000.0, decode_tokens_per_s=SLOTS * TOKENS_PER_S)
TUNED = peers.Tuned(
    requests_per_s=SLOTS * TOKENS_PER_S / ANSWER_TOKENS, batch=float(SLOTS), sustains=SUSTAINS
)
RULES: dict[str, Callable[[], Rule]] = {
    "argosy": lambda: scale,
    "KEDA on queue": lambda: Reactive(peers.KedaQueue(TUNED)),
    "HPA on concurrency": lambda: Reactive(peers.HpaConcurrency(TUNED)),
    "Ray Serve": lambda: Reactive(peers.RayServe(TUNED)),
    "Ray Serve tuned": lambda: Reactive(peers.RayServe(TUNED, 0.8 * TUNED.batch)),
    "SkyServe": lambda: Reactive(peers.SkyServe(TUNED)),
    "llm-d WVA": lambda: Reactive(peers.Wva(TUNED)),
    "Dynamo, Kalman": lambda: Reactive(peers.Dynamo(TUNED, peers.kalman)),
    "no autoscaling": lambda: stays,
}


def stays(state: ScaleState, view: ModelView, settings: Settings) -> tuple[ScaleState, Decision]:
    """As many as there are: what a spike does to a fleet that nobody scales."""
    one = view.deployments[0]
    count = one.ready + len(one.pending)
    return state, Decision(targets=(Target(deployment=one.name, replicas=count, reason="stays"),))


# What comes.


def arrivals(seed: int, phases: Phases, rate: float) -> list[float]:
    """Poisson, in seconds from the beginning of the calm."""
    chance, times, at_s = random.Random(seed), [], 0.0
    spike = (phases.calm_s, phases.calm_s + phases.spike_s)
    while at_s < phases.all_s:
        at_s += chance.expovariate(1.0) / (rate * (TIMES if spike[0] <= at_s < spike[1] else 1.0))
        times.append(at_s)
    return times[:-1]


def history(fleet: Fleet, seed: int, until_s: float, rate: float) -> bytes:
    """What a control plane remembers that has seen an hour of the calm."""
    chance, scaler, asked = random.Random(-seed - 1), LiveScaler(fleet), 0.0
    begin_s, counted = until_s - BEFORE_S, 0
    for step in range(round(BEFORE_S / 10.0) + 1):
        while asked <= 10.0 * step:
            asked += chance.expovariate(rate)
            counted += 1
        told = Asked(requests=counted, prompt_bytes=BODY_BYTES * counted, answered=counted,
                     output_tokens=ANSWER_TOKENS * counted)  # fmt: skip
        at_s = begin_s + 10.0 * step
        scaler.hear(Signals(at_s=at_s, asked={"chat": told}, began_s=begin_s - 1.0))
    return scaler.save()


# One fleet.


class Live:
    """A fleet of one rule, from its start to its end."""

    def __init__(self, fleet: Fleet, state: Path, rule: Rule, saved: bytes, unix_s: float) -> None:
        self.fleet, self.listeners = fleet, Listeners(fleet.gateway)
        key = Key(id="k", sha256="", tenant="t", tier="consumer", name="up", created_at_s=0.0)
        terms = GatewayTerms(state=state, operator_token="t", up_key=key, say=lambda _: None,
                             chance=random.Random(1))  # fmt: skip
        self.gateways = Gateways(fleet, terms, self.listeners)
        self.controller = Controller(publish=self.gateways.publish, prober=HttpProber(),
                                     chance=random.Random(2), unix_s=unix_s)  # fmt: skip
        self.parts = wanted(
            fleet, weights={}, threads=threads_each(fleet), launchers=Launchers(state)
        )
        scaler = LiveScaler(fleet, saved=saved, rule=rule)
        self.autoscaling = Autoscaling(scaler, self.controller, self._hear, chance=random.Random(3))

    async def __aenter__(self) -> "Live":
        await self.gateways.start()
        parts = self.parts
        await self.controller.start(
            parts.plans,
            parts.launchers,
            prober=parts.prober,
            in_flight=self.gateways.in_flight,
        )
        self.autoscaling.start(self.fleet)
        await self.controller.all_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.autoscaling.stop()
        await self.controller.stop(3.0)
        await self.gateways.stop()

    async def _hear(self) -> tuple[Signals, ...]:
        collected = await self.gateways.collect()
        at_s = self.controller.now_s()
        whole = not collected.silent
        began_s = at_s - collected.uptime_s
        said = signals_of(metrics_of(collected), at_s=at_s, began_s=began_s, is_whole=whole)
        return (said,)

    def standing(self, at_s: float) -> Standing:
        rows = self.controller.table.replicas
        return Standing(
            at_s=at_s,
            wanted=sum(plan.replicas for plan in self.controller.wanted.values()),
            ready=sum(row.state in ("ready", "suspect") for row in rows),
            paid=sum(row.state != "dead" for row in rows),
        )


async def asked_once(client: httpx.AsyncClient, at_s: float) -> Asking:
    """One stream, read to its end."""
    begun_s, first_s = time.monotonic(), None
    try:
        async with client.stream("POST", "/v1/chat/completions", json=QUESTION) as answer:
            async for line in answer.aiter_lines():
                if first_s is None and '"content"' in line:
                    first_s = time.monotonic() - begun_s
            return Asking(at_s=at_s, status=answer.status_code, ttft_s=first_s)
    except httpx.HTTPError:
        return Asking(at_s=at_s, status=None, ttft_s=first_s)


async def ask_all(url: str, times: list[float]) -> list[Asking]:
    begun_s = time.monotonic()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(
        base_url=url, trust_env=False, timeout=120.0, limits=limits
    ) as client:
        tasks = []
        for at_s in times:
            await asyncio.sleep(max(0.0, begun_s + at_s - time.monotonic()))
            tasks.append(asyncio.create_task(asked_once(client, at_s)))
        return list(await asyncio.gather(*tasks))


async def once(rule: str, number: int, phases: Phases, rate: float, text: str = FLEET) -> Row:
    """A fleet, its calm, its spike, its end."""
    fleet, unix_s = load.parse(text, source="spike.yaml"), time.time()
    with TemporaryDirectory(prefix="argosy-spike-") as folder:
        open_store(Path(folder) / STORE_FILE).dispose()
        saved = history(fleet, number, unix_s, rate)
        async with Live(fleet, Path(folder), RULES[rule](), saved, unix_s) as live:
            await asyncio.sleep(3.0)  # the first decision is made, and what it asks for is there
            await live.controller.all_ready()
            course: list[Standing] = []
            begun_s = time.monotonic()
            watching = asyncio.create_task(watched(live, course, begun_s))
            asked = await ask_all(live.listeners.url, arrivals(number, phases, rate))
            await asyncio.sleep(max(0.0, begun_s + phases.all_s - time.monotonic()))
            watching.cancel()
    return row_of(rule, number, phases, asked, course, fleet.gateway.queue_timeout_s.consumer)


async def watched(live: Live, course: list[Standing], begun_s: float) -> None:
    while True:
        course.append(live.standing(time.monotonic() - begun_s))
        await asyncio.sleep(0.1)


def row_of(
    rule: str, number: int, phases: Phases, asked: list[Asking], course: list[Standing],
    deadline_s: float,
) -> Row:  # fmt: skip
    late = [one for one in asked if one.at_s >= phases.calm_s]
    before = [one for one in course if one.at_s < phases.calm_s][-1]
    spike = [one for one in course if one.at_s >= phases.calm_s]
    more = [one.at_s - phases.calm_s for one in spike if one.wanted > before.wanted]
    grown = [
        now.at_s - phases.calm_s
        for old, now in itertools.pairwise(spike)
        if now.ready > old.ready and now.ready > before.ready
    ]
    inside = [one for one in course if one.at_s < phases.all_s]
    steps = [(new.at_s - old.at_s) * old.paid for old, new in itertools.pairwise(inside)]
    answered = [one for one in late if one.status == 200 and one.ttft_s is not None]
    return Row(
        rule=rule,
        round=number,
        asked=len(late),
        refused=len(late) - len(answered),
        late=sum(one.ttft_s > SLO_TTFT_S for one in answered if one.ttft_s is not None),
        first_asked_s=more[0] if more else None,
        first_ready_s=grown[0] if grown else None,
        last_ready_s=grown[-1] if grown else None,
        replicas_before=before.ready,
        replicas_max=max(one.ready for one in course),
        replica_s=sum(steps),
        deadline_s=deadline_s,
        course=tuple(
            (round(new.at_s - phases.calm_s, 1), new.wanted)
            for old, new in itertools.pairwise(course)
            if new.wanted != old.wanted
        ),
        load=os.getloadavg()[0],
    )


# What is told.


def told(rows: list[Row]) -> str:
    """By rule, over all rounds; ratios to ours."""
    lines = [
        "| rule | in time | refused | late | first asked | first ready | last ready "
        "| most replicas | replica-seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ours = [row for row in rows if row.rule == "argosy"]
    base = mean([row.replica_s for row in ours]) if ours else None
    for rule in RULES:
        own = [row for row in rows if row.rule == rule]
        if own:
            lines.append(line_of(rule, own, base))
    return "\n".join(lines)


def line_of(rule: str, own: list[Row], base: float | None) -> str:
    asked = sum(row.asked for row in own)
    seconds = mean([row.replica_s for row in own])
    ratio = "" if base is None else f" ({seconds / base:.2f})"
    cells = (
        rule,
        f"{sum(row.is_in_time for row in own)} of {len(own)}",
        f"{sum(row.refused for row in own) / asked:.1%}",
        f"{sum(row.late for row in own) / asked:.1%}",
        spread_of([row.first_asked_s for row in own]),
        spread_of([row.first_ready_s for row in own]),
        spread_of([row.last_ready_s for row in own]),
        f"{max(row.replicas_max for row in own)}",
        f"{seconds:.0f}{ratio}",
    )
    return f"| {' | '.join(cells)} |"


def spread_of(seconds: list[float | None]) -> str:
    known = [one for one in seconds if one is not None]
    if not known:
        return "never"
    low, high = min(known), max(known)
    said = f"{low:.1f} s" if high - low < 0.05 else f"{low:.1f} to {high:.1f} s"
    return said if len(known) == len(seconds) else f"{said}, or never"


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.spike", description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rules", help="names, by comma (all)")
    parser.add_argument("--rounds", type=int, default=1, help="each with other arrivals (1)")
    parser.add_argument("--first", type=int, default=0, help="the first round's number (0)")
    parser.add_argument("--calm-s", type=float, default=30.0, help="before the spike (30)")
    parser.add_argument(
        "--start-unknown", action="store_true", help="the file does not say how long a start takes"
    )
    parser.add_argument("--json", type=Path, help="keep the rows here; those that are there count")
    asked = parser.parse_args()
    text = FLEET.replace(KNOWN, "") if asked.start_unknown else FLEET
    rows: list[Row] = []
    if asked.json and asked.json.exists():
        rows = msgspec.json.decode(asked.json.read_bytes(), type=list[Row])
    names = asked.rules.split(",") if asked.rules else list(RULES)
    for number in range(asked.first, asked.first + asked.rounds):
        for place in range(len(names)):
            rule = names[(place + number) % len(names)]  # another one is first each time
            if any((row.rule, row.round) == (rule, number) for row in rows):
                continue
            phases = Phases(calm_s=asked.calm_s + OTHERWISE_S * (number % 2))
            rows.append(uvloop.run(once(rule, number, phases, CALM_RATE, text)))
            print(rows[-1], file=sys.stderr, flush=True)
            if asked.json:
                asked.json.write_bytes(msgspec.json.encode(rows))
    print(told(rows))


if __name__ == "__main__":
    main()
