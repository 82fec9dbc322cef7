"""An hour in the simulator, and what gateways and tables would have told of it, for the live side.

The simulator decides and its replicas follow; the live side is told the same hour by three gateway
processes, one of which dies and is replaced, and says what it would have decided.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import msgspec
import numpy as np
from agreement_hour import TRACE
from msgspec.structs import replace

from argosy.control.scaling import LiveScaler, Signals, signals_of
from argosy.fleet import load
from argosy.fleet.config import Fleet
from argosy.fleet.launchers import RayLauncher
from argosy.fleet.messages import Replica, ReplicaTable, Usage
from argosy.gateway.arrivals import Arrivals
from argosy.observability.counts import Counts, MetricsSnapshot, merged
from argosy.observability.metrics import GatewayMetrics
from argosy.policies.autoscaling import Decision, ModelView, Settings, Sustains
from argosy.policies.capacity import World
from argosy.simulator.outcomes import DONE
from argosy.simulator.scaling import PolicyScaler
from argosy.simulator.scenario import Loss, scenario_of, slowed, with_step_times
from argosy.simulator.serving import Run
from argosy.simulator.traces.window import Trace, window_of
from tests.simulator.small_fleet import STEP

TEXT = """
fleet: hour
pools:
  - {name: near, launcher: {kind: planned}, region: aws/us-east-1, chip: H100-SXM,
     nodes: {max: 9}, start_s: 60}
  - {name: far, launcher: {kind: planned}, region: gcp/us-east5, chip: TPU-v6e, nodes: {max: 9},
     start_s: 60, price_usd_per_chip_hour: 1.5}
models:
  - {name: chat, architecture: Llama-3.1-8B, survive: [any_one_cloud]}
deployments:
  - {model: chat, pool: near, replicas: 2, autoscale: {min: 1, max: 9},
     engine: {kind: vllm, requests_max: 12}}
  - {model: chat, pool: far, replicas: 2, autoscale: {min: 1, max: 9},
     engine: {kind: vllm, requests_max: 12}, layout: {tp: 2}}
tenants: [{name: acme, tier: enterprise}, {name: web, tier: consumer}, {name: night, tier: batch}]
"""
SUSTAINS = {
    "chat@far": Sustains(prefill_tokens_per_s=9000.0, decode_tokens_per_s=500.0),
    "chat@near": Sustains(prefill_tokens_per_s=8000.0, decode_tokens_per_s=450.0),
}
LOSS = Loss(kind="cloud", name="gcp", at_s=1500.0, until_s=1800.0)
STATES = (None, "starting", "ready", "stopping", "unreachable")  # as the simulator numbers them
TIERS = ("enterprise", "consumer", "batch")
DIES = 900.0  # one of the gateway's processes
BYTES_PER_TOKEN = 4


@dataclass
class Look:
    """What was so when the simulator's policy was asked."""

    view: ModelView
    decision: Decision
    ended: list[tuple[float, int, int]]  # since the last: when, prompt tokens, output tokens
    replicas: list[tuple[str, str, str, float, int]]  # name, deployment, state, since, in flight


class Asked(PolicyScaler):
    """The simulator's, which writes down what it was asked and what it said.

    What waits in an engine between two of its steps is not seen from outside: here too, what waits
    is what its slots do not hold.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(SUSTAINS, settings)
        self.looks: list[Look] = []
        self.run: Run | None = None
        self._read = 0

    def decide_all(self, views: Sequence[ModelView], world: World) -> tuple[Decision, ...]:
        (view,) = views
        replicas = self._replicas()
        deployments = tuple(
            replace(one, waiting=sum(max(0, in_flight - (one.slots or 0))
                                     for _, name, _, _, in_flight in replicas if name == one.name))
            for one in view.deployments
        )  # fmt: skip
        view = replace(view, deployments=deployments)
        (decision,) = super().decide_all((view,), world)
        self.looks.append(Look(view, decision, self._ended(), replicas))
        return (decision,)

    def _ended(self) -> list[tuple[float, int, int]]:
        assert self.run is not None
        book = self.run.sim.book
        new = book.results[self._read : int(book.marks[0]["ended"])]
        self._read = int(book.marks[0]["ended"])
        done = new[new["outcome"] == DONE]
        return list(zip(done["end_s"].tolist(), done["prompt_tokens"].tolist(),
                        done["output_tokens"].tolist(), strict=True))  # fmt: skip

    def _replicas(self) -> list[tuple[str, str, str, float, int]]:
        assert self.run is not None
        scaling, rows = self.run._scaling, self.run.sim.engine.replicas
        assert scaling is not None
        found = []
        for place, row in enumerate(rows):
            state = STATES[scaling._state[place]]
            name = self.run.scenario.groups[int(row["group"])].name
            if state is not None:
                in_flight = int(row["decoding"] + row["reading"] + row["waiting"])
                since_s = float(scaling._since_s[place])
                found.append((f"{name}-{place}", name, state, since_s, in_flight))
        return found


@dataclass
class Hour:
    """The simulated one."""

    arrivals: list[tuple[float, str, int]]  # when, tier, prompt tokens
    looks: list[Look]


def simulated(rows: int | None = None, settings: Settings | None = None) -> Hour:
    """The recorded hour, or its first rows."""
    data = np.genfromtxt(TRACE, delimiter=",", skip_header=1, max_rows=rows)
    arrival_s, prompt, output = data[:, 0], data[:, 1].astype(np.int32), data[:, 2].astype(np.int32)
    tiers = (np.arange(arrival_s.size) % 10 // 4).astype(np.int8)
    columns = {"arrival_s": arrival_s, "prompt_tokens": prompt, "output_tokens": output,
               "tier": tiers, "tenant": tiers.astype(np.int16)}  # fmt: skip
    trace = Trace(
        pieces=lambda: iter([window_of(columns, rows=arrival_s.size)]),
        found="the hour", models=("chat",), tenants=("acme", "web", "night"),
        origins=("aws/us-east-1",),
    )  # fmt: skip
    scenario = with_step_times(scenario_of(load.parse(TEXT, source="hour.yaml")), slowed(STEP, 2.0))
    scaler = Asked(settings or Settings())
    run = Run(replace(scenario, losses=(LOSS,)), trace, scaler=scaler)
    scaler.run = run
    for window in trace.windows():
        run.feed(window)
    ranks = [TIERS[tier] for tier in tiers.tolist()]
    return Hour(list(zip(arrival_s.tolist(), ranks, prompt.tolist(), strict=True)), scaler.looks)


@cache
def live_fleet() -> Fleet:
    """The same, on pools where something runs."""
    fleet = load.parse(TEXT, source="hour.yaml")
    pools = [replace(pool, launcher=RayLauncher(address="head:6379")) for pool in fleet.pools]
    return replace(fleet, pools=tuple(pools))


class Process:
    """One gateway process: the counters are the real ones."""

    def __init__(self, queued: dict[str, int], in_flight: dict[str, int]) -> None:
        self.arrivals, self.in_flight = Arrivals(), in_flight
        self.metrics = GatewayMetrics(
            waiting=lambda: 0.0, connections=lambda: 0.0, unwritten=lambda: 0.0,
            queued=lambda: queued, asked=lambda: {"chat": self.arrivals.counts()},
        )  # fmt: skip

    def told(self) -> MetricsSnapshot:
        """As the parent process reads it."""
        snapshot = self.metrics.snapshot()
        snapshot.readings.in_flight = {("chat", name): n for name, n in self.in_flight.items()}
        return msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=MetricsSnapshot)


@dataclass
class Told:
    """The live side of an hour; the fields say in what it differs from what happened."""

    hour: Hour
    settings: Settings = field(default_factory=Settings)
    fleet: Fleet = field(default_factory=live_fleet)
    sustains: dict[str, Sustains] = field(default_factory=lambda: dict(SUSTAINS))
    forgets_the_dead: bool = False
    every: int = 1  # snapshots that reach it
    decisions: list[Decision] = field(default_factory=list)
    views: list[ModelView] = field(default_factory=list)

    def run(self, restart: int | None = None) -> "Told":
        """All looks; before that of number `restart` another control plane takes over."""
        self.scaler = LiveScaler(self.fleet, seeds=self.sustains, settings=self.settings)
        self.queued: dict[str, int] = {}
        self.in_flight: dict[str, int] = {}
        self.processes = [Process(self.queued, self.in_flight), Process({}, {}), Process({}, {})]
        self.gone, self.rows, self.answers, self.seen_s = Counts(), iter(self.hour.arrivals), 0, 0.0
        self.next = next(self.rows)
        self.under_way: list[tuple[float, int, int]] = []
        self.scaler.hear(self.signals(0.0))
        for number, look in enumerate(self.hour.looks):
            if number == restart:
                self.scaler = LiveScaler(self.fleet, saved=self.scaler.save(),
                                         settings=self.settings)  # fmt: skip
            self.look(look, number)
        return self

    def look(self, look: Look, number: int) -> None:
        at_s = look.view.now_s - look.view.age_s
        while self.next is not None and self.next[0] < at_s:
            self.came(self.next)
            self.next = next(self.rows, None)
        self.under_way += look.ended  # some have a last stretch of network before them
        for _, prompt, output in [one for one in self.under_way if one[0] < at_s]:
            self.answered(prompt, output)
        self.under_way = [one for one in self.under_way if one[0] >= at_s]
        self.queued["chat"] = look.view.queued
        self.in_flight.clear()
        self.in_flight.update({name: count for name, _, _, _, count in look.replicas})
        self.observe_changes(look, at_s)
        told = (self.signals(at_s),) if number % self.every == 0 else ()
        unseen = {one.name.partition("@")[2] for one in look.view.deployments if not one.max}
        self.scaler.cut_off(frozenset(unseen))
        [decided] = self.scaler.decide(look.view.now_s, table_of(look), *told)
        self.decisions.append(decided.decision)
        self.views.append(self.scaler.view("chat", look.view.now_s))
        if at_s == DIES:
            dead, self.processes[1] = self.processes[1], Process({}, {})
            if not self.forgets_the_dead:
                self.gone.add(dead.told().counts)

    def came(self, row: tuple[float, str, int]) -> None:
        self.answers += 1
        one = self.processes[self.answers % 3].arrivals
        one.came(row[1], BYTES_PER_TOKEN * row[2])  # type: ignore[arg-type]  # a tier

    def answered(self, prompt: int, output: int) -> None:
        usage = Usage(
            request="r", at_s=0.0, tenant=None, key=None, tier=None, surface="chat", status=200,
            outcome="finished", reason="", tokens_in=prompt, tokens_out=output, duration_s=1.0,
        )  # fmt: skip
        self.processes[prompt % 3].arrivals.answered(usage, BYTES_PER_TOKEN * prompt)

    def signals(self, at_s: float) -> Signals:
        told = [one.told() for one in self.processes]
        return signals_of(merged((MetricsSnapshot(counts=self.gone), *told)), at_s=at_s)

    def observe_changes(self, look: Look, at_s: float) -> None:
        """The tables of the last ten seconds, one for each time at which something changed."""
        times = sorted({since for _, _, _, since, _ in look.replicas if since > self.seen_s})
        for time_s in times:
            known = [one for one in look.replicas if one[3] <= time_s]
            self.scaler.observe(time_s, table_of(replace_replicas(look, known)))
        self.seen_s = at_s


def replace_replicas(look: Look, replicas: list[tuple[str, str, str, float, int]]) -> Look:
    return Look(look.view, look.decision, look.ended, replicas)


def table_of(look: Look) -> ReplicaTable:
    """As the control plane would publish it."""
    fleet = live_fleet()
    engine = fleet.deployments[0].engine
    return ReplicaTable(
        version=1,
        replicas=tuple(
            Replica(name=name, deployment=deployment, model="chat", pool=deployment[5:],
                    engine=engine, state=state)  # type: ignore[arg-type]  # one of the states
            for name, deployment, state, _, _ in look.replicas
        ),
    )  # fmt: skip
