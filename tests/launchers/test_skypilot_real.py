"""The SkyPilot launcher against SkyPilot's own API server, which has an account of no cloud.

    ARGOSY_SKYPILOT_PYTHON=VENV/bin/python pytest -m slow tests/launchers/test_skypilot_real.py

where VENV has skypilot 0.14.1 or newer; without it these are skipped. The catalogue that SkyPilot
would fetch from the network is one row of ours.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from argosy.fleet.config import VllmEngine
from argosy.fleet.launchers import SkypilotLauncher
from argosy.fleet.messages import Command, ReplicaSpec
from argosy.launchers.port import LaunchError, PoolUnseenError
from argosy.launchers.skypilot.api import Api, RequestFailedError
from argosy.launchers.skypilot.cell import Cell
from argosy.launchers.skypilot.pool import SkyPilotPool
from argosy.launchers.skypilot.tending import Pace

_PYTHON = os.environ.get("ARGOSY_SKYPILOT_PYTHON")
_STARTS_S = 150.0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        _PYTHON is None, reason="no SkyPilot here: name its Python in ARGOSY_SKYPILOT_PYTHON"
    ),
]

CATALOGUE = {
    "common/accelerators.csv": "AcceleratorName,Clouds\nH100,\"['AWS']\"\n",
    "common/metadata.csv": "GPU,MemoryGiB,Manufacturer\nH100,80,NVIDIA\n",
    "aws/vms.csv": "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,"
    "SpotPrice,Region,AvailabilityZone,Arch\n"
    "p5.48xlarge,H100,8,192,2048,,55.04,,us-east-1,us-east-1a,x86_64\n",
}
SPEC = ReplicaSpec(
    fleet="real",
    name="tiny-1",
    deployment="tiny@burst",
    model="tiny",
    pool="burst",
    engine=VllmEngine(),
    command=Command(argv=("python3", "-m", "http.server", "8000"), env={}),
    health_path="/",
    generation="g1",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, text in CATALOGUE.items():
        file = home / ".sky" / "catalogs" / "v8" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    assert _PYTHON is not None
    env = {
        "HOME": str(home),
        "PATH": f"{Path(_PYTHON).parent}:/usr/bin:/bin",
        "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
    }
    argv = [_PYTHON, "-m", "sky.server.server", "--host=127.0.0.1", f"--port={port}"]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=env, cwd=home, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        asyncio.run(asyncio.wait_for(healthy(url), _STARTS_S))
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left behind
        process.wait()


async def healthy(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                answer = await client.get(f"{url}/api/health")
                if answer.json()["status"] == "healthy":
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.5)


def pool(url: str, *, region: str = "aws/us-east-1") -> SkyPilotPool:
    cell = Cell(
        fleet="real", pool="burst", region=region, launcher=SkypilotLauncher(api=url, image="x")
    )
    return SkyPilotPool(cell, pace=Pace(refusal_s=120.0, look_s=0.0))


async def seen(launcher: SkyPilotPool) -> tuple[str, ...]:
    async with asyncio.timeout(120):
        while True:
            try:
                return tuple(one.name for one in (await launcher.observe()).replicas)
            except PoolUnseenError:  # it is slow while its processes start
                await asyncio.sleep(0.5)


def test_nothing_is_there_a_launch_without_a_cloud_is_refused_and_leaves_nothing(server: str):
    async def main() -> None:
        launcher = pool(server)
        assert await seen(launcher) == ()
        with pytest.raises(LaunchError) as refused:
            await launcher.start(SPEC)
        told = str(refused.value)
        assert "tiny-1 in aws/us-east-1: NoCloudAccessError: Cloud access is not set up" in told
        assert "Give the API server an account of that cloud, and look: sky check" in told
        assert await seen(launcher) == ()
        heir = pool(server)  # which has told nobody: it sees how the launch has failed
        (ended,) = (await heir.observe()).replicas
        assert (ended.name, ended.generation, ended.state) == ("tiny-1", "g1", "ended")
        assert "NoCloudAccessError" in ended.detail
        await heir.stop("tiny-1", grace_s=1.0)
        assert await seen(heir) == ()
        await launcher.close(is_final=True)
        await heir.close(is_final=False)

    asyncio.run(main())


def test_a_task_that_skypilot_does_not_read_is_refused_in_its_words(server: str):
    async def main() -> None:
        api = Api(server)
        request_id = await api.launch("argosy-x", "resources: {infr: aws}\nrun: echo\n")
        with pytest.raises(RequestFailedError, match="did you mean 'infra'"):
            await api.outcome(request_id, timeout_s=60.0)
        await api.close()

    asyncio.run(main())


def test_an_engines_task_is_read_as_far_as_the_first_question_to_a_cloud(server: str):
    async def main() -> None:
        image = SkypilotLauncher(api=server, image="vllm/vllm-openai:v0.28.0")
        cell = Cell(
            fleet="real",
            pool="burst",
            region="aws/us-east-1",
            chip="H100-SXM",
            maker="NVIDIA",
            chips_max=8,
            launcher=image,
        )
        launcher = SkyPilotPool(cell, key="secret", pace=Pace(refusal_s=120.0, look_s=0.0))
        with pytest.raises(LaunchError, match="NoCloudAccessError"):
            await launcher.start(
                msgspec.structs.replace(SPEC, name="tiny-2", command=None, chips=8)
            )
        await launcher.close(is_final=False)

    asyncio.run(main())
