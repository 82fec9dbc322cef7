"""A run takes up its changed fleet file: all of it, or nothing and the reason.

Owns the order: what may refuse is asked first; then new gateway processes come up with the new
file, and only when they serve do replicas change and the old processes retire.
"""

import asyncio
from pathlib import Path

from argosy.cli.fetch import weights_of
from argosy.cli.files import UnreadableFleetError, at_port, check_startable, load_fleet
from argosy.cli.gateway_child import GatewayStartError
from argosy.cli.gateways import Gateways
from argosy.cli.operator_socket import ReloadReply, ReloadRequest
from argosy.cli.upstream_keys import MissingKeyError
from argosy.cli.wanted import Wanted, threads_each, wanted
from argosy.control.replan import Change
from argosy.control.supervisor import Supervisor
from argosy.engines.weights import WeightsError
from argosy.fleet.config import Fleet
from argosy.gateway.ledger_file import LedgerError
from argosy.launchers.local import LocalProcesses

_FIXED = ("host", "port", "processes")  # of the gateway: its sockets live as long as the run


class ReloadRefusedError(Exception):
    """Nothing has changed; the message says why and what would work."""


class Reloader:
    """Of one run; it knows the fleet that runs now."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        file: Path | None,
        port: int | None,
        gateways: Gateways,
        supervisor: Supervisor,
        local: LocalProcesses,
    ) -> None:
        self.fleet = fleet
        self._file = file  # None: the embedded fleet
        self._port = port  # of the command, before the file's
        self._gateways = gateways
        self._supervisor = supervisor
        self._local = local
        self._threads = threads_each(fleet)
        self._one_at_a_time = asyncio.Lock()

    async def reload(self, request: ReloadRequest) -> ReloadReply:
        """Never raises for what a file or an operator does."""
        if self._one_at_a_time.locked():
            return ReloadReply(done=False, said="a reload is under way; try again after it")
        async with self._one_at_a_time:
            try:
                return ReloadReply(done=True, said=await self._change_over(request))
            except (
                UnreadableFleetError, MissingKeyError, WeightsError, GatewayStartError,
                ReloadRefusedError, LedgerError, OSError,
            ) as error:  # fmt: skip
                return ReloadReply(done=False, said=str(error))

    async def _change_over(self, request: ReloadRequest) -> str:
        file = self._file if request.file is None else Path(request.file)
        fleet = at_port(load_fleet(file), self._port)
        check_startable(fleet)
        _check_fixed(self.fleet, fleet)
        weights = await asyncio.to_thread(weights_of, fleet)
        # A deployment keeps its threads: other replicas than before are no reason to restart it.
        threads = {**threads_each(fleet), **self._threads}
        new = wanted(fleet, weights=weights, threads=threads, local=self._local)
        await self._gateways.replace(fleet)
        change = await self._replan(fleet, new)
        self.fleet, self._file, self._threads = fleet, file, threads
        return _told(fleet, change)

    async def _replan(self, fleet: Fleet, new: Wanted) -> Change:
        return await self._supervisor.replan(
            new.plans,
            launchers=new.launchers,
            prober=new.prober,
            in_flight=self._gateways.in_flight,
            drain_s=fleet.gateway.drain_s,
        )


def _check_fixed(old: Fleet, new: Fleet) -> None:
    for name in _FIXED:
        before, asked = getattr(old.gateway, name), getattr(new.gateway, name)
        if before != asked:
            raise ReloadRefusedError(
                f"gateway.{name} = {asked}, but this run has {before}, and its sockets live as "
                f"long as the run. Write {before}, or stop the fleet and start it again."
            )


def _told(fleet: Fleet, change: Change) -> str:
    counts = {
        "stay": len(change.kept),
        "come": len(change.added),
        "are replaced": len(change.succeeded),
        "go": len(change.removed),
    }
    replicas = ", ".join(f"{count} {verb}" for verb, count in counts.items() if count)
    count = fleet.gateway.processes
    processes = "1 gateway process serves" if count == 1 else f"{count} gateway processes serve"
    return f"reloaded fleet {fleet.fleet}: {processes} it; replicas: {replicas}"
