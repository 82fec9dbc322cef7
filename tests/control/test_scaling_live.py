"""The live autoscaler by cases: steps out of counts, launches, what is learned and decided."""

import asyncio
import os
import random
import signal
from pathlib import Path

import httpx
import msgspec
import pytest
import uvloop
from msgspec.structs import replace

from argosy.cli.gateways import Gateways, GatewayTerms
from argosy.cli.listeners import Listeners
from argosy.cli.state import STORE_FILE
from argosy.control.scaling import LiveScaler, Signals, Subject, measure, signals_of
from argosy.control.scaling.demands import KEPT_MINUTES, Demands
from argosy.control.scaling.launches import Launches
from argosy.control.scaling.signals import ReplicaSignals
from argosy.control.scaling.sustains import Learned, of_calibration, share_within
from argosy.engines.registry import adapter
from argosy.fleet import load
from argosy.fleet.config import Fleet, Model, SimulatedEngine
from argosy.fleet.demand import Slo
from argosy.fleet.load import FleetFileError
from argosy.fleet.messages import Key, Replica, ReplicaTable
from argosy.gateway.together import metrics_of
from argosy.observability.counts import Asked, Histogram
from argosy.perf.calibration import Interval
from argosy.perf.local import LocalCalibration, Residuals
from argosy.perf.step_time import StepTime
from argosy.policies.autoscaling import Sustains
from argosy.store.schema import open_store

ENGINE = "{kind: simulated, slots: 4, prefill_tokens_per_s: 1000, decode_tokens_per_s: 10}"
TEXT = """
fleet: live
pools: [{name: here, launcher: {kind: local}}]
models: [{name: chat}]
deployments: [{model: chat, pool: here, replicas: 2, autoscale: {min: LOW, max: 6}, engine: THIS}]
"""
UNKNOWN = "{kind: llama.cpp, slots: 4}"
BEGAN_S = 1_000_000.0 // 60 * 60


def fleet(engine: str = ENGINE, low: int = 1) -> Fleet:
    text = TEXT.replace("THIS", engine).replace("LOW", str(low))
    if engine == UNKNOWN:
        text = text.replace("{name: chat}", '{name: chat, weights: "file:chat.gguf"}')
    return load.parse(text, source="live.yaml")


def asked(requests: int, *, source: str = "a", at_s: float, **more: object) -> Signals:
    """So many since it began, of 400 bytes, all answered with 50 tokens."""
    counts = Asked(
        requests=requests, prompt_bytes=400 * requests, answered=requests,
        output_tokens=50 * requests, read_bytes=400 * requests, read_tokens=100 * requests,
    )  # fmt: skip
    return Signals(at_s=BEGAN_S + at_s, asked={"chat": counts}, source=source, **more)


def table(*states: str, restarts: int = 0) -> ReplicaTable:
    rows = tuple(
        Replica(name=f"chat-{n}", deployment="chat@here", model="chat", pool="here",
                engine=SimulatedEngine(), state=state, restarts=restarts)  # type: ignore[arg-type]
        for n, state in enumerate(states, 1)
    )  # fmt: skip
    return ReplicaTable(version=1, replicas=rows)


def requests_of(demands: Demands) -> tuple[int, ...]:
    return demands.recent("chat").requests


# Demand.


def test_what_a_missing_snapshot_would_have_told_is_spread_over_its_time():
    demands = Demands()
    for at_s, requests in ((0.0, 0), (10.0, 5), (50.0, 405)):
        demands.hear(asked(requests, at_s=at_s))
    assert requests_of(demands) == (5, 100, 100, 100, 100)
    recent = demands.recent("chat")
    assert recent.prompt_tokens == tuple(100 * n for n in recent.requests)
    assert recent.until_s == BEGAN_S + 50.0


def test_snapshots_between_two_steps_are_cut_at_the_step():
    demands = Demands()
    for at_s, requests in ((0.0, 0), (7.0, 70), (17.0, 170), (26.0, 260), (30.0, 300)):
        demands.hear(asked(requests, at_s=at_s))
    assert requests_of(demands) == (100, 100, 100)


def test_a_step_that_was_not_heard_from_its_beginning_is_not_told():
    demands = Demands()
    for at_s, requests in ((4.0, 1_000), (14.0, 1_010), (25.0, 1_032)):
        demands.hear(asked(requests, at_s=at_s))
    assert requests_of(demands) == (4 + 12,)  # of the second ten seconds alone
    assert demands.recent("chat").until_s == BEGAN_S + 20.0


def test_a_gateway_that_was_begun_anew_counts_from_nothing():
    demands = Demands()
    for at_s, requests in ((0.0, 500), (10.0, 600), (20.0, 30)):
        demands.hear(asked(requests, at_s=at_s))
    assert requests_of(demands) == (100, 30)


def test_one_that_says_when_it_began_may_have_counted_more_than_before():
    demands = Demands()
    demands.hear(asked(0, at_s=0.0, began_s=BEGAN_S - 900.0))
    demands.hear(asked(10, at_s=10.0, began_s=BEGAN_S - 900.0))
    demands.hear(asked(40, at_s=20.0, began_s=BEGAN_S + 15.0))
    assert requests_of(demands) == (10, 40)


def test_a_process_that_does_not_answer_is_waited_for_and_then_spread():
    demands = Demands()
    demands.hear(asked(0, at_s=0.0))
    demands.hear(asked(10, at_s=10.0))
    demands.hear(asked(15, at_s=20.0, is_whole=False))
    assert requests_of(demands) == (10,)
    demands.hear(asked(30, at_s=30.0))
    assert requests_of(demands) == (10, 10, 10)


def test_a_process_that_is_silent_for_long_is_no_longer_waited_for():
    demands = Demands()
    demands.hear(asked(0, at_s=0.0))
    demands.hear(asked(12, at_s=40.0, is_whole=False))
    assert requests_of(demands) == (3, 3, 3, 3)


def test_the_steps_of_two_gateways_are_added_and_a_silent_one_comes_late():
    demands = Demands()
    for at_s in (0.0, 10.0, 20.0):
        demands.hear(asked(int(at_s), source="a", at_s=at_s))
        demands.hear(asked(int(2 * at_s), source="b", at_s=at_s))
    demands.hear(asked(30, source="a", at_s=30.0))
    assert requests_of(demands) == (30, 30)  # the other is waited for
    for at_s in (40.0, 50.0, 60.0):
        demands.hear(asked(int(at_s), source="a", at_s=at_s))
    assert requests_of(demands) == (30, 30, 10, 10, 10, 10)
    assert demands.history("chat").requests == (100,)
    demands.hear(asked(120, source="b", at_s=60.0))
    assert requests_of(demands) == (30,) * 6
    assert demands.history("chat").requests == (180,)


def test_no_more_minutes_are_kept_than_the_policy_looks_at():
    demands = Demands()
    demands.hear(asked(0, at_s=0.0))
    demands.hear(asked(7 * (KEPT_MINUTES + 600), at_s=60.0 * (KEPT_MINUTES + 600)))
    history = demands.history("chat")
    assert history.requests == (7,) * KEPT_MINUTES
    assert history.until_s == BEGAN_S + 60.0 * (KEPT_MINUTES + 600)


# Launches.


def test_a_launch_is_timed_from_its_asking_to_its_being_ready():
    launches = Launches()
    launches.observe(100.0, table("starting", "starting", "ready"))  # the last was there before
    assert launches.since_s("chat@here", "pending") == (100.0, 100.0)
    assert launches.start_s_p95("chat@here", 60.0) == 60.0
    launches.observe(130.0, table("ready", "starting", "ready"))
    launches.observe(190.0, table("suspect", "ready", "ready"))
    assert launches.kept.seconds == {"chat@here": [30.0, 90.0]}
    assert launches.start_s_p95("chat@here", 60.0) == 90.0  # two only make it longer
    assert launches.ready("chat@here") == 3


def test_after_some_launches_what_the_file_says_counts_no_more():
    launches = Launches()
    for begin in (0.0, 100.0, 200.0):
        launches.observe(begin, table("starting"))
        launches.observe(begin + 5.0, table("ready"))
        launches.observe(begin + 50.0, table())
    assert launches.start_s_p95("chat@here", 60.0) == 5.0
    launches.observe(300.0, table("starting"))
    launches.observe(305.3, table("ready"))
    assert launches.start_s_p95("chat@here", 60.0) == 5.0  # a horizon that wavers is worse


def test_a_replica_that_is_started_again_is_pending_since_it_died():
    launches = Launches()
    launches.observe(0.0, table("ready"))
    launches.observe(10.0, table("dead"))
    launches.observe(20.0, table("starting", restarts=1))
    assert launches.since_s("chat@here", "pending") == (10.0,)
    launches.observe(24.0, table("ready", restarts=1))
    assert launches.kept.seconds == {"chat@here": [4.0]}
    launches.observe(30.0, table("unreachable", restarts=1))
    assert not launches.ready("chat@here")


def test_a_launch_that_another_control_plane_asked_for_is_timed_from_then():
    launches = Launches()
    launches.observe(100.0, table("starting", "starting"), {"chat-1": 70.0})
    assert launches.since_s("chat@here", "pending") == (70.0, 100.0)
    launches.observe(110.0, table("ready", "ready"), {"chat-1": 70.0})
    assert launches.kept.seconds == {"chat@here": [40.0, 10.0]}
    launches.observe(120.0, table("starting", "ready"), {"chat-1": 70.0})  # a new process, unasked
    launches.observe(125.0, table("ready", "ready"), {"chat-1": 70.0})
    assert launches.kept.seconds == {"chat@here": [40.0, 10.0, 5.0]}


# Decisions.


def scaler_after(minutes: float, per_step: int, engine: str = ENGINE, **more) -> LiveScaler:
    """So long at so many requests in ten seconds, with two ready replicas."""
    scaler = LiveScaler(fleet(engine), **more)
    steps = range(round(minutes * 6) + 1)
    for step in steps:
        at_s = 10.0 * step
        scaler.decide(
            BEGAN_S + at_s + 1, table("ready", "ready"), asked(step * per_step, at_s=at_s)
        )
    return scaler


def target(scaler: LiveScaler, at_s: float, of: ReplicaTable, *signals: Signals):
    [decided] = scaler.decide(BEGAN_S + at_s, of, *signals)
    return decided.decision.targets[0]


def test_demand_beyond_what_is_there_is_provided_for():
    scaler = scaler_after(3, 5)
    said = target(scaler, 192.0, table("ready", "ready"), asked(18 * 5 + 60, at_s=190.0))
    assert said.replicas > 2
    assert said.reason.startswith("2 -> ")


def horizons_s(told: Fleet) -> list[float]:
    """With no launch seen, and after one of 4 s."""
    scaler, found = LiveScaler(told), []
    for at_s, of in ((0.0, table("ready")), (11.0, table("ready", "starting")),
                     (15.0, table("ready", "ready"))):  # fmt: skip
        [one] = scaler.decide(BEGAN_S + at_s, of, asked(0, at_s=at_s))
        found.append(one.decision.horizon_s)
    return [found[0], found[-1]]


def test_one_start_tells_more_than_a_guess_and_less_than_the_file():
    told = fleet()
    assert horizons_s(told) == [60.0 + 11.0, 2 * 4.0 + 11.0]
    pools = (replace(told.pools[0], start_s=40.0),)
    assert horizons_s(replace(told, pools=pools)) == [40.0 + 11.0] * 2


def test_without_a_word_of_any_gateway_targets_stay():
    scaler = scaler_after(30, 1)
    before = target(scaler, 1_802.0, table("ready", "ready"))
    said = target(scaler, 1_850.0, table("ready"))
    assert (said.replicas, said.reason) == (
        before.replicas, "stay: nothing was heard of any gateway for 50 s",
    )  # fmt: skip


def test_a_fleet_begins_with_the_replicas_of_its_file():
    scaler = LiveScaler(fleet())
    assert target(scaler, 0.0, table()).replicas == 2
    assert target(scaler, 1.0, table("starting", "starting"), asked(0, at_s=0.0)).replicas == 2


def test_who_waits_for_a_model_without_a_replica_gets_one_at_once():
    scaler = LiveScaler(fleet(low=0))
    for step in range(200):  # nobody asks for half an hour
        at_s = 10.0 * step
        count = target(scaler, at_s + 1, table(*["ready"] * (step < 100)), asked(0, at_s=at_s))
    assert count.replicas == 0
    assert scaler.is_wanted_at_once() == ()
    waits = replace(asked(0, at_s=1_993.0), queued={"chat": 1})
    scaler.hear(waits)
    assert scaler.is_wanted_at_once() == ("chat",)
    assert target(scaler, 1_993.5, table()).replicas == 1
    assert target(scaler, 1_994.5, table("starting"), asked(1, at_s=1_994.0)).replicas == 1
    assert scaler.is_wanted_at_once() == ()


def test_what_nobody_has_measured_is_left_as_it_is():
    scaler = scaler_after(3, 500, engine=UNKNOWN)
    assert scaler.unmeasured() == ("chat@here",)
    said = target(scaler, 192.0, table("ready", "ready"), asked(10_000, at_s=190.0))
    assert said.reason == "stay: nobody has measured what a replica sustains"
    assert said.replicas == 2
    waits = replace(asked(10_000, at_s=200.0), queued={"chat": 3})
    assert target(scaler, 201.0, table(), waits).replicas == 1
    scaler.measured("chat@here", Sustains(prefill_tokens_per_s=1e3, decode_tokens_per_s=40.0))
    assert scaler.unmeasured() == ()
    assert target(scaler, 202.0, table("ready", "ready")).replicas == 6


def test_a_replica_that_turns_out_to_do_more_is_worth_more():
    """Loads that are remembered are counted anew in what it sustains now."""
    slow = Sustains(prefill_tokens_per_s=1e3, decode_tokens_per_s=40.0)
    fast = Sustains(prefill_tokens_per_s=1e4, decode_tokens_per_s=400.0)
    scalers = [
        scaler_after(40, 5, engine=UNKNOWN, seeds={"chat@here": one}) for one in (slow, fast)
    ]
    scalers[0]._learned.seed("chat@here", fast)
    views = []
    for scaler in scalers:
        target(scaler, 2_402.0, table("ready", "ready"))
        views.append(scaler._memories["chat"].state)
    assert views[0].loads == views[1].loads
    assert views[0].jump == views[1].jump


def test_what_cannot_be_read_is_forgotten():
    saved = scaler_after(3, 5).save()
    assert LiveScaler(fleet(), saved=saved)._demands.recent("chat").requests == (5,) * 18
    for raw in (b"", b"nonsense", saved[:-9]):
        assert LiveScaler(fleet(), saved=raw)._demands.until_s == 0.0


def test_two_weeks_are_stored_in_less_than_two_megabytes():
    scaler, chance = LiveScaler(fleet()), random.Random(1)
    count, step = 0, 600.0
    for turn in range(2_016):  # two weeks, by ten minutes
        count += chance.randrange(2_000)
        scaler.hear(asked(count, at_s=turn * step))
    at_s = 2_015 * step
    target(scaler, at_s + 1, table("ready"))
    assert len(scaler._memories["chat"].state.loads.values) > 20_000
    assert len(scaler.save()) < 2e6


# What is learned.


def served(at_s: float, tokens: int, *, in_flight: int = 4, ttft_s: float = 0.3) -> Signals:
    """A replica that has written so many tokens since it began."""
    ttft = Histogram.of((0.1, 1.0, 10.0))
    ttft.observe(ttft_s, tokens // 100)
    one = ReplicaSignals(in_flight=in_flight, output_tokens=tokens, ttft=ttft)
    return Signals(at_s=at_s, replicas={"chat-1": one})


def learned(*told: Signals, slo: Slo | None = None, is_full: bool = False) -> float:
    """Decode tokens per second, after that was seen of one believed to write 100."""
    learned = Learned()
    learned.seed("chat@here", Sustains(prefill_tokens_per_s=800.0, decode_tokens_per_s=100.0))
    for one in told:
        learned.hear(one)
        learned.look(one.at_s, "chat-1", "chat@here", is_full=is_full, slo=slo or Slo())
    return learned.of("chat@here").decode_tokens_per_s


def test_a_replica_that_did_more_within_the_slo_sustains_more():
    told = served(0.0, 0), served(60.0, 9_000)
    assert learned(*told) == pytest.approx(150.0)
    assert learned(*told, slo=Slo(ttft_s_p95=1.0)) == pytest.approx(150.0)
    late = served(0.0, 0), served(60.0, 9_000, ttft_s=5.0)
    assert learned(*late, slo=Slo(ttft_s_p95=1.0)) == 100.0


def test_a_full_replica_that_did_less_sustains_less_and_an_idle_one_says_nothing():
    told = tuple(served(60.0 * n, 3_000 * n) for n in range(4))
    assert learned(*told) == 100.0
    assert 80.0 < learned(*told, is_full=True) < 95.0
    many = tuple(served(60.0 * n, 60 * n) for n in range(100))
    assert learned(*many, is_full=True) >= 25.0  # no further than that


def test_within_a_bucket_shares_are_even():
    seen = Histogram.of((1.0, 3.0))
    seen.observe(0.5, 10)
    seen.observe(2.0, 10)
    assert share_within(seen, 2.0) == 0.75
    assert share_within(seen, 3.0) == 1.0


def test_a_local_calibration_says_what_is_sustained():
    step = StepTime(knots_tokens=(1.0, 1024.0), knots_s=(0.02, 1.043), context_s_per_token=0.0,
                    pair_s=0.0)  # fmt: skip
    known = LocalCalibration(
        deployment="chat@here", engine="llama.cpp", engine_version="1", model="chat", replicas=1,
        threads=1, slots=4, context_tokens=4096, step_time=step, slowdown=2.0, overhead_s=0.0,
        interval=Interval(tpot_low=1.0, tpot_high=1.0, ttft_low=1.0, ttft_high=1.0),
        residuals=Residuals(points=1, median=0.0, p90=0.0), measured_on="2026-11-21", cpu="x",
        cores=2, load_before=0.0, seconds=1.0,
    )  # fmt: skip
    sustains = of_calibration(known)
    assert sustains.prefill_tokens_per_s == pytest.approx(1024 / 2.086)
    assert sustains.decode_tokens_per_s == pytest.approx(4 / (2 * 0.023))


def test_a_replica_is_measured_at_its_warm_up():
    engine = SimulatedEngine(slots=6, prefill_tokens_per_s=4_000.0, decode_tokens_per_s=60.0)
    command = adapter(engine).command(engine, model=Model(name="chat"), weights=None, threads=1)

    async def story() -> tuple[Sustains | None, Sustains | None]:
        process = await asyncio.create_subprocess_exec(
            *command.argv, env={**os.environ, **command.env},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            url = msgspec.json.decode(await process.stdout.readline())["url"]
            subject = Subject(url=url, model="chat", slots=6, context_tokens=8192)
            chance = random.Random(1)
            first = await measure(subject, chance=chance, seconds_max=4.0)
            return first, await measure(replace(subject, url="http://127.0.0.1:1"), chance=chance)
        finally:
            process.kill()
            await process.wait()

    found, none = asyncio.run(story())
    assert none is None
    assert found is not None
    assert 2_000 < found.prefill_tokens_per_s < 6_000
    assert 150 < found.decode_tokens_per_s < 450


# The fleet file.


def test_autoscale_is_for_what_is_ours_to_start():
    assert fleet().deployments[0].autoscale.max == 6
    text = TEXT.replace("{kind: local}", '{kind: endpoint, url: "http://127.0.0.1:9/v1"}')
    text = text.replace("replicas: 2", "replicas: 1").replace("LOW", "1")
    with pytest.raises(FleetFileError, match="not ours to start"):
        load.parse(text.replace("THIS", "{kind: endpoint}"), source="live.yaml")


# Real processes.


def test_no_request_is_counted_twice_when_a_gateway_process_dies(tmp_path: Path):
    """It is asked for its counts every two seconds, here just before it is killed."""
    endpoint = '{kind: endpoint, url: "http://127.0.0.1:1/v1"}'
    text = TEXT.replace("{kind: local}", endpoint).replace(" autoscale: {min: LOW, max: 6},", "")
    text = text.replace("THIS", "{kind: endpoint, slots: 4}").replace("replicas: 2", "replicas: 1")
    gateway = "gateway: {port: 0, keys: none, processes: 2, replica_wait_s: 0.05}\npools:"
    told = load.parse(text.replace("pools:", gateway), source="live.yaml")

    async def main() -> None:
        open_store(tmp_path / STORE_FILE).dispose()
        listeners = Listeners(told.gateway)
        key = Key(id="k", sha256="", tenant="t", tier="consumer", name="up", created_at_s=0.0)
        terms = GatewayTerms(state=tmp_path, operator_token="t", up_key=key, say=lambda _: None,
                             chance=random.Random(1))  # fmt: skip
        gateways = Gateways(told, terms, listeners)
        try:
            await gateways.start()
            await ask(listeners.url, 12)
            before = await counted(gateways)
            assert before.requests == 12
            assert before.prompt_bytes == 12 * before.prompt_bytes // 12 > 12 * 60
            [*_, victim] = (await gateways.collect()).snapshots
            os.kill(victim.pid, signal.SIGKILL)
            while len((await gateways.collect()).snapshots) < 2 or victim.pid in {
                one.pid for one in (await gateways.collect()).snapshots
            }:
                assert (await counted(gateways)).requests == 12
                await asyncio.sleep(0.1)
            await ask(listeners.url, 8)
            assert (await counted(gateways)).requests == 20
        finally:
            await gateways.stop()

    uvloop.run(asyncio.wait_for(main(), 40))


async def counted(gateways: Gateways) -> Asked:
    signals = signals_of(metrics_of(await gateways.collect()), at_s=0.0)
    return signals.asked.get("chat", Asked())


async def ask(url: str, times: int) -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(times):
            answer = await client.post(f"{url}/v1/chat/completions", json=body,
                                       headers={"connection": "close"})  # fmt: skip
            assert answer.status_code == 503
