"""`argosy up --pretend`: the same fleet with simulated replicas on this machine.

Pools keep their clouds, regions, chips and prices; what would run there is a process here that
speaks the same HTTP at the pace that the performance model gives the chip (one request among some).
A domain that is made to be lost loses its processes, and nobody can see or start anything there
until it is back.
"""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path

import psutil
from msgspec.structs import replace

from argosy.cli.files import UnreadableFleetError, check_startable
from argosy.fleet.architectures import architecture
from argosy.fleet.catalogue import chip
from argosy.fleet.config import BatchingEngine, Deployment, Fleet, Pool, SimulatedEngine
from argosy.fleet.launchers import LocalLauncher
from argosy.fleet.messages import Observation, ReplicaSpec
from argosy.launchers.local import LocalPool
from argosy.launchers.port import PoolUnseenError

REPLICAS = 2  # of a deployment, unless more are asked for
MEMORY_BYTES = 50e6  # of a simulated replica: 35 MB at first, and its prefix cache
_GROWTH_MAX = 2  # times as many, where a deployment follows its demand
_SLOTS_MAX = 4  # of a simulated replica: a laptop's cores are behind all of them
_CONTEXT = 1024.0  # tokens of each request that decodes
_START_S = 3.0  # in the place of minutes
_READY_S = 6.0  # from asking to ready, with the start of its process


class PretenceRefusedError(Exception):
    """Nothing was lost, and nothing is back; the message says why and what would work."""


def pretended(fleet: Fleet, *, replicas: int = REPLICAS) -> Fleet:
    """The fleet with each pool on this machine, `replicas` of a deployment at most to begin with.

    A deployment that follows its demand may grow to twice that.
    """
    pools = {pool.name: pool for pool in fleet.pools}
    return replace(
        fleet,
        pools=tuple(
            replace(pool, launcher=LocalLauncher(), start_s=_READY_S) for pool in fleet.pools
        ),
        models=tuple(replace(one, weights=None, sha256=None) for one in fleet.models),
        deployments=tuple(
            _deployment(fleet, one, pools[one.pool], replicas) for one in fleet.deployments
        ),
        demand=(),
    )


def check_memory(fleet: Fleet, *, available_bytes: int | None = None) -> None:
    """Raises UnreadableFleetError where a pretended fleet needs more than this machine has."""
    if available_bytes is None:
        available_bytes = psutil.virtual_memory().available
    count = sum(one.replicas for one in fleet.deployments)
    if count * MEMORY_BYTES > available_bytes:
        raise UnreadableFleetError(
            f"fleet {fleet.fleet} would have {count} simulated replicas of about "
            f"{MEMORY_BYTES / 1e6:.0f} MB each, {count * MEMORY_BYTES / 1e9:.1f} GB, and this "
            f"machine has {available_bytes / 1e9:.1f} GB free. Ask for fewer of each deployment: "
            "--replicas 1"
        )


def _deployment(fleet: Fleet, one: Deployment, pool: Pool, replicas: int) -> Deployment:
    bounds = one.autoscale
    if bounds.max is not None:
        most = min(bounds.max, _GROWTH_MAX * replicas)
        bounds = replace(bounds, min=min(bounds.min, replicas), max=most)
    return replace(
        one,
        engine=_engine(fleet, one, pool),
        replicas=min(one.replicas, replicas),
        autoscale=bounds,
    )


def _engine(fleet: Fleet, one: Deployment, pool: Pool) -> SimulatedEngine:
    name = fleet.model(one.model).architecture
    if isinstance(one.engine, SimulatedEngine):
        return one.engine
    if not isinstance(one.engine, BatchingEngine) or pool.chip is None or name is None:
        return SimulatedEngine(start_s=_START_S)
    # These load numba, which takes a second.
    from argosy.perf.engine_settings import settings_of
    from argosy.perf.refusal import DoesNotFit
    from argosy.perf.replica import replica

    settings = settings_of(one.engine)
    known = replica(architecture(name), chip(pool.chip), one.layout, settings)
    if isinstance(known, DoesNotFit):
        raise UnreadableFleetError(f"{one.name} cannot be pretended: {known.message}")
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

    async def lose(self) -> int:
        """Its processes end at once, so many, and nobody sees it until it is back."""
        self.is_lost = True
        self._news.set()
        count = sum(not one.has_ended for one in self._children.values())
        await self.close(is_final=True)
        return count

    def back(self) -> None:
        """It is there again, and empty."""
        self.is_lost = False
        self._news.set()

    async def start(self, spec: ReplicaSpec) -> None:
        """As the port says; none survives that was on its way when the pool was lost."""
        self._check()
        await super().start(spec)
        if self.is_lost:
            await super().stop(spec.name, grace_s=0.0)
            self._check()

    async def stop(self, name: str, *, grace_s: float) -> None:
        """As the port says."""
        self._check()
        await super().stop(name, grace_s=grace_s)

    async def observe(self) -> Observation:
        """As the port says."""
        self._check()
        return await super().observe()

    async def close(self, *, is_final: bool) -> None:
        """Ends all, lost or not."""
        del is_final
        names = list(self._children)
        await asyncio.gather(*(LocalPool.stop(self, name, grace_s=0.0) for name in names))

    def _check(self) -> None:
        if self.is_lost:
            raise PoolUnseenError("it is made to be lost: argosy pretend back")


class Pretence:
    """The pools of a run that pretends, and what of it is lost."""

    def __init__(self, state: Path, *, replicas: int = REPLICAS) -> None:
        self._state = state
        self._replicas = replicas
        self._pools: dict[str, PretendedPool] = {}
        self.lost: frozenset[str] = frozenset()  # domains

    def of(self, fleet: Fleet) -> Fleet:
        """The fleet of a file as it is pretended. Raises UnreadableFleetError."""
        found = pretended(fleet, replicas=self._replicas)
        check_startable(found)
        return found

    def launcher(self, pool: Pool) -> PretendedPool:
        """Always the same one of that name."""
        known = self._pools.get(pool.name)
        if known is None:
            known = self._pools[pool.name] = PretendedPool(self._state)
            known.is_lost = not self.lost.isdisjoint(domains_of(pool))
        return known

    async def lose(self, fleet: Fleet, domain: str) -> tuple[tuple[Pool, ...], int]:
        """All pools of the domain, lost from now on, and how many replicas ended there.

        Raises PretenceRefusedError.
        """
        pools = self._of_domain(fleet, domain)
        if domain in self.lost:
            raise PretenceRefusedError(f"{domain} is lost already: argosy pretend back {domain}")
        self.lost |= {domain}
        counts = await asyncio.gather(*(self.launcher(pool).lose() for pool in pools))
        return pools, sum(counts)

    def back(self, fleet: Fleet, domain: str) -> tuple[Pool, ...]:
        """Those pools of the domain that are there again. Raises PretenceRefusedError.

        One that is lost by another domain as well stays so.
        """
        pools = self._of_domain(fleet, domain)
        if domain not in self.lost:
            lost = ", ".join(sorted(self.lost)) or "nothing"
            raise PretenceRefusedError(f"{domain} was not made to be lost; {lost} was")
        self.lost -= {domain}
        there = tuple(pool for pool in pools if self.lost.isdisjoint(domains_of(pool)))
        for pool in there:
            self.launcher(pool).back()
        return there

    def end(self) -> None:
        """The fleet stops: nothing is lost any more, so that all can be ended."""
        for pool in self._pools.values():
            pool.is_lost = False

    def _of_domain(self, fleet: Fleet, domain: str) -> tuple[Pool, ...]:
        pools = tuple(pools_in(fleet, domain))
        if not pools:
            known = sorted({name for pool in fleet.pools for name in domains_of(pool)})
            raise PretenceRefusedError(
                f"{domain} is no cloud, region, pool or maker of this fleet; there are "
                f"{', '.join(known)}"
            )
        return pools


def domains_of(pool: Pool) -> frozenset[str]:
    """What it is lost with: its cloud, its region, itself, the maker of its chips."""
    names = {pool.name}
    if pool.region is not None:
        names |= {pool.region, pool.region.split("/")[0]}
    if pool.chip is not None:
        names.add(chip(pool.chip).maker)
    return frozenset(names)


def pools_in(fleet: Fleet, domain: str) -> Iterator[Pool]:
    """Pools of a domain."""
    return (pool for pool in fleet.pools if domain in domains_of(pool))
