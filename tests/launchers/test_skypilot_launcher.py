"""The SkyPilot launcher: what it asks the API server, and what the answers mean."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from argosy.fleet.config import SglangEngine, VllmEngine
from argosy.fleet.launchers import SkypilotLauncher
from argosy.fleet.layout import Layout
from argosy.fleet.messages import ObservedReplica, ReplicaSpec
from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError
from argosy.launchers.skypilot.cell import Cell
from argosy.launchers.skypilot.pool import SkyPilotPool
from argosy.launchers.skypilot.task import task
from argosy.launchers.skypilot.tending import Pace
from tests.launchers.conformance import replica, until
from tests.launchers.skypilot_emulator import Emulator, emulated

PACE = Pace(look_s=0.0, connect_s=0.02, job_s=0.1, refusal_s=1.0)
SPEC = ReplicaSpec(
    fleet="Élan vital",
    name="m@p-1",
    deployment="m@p",
    model="m",
    pool="p",
    engine=VllmEngine(context_tokens=4096),
    layout=Layout(tp=8),
    chips=8,
    command=None,
    health_path="/health",
    generation="g-listens",
)


class Waits:  # what conformance.until wants of a bench
    settles_s = 10.0


def go(test: Callable[[Emulator], Awaitable[None]]) -> None:
    async def main() -> None:
        async with emulated() as emulator:
            await test(emulator)

    asyncio.run(asyncio.wait_for(main(), 60))


def cell(url: str = "http://127.0.0.1:1", **changed: Any) -> Cell:
    of_launcher = {key: changed.pop(key) for key in ("image", "accelerators") if key in changed}
    given_ = {
        "fleet": "Élan vital", "pool": "p", "region": "aws/us-east-1", "chip": "H100-SXM",
        "maker": "NVIDIA", "chips_max": 16, "launcher": SkypilotLauncher(api=url, **of_launcher),
    }  # fmt: skip
    return Cell(**{**given_, **changed})


@asynccontextmanager
async def pool_on(emulator: Emulator, *, pace: Pace = PACE, **given_: Any):
    pool = SkyPilotPool(cell(emulator.url), pace=pace, **given_)
    try:
        yield pool
    finally:
        await pool.close(is_final=False)


async def settled(pool: SkyPilotPool, state: str | None, name: str = SPEC.name) -> ObservedReplica:
    return await until(pool, Waits(), name, state)  # type: ignore[arg-type,return-value]


def named(name: str, **changed: Any) -> ReplicaSpec:
    return msgspec.structs.replace(SPEC, name=name, **changed)


# -- what is asked for -------------------------------------------------------------------------


def test_a_task_rents_the_chips_opens_the_port_and_runs_the_engine():
    told = yaml.safe_load(task(SPEC, cell(is_spot=True), key="secret"))
    assert told["resources"] == {
        "infra": "aws/us-east-1",
        "accelerators": {"H100": 8},
        "use_spot": True,
        "ports": [8000],
    }
    assert told["envs"] == {
        "ARGOSY_FLEET": "Élan vital",
        "ARGOSY_POOL": "p",
        "ARGOSY_REPLICA": "m@p-1",
        "ARGOSY_GENERATION": "g-listens",
        "ARGOSY_CHIPS": "8",
    }
    assert told["secrets"] == {"ARGOSY_ENGINE_KEY": "secret"}
    assert "install --quiet vllm==0.28.0" in told["setup"]
    first, *rest = told["run"].splitlines()
    assert first.startswith('"$HOME/argosy-engine/bin/vllm" serve m --served-model-name m --host')
    assert "--host 0.0.0.0 --port 8000 --tensor-parallel-size 8" in first
    assert first.endswith('--api-key "$ARGOSY_ENGINE_KEY"')
    assert rest == ["status=$?", 'echo "exited with status $status"', "exit $status"]
    assert "secret" not in told["run"]


def test_an_image_takes_the_place_of_installing():
    spec = named("m-1", engine=SglangEngine())
    told = yaml.safe_load(task(spec, cell(image="lmsysorg/sglang:v0.5.18"), key=None))
    assert told["resources"]["image_id"] == "docker:lmsysorg/sglang:v0.5.18"
    assert "setup" not in told
    assert told["run"].startswith("python3 -m sglang.launch_server --model-path m ")


@pytest.mark.parametrize(
    ("chip", "name", "asked"),
    [
        ("TPU-v6e", None, {"tpu-v6e-8": 1}),
        ("TPU-v5e", None, {"tpu-v5litepod-8": 1}),
        ("TPU-v5p", None, {"tpu-v5p-16": 1}),
        ("MI300X", None, {"MI300X": 8}),
        ("GB300", "GB300-NVL", {"GB300-NVL": 8}),
    ],
)
def test_chips_are_asked_for_by_the_names_that_skypilot_has(chip, name, asked):
    maker = {"T": "Google", "M": "AMD", "G": "NVIDIA"}[chip[0]]
    there = cell(chip=chip, maker=maker, image="x", accelerators=name)
    assert yaml.safe_load(task(SPEC, there, key=None))["resources"]["accelerators"] == asked


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"chip": "GB300"}, "what SkyPilot calls GB300 is not known here. Write launcher.accel"),
        ({"chip": "MI300X", "maker": "AMD"}, "how vllm is installed for MI300X is not known here"),
    ],
)
def test_what_cannot_be_asked_for_says_what_would_work(changed, told):
    with pytest.raises(LaunchError, match=told):
        task(SPEC, cell(**changed), key=None)


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_names_of_clusters_are_short_such_as_skypilot_takes_and_each_its_own(fleet, name):
    there = cell(fleet=fleet)
    cluster = there.cluster(name)
    assert len(cluster) <= 40
    assert cluster.startswith(there.prefix)
    assert cluster[0].isalpha()
    assert cluster[0].islower()
    assert set(cluster) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert cluster != there.cluster(name + "x")
    assert not cluster.startswith(cell(fleet=fleet, pool="q").prefix)


# -- starting ----------------------------------------------------------------------------------


def test_a_launch_bears_token_and_versions_and_is_sent_once():
    async def test(emulator: Emulator) -> None:
        async with pool_on(emulator, token="sky_t", key="k") as pool:
            await asyncio.gather(*(pool.start(SPEC) for _ in range(3)))
            await pool.start(SPEC)
            found = await settled(pool, "listening")
        (launched,) = emulator.sent("/launch")
        assert launched["cluster_name"] == cell().cluster(SPEC.name)
        assert found.url == f"http://{emulator.machines[launched['cluster_name']].address()}"
        headers = next(about for path, about, _ in emulator.seen if path == "/launch")
        assert headers["authorization"] == "Bearer sky_t"
        assert (headers["x-skypilot-api-version"], headers["x-skypilot-version"]) == (
            "62",
            "0.14.1",
        )

    go(test)


def test_a_cloud_without_room_is_no_capacity_for_now():
    async def test(emulator: Emulator) -> None:
        no_room = ("sky.launch", "ResourcesUnavailableError", "No p5.48xlarge in us-east-1.")
        emulator.failures.append(no_room)
        async with pool_on(emulator) as pool:
            with pytest.raises(NoCapacityError, match="m@p-1 in aws/us-east-1: No p5") as refused:
                await pool.start(SPEC)
            assert refused.value.retry_after_s == 60.0
            assert (await pool.observe()).replicas == ()
            await pool.start(SPEC)
            await settled(pool, "listening")

    go(test)


def test_a_launch_that_fails_later_is_seen_to_have_ended_and_nothing_more_is_tried_for_a_while():
    async def test(emulator: Emulator) -> None:
        emulator.launch_s = 0.4
        pace = msgspec.structs.replace(PACE, refusal_s=0.05)
        async with pool_on(emulator, pace=pace) as pool:
            await pool.start(SPEC)
            assert replica(await pool.observe(), SPEC.name).state == "starting"
            cluster = cell().cluster(SPEC.name)
            (launch,) = [one for one in emulator.requests if one["name"] == "sky.launch"]
            emulator.machines.pop(cluster)
            said = '{"type": "ResourcesUnavailableError", "message": "all zones are full"}'
            launch.update(status="FAILED", error=said)
            ended = await settled(pool, "ended")
            assert ended.detail == "SkyPilot launched nothing: all zones are full"
            assert ended.generation == SPEC.generation
            await pool.stop(SPEC.name, grace_s=1.0)
            await settled(pool, None)
            with pytest.raises(NoCapacityError, match="a moment ago there was no room, all zones"):
                await pool.start(named("m@p-2"))

    go(test)


def test_no_more_is_rented_than_the_pool_has_nodes():
    async def test(emulator: Emulator) -> None:
        async with pool_on(emulator) as pool:
            await asyncio.gather(*(pool.start(named(f"m@p-{i}")) for i in (1, 2)))
            with pytest.raises(NoCapacityError, match="8 chips, and 16 of 16 are rented"):
                await pool.start(named("m@p-3"))
        assert len(emulator.sent("/launch")) == 2

    go(test)


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [
        ("NoCloudAccessError", LaunchError, "an account of that cloud, and look: sky check"),
        ("InvalidSkyPilotConfigError", LaunchError, "InvalidSkyPilotConfigError: x. The API serv"),
        ("RequestInterruptedError", PoolUnseenError, "aws/us-east-1: x"),
    ],
)
def test_what_a_failed_launch_means(kind, error, told):
    async def test(emulator: Emulator) -> None:
        emulator.failures.append(("sky.launch", kind, "x."))
        async with pool_on(emulator) as pool:
            with pytest.raises(error, match=told):
                await pool.start(SPEC)

    go(test)


def test_one_of_another_generation_must_end_first():
    async def test(emulator: Emulator) -> None:
        async with pool_on(emulator) as pool:
            await pool.start(SPEC)
            with pytest.raises(NoCapacityError, match="another generation has not ended"):
                await pool.start(named(SPEC.name, generation="g-tidy"))

    go(test)


# -- observing ---------------------------------------------------------------------------------


def test_clusters_of_others_are_left_out_and_left_alone():
    async def test(emulator: Emulator) -> None:
        others = SkyPilotPool(cell(emulator.url, fleet="other"), pace=PACE)
        await others.start(named("m@p-1", fleet="other"))
        async with pool_on(emulator) as pool:
            await pool.start(SPEC)
            assert [one.name for one in (await pool.observe()).replicas] == [SPEC.name]
            await pool.stop(SPEC.name, grace_s=0.0)
        await settled(others, "listening", "m@p-1")
        await others.close(is_final=True)
        assert not emulator.machines

    go(test)


def test_one_whose_machine_is_taken_back_is_seen_to_have_ended():
    async def test(emulator: Emulator) -> None:
        async with pool_on(emulator) as pool:
            await pool.start(SPEC)
            await settled(pool, "listening")
            await emulator.lose(cell().cluster(SPEC.name))
            ended = await settled(pool, "ended")
            assert "its machine is gone" in ended.detail
            await pool.stop(SPEC.name, grace_s=5.0)
            await settled(pool, None)

    go(test)


def test_a_machine_on_which_nothing_could_be_installed_has_ended_and_is_still_paid_for():
    async def test(emulator: Emulator) -> None:
        async with pool_on(emulator) as pool:
            await pool.start(named(SPEC.name, generation="g-silent"))
            (launch,) = [one for one in emulator.requests if one["name"] == "sky.launch"]
            said = '{"type": "CommandError", "message": "Command pip failed"}'
            launch.update(status="FAILED", error=said)
            ended = await settled(pool, "ended")
            assert "Command pip failed" in ended.detail
            await pool.stop(SPEC.name, grace_s=0.1)
        assert not emulator.machines

    go(test)


def test_a_server_that_is_away_is_a_pool_unseen_until_it_is_back():
    async def test(emulator: Emulator) -> None:
        async with pool_on(emulator) as pool:
            await pool.start(SPEC)
            await settled(pool, "listening")
            machines = dict(emulator.machines)
            emulator.machines.clear()  # they run on
            await emulator.end()
            for asking in (pool.observe(), pool.start(SPEC), pool.stop(SPEC.name, grace_s=1.0)):
                with pytest.raises(PoolUnseenError):
                    await asking
            emulator.machines = machines
            await emulator.begin()
            assert replica(await pool.observe(), SPEC.name).state == "listening"

    go(test)


@pytest.mark.parametrize(
    ("status", "text", "told"),
    [
        (401, "Unauthorized", "answers 401: Unauthorized. Give launcher.token_env a token"),
        (503, "Server is shutting down", "answers 503: Server is shutting down"),
        (400, '{"error":"version_mismatch"}', "version_mismatch.*Is it SkyPilot 0.14.1 or newer"),
    ],
)
def test_a_server_that_refuses_to_say_is_a_pool_unseen(status, text, told):
    async def test(emulator: Emulator) -> None:
        emulator.refusals.append(("/status", status, text))
        async with pool_on(emulator) as pool:
            with pytest.raises(PoolUnseenError, match=told):
                await pool.observe()

    go(test)


def test_looks_that_follow_each_other_are_one_question():
    async def test(emulator: Emulator) -> None:
        async with pool_on(emulator, pace=Pace()) as pool:
            for _ in range(5):
                await pool.observe()
        assert len(emulator.sent("/status")) == 1

    go(test)


# -- stopping ----------------------------------------------------------------------------------


def test_one_that_is_still_launched_has_its_launch_ended_too():
    async def test(emulator: Emulator) -> None:
        emulator.launch_s = 30.0
        pace = msgspec.structs.replace(PACE, refusal_s=0.05)
        async with pool_on(emulator, pace=pace) as pool:
            await pool.start(SPEC)
            await pool.stop(SPEC.name, grace_s=10.0)
            assert (await pool.observe()).replicas == ()
        (launch,) = [one for one in emulator.requests if one["name"] == "sky.launch"]
        assert launch["status"] == "CANCELLED"
        assert not emulator.machines

    go(test)


def test_one_that_could_not_be_ended_is_said_to_cost_on():
    async def test(emulator: Emulator) -> None:
        async with pool_on(emulator) as pool:
            await pool.start(SPEC)
            emulator.failures.append(("sky.down", "CloudError", "throttled"))
            with pytest.raises(PoolUnseenError, match="is not ended, and costs on: CloudError"):
                await pool.stop(SPEC.name, grace_s=0.0)
            await pool.stop(SPEC.name, grace_s=0.0)
        assert not emulator.machines

    go(test)


def test_a_launcher_that_was_let_go_of_may_be_asked_again():
    async def test(emulator: Emulator) -> None:
        async with pool_on(emulator) as pool:
            await pool.start(SPEC)
            await pool.close(is_final=True)
            assert (await pool.observe()).replicas == ()
            await pool.close(is_final=True)
        assert not emulator.machines

    go(test)


def test_a_final_close_that_sees_nothing_warns_that_machines_may_cost_on(
    caplog: pytest.LogCaptureFixture,
):
    async def main() -> None:
        pool = SkyPilotPool(cell(), pace=PACE)
        await pool.close(is_final=True)

    asyncio.run(main())
    assert "Pool p: rented machines may run on. Look: sky status" in caplog.text
