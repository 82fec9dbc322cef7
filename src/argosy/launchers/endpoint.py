"""A pool that is a URL: nothing is started, nothing is stopped, and it never ends."""

import asyncio

from argosy.fleet.messages import Observation, ObservedReplica, ReplicaSpec


class EndpointPool:
    """The launcher of an endpoint pool."""

    def __init__(self) -> None:
        self._specs: dict[str, ReplicaSpec] = {}
        self._news = asyncio.Event()

    async def start(self, spec: ReplicaSpec) -> None:
        assert spec.url is not None, f"{spec.name}: an endpoint has a URL"
        self._specs[spec.name] = spec
        self._news.set()

    async def stop(self, name: str, *, grace_s: float) -> None:
        self._specs.pop(name, None)
        self._news.set()

    async def observe(self) -> Observation:
        return Observation(
            replicas=tuple(
                ObservedReplica(
                    name=name, generation=spec.generation, state="listening", url=_base(spec.url)
                )
                for name, spec in self._specs.items()
            )
        )

    async def changed(self) -> None:
        await self._news.wait()
        self._news.clear()

    async def cordon(self, node: str, *, reason: str) -> None:
        """It has no nodes."""

    async def uncordon(self, node: str) -> None:
        """It has no nodes."""

    async def close(self, *, is_final: bool) -> None:
        """There is nothing to let go."""


def _base(url: str | None) -> str | None:
    """Paths bring their own /v1."""
    return None if url is None else url.rstrip("/").removesuffix("/v1")
