"""The launcher of a pool that is a Ray cluster, or some of its nodes."""

import asyncio
import sys

from argosy.fleet.launchers import RayLauncher
from argosy.fleet.messages import Observation, ReplicaSpec
from argosy.launchers.port import LaunchError, PoolUnseenError
from argosy.launchers.ray.link import Link
from argosy.launchers.ray.protocol import Cordon, Launch, Observe, Start, Stop
from argosy.launchers.ray.resources import resources_of

_OBSERVE_S = 2.0
_START_S = 10.0
_STOP_S = 12.0  # beside the grace
_CORDON_S = 5.0
_LAST_GRACE_S = 5.0


class RayPool:
    """`launchers.port.Launcher` upon Ray.

    Pools of one cluster may share a `link`, which is then its maker's to close. Raises
    `UnknownResourceError` for chips that Ray has no name for.
    """

    def __init__(
        self,
        launcher: RayLauncher,
        *,
        fleet: str,
        pool: str,
        chip: str | None,
        maker: str | None,
        link: Link | None = None,
    ) -> None:
        self._pool = pool
        self._python = launcher.python
        self._resources = resources_of(launcher, chip=chip, maker=maker)
        self._owns_link = link is None
        self._link = Link(launcher.address, fleet=fleet) if link is None else link
        self._seen = 0

    async def start(self, spec: ReplicaSpec) -> None:
        await self._link.ask(Start(launch=self._launch(spec)), deadline_s=_START_S)

    async def stop(self, name: str, *, grace_s: float) -> None:
        await self._link.ask(Stop(name=name, grace_s=grace_s), deadline_s=grace_s + _STOP_S)

    async def observe(self) -> Observation:
        seen = self._link.news
        question = Observe(pool=self._pool, resources=self._resources)
        observation = await self._link.ask(question, deadline_s=_OBSERVE_S)
        assert observation is not None
        self._seen = seen
        return observation

    async def changed(self) -> None:
        await self._link.changed(self._seen)
        self._seen = self._link.news

    async def cordon(self, node: str, *, reason: str) -> None:
        await self._link.ask(Cordon(node=node, reason=reason), deadline_s=_CORDON_S)

    async def uncordon(self, node: str) -> None:
        await self._link.ask(Cordon(node=node, reason=None), deadline_s=_CORDON_S)

    async def close(self, *, is_final: bool) -> None:
        try:
            if is_final:
                await self._end_all()
        finally:
            if self._owns_link:
                await self._link.close()

    async def _end_all(self) -> None:
        observation = await self.observe()
        stops = [self.stop(replica.name, grace_s=_LAST_GRACE_S) for replica in observation.replicas]
        ended = await asyncio.gather(*stops, return_exceptions=True)
        lost = [error for error in ended if isinstance(error, BaseException)]
        if lost:
            raise PoolUnseenError(f"{len(lost)} of {len(ended)} replicas may run on: {lost[0]}")

    def _launch(self, spec: ReplicaSpec) -> Launch:
        if spec.command is None:
            raise LaunchError(f"{spec.name}: its engine starts nothing; use an endpoint pool")
        if spec.chips and self._resources.name is None:
            raise LaunchError(
                f"{spec.name} takes {spec.chips} chips, and pool {self._pool} names none: "
                "give it a chip, or launcher.resource"
            )
        argv = spec.command.argv
        if self._python is not None and argv[0] == sys.executable:
            argv = (self._python, *argv[1:])
        return Launch(
            fleet=spec.fleet,
            name=spec.name,
            pool=spec.pool,
            generation=spec.generation,
            argv=argv,
            env=spec.command.env,
            chips=spec.chips,
            resources=self._resources,
            python=self._python,
        )
