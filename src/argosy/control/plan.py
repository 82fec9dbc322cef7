"""Which replicas a fleet file asks for, by name, each with the command that starts it.

All of it is worked out before anything starts; starting is left to the supervisor.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from argosy.engines import registry
from argosy.fleet.config import Deployment, Fleet, Launcher, LocalLauncher
from argosy.fleet.messages import Command, Replica


class ReplicaPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as it is wanted."""

    replica: Replica  # its row of the table before the first start
    command: Command | None  # None: nothing is to be started
    health_path: str
    launcher: Launcher = LocalLauncher()

    @property
    def name(self) -> str:
        """The replica's name, unique in a fleet."""
        return self.replica.name

    @property
    def is_ours(self) -> bool:
        """False for an endpoint: it is watched, and never restarted."""
        return self.command is not None


def plan_replicas(
    fleet: Fleet,
    *,
    weights: Mapping[str, Path | None],
    threads: Mapping[str, int],
) -> tuple[ReplicaPlan, ...]:
    """All replicas of a checked fleet.

    `weights` go by model, `threads` by deployment; an endpoint needs neither.
    """
    deployments_of = Counter(deployment.model for deployment in fleet.deployments)
    plans: list[ReplicaPlan] = []
    for deployment in fleet.deployments:
        engine = registry.adapter(deployment.engine)
        command = engine.command(
            deployment.engine,
            model=fleet.model(deployment.model),
            weights=weights.get(deployment.model),
            threads=threads.get(deployment.name, 1),
        )
        only = deployments_of[deployment.model] == 1
        plans += (
            ReplicaPlan(
                replica=_row(deployment, f"{deployment.model if only else deployment.name}-{n}"),
                command=command,
                health_path=engine.health_path,
                launcher=fleet.pool(deployment.pool).launcher,
            )
            for n in range(1, deployment.replicas + 1)
        )
    return tuple(plans)


def _row(deployment: Deployment, name: str) -> Replica:
    return Replica(
        name=name,
        deployment=deployment.name,
        model=deployment.model,
        pool=deployment.pool,
        engine=deployment.engine,
        state="starting",
        reason="starts for the first time",
    )
