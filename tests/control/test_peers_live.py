"""A replica that is slower than its peers is found, takes less, and is replaced under load."""

import asyncio
import random
from collections import Counter

import httpx
import msgspec
import pytest
from msgspec.structs import replace

from argosy.control.controller import Controller
from argosy.control.peers import Peers, Settings
from argosy.control.plan import DeploymentPlan, generation_of
from argosy.control.probe import HttpProber
from argosy.control.quarantines import Quarantined, Quarantines
from argosy.control.reconcile import Settings as Patience
from argosy.control.records import Record, first_record
from argosy.control.scaling import Signals, signals_of
from argosy.control.scaling.signals import ReplicaSignals
from argosy.control.windows import Windows
from argosy.engines.registry import adapter
from argosy.fleet import load
from argosy.fleet.config import Model, SimulatedEngine
from argosy.fleet.messages import Observation, ObservedNode, ReplicaSpec
from argosy.gateway.server import Gateway
from argosy.gateway.wiring import Wiring
from argosy.launchers.local import LocalPool
from argosy.observability.counts import Counts, Histogram, MetricsSnapshot, Series
from argosy.policies.health import HealthSettings, PeerSettings, RestartState

BOUNDS = (0.01, 0.1, 1.0, 10.0)
REPLICAS = 4
WINDOW_S = 0.4


# ── windows ──────────────────────────────────────────────────────────────────────────────────


def told(
    at_s: float, *, tokens: int, gap_s: float = 0.02, source: str = "a", failed: int = 0, **more
) -> Signals:
    """One replica's streams since the gateway began, 50 tokens each, and how it fared."""
    itl, ttft = Histogram.of(BOUNDS), Histogram.of(BOUNDS)
    itl.observe(gap_s, tokens)
    ttft.observe(0.05, tokens // 50)
    one = ReplicaSignals(
        in_flight=3, itl=itl, ttft=ttft, finished=tokens // 50, failed=failed, **more
    )
    return Signals(at_s=at_s, source=source, replicas={"r": one})


def test_a_window_has_what_came_between_two_words_of_a_gateway():
    windows = Windows(100.0)
    windows.hear([told(100.0, tokens=1_000)])
    windows.hear([told(110.0, tokens=2_000, failed=2)])
    seen = windows.close(110.0)["r"]
    assert (seen.tokens_out, seen.first_tokens) == (1_000, 20)
    assert seen.running_mean == pytest.approx(2.0)
    assert seen.in_flight_mean == 3.0
    assert (seen.requests_ended, seen.requests_failed) == (22, 2)
    assert 0.01 < seen.ttft_s_p50 < 0.1
    assert windows.close(120.0) == {}


def test_a_gateway_that_reports_seldom_counts_for_the_whole_window():
    windows = Windows(100.0)
    windows.hear([told(98.0, tokens=0), told(100.0, tokens=0, source="b")])
    for at_s in (101.0, 103.0, 105.0):
        windows.hear(
            [told(102.0, tokens=400), told(at_s, tokens=int(100 * (at_s - 100)), source="b")]
        )
    windows.hear([told(102.0, tokens=400), told(110.0, tokens=1_000, source="b")])
    seen = windows.close(110.0)["r"]
    assert seen.tokens_out == 1_000 + 1_000
    assert seen.running_mean == pytest.approx(4.0)


def test_a_gateway_that_counts_anew_says_nothing_in_that_window():
    windows = Windows(100.0)
    windows.hear([told(100.0, tokens=1_000)])
    windows.hear([told(105.0, tokens=50)])
    assert windows.close(110.0) == {}
    windows.hear([told(112.0, tokens=250)])
    assert windows.close(120.0)["r"].tokens_out > 0


def test_whoever_had_tokens_since_the_last_word_has_a_witness():
    windows = Windows(100.0)
    windows.hear([told(100.0, tokens=1_000)])
    assert windows.served_s == {}
    windows.hear([told(102.0, tokens=1_001)])
    windows.hear([told(104.0, tokens=1_001)])
    assert windows.served_s == {"r": 102.0}


def test_what_is_full_or_wrongly_asked_is_no_fault_of_the_replica():
    series = Series.empty()
    series.ended[("chat", "finished")] = 4
    series.ended[("chat", "refused")] = 1
    counts = Counts(series={("m", "consumer", "r"): series})
    for reason in ("upstream_failed", "upstream_timeout", "rate_limited", "bad_request", "suspect"):
        counts.attempts_failed[("r", reason)] = 1
    one = signals_of(MetricsSnapshot(counts=counts), at_s=0.0).replicas["r"]
    assert (one.finished, one.failed) == (4, 2)


# ── real processes ───────────────────────────────────────────────────────────────────────────

TEXT = """
fleet: peers
pools: [{name: here, launcher: {kind: local}}]
models: [{name: chat}]
gateway: {port: 0, keys: none, slow_start_s: 0.1}
deployments: [{model: chat, pool: here, replicas: 4, engine: {kind: simulated, slots: 4}}]
"""
FAST = SimulatedEngine(slots=4, decode_tokens_per_s=20.0)
SLOW = SimulatedEngine(slots=4, decode_tokens_per_s=10.0)
QUICK = HealthSettings(probe_interval_s=0.2, probe_interval_s_starting=0.05)
SHORT = Settings(
    hear_s=0.05,
    window_s=WINDOW_S,
    peers=PeerSettings(warm_s=0.5, request_s_min=0.3 * WINDOW_S, quarantine_s=60.0),
    health=QUICK,
)


def command(engine: SimulatedEngine):
    return adapter(engine).command(engine, model=Model(name="chat"), weights=None, threads=1)


def plan() -> DeploymentPlan:
    spec = ReplicaSpec(
        fleet="peers", name="", deployment="chat@here", model="chat", pool="here", engine=FAST,
        command=command(FAST), health_path="/health", generation="",
    )  # fmt: skip
    spec = replace(spec, generation=generation_of(spec))
    return DeploymentPlan(spec=spec, replicas=REPLICAS, names="chat")


class OneIsSlow(LocalPool):
    """The second replica is on a bad chip, as nobody told us; each is on a node of its own."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.cordoned: set[str] = set()

    async def start(self, spec: ReplicaSpec) -> None:
        slow = spec.name == "chat-2"
        await super().start(replace(spec, command=command(SLOW)) if slow else spec)

    async def observe(self) -> Observation:
        seen = await super().observe()
        nodes = tuple(
            ObservedNode(name=f"n{n}", state="draining" if f"n{n}" in self.cordoned else "up")
            for n in range(8)
        )
        return replace(seen, nodes=nodes)

    async def cordon(self, node: str, *, reason: str) -> None:
        self.cordoned.add(node)

    async def uncordon(self, node: str) -> None:
        self.cordoned.discard(node)


class Log:
    """What was decided."""

    def __init__(self) -> None:
        self.notes = []

    def keep(self, state) -> None:
        pass

    def note(self, notes, *, now_s: float) -> None:
        self.notes += notes

    def of(self, kind: str):
        return [one for one in self.notes if one.kind == kind]


class House:
    """A controller, a gateway, and the comparison between them."""

    def __init__(self, folder) -> None:
        self.log, self.tables, self.kept = Log(), [], []
        self.pool = OneIsSlow(folder)
        wiring = Wiring(
            find_key=lambda _: None, record=lambda _: None, usage_unwritten=lambda: 0,
            usage_is_overloaded=lambda: False, unix_time_s=lambda: 1_700_000_000.0,
            operator_token="t", chance=random.Random(1),
        )  # fmt: skip
        self.gateway = Gateway(load.parse(TEXT, source="peers.yaml"), wiring)
        self.controller = Controller(
            publish=self._publish, prober=HttpProber(), chance=random.Random(1),
            settings=Patience(health=QUICK, drain_s=2.0), memory=self.log,
        )  # fmt: skip
        self.peers = Peers(self.controller, self._hear, settings=SHORT, keep=self._keep)
        self.ended = Counter()

    def _publish(self, table) -> None:
        self.tables.append(table)
        self.gateway.replace_table(table)

    async def _hear(self):
        return [signals_of(self.gateway.metrics.snapshot(), at_s=self.controller.now_s())]

    async def _keep(self, body: bytes) -> None:
        self.kept.append(body)

    async def __aenter__(self):
        await self.gateway.start()
        await self.controller.start([plan()], {"here": self.pool})
        self.peers.start()
        async with asyncio.timeout(10):
            await self.controller.all_ready()
        self.callers = [asyncio.create_task(self._call()) for _ in range(14)]
        return self

    async def __aexit__(self, *_):
        for caller in self.callers:
            caller.cancel()
        await asyncio.wait(self.callers)
        self.peers.stop()
        await self.gateway.drain(1.0)
        await self.controller.stop(1.0)
        await self.gateway.stop()

    async def _call(self) -> None:
        body = {"model": "chat", "stream": True, "max_tokens": 15,
                "messages": [{"role": "user", "content": "hello"}]}  # fmt: skip
        url = f"{self.gateway.url}/v1/chat/completions"
        async with httpx.AsyncClient(trust_env=False, timeout=20.0) as client:
            while True:
                answer = await client.post(url, json=body)
                is_whole = answer.status_code == 200 and "[DONE]" in answer.text
                self.ended["whole" if is_whole else answer.text[:200]] += 1

    async def until(self, what, within_s: float = 45.0) -> None:
        async with asyncio.timeout(within_s):
            while not what():
                await asyncio.sleep(0.02)

    def names(self) -> set[str]:
        rows = self.controller.table.replicas
        return {row.name for row in rows if row.state == "ready"}


def test_a_slow_replica_is_found_and_replaced_under_load_and_no_request_is_lost(tmp_path):
    async def story() -> None:
        async with House(tmp_path) as house:
            await house.until(lambda: "chat-2" not in house.names() and len(house.names()) == 4)
            assert house.names() == {"chat-1", "chat-3", "chat-4", "chat-5"}
            await house.until(lambda: not house.controller.quarantines.out)
            tables = tuple(house.tables)
        [said] = house.log.of("quarantine")
        assert said.subject == "chat-2"
        assert "x the tokens/s of a running request" in said.reason
        inputs = msgspec.json.decode(said.inputs)
        assert inputs["replicas"][0]["replica"] == "chat-2"
        assert len(inputs["replicas"]) == REPLICAS
        [gone] = house.log.of("remove")
        assert gone.reason.startswith("in quarantine: unlike its peers in ")
        waiting = [
            row for table in tables for row in table.replicas
            if row.name == "chat-2" and row.share < 1.0
        ]  # fmt: skip
        assert waiting[0].state == "ready", "it goes on, with less, until another is ready"
        assert waiting[0].share == QUICK.probation_share
        serving = [sum(row.state in ("ready", "suspect") for row in one.replicas) for one in tables]
        assert min(serving[serving.index(REPLICAS) :]) >= REPLICAS
        assert set(house.ended) == {"whole"}
        assert msgspec.json.decode(house.kept[-1])["quarantines"]["out"][0]["name"] == "chat-2"

    asyncio.run(story())


# ── in virtual time, as patient as by default ────────────────────────────────────────────────


class Virtual:
    """Ready replicas, two on a node, as the comparison sees a controller; and their traffic."""

    def __init__(self, replicas: int = 16) -> None:
        self.clock_s = 10_000.0
        self.records = {
            f"chat-{n}": _ready(f"chat-{n}", node=f"n{n // 2}", since_s=9_000.0)
            for n in range(replicas)
        }
        self.wanted = {"chat@here": replace(plan(), replicas=replicas)}
        self.watcher = self
        self.quarantines = Quarantines()
        self.notes, self.served_s = [], {}
        self.pace = dict.fromkeys(self.records, 1.0)
        self.asked = dict.fromkeys(self.records, 1.0)
        self._itl = {name: Histogram.of(BOUNDS) for name in self.records}
        self._chance = random.Random(5)
        self.peers = Peers(self, _nobody)
        self.peers._windows = Windows(self.clock_s)

    def nodes(self):
        names = sorted({record.row.node for record in self.records.values()})
        return [("here", ObservedNode(name=name, state="up")) for name in names]

    def quarantine(self, quarantines: Quarantines, notes=()) -> None:
        self.quarantines = quarantines
        self.notes += notes
        for name, record in self.records.items():
            one = quarantines.of(record)
            self.records[name] = replace(record, quarantine=None if one is None else one.reason)

    def witness(self, served_s) -> None:
        self.served_s = served_s

    def passes(self, seconds: float) -> None:
        """Eight streams on each at 50 tokens/s, more or less, where nothing is said of it."""
        for _ in range(int(seconds / 2)):
            self.clock_s += 2.0
            for name, itl in self._itl.items():
                gap_s = 0.02 * self._chance.lognormvariate(0.0, 0.05) / self.pace[name]
                itl.observe(gap_s, int(8 * 2.0 * self.asked[name] / gap_s))
            told = {
                name: ReplicaSignals(in_flight=8, itl=replace(itl, counts=list(itl.counts)))
                for name, itl in self._itl.items()
            }
            self.peers.hear([Signals(at_s=self.clock_s, replicas=told)])
            if self.clock_s - self.peers._windows.began_s >= 10.0:
                self.peers.compare(self.clock_s)

    def of(self, kind: str) -> list[tuple[str, float]]:
        return [one.subject for one in self.notes if one.kind == kind]


def _ready(name: str, *, node: str, since_s: float) -> Record:
    record = first_record(plan().named(name), now_s=since_s, reason="")
    row = replace(record.row, state="ready", url="http://there", node=node)
    restarts = RestartState(ready_since_s=since_s)
    return replace(record, life="up", row=row, restarts=restarts)


def test_a_slow_replica_is_found_within_two_minutes_and_nobody_else_is():
    fleet = Virtual()
    fleet.passes(600)
    assert fleet.notes == []
    fleet.pace["chat-3"] = 0.6
    fleet.passes(120)
    assert fleet.of("quarantine") == ["chat-3"]
    fleet.passes(100)
    assert [one.name for one in fleet.quarantines.out] == ["chat-3"]
    fleet.pace["chat-3"] = 1.0
    fleet.passes(100)
    assert fleet.of("release") == ["chat-3"]
    assert fleet.notes[-1].reason.endswith("; on probation")


def test_a_slow_node_goes_whole_and_is_tried_again_when_it_has_nothing_to_do():
    fleet = Virtual()
    fleet.passes(300)
    fleet.pace |= {"chat-2": 0.6, "chat-3": 0.6}
    fleet.passes(140)
    assert fleet.of("quarantine") == ["n1"]
    assert fleet.quarantines.nodes() == {("here", "n1"): fleet.quarantines.out[0].reason}
    assert fleet.notes[0].reason.startswith("node of here: 2 of 2 replicas on this node")
    for name in ("chat-2", "chat-3"):  # others were started elsewhere in their place
        del fleet.records[name]
    fleet.passes(320)
    assert fleet.of("release") == ["n1"]
    assert fleet.quarantines.out == ()
    [trial] = fleet.quarantines.on_trial
    assert trial.has(_ready("chat-99", node="n1", since_s=0.0))
    fleet.passes(620)
    assert fleet.quarantines == Quarantines(), "a trial is as long as a probation"


def test_more_than_the_budget_allows_waits_and_is_told_once():
    fleet = Virtual(24)
    fleet.passes(300)
    fleet.pace |= {"chat-2": 0.6, "chat-6": 0.6, "chat-10": 0.6}
    fleet.passes(200)
    assert len(fleet.of("quarantine")) == 2
    [late] = set(fleet.of("put-off"))
    assert fleet.of("put-off") == [late]
    assert "none may be; it is unlike its peers" in fleet.notes[-1].reason


def test_an_idle_replica_is_not_judged_nor_one_that_nobody_hears_of():
    fleet = Virtual()
    fleet.asked["chat-3"] = 0.0
    fleet.pace["chat-3"] = 0.1
    del fleet._itl["chat-4"]
    fleet.passes(400)
    assert fleet.notes == []


# ── what is kept, and nodes ──────────────────────────────────────────────────────────────────


def test_the_next_control_plane_knows_what_is_in_quarantine_and_cordons_it_again(tmp_path):
    node = Quarantined(kind="node", name="n7", pool="here", since_s=1.0, reason="slow")
    gone = Quarantined(kind="replica", name="chat-2", pool="here", since_s=1.0, reason="slow")
    trial = replace(node, name="n6")

    async def story() -> None:
        pool = OneIsSlow(tmp_path)
        pool.cordoned.add("n6")
        first = Controller(publish=lambda _: None, prober=HttpProber(), chance=random.Random(1))
        peers = Peers(first, _nobody)
        first.quarantine(Quarantines(out=(node, gone), on_trial=(trial,)))
        saved = peers.save()
        controller = Controller(
            publish=lambda _: None, prober=HttpProber(), chance=random.Random(1)
        )
        peers = Peers(controller, _nobody, saved=saved)
        assert controller.quarantines == first.quarantines
        try:
            await controller.start([replace(plan(), replicas=0)], {"here": pool})
            async with asyncio.timeout(5):
                while pool.cordoned != {"n7"}:
                    await asyncio.sleep(0.01)
            assert controller.quarantines.out == (node,), "a replica that is gone frees its name"
            controller.quarantine(Quarantines())
            async with asyncio.timeout(5):
                while pool.cordoned:
                    await asyncio.sleep(0.01)
        finally:
            await controller.stop(1.0)
        assert Peers(controller, _nobody, saved=b"nonsense")._state == peers._state

    asyncio.run(story())


async def _nobody():
    return []
