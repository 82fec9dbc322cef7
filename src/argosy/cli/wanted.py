"""What a fleet file wants of the control plane: deployments, and who starts and probes them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from argosy.cli.pretending import Pretence
from argosy.cli.renting import token_of
from argosy.cli.upstream_keys import upstream_keys
from argosy.control.plan import DeploymentPlan, plan_deployments
from argosy.control.probe import HttpProber
from argosy.fleet.catalogue import chip
from argosy.fleet.config import Fleet, Pool
from argosy.fleet.launchers import (
    EndpointLauncher,
    KubernetesLauncher,
    LocalLauncher,
    PlannedLauncher,
    RayLauncher,
    SkypilotLauncher,
)
from argosy.launchers.endpoint import EndpointPool
from argosy.launchers.local import LocalPool
from argosy.launchers.port import Launcher

if TYPE_CHECKING:
    from argosy.launchers.ray.link import Link


class LauncherChangedError(Exception):
    """A pool cannot change its launcher while it is used; the message says what would work."""


class Launchers:
    """The launchers of a run: a pool keeps its own from one fleet file to the next.

    For it knows its replicas.
    """

    def __init__(self, state: Path, *, pretence: Pretence | None = None) -> None:
        self._state = state
        self._pretence = pretence  # its pools are launched in the place of all
        self._of_pool: dict[str, tuple[Pool, Launcher]] = {}
        self._ray_links: dict[str, Link] = {}  # by address: pools of one cluster share a bridge

    def of(self, fleet: Fleet) -> dict[str, Launcher]:
        """By pool. Raises LauncherChangedError, MissingKeyError; then nothing has changed."""
        found = {pool.name: (pool, self._launcher(fleet, pool)) for pool in fleet.pools}
        self._of_pool |= found
        return {name: launcher for name, (_, launcher) in found.items()}

    async def close(self) -> None:
        """After the last use of any of them."""
        for link in self._ray_links.values():
            await link.close()

    def _launcher(self, fleet: Fleet, pool: Pool) -> Launcher:
        known = self._of_pool.get(pool.name)
        if self._pretence is not None:
            return self._pretence.launcher(pool)
        if known is None:
            return self._made(fleet, pool)
        before, launcher = known[0].launcher, known[1]
        is_same = isinstance(before, EndpointLauncher) and isinstance(
            pool.launcher, EndpointLauncher
        )
        if before != pool.launcher and not is_same:  # an endpoint's URL is its replica's
            raise LauncherChangedError(
                f"pool {pool.name} has another launcher than before, which would lose sight of "
                "the replicas there. Give the new pool a new name, and drop the old one."
            )
        return launcher

    def _made(self, fleet: Fleet, pool: Pool) -> Launcher:
        match pool.launcher:
            case LocalLauncher():
                return LocalPool(self._state)
            case EndpointLauncher():
                return EndpointPool()
            case RayLauncher() as launcher:
                return self._ray_pool(fleet, pool, launcher)
            case KubernetesLauncher():
                from argosy.launchers.kubernetes.cell import cell_of
                from argosy.launchers.kubernetes.launch import KubernetesPool

                return KubernetesPool(cell_of(fleet, pool))
            case SkypilotLauncher():
                from argosy.launchers.skypilot.cell import cell_of as rented_cell_of
                from argosy.launchers.skypilot.pool import SkyPilotPool

                key = upstream_keys(fleet).get(pool.name)
                return SkyPilotPool(rented_cell_of(fleet, pool), token=token_of(pool), key=key)
            case PlannedLauncher():
                raise LauncherChangedError(f"pool {pool.name} is planned: nothing is started there")

    def _ray_pool(self, fleet: Fleet, pool: Pool, launcher: RayLauncher) -> Launcher:
        from argosy.launchers.ray.link import Link
        from argosy.launchers.ray.pool import RayPool

        link = self._ray_links.get(launcher.address)
        if link is None:
            link = self._ray_links[launcher.address] = Link(launcher.address, fleet=fleet.fleet)
        maker = None if pool.chip is None else chip(pool.chip).maker
        return RayPool(
            launcher, fleet=fleet.fleet, pool=pool.name, chip=pool.chip, maker=maker, link=link
        )


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """For the controller."""

    plans: tuple[DeploymentPlan, ...]
    launchers: dict[str, Launcher]  # by pool
    prober: HttpProber


def wanted(
    fleet: Fleet,
    *,
    weights: Mapping[str, Path | None],
    threads: Mapping[str, int],
    launchers: Launchers,
) -> Wanted:
    """Of a checked fleet. Raises MissingKeyError, LauncherChangedError."""
    return Wanted(
        plans=plan_deployments(fleet, weights=weights, threads=threads),
        launchers=launchers.of(fleet),
        prober=HttpProber(keys=upstream_keys(fleet)),
    )


def threads_each(fleet: Fleet) -> dict[str, int]:
    """Threads of one replica, by deployment: all cores but one, shared out, at least one each."""
    ours = [
        deployment
        for deployment in fleet.deployments
        if isinstance(fleet.pool(deployment.pool).launcher, LocalLauncher)
    ]
    replicas = sum(deployment.replicas for deployment in ours) or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    each = max(1, ((cores or 2) - 1) // replicas)
    return {deployment.name: each for deployment in fleet.deployments}
