"""`argosy gateway`: gateway processes without a control plane, which is on other hosts.

Keys and usage are in the store that all share; the replica table comes from whichever control plane
answers, and from the state folder until one does.
"""

import asyncio
import os
import random
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from argosy.cli.files import FleetFile, UnreadableFleetError, at_port, parse_fleet, read_fleet
from argosy.cli.running import (
    TlsOption,
    check_tls_urls,
    control_token,
    control_urls,
    refuse,
    tls_identity,
)
from argosy.cli.state import (
    UP_KEY_NAME,
    StateDir,
    StoreUrlOrNone,
    open_state_store,
)
from argosy.cli.upstream_keys import MissingKeyError, upstream_keys
from argosy.fleet.config import Fleet
from argosy.fleet.messages import Key, LiveKeys

if TYPE_CHECKING:
    from sqlalchemy import Engine as StoreEngine

    from argosy.cli.control_link import Cell, ControlLink
    from argosy.cli.gateways import Gateways
    from argosy.cli.listeners import Listeners
    from argosy.cli.signals import Stopping
    from argosy.cli.tls import Identity

_RUNNER_LEASE_S = 15.0  # of whoever sends the items of batches: one gateway of all
# Who owns the batches of no run of `argosy up`: nobody.
_NOBODY = Key(id="", sha256="", tenant="", tier="batch", name=UP_KEY_NAME, created_at_s=0.0)


def gateway(
    file: FleetFile = None,
    *,
    control: Annotated[
        str,
        typer.Option(metavar="URL[,URL]", help="All control planes of the fleet."),
    ],
    store: StoreUrlOrNone = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free one.")
    ] = None,
    tls: TlsOption = None,
    name: Annotated[
        str | None,
        typer.Option(help="Of this gateway, unlike all others; unset: the host's and the port."),
    ] = None,
    state: StateDir,
) -> None:
    """Run a gateway alone; any number on different hosts, with control planes elsewhere.

    Examples:
        argosy gateway fleet.yaml --control https://c1:8470,https://c2:8470 \
--tls /etc/argosy/tls --store postgresql://argosy@db/argosy

        argosy gateway fleet.yaml --control http://127.0.0.1:8470 --port 8080 --state /var/argosy

    """
    from argosy.cli.control_link import CellFile, KeysFile
    from argosy.cli.listeners import Listeners, in_words
    from argosy.launchers.local import reap_stale
    from argosy.launchers.lock import AlreadyRunningError, RunLock

    token, urls = control_token(), control_urls(control)
    identity = tls_identity(tls, listens=False)
    if identity is not None:
        check_tls_urls(urls)
    if name is not None and (not name.strip() or "/" in name):
        refuse(f"--name {name!r}: a name of this gateway, without a slash")
    own = at_port(read_fleet(file), port)
    lock = RunLock(state)
    try:
        upstream_keys(own)
        lock.acquire()
    except (MissingKeyError, AlreadyRunningError, OSError) as error:
        refuse(str(error))
    for line in reap_stale(state):
        _say(line)
    cell, keys = CellFile(state).read(), KeysFile(state).read()
    with open_state_store(state, store, is_needed=store is None or keys is None) as opened:
        try:
            listeners = Listeners(own.gateway)
        except OSError as error:
            refuse(
                f"cannot listen on {own.gateway.host}:{own.gateway.port}: {in_words(error)}. "
                "Stop what listens there, or take a free port: --port 0"
            )
        run = _Run(own, state=state, store=opened, store_url=store, cell=cell, identity=identity)
        run.know(keys)
        called = name or f"{socket.gethostname()}:{listeners.url.rpartition(':')[2]}"
        import uvloop

        uvloop.run(run.main(listeners, urls=urls, token=token, name=called))
    lock.release()


class _Run:
    """Built, up, drained."""

    def __init__(
        self,
        own: Fleet,
        *,
        state: Path,
        store: "StoreEngine",
        store_url: str | None,
        cell: "Cell | None",
        identity: "Identity | None",
    ) -> None:
        self._own = own  # as our file says: where to listen is told by it alone
        self._state = state
        self._store = store
        self._store_url = store_url
        self._cell = cell
        self._identity = identity
        self._operator_token = secrets.token_urlsafe(32)
        self._link: ControlLink | None = None
        self._keys: LiveKeys | None = None

    def know(self, keys: "LiveKeys | None") -> None:
        """What control planes told before it was started."""
        self._keys = keys

    async def main(self, listeners: "Listeners", *, urls: list[str], token: str, name: str) -> None:
        """Serve until told to stop, then let streams end."""
        from argosy.cli.control_link import CellFile, ControlLink, KeysFile
        from argosy.cli.gateways import Gateways, GatewayTerms
        from argosy.cli.run_file import remove_run_file, write_run_file
        from argosy.cli.signals import Stopping

        stopping = Stopping()
        self._fleet = self._beginning()
        terms = GatewayTerms(
            state=self._state,
            operator_token=self._operator_token,
            up_key=_NOBODY,
            say=_say,
            chance=random.Random(),
            store=self._store_url,
            table_age_s=lambda: None if self._link is None else self._link.table_age_s,
        )
        self._gateways = Gateways(self._fleet, terms, listeners)
        if self._cell is not None:
            self._gateways.publish(self._cell.table)
        if self._keys is not None:
            self._gateways.tell_keys(self._keys)
        self._link = ControlLink(
            self._gateways,
            urls,
            name=name,
            token=token,
            own_url=listeners.url,
            cell=self._cell,
            file=CellFile(self._state),
            keys_file=KeysFile(self._state),
            take_up=self._take_up,
            say=_say,
            identity=self._identity,
        )
        write_run_file(
            self._state,
            url=listeners.url,
            operator_token=self._operator_token,
            gateway=self._own.gateway,
        )
        try:
            await self._serve(self._gateways, self._link, stopping, f"{name} at {listeners.url}")
        finally:
            remove_run_file(self._state)
            await self._gateways.stop()

    async def _serve(
        self, gateways: "Gateways", link: "ControlLink", stopping: "Stopping", what: str
    ) -> None:
        from argosy.cli.gateway_child import GatewayStartError
        from argosy.gateway.ledger_file import LedgerError

        try:
            await gateways.start()
        except (GatewayStartError, LedgerError, OSError) as error:
            refuse(f"the gateway does not come up: {error}")
        link.start()
        known = len(gateways.table.replicas)
        since = "waits for a table" if self._cell is None else f"has a table of {known} replicas"
        _say(f"gateway {what} serves fleet {self._fleet.fleet}; {since}")
        batches = asyncio.create_task(self._run_batches(what.rpartition(" ")[2]))
        await stopping.stop.wait()
        batches.cancel()
        await asyncio.wait((batches,))
        await gateways.drain_unless(stopping.hurry, self._fleet.gateway.drain_s)
        await link.stop()
        _say("stopped")

    # The fleet file.

    def _beginning(self) -> Fleet:
        """What was applied last, as far as this gateway has heard; else our own file's."""
        if self._cell is None or self._cell.spec is None:
            return self._own
        try:
            return self._placed(self._cell.spec)
        except (UnreadableFleetError, MissingKeyError) as error:
            _say(f"the fleet file that was applied last cannot be used: {error}")
            return self._own

    def _placed(self, text: str) -> Fleet:
        """That fleet, listening where we do. Raises UnreadableFleetError, MissingKeyError."""
        fleet, own = parse_fleet(text, source="the applied fleet file"), self._own.gateway
        upstream_keys(fleet)
        where = replace(
            fleet.gateway, host=own.host, port=own.port, processes=own.processes, tls=own.tls
        )
        return replace(fleet, gateway=where)

    async def _take_up(self, text: str) -> str | None:
        from argosy.cli.gateway_child import GatewayStartError
        from argosy.gateway.ledger_file import LedgerError

        try:
            fleet = self._placed(text)
            if fleet != self._fleet:
                await self._gateways.replace(fleet)
                _say("the fleet file that was applied is served")
        except (
            UnreadableFleetError, MissingKeyError, GatewayStartError, LedgerError, OSError,
        ) as error:  # fmt: skip
            return str(error)
        self._fleet = fleet
        return None

    # Batches: the gateway that has their lease sends their items, to itself.

    async def _run_batches(self, url: str) -> None:
        from argosy.cli.batching import Batching
        from argosy.cli.control_plane import awake_s
        from argosy.cli.tls import trusted_by_own
        from argosy.control.leading import Leading, holder_of
        from argosy.store.errors import StoreError
        from argosy.store.keys import KeyRing

        holder = holder_of(url, host=socket.gethostname(), pid=os.getpid())
        leading = Leading(
            self._store,
            f"{self._own.fleet}/batches",
            str(holder),
            clock_s=awake_s,
            ttl_s=_RUNNER_LEASE_S,
        )
        try:
            while True:
                await leading.lead()
                try:
                    ring = await asyncio.to_thread(KeyRing, self._store)
                    batching = Batching(self._store, ring, up_key=_NOBODY)
                except StoreError as error:
                    _say(f"batches wait: {error}")
                    await leading.resign()
                    await asyncio.sleep(_RUNNER_LEASE_S)
                    continue
                try:
                    tls = trusted_by_own(self._own.gateway)
                    batching.start(url, operator_token=self._operator_token, tls=tls)
                    await leading.lost()
                finally:
                    await batching.stop()
        finally:
            await leading.resign()
            leading.close()


def _say(line: str) -> None:
    typer.echo(line, err=True)
