"""`argosy up --pretend`: the same fleet with simulated replicas on this machine.

Pools keep their clouds, regions, chips and prices; what would run there is a process here that
speaks the same HTTP at the pace that the performance model gives the chip (one request among some).
A pool that is made to be lost loses its processes, and nobody can see or start anything there.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from argosy.fleet.architectures import architecture
from argosy.fleet.catalogue import chip
from argosy.fleet.config import BatchingEngine, Deployment, Fleet, Pool, SimulatedEngine
from argosy.fleet.launchers import LocalLauncher
from argosy.fleet.messages import Observation, ReplicaSpec
from argosy.launchers.local import LocalPool
from argosy.launchers.port import PoolUnseenError
from argosy.perf.engine_settings import settings_of
from argosy.perf.refusal import DoesNotFit
from argosy.perf.replica import replica

_SLOTS_MAX = 16  # of a simulated replica: a laptop's cores are behind all of them
_CONTEXT = 1024.0  # tokens of each request that decodes
_START_S = 3.0  # in the place of minutes
_MEMORY_BYTES = 60e6  # of a simulated replica
REPLICAS = 2  # of a deployment, unless more are asked for


def pretended(fleet: Fleet, *, replicas: int = REPLICAS) -> Fleet:
    """The fleet with each pool on this machine, `replicas` of a deployment at most."""
    pools = {pool.name: pool for pool in fleet.pools}
    return replace(
        fleet,
        pools=tuple(replace(pool, launcher=LocalLauncher()) for pool in fleet.pools),
        models=tuple(replace(one, weights=None, sha256=None) for one in fleet.models),
        deployments=tuple(
            _deployment(fleet, one, pools[one.pool], replicas) for one in fleet.deployments
        ),
        demand=(),
    )


def _deployment(fleet: Fleet, one: Deployment, pool: Pool, replicas: int) -> Deployment:
    most = one.autoscale.max
    return replace(
        one,
        engine=_engine(fleet, one, pool),
        replicas=min(one.replicas, replicas),
        autoscale=one.autoscale
        if most is None
        else replace(one.autoscale, min=min(one.autoscale.min, replicas)),
    )


def _engine(fleet: Fleet, one: Deployment, pool: Pool) -> SimulatedEngine:
    name = fleet.model(one.model).architecture
    if not isinstance(one.engine, BatchingEngine) or pool.chip is None or name is None:
        return SimulatedEngine(start_s=_START_S)
    settings = settings_of(one.engine)
    known = replica(architecture(name), chip(pool.chip), one.layout, settings)
    if isinstance(known, DoesNotFit):
        return SimulatedEngine(start_s=_START_S)
    slots = min(_SLOTS_MAX, one.engine.requests_max)
    step = known.step_time
    chunk = float(settings.prefill_tokens_max)
    read_s = step.step_s(tokens=chunk, pairs=chunk * chunk / 2)
    decode_s = step.step_s(tokens=float(slots), contexts=slots * _CONTEXT)
    return SimulatedEngine(
        context_tokens=one.engine.context_tokens,
        slots=slots,
        prefill_tokens_per_s=_rounded(chunk / read_s),
        decode_tokens_per_s=_rounded(1 / decode_s),
        start_s=_START_S,
    )


def _rounded(rate: float) -> float:
    """To two digits: it is a pretence."""
    digits = 1 - math.floor(math.log10(rate))
    return round(rate, digits)


class PretendedPool(LocalPool):
    """A pool of simulated replicas that can be lost and come back."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.is_lost = False

    async def lose(self) -> None:
        """Its processes end at once, and nobody sees it until it is back."""
        self.is_lost = True
        await self.close(is_final=True)

    async def back(self) -> None:
        """Empty."""
        self.is_lost = False

    async def start(self, spec: ReplicaSpec) -> None:
        self._check()
        await super().start(spec)

    async def stop(self, name: str, *, grace_s: float) -> None:
        if not self.is_lost:
            await super().stop(name, grace_s=grace_s)
        elif name in self._children:
            await super().stop(name, grace_s=0.0)

    async def observe(self) -> Observation:
        self._check()
        return await super().observe()

    def _check(self) -> None:
        if self.is_lost:
            raise PoolUnseenError("it was made to be lost: argosy pretend back")


def pools_in(fleet: Fleet, domain: str) -> Iterator[Pool]:
    """Pools of a domain: a cloud, a region, a pool by name, or a maker of chips."""
    for pool in fleet.pools:
        region = pool.region or ""
        names = {pool.name, region, region.split("/")[0]}
        if pool.chip is not None:
            names.add(chip(pool.chip).maker)
        if domain in names:
            yield pool
