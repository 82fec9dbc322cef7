"""What a fleet file wants of the control plane: replicas, and who starts and probes them."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from argosy.cli.upstream_keys import upstream_keys
from argosy.control.plan import ReplicaPlan, plan_replicas
from argosy.control.probe import HttpProber
from argosy.fleet.config import EndpointLauncher, Fleet
from argosy.launchers.endpoint import EndpointPool
from argosy.launchers.local import LocalProcesses
from argosy.launchers.port import Launcher


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """For the supervisor."""

    plans: tuple[ReplicaPlan, ...]
    launchers: dict[str, Launcher]  # by pool
    prober: HttpProber


def wanted(
    fleet: Fleet,
    *,
    weights: Mapping[str, Path | None],
    threads: Mapping[str, int],
    local: LocalProcesses,
) -> Wanted:
    """Of a checked fleet. Raises MissingKeyError."""
    return Wanted(
        plans=plan_replicas(fleet, weights=weights, threads=threads),
        launchers={
            pool.name: EndpointPool(pool.launcher.url)
            if isinstance(pool.launcher, EndpointLauncher)
            else local
            for pool in fleet.pools
        },
        prober=HttpProber(keys=upstream_keys(fleet)),
    )


def threads_each(fleet: Fleet) -> dict[str, int]:
    """Threads of one replica, by deployment: all cores but one, shared out, at least one each."""
    ours = [
        deployment
        for deployment in fleet.deployments
        if not isinstance(fleet.pool(deployment.pool).launcher, EndpointLauncher)
    ]
    replicas = sum(deployment.replicas for deployment in ours) or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    each = max(1, ((cores or 2) - 1) // replicas)
    return {deployment.name: each for deployment in fleet.deployments}
