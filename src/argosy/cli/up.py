"""`argosy up`: a fleet on this machine, from the fleet file to a drained stop.

Wires the rooms: the control plane here, the gateway in processes of their own (`gateways.py`,
decision 0011), to which the replica table goes. Everything that may refuse is asked before
anything starts.
"""

import asyncio
import os
import random
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from argosy.cli.fetch import local_weights
from argosy.cli.files import (
    FleetFile,
    UnreadableFleetError,
    at_port,
    check_startable,
    read_fleet,
)
from argosy.cli.renting import check_tokens, rents
from argosy.cli.state import UP_KEY_NAME, StateDir, now_s, open_state_store
from argosy.cli.upstream_keys import MissingKeyError, upstream_keys
from argosy.cli.welcome import welcome
from argosy.fleet.config import Fleet
from argosy.fleet.messages import ReplicaTable

if TYPE_CHECKING:
    from sqlalchemy import Engine as StoreEngine

    from argosy.cli.applying import Applier
    from argosy.cli.control_plane import ControlPlane
    from argosy.cli.gateways import Gateways
    from argosy.cli.listeners import Listeners
    from argosy.cli.pretending import Pretence
    from argosy.control.controller import Controller
    from argosy.control.scaling import Planned
    from argosy.fleet.messages import Key

_REPLICA_GRACE_S = 3.0


def up(
    file: FleetFile = None,
    *,
    state: StateDir,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The gateway's port; 0 takes a free one.")
    ] = None,
    is_pretended: Annotated[
        bool,
        typer.Option("--pretend", help="All pools on this machine, with simulated replicas."),
    ] = False,
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --pretend: replicas of a deployment at most, to begin with; unset: 2."
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="PLAN.JSON",
            help="Begin with its replicas of this hour, where they autoscale: argosy plan --json.",
        ),
    ] = None,
) -> None:
    """Start a fleet and its gateway; Ctrl-C drains and stops it.

    Examples:
        argosy up

        argosy up examples/simulated.yaml --port 8080

        argosy up examples/five-makers.yaml --pretend

    """
    from argosy.cli.listeners import Listeners, in_words
    from argosy.launchers.local import reap_stale
    from argosy.launchers.lock import AlreadyRunningError, RunLock

    if replicas is not None and not is_pretended:
        _exit("--replicas is for --pretend; a real fleet has as many as its file says")
    fleet, pretence = at_port(read_fleet(file), port), None
    try:
        if is_pretended:
            fleet, pretence = _pretended(fleet, state, replicas)
        check_startable(fleet)
        upstream_keys(fleet)
        check_tokens(fleet)
    except (UnreadableFleetError, MissingKeyError) as error:
        _exit(str(error))
    planned = None if plan is None else _planned(fleet, plan)
    lock = RunLock(state)
    try:
        lock.acquire()
    except (AlreadyRunningError, OSError) as error:
        _exit(str(error))
    for line in (*rents(fleet), *reap_stale(state)):
        _say(line)
    weights = local_weights(fleet)
    with open_state_store(state) as store:
        try:
            listeners = Listeners(fleet.gateway)
        except OSError as error:
            _exit(
                f"cannot listen on {fleet.gateway.host}:{fleet.gateway.port}: {in_words(error)}. "
                "Stop what listens there, or take a free port: --port 0"
            )
        run = _Run(
            fleet, file=file, port=port, state=state, store=store, weights=weights,
            pretence=pretence, plan=planned,
        )  # fmt: skip
        _loop_runner(run, listeners)
    lock.release()


def _pretended(fleet: Fleet, state: Path, replicas: int | None) -> "tuple[Fleet, Pretence]":
    """Raises UnreadableFleetError."""
    from argosy.cli.pretending import REPLICAS, Pretence, check_memory

    pretence = Pretence(state, replicas=replicas or REPLICAS)
    fleet = pretence.of(fleet)
    check_memory(fleet)
    return fleet, pretence


def _planned(fleet: Fleet, file: Path) -> "Planned":
    from argosy.control.scaling import PlanUnreadableError, read_plan

    try:
        return read_plan(file.read_bytes(), fleet=fleet.fleet)
    except OSError as error:
        _exit(f"{file} cannot be read: {error.strerror}")
    except PlanUnreadableError as error:
        _exit(f"{file} cannot be begun with: {error}. Make one: argosy plan FLEET --json")


def _loop_runner(run: "_Run", listeners: "Listeners") -> None:
    if sys.platform == "win32":
        asyncio.run(run.main(listeners))
        return
    import uvloop

    uvloop.run(run.main(listeners))


class _Run:
    """One run of a fleet: built, up, changed, drained."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        file: Path | None,
        port: int | None,
        state: Path,
        store: "StoreEngine",
        weights: dict[str, Path | None],
        pretence: "Pretence | None",
        plan: "Planned | None" = None,
    ) -> None:
        self._fleet = fleet
        self._plan = plan
        self._pretence = pretence
        self._file = file.absolute() if file else None
        self._port = port
        self._state = state
        self._store = store
        self._weights = weights
        self._operator_token = secrets.token_urlsafe(32)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._applier: Applier | None = None
        self._changing: set[asyncio.Task[None]] = set()
        self._had_terminal = os.isatty(2)

    async def main(self, listeners: "Listeners") -> None:
        """Come up, serve until told to stop, go down in order."""
        from argosy.cli.gateways import Gateways, GatewayTerms
        from argosy.cli.run_file import remove_run_file, write_run_file
        from argosy.store.keys import mint, revoke_named

        self._listen_to_signals()
        revoke_named(self._store, UP_KEY_NAME, now_s=now_s())
        tenant = self._fleet.tenants[0]
        secret, key = mint(
            self._store, tenant=tenant.name, tier=tenant.tier, name=UP_KEY_NAME, now_s=now_s()
        )
        terms = GatewayTerms(
            state=self._state,
            operator_token=self._operator_token,
            up_key=key,
            say=_say,
            chance=random.Random(),
        )
        write_run_file(
            self._state,
            url=listeners.url,
            operator_token=self._operator_token,
            gateway=self._fleet.gateway,
        )
        try:
            gateways = Gateways(self._fleet, terms, listeners)
            await self._serve(gateways, listeners.url, key, secret)
        finally:
            remove_run_file(self._state)

    async def _serve(self, gateways: "Gateways", url: str, key: "Key", secret: str) -> None:
        from argosy.cli.control_plane import ControlPlane

        control = ControlPlane(
            self._fleet,
            file=self._file,
            port=self._port,
            state=self._state,
            store=self._store,
            weights=self._weights,
            gateways=gateways,
            publish=self._publisher(gateways),
            pretence=self._pretence,
            plan=self._plan,
        )
        self._applier = control.applier
        try:
            await control.start()
            if await self._until_ready(gateways, control.controller):
                await self._until_stopped(control, url, key, secret)
            await self._go_down(gateways, control)
        finally:
            await control.stop(0.0)
            await gateways.stop()
            await control.close()

    async def _until_stopped(
        self, control: "ControlPlane", url: str, key: "Key", secret: str
    ) -> None:
        # Imported while the gateway's first clients are served already.
        from argosy.cli.batching import Batching
        from argosy.cli.operator_socket import OperatorSocket
        from argosy.cli.tls import trusted_by_own
        from argosy.store.keys import KeyRing

        is_pretended = self._pretence is not None
        typer.echo(welcome(self._fleet, url=url, secret=secret, is_pretended=is_pretended))
        batching = Batching(self._store, KeyRing(self._store), up_key=key)
        operator = OperatorSocket(self._state, control.operator.handle)
        try:
            await operator.start()
            fleet = self._fleet if self._applier is None else self._applier.fleet
            tls = trusted_by_own(fleet.gateway)
            batching.start(url, operator_token=self._operator_token, tls=tls)
            await self._stop.wait()
        finally:
            operator.stop()
            await batching.stop()

    def _publisher(self, gateways: "Gateways") -> "Callable[[ReplicaTable], None]":
        from argosy.cli.progress import Progress

        progress = Progress(_say)

        def publish(table: ReplicaTable) -> None:
            gateways.publish(table)
            if not self._stop.is_set():  # that replicas end then is no news
                progress.show(table)

        return publish

    async def _until_ready(self, gateways: "Gateways", controller: "Controller") -> bool:
        """Until the gateway serves and the first replica is ready; False when told to stop before.

        Both come up at the same time. Exits with 1 when the gateway does not.
        """
        from argosy.cli.gateway_child import GatewayStartError
        from argosy.gateway.ledger_file import LedgerError

        serving = asyncio.create_task(gateways.start())
        ready = asyncio.create_task(controller.first_ready())
        stopped = asyncio.create_task(self._stop.wait())
        tasks: tuple[asyncio.Task[object], ...] = (serving, ready, stopped)
        try:
            await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
        except (GatewayStartError, LedgerError, OSError) as error:
            _exit(f"the gateway does not come up: {error}")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return not self._stop.is_set()

    async def _go_down(self, gateways: "Gateways", control: "ControlPlane") -> None:
        fleet = self._fleet if self._applier is None else self._applier.fleet
        await gateways.drain_unless(self._hurry, fleet.gateway.drain_s)
        if self._pretence is not None:
            self._pretence.end()
        await control.stop(_REPLICA_GRACE_S)
        _say("stopped")

    # Signals.

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_stop(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _on_hangup(self) -> None:
        """SIGHUP: the terminal was closed, or somebody wants the file read again."""
        if self._had_terminal and not os.isatty(2):
            self._on_stop()
        elif self._applier is not None:
            task = asyncio.create_task(self._apply(self._applier))
            self._changing.add(task)
            task.add_done_callback(self._changing.discard)

    async def _apply(self, applier: "Applier") -> None:
        from argosy.cli.operator_socket import Apply

        reply = await applier.apply(Apply())
        _say(reply.said if reply.done else f"nothing has changed: {reply.said}")


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _exit(message: str) -> NoReturn:
    typer.echo(f"argosy: {message}", err=True)
    raise typer.Exit(1)
