"""A run takes up its changed fleet file: all of it, or nothing and the reason.

Owns the order: what may refuse is asked first; then new gateway processes come up with the new
file, and only when they serve do replicas change and the old processes retire.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from argosy.cli.differences import differences
from argosy.cli.fetch import weights_of
from argosy.cli.files import UnreadableFleetError, at_port, check_startable, load_fleet
from argosy.cli.gateway_child import GatewayStartError
from argosy.cli.gateways import Gateways
from argosy.cli.operator_socket import Apply, OperatorReply
from argosy.cli.upstream_keys import MissingKeyError
from argosy.cli.wanted import LauncherChangedError, Launchers, threads_each, wanted
from argosy.control.change import Change, change
from argosy.control.controller import Controller
from argosy.engines.weights import WeightsError
from argosy.fleet.config import Fleet
from argosy.gateway.ledger_file import LedgerError

_FIXED = ("host", "port", "processes")  # of the gateway: its sockets live as long as the run


class ApplyRefusedError(Exception):
    """Nothing has changed; the message says why and what would work."""


class Applier:
    """Of one run; it knows the fleet that runs now."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        file: Path | None,
        port: int | None,
        gateways: Gateways,
        controller: Controller,
        launchers: Launchers,
        on_applied: Callable[[Fleet], None],
    ) -> None:
        self.fleet = fleet
        self._file = file  # None: the embedded fleet
        self._port = port  # of the command, before the file's
        self._gateways = gateways
        self._controller = controller
        self._launchers = launchers
        self._on_applied = on_applied
        self._threads = threads_each(fleet)
        self._one_at_a_time = asyncio.Lock()

    async def apply(self, request: Apply) -> OperatorReply:
        """Never raises for what a file or an operator does."""
        if self._one_at_a_time.locked():
            return OperatorReply(done=False, said="a change is under way; try again after it")
        async with self._one_at_a_time:
            try:
                return OperatorReply(done=True, said=await self._change_over(request))
            except (
                UnreadableFleetError, MissingKeyError, WeightsError, GatewayStartError,
                ApplyRefusedError, LauncherChangedError, LedgerError, OSError,
            ) as error:  # fmt: skip
                return OperatorReply(done=False, said=str(error))

    async def _change_over(self, request: Apply) -> str:
        file = self._file if request.file is None else Path(request.file)
        fleet = at_port(load_fleet(file), self._port)
        check_startable(fleet)
        _check_fixed(self.fleet, fleet)
        weights = await asyncio.to_thread(weights_of, fleet)
        # A deployment keeps its threads: other replicas than before are no reason to restart it.
        threads = {**threads_each(fleet), **self._threads}
        new = wanted(fleet, weights=weights, threads=threads, launchers=self._launchers)
        changed = change(self._controller.records.values(), self._controller.as_wanted(new.plans))
        if request.is_dry:
            return "\n".join((*differences(self.fleet, fleet), _replicas(changed)))
        await self._gateways.replace(fleet)
        self._controller.want(
            new.plans,
            launchers=new.launchers,
            prober=new.prober,
            drain_s=fleet.gateway.drain_s,
        )
        self.fleet, self._file, self._threads = fleet, file, threads
        self._on_applied(fleet)
        return _told(fleet, changed)


def _check_fixed(old: Fleet, new: Fleet) -> None:
    for name in _FIXED:
        before, asked = getattr(old.gateway, name), getattr(new.gateway, name)
        if before != asked:
            raise ApplyRefusedError(
                f"gateway.{name} = {asked}, but this run has {before}, and its sockets live as "
                f"long as the run. Write {before}, or stop the fleet and start it again."
            )


def _told(fleet: Fleet, changed: Change) -> str:
    count = fleet.gateway.processes
    processes = "1 gateway process serves" if count == 1 else f"{count} gateway processes serve"
    return f"applied fleet {fleet.fleet}: {processes} it; {_replicas(changed)}"


def _replicas(changed: Change) -> str:
    counts = {
        "stay": changed.kept,
        "come": changed.added,
        "are replaced": changed.succeeded,
        "go": changed.removed,
    }
    return "replicas: " + ", ".join(f"{count} {verb}" for verb, count in counts.items() if count)
