"""The launcher port: what the control plane may ask of whatever starts replicas on one pool.

Level-triggered: the control plane asks for a replica to be or not to be, looks at what is there,
and asks again. So every question may be asked twice, by two control planes one after the other, and
a launcher remembers nothing that it cannot find again in its pool.
"""

from typing import Protocol

from argosy.fleet.messages import Observation, ReplicaSpec


class LaunchError(Exception):
    """A replica cannot be started as it is; the message says why and what would work."""


class NoCapacityError(LaunchError):
    """Not now: the pool has no room, or a quota is used up."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s  # None: it does not say


class PoolUnseenError(Exception):
    """The pool cannot be looked at or spoken to now; what runs there may run on."""


class Launcher(Protocol):
    """Replicas of one fleet on one pool."""

    async def start(self, spec: ReplicaSpec) -> None:
        """Have it started; returns once that is asked, not when it listens.

        One of that name and generation that is there already is left alone. Raises LaunchError,
        NoCapacityError, PoolUnseenError.
        """
        ...

    async def stop(self, name: str, *, grace_s: float) -> None:
        """Ask it to end, kill it after `grace_s`; returns when it is gone and forgotten.

        One that is not there, or has ended, is forgotten at once. May be called again, with less
        grace, while another call waits. Raises PoolUnseenError.
        """
        ...

    async def observe(self) -> Observation:
        """All that is there, whoever asked for it, or PoolUnseenError; never half of it."""
        ...

    async def changed(self) -> None:
        """Returns when `observe` may say something new; may return for nothing, or be cancelled."""
        ...

    async def cordon(self, node: str, *, reason: str) -> None:
        """Start nothing more there. Where a launcher knows no nodes: nothing. PoolUnseenError."""
        ...

    async def uncordon(self, node: str) -> None:
        """It may be used again. Raises PoolUnseenError."""
        ...

    async def close(self, *, is_final: bool) -> None:
        """Let go. Replicas that outlive us run on, unless `is_final`: then all are ended."""
        ...
