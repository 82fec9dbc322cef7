"""The launcher port: start a replica, learn where it listens and when it ended, stop it."""

from typing import Protocol

from argosy.fleet.messages import Command


class ReplicaEndedError(Exception):
    """The replica ended before it listened; the message says how."""


class Launched(Protocol):
    """One replica that was started."""

    @property
    def pid(self) -> int | None:
        """Its process; None where none was started."""
        ...

    async def listening(self) -> str:
        """Its URL once it listens. Raises `ReplicaEndedError` when it ends first."""
        ...

    async def ended(self) -> str:
        """Returns when it has ended, saying how, e.g. `killed by SIGKILL`."""
        ...

    async def stop(self, *, grace_s: float) -> None:
        """Ask it to end, kill it after `grace_s`; returns when it is gone. May be called again."""
        ...


class Launcher(Protocol):
    """Starts replicas on one pool."""

    async def start(self, name: str, command: Command | None) -> Launched:
        """Start the replica of that name. `command` is None where nothing is to be started."""
        ...
