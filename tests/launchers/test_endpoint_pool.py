"""A pool that is a URL."""

import asyncio

import pytest

from argosy.launchers.endpoint import EndpointPool


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_an_endpoint_listens_at_once_and_never_ends(url: str) -> None:
    async def test() -> None:
        replica = await EndpointPool(url).start("e", None)
        assert replica.pid is None
        assert await replica.listening() == "http://h:1"  # paths bring their own /v1
        await replica.stop(grace_s=5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(replica.ended(), 0.05)

    asyncio.run(test())
