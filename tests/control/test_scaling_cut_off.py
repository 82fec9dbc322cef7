"""What the live autoscaler says while a pool cannot be seen: others grow by what was lost."""

import asyncio
import itertools
from pathlib import Path
from random import Random

import pytest

from argosy.cli.pretending import PretendedPool
from argosy.control.autoscaling import Autoscaling
from argosy.control.controller import Controller
from argosy.control.plan import plan_deployments
from argosy.control.probe import HttpProber
from argosy.control.scaling import LiveScaler, Signals
from argosy.fleet import load
from argosy.fleet.messages import Replica, ReplicaState, ReplicaTable
from argosy.observability.counts import Asked
from argosy.policies.autoscaling import Settings

TEXT = """
fleet: live
pools:
  - {name: east, launcher: {kind: local}, region: aws/us-east-1, start_s: 5}
  - {name: west, launcher: {kind: local}, region: gcp/us-west1, start_s: 5}
models: [{name: chat}]
deployments:
  - {model: chat, pool: east, replicas: 2, autoscale: {min: 1, max: 6}, engine: THIS}
  - {model: chat, pool: west, replicas: 2, autoscale: {min: 1, max: 6}, engine: THIS}
""".replace("THIS", "{kind: simulated, slots: 4, decode_tokens_per_s: 10}")
FLEET = load.parse(TEXT, source="live.yaml")
BEGAN_S = 1_000_000.0 // 60 * 60


def table(
    east: ReplicaState, west: ReplicaState = "ready", counts: tuple[int, int] = (2, 2)
) -> ReplicaTable:
    engine = FLEET.deployments[0].engine
    rows = tuple(
        Replica(name=f"chat@{pool}-{number}", deployment=f"chat@{pool}", model="chat", pool=pool,
                engine=engine, state=state)
        for pool, state, count in (("east", east, counts[0]), ("west", west, counts[1]))
        for number in range(1, 1 + count)
    )  # fmt: skip
    return ReplicaTable(version=1, replicas=rows)


def asked(at_s: float) -> Signals:
    """Of 50 tokens: the load of three replicas."""
    count = int(2.4 * at_s)
    counts = Asked(
        requests=count, prompt_bytes=400 * count, answered=count,
        output_tokens=50 * count, read_bytes=400 * count, read_tokens=100 * count,
    )  # fmt: skip
    return Signals(at_s=BEGAN_S + at_s, asked={"chat": counts}, source="a")


def told(scaler: LiveScaler, at_s: float, now: ReplicaTable) -> dict[str, int]:
    (one,) = scaler.decide(BEGAN_S + at_s, now)
    return {target.deployment: target.replicas for target in one.decision.targets}


@pytest.fixture
def scaler() -> LiveScaler:
    """After ten minutes in which all was well."""
    made = LiveScaler(FLEET)
    for step in range(61):
        made.observe(BEGAN_S + 10 * step, table("ready"))
        made.hear(asked(10.0 * step))
        wanted = told(made, 10.0 * step, table("ready"))
    assert wanted == {"chat@east": 2, "chat@west": 2}
    return made


@pytest.mark.parametrize("state", ["suspect", "unreachable"])
def test_other_pools_grow_by_what_a_lost_one_did(scaler: LiveScaler, state: ReplicaState):
    scaler.cut_off(frozenset({"east"}))
    wanted = told(scaler, 611.0, table(state))
    assert wanted == {"chat@east": 0, "chat@west": 4}


def test_what_is_cut_off_and_still_answers_counts(scaler: LiveScaler):
    scaler.cut_off(frozenset({"east"}))
    assert told(scaler, 611.0, table("ready")) == {"chat@east": 2, "chat@west": 2}


def test_without_word_of_a_cut_a_suspect_replica_is_expected_to_answer_again(scaler: LiveScaler):
    assert told(scaler, 611.0, table("suspect")) == {"chat@east": 2, "chat@west": 2}


def test_when_it_is_back_what_grew_shrinks_after_minutes_and_one_at_a_time(scaler: LiveScaler):
    scaler.cut_off(frozenset({"east"}))
    told(scaler, 611.0, table("unreachable"))
    scaler.cut_off(frozenset())
    counts, seen = (2, 4), [(2, 4)]
    for step in range(64, 64 + 120):
        now = table("ready", counts=counts)
        scaler.observe(BEGAN_S + 10.0 * step, now)
        scaler.hear(asked(10.0 * step))
        wanted = told(scaler, 10.0 * step, now)
        counts = (wanted["chat@east"], wanted["chat@west"])
        seen.append(counts)
    assert set(seen[:9]) == {(2, 4)}  # a minute and a half
    assert sum(seen[-1]) == 4
    for each in zip(*seen, strict=True):
        assert all(before - after in (0, 1) for before, after in itertools.pairwise(each))


def test_a_lost_pool_fills_again_to_what_was_wanted_there(tmp_path: Path):
    async def story() -> None:
        pools = {name: PretendedPool(tmp_path) for name in ("east", "west")}
        controller = Controller(publish=lambda _: None, prober=HttpProber(), chance=Random(1))
        scaler = LiveScaler(FLEET, settings=Settings(decision_s=0.2))

        async def hear() -> Signals:
            return Signals(at_s=controller.now_s(), asked={"chat": Asked()}, source="a")

        autoscaling = Autoscaling(scaler, controller, hear, chance=Random(2))
        await controller.start(plan_deployments(FLEET, weights={}, threads={}), pools)
        try:
            async with asyncio.timeout(40):
                await controller.all_ready()
                autoscaling.start(FLEET)
                await pools["east"].lose()
                while [row.state for row in controller.table.replicas].count("ready") > 2:
                    await asyncio.sleep(0.1)
                await asyncio.sleep(2.5)  # some decisions
                assert controller.wanted["chat@east"].replicas == 2
                pools["east"].back()
                await asyncio.sleep(1.5)
                await controller.all_ready()
                assert len(controller.table.replicas) == 4
        finally:
            autoscaling.stop()
            await controller.stop(grace_s=0.0)

    asyncio.run(story())
