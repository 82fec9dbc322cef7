"""The launcher of a pool that is a Ray cluster, or some of its nodes."""

import asyncio
import sys

import msgspec

from argosy.fleet.launchers import RayLauncher
from argosy.fleet.messages import Command, Observation, ReplicaSpec
from argosy.launchers.port import LaunchError, PoolUnseenError
from argosy.launchers.ray.link import Link
from argosy.launchers.ray.protocol import Cordon, Launch, Observe, Send, Start, Stop
from argosy.launchers.ray.resources import resources_of

_OBSERVE_S = 2.0
_START_S = 10.0
_STOP_S = 12.0  # beside the grace
_CORDON_S = 5.0
_SEND_S = 5.0
_LAST_GRACE_S = 5.0


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What is no replica and yet runs on one node of a pool, on some of its chips."""

    name: str
    generation: str
    command: Command  # {host}, {files} and {folder} in its words become those of its node
    files: dict[str, bytes]  # by relative path, at least one; see docs/RAY.md for their way
    chips: int = 0
    unheard_s_max: float  # it ends itself when whoever started it is gone for so long


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
        self._fleet = fleet
        self._python = launcher.python
        self._resources = resources_of(launcher, chip=chip, maker=maker)
        self._owns_link = link is None
        self._link = Link(launcher.address, fleet=fleet) if link is None else link
        self._seen = 0

    async def start(self, spec: ReplicaSpec) -> None:
        await self._link.ask(Start(launch=self._launch(spec)), deadline_s=_START_S)

    async def start_program(self, program: Program) -> None:
        """As `start`; `stop` and `observe` know it by its name."""
        launch = Launch(
            fleet=self._fleet,
            name=program.name,
            pool=self._pool,
            generation=program.generation,
            argv=self._argv(program.name, program.command, program.chips),
            env=program.command.env,
            chips=program.chips,
            resources=self._resources,
            python=self._python,
            files=program.files,
            is_spread=True,
            unheard_s_max=program.unheard_s_max,
        )
        await self._link.ask(Start(launch=launch), deadline_s=_START_S)

    async def send_files(self, name: str, files: dict[str, bytes]) -> None:
        """In the place of those of a program that runs. Raises PoolUnseenError."""
        await self._link.ask(Send(name=name, files=files), deadline_s=_SEND_S)

    @property
    def has_chips(self) -> bool:
        """Else what runs there runs on the processor."""
        return self._resources.name is not None

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
        return Launch(
            fleet=spec.fleet,
            name=spec.name,
            pool=spec.pool,
            generation=spec.generation,
            argv=self._argv(spec.name, spec.command, spec.chips),
            env=spec.command.env,
            chips=spec.chips,
            resources=self._resources,
            python=self._python,
        )

    def _argv(self, name: str, command: Command, chips: int) -> tuple[str, ...]:
        if chips and self._resources.name is None:
            raise LaunchError(
                f"{name} takes {chips} chips, and pool {self._pool} names none: "
                "give it a chip, or launcher.resource"
            )
        argv = command.argv
        if self._python is not None and argv[0] == sys.executable:
            argv = (self._python, *argv[1:])
        return argv
