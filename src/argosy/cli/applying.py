"""A run takes up its changed fleet file: all of it, or nothing and the reason.

Owns the order: what may refuse is asked first; then new gateway processes come up with the new
file, and only when they serve do replicas change and the old processes retire.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from argosy.cli.differences import differences
from argosy.cli.fetch import weights_of
from argosy.cli.files import (
    UnreadableFleetError,
    at_port,
    check_startable,
    load_fleet,
    parse_fleet,
)
from argosy.cli.gateway_child import GatewayStartError
from argosy.cli.operator_socket import Apply, OperatorReply
from argosy.cli.pretending import Pretence
from argosy.cli.upstream_keys import MissingKeyError
from argosy.cli.wanted import LauncherChangedError, Launchers, threads_each, wanted
from argosy.control.change import Change, change
from argosy.control.controller import Controller
from argosy.engines.weights import WeightsError
from argosy.fleet.config import Fleet
from argosy.gateway.ledger_file import LedgerError
from argosy.store.errors import StoreError

_FIXED = ("host", "port", "processes")  # of the gateway: its sockets live as long as the run


class ApplyRefusedError(Exception):
    """Nothing has changed; the message says why and what would work."""


class Changeable(Protocol):
    """The gateways."""

    async def replace(self, fleet: Fleet) -> None:
        """Have them serve that fleet. Raises GatewayStartError: then nothing has changed."""
        ...


class Applier:
    """Of one run; it knows the fleet that runs now."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        file: Path | None,
        port: int | None,
        gateways: Changeable,
        controller: Controller,
        launchers: Launchers,
        on_applied: Callable[[Fleet], None],
        pretence: Pretence | None = None,
        note: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`note` is given the text that is taken up, where others are to take it up too."""
        self.fleet = fleet
        self._file = file  # None: the embedded fleet
        self._port = port  # of the command, before the file's
        self._gateways = gateways
        self._controller = controller
        self._launchers = launchers
        self._on_applied = on_applied
        self._pretence = pretence
        self._note = note
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
                ApplyRefusedError, LauncherChangedError, LedgerError, OSError, StoreError,
            ) as error:  # fmt: skip
                return OperatorReply(done=False, said=str(error))

    async def _change_over(self, request: Apply) -> str:
        file = self._file if request.file is None else Path(request.file)
        fleet = at_port(self._asked(request, file), self._port)
        if self._pretence is not None:
            fleet = await asyncio.to_thread(self._pretence.of, fleet)
        check_startable(fleet)
        if self._note is None:
            _check_fixed(self.fleet, fleet)
        weights = await asyncio.to_thread(weights_of, fleet)
        # A deployment keeps its threads: other replicas than before are no reason to restart it.
        threads = {**threads_each(fleet), **self._threads}
        new = wanted(fleet, weights=weights, threads=threads, launchers=self._launchers)
        changed = change(self._controller.records.values(), self._controller.as_wanted(new.plans))
        if request.is_dry:
            return "\n".join((*differences(self.fleet, fleet), _replicas(changed)))
        if self._note is not None and request.text is not None:
            await self._note(request.text)
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

    def _asked(self, request: Apply, file: Path | None) -> Fleet:
        if self._note is None and request.text is None:
            return load_fleet(file)
        if request.text is None:
            raise ApplyRefusedError("name the fleet file: argosy apply FLEET.YAML --control URL")
        fleet = parse_fleet(request.text, source=request.file or "fleet.yaml")
        if fleet.fleet != self.fleet.fleet:
            raise ApplyRefusedError(
                f"that file is of fleet {fleet.fleet}; these control planes are of fleet "
                f"{self.fleet.fleet}. Another fleet has control planes of its own: argosy control"
            )
        return fleet


def _check_fixed(old: Fleet, new: Fleet) -> None:
    if (old.gateway.tls is None) != (new.gateway.tls is None):
        raise ApplyRefusedError(
            "gateway.tls comes or goes, but this run's URL is https or http as long as it lives. "
            "Stop the fleet and start it again; another cert and key can be applied."
        )
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
