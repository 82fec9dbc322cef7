"""A pool that is a URL: nothing is started, nothing is stopped, and it never ends."""

import asyncio

from argosy.fleet.messages import Command


class EndpointPool:
    """The launcher of an endpoint pool."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")  # paths bring their own /v1

    async def start(self, name: str, command: Command | None) -> "EndpointReplica":
        assert command is None, f"{name}: an endpoint pool starts no process"
        return EndpointReplica(self._url)


class EndpointReplica:
    """A replica that somebody else runs; whether it answers, its health path tells."""

    pid = None

    def __init__(self, url: str) -> None:
        self._url = url

    async def listening(self) -> str:
        return self._url

    async def ended(self) -> str:
        return await asyncio.get_running_loop().create_future()

    async def stop(self, *, grace_s: float) -> None:
        return
