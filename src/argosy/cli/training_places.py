"""Where a child of a run is started, and one life of it there: this host, or a place like it.

Owns what the supervisor asks of a place; that on Ray pools is `argosy.training.placing`.
"""

import contextlib
from pathlib import Path
from typing import Protocol

from argosy.fleet.messages import Command
from argosy.launchers.local import LocalProcess, ReplicaEndedError, start_process, write_record
from argosy.launchers.streams import Log


class Life(Protocol):
    """From a start to the end that follows it."""

    @property
    def pid(self) -> int | None:
        """On its host; None: not known yet."""
        ...

    @property
    def node(self) -> str | None:
        """Its host, as its pool calls it; None: it is this one, or not known yet."""
        ...

    @property
    def tail(self) -> str:
        """Its last words, to be put at the end of a message; "": none are known."""
        ...

    @property
    def left_for(self) -> str:
        """Why it was told to leave its place, to be started again once it may come; "": it was not.

        Its end is then no death.
        """
        ...

    async def joined(self) -> bool:
        """Once it has said that it is up; False: it ended before."""
        ...

    async def ended(self) -> str:
        """How, once it has."""
        ...

    async def stop(self, *, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace; then it has ended. May be called again."""
        ...


class Place(Protocol):
    """Starts one child."""

    async def start(self) -> Life:
        """Raises LaunchError; NoCapacityError or PoolUnseenError: later it may work."""
        ...


class Here:
    """On our own host: the child ends when we do."""

    def __init__(self, folder: Path, name: str, command: Command) -> None:
        self._folder = folder
        self._name = name
        self._command = command

    async def start(self) -> Life:
        """As `Place`."""
        process = await start_process(self._folder, self._name, self._command)
        if process.pid is not None:
            with contextlib.suppress(OSError):  # it is on record already, by another word
                write_record(self._folder, self._name, process.pid, kind="process")
        return _LifeHere(process, self._folder / "logs" / f"{self._name}.log")


class _LifeHere:
    """Of a process of ours."""

    def __init__(self, process: LocalProcess, log: Path) -> None:
        self.node = None
        self.left_for = ""  # whoever is here stays
        self._process = process
        self._log = log

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def tail(self) -> str:
        return Log(self._log).tail()

    async def joined(self) -> bool:
        try:
            await self._process.listening()
        except ReplicaEndedError:
            return False
        return True

    async def ended(self) -> str:
        return await self._process.ended()

    async def stop(self, *, grace_s: float) -> None:
        await self._process.stop(grace_s=grace_s)
