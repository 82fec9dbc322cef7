"""An endpoint: nothing is started, and it is there as long as it is wanted."""

import asyncio

import pytest

from argosy.fleet.config import EndpointEngine
from argosy.fleet.messages import Observation, ReplicaSpec
from argosy.launchers.endpoint import EndpointPool


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_an_endpoint_listens_at_once_until_it_is_wanted_no_more(url: str) -> None:
    spec = ReplicaSpec(
        fleet="f",
        name="e-1",
        deployment="m@e",
        model="m",
        pool="e",
        engine=EndpointEngine(),
        command=None,
        url=url,
        health_path="/v1/models",
        generation="1",
    )

    async def test() -> None:
        pool = EndpointPool()
        await pool.start(spec)
        await asyncio.wait_for(pool.changed(), 1)
        (there,) = (await pool.observe()).replicas
        assert (there.name, there.state, there.pid) == ("e-1", "listening", None)
        assert there.url == "http://h:1"  # paths bring their own /v1
        await pool.stop("e-1", grace_s=5)
        assert await pool.observe() == Observation(replicas=())

    asyncio.run(test())
