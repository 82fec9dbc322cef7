"""`argosy control`: a control plane without a gateway, one of several on different hosts.

One leads, by the lease in their store; the others stand by with everything loaded. All of them
serve the control API. Everything that may refuse is asked before anything starts.
"""

import asyncio
import logging
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from argosy.cli.files import (
    FleetFile,
    UnreadableFleetError,
    check_startable,
    load_fleet,
    parse_fleet,
)
from argosy.cli.renting import check_tokens, rents
from argosy.cli.running import TlsOption, control_token, refuse, tls_identity
from argosy.cli.state import StateDir, StoreUrl, open_state_store
from argosy.cli.upstream_keys import MissingKeyError, upstream_keys
from argosy.fleet.config import Fleet
from argosy.fleet.launchers import LocalLauncher

if TYPE_CHECKING:
    from sqlalchemy import Engine as StoreEngine

    from argosy.cli.control_desk import ControlDesk
    from argosy.cli.control_plane import ControlPlane
    from argosy.cli.tls import Identity
    from argosy.control.leading import Leading
    from argosy.store.leases import Lease

logger = logging.getLogger(__name__)
_LISTEN = "127.0.0.1:8470"


def control(
    file: FleetFile = None,
    *,
    store: StoreUrl,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the control API listens; port 0: any.")
    ] = _LISTEN,
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where others find it; unset: the host's name and the port."
        ),
    ] = None,
    tls: TlsOption = None,
    is_clear: Annotated[
        bool,
        typer.Option(
            "--clear-text", help="Without TLS on an address that other hosts reach, token and all."
        ),
    ] = False,
    state: StateDir,
    lease_s: Annotated[
        float, typer.Option("--lease", min=0.5, help="Seconds that a silent leader leads on.")
    ] = 5.0,
    are_local_allowed: Annotated[
        bool, typer.Option("--allow-local", help="Local pools too: for tests on one host.")
    ] = False,
) -> None:
    """Run a control plane; any number on different hosts, of which one leads.

    Examples:
        ARGOSY_CONTROL_TOKEN=... argosy control fleet.yaml --store postgresql://argosy@db/argosy

        argosy control fleet.yaml --store postgresql://argosy@db/argosy --listen 0.0.0.0:8470 \
--tls /etc/argosy/tls

    """
    token = control_token()
    try:
        text, fleet = _read(file)
        _check(fleet, are_local_allowed=are_local_allowed)
        check_tokens(fleet)
    except (UnreadableFleetError, MissingKeyError) as error:
        refuse(str(error))
    for line in rents(fleet):
        _say(line)
    identity = tls_identity(tls, listens=True)
    listener, url = _bound(
        listen,
        advertise,
        scheme="http" if identity is None else "https",
        is_open=is_clear or identity is not None,
    )
    state.mkdir(parents=True, exist_ok=True)
    with closing(listener), open_state_store(state, store) as opened:
        run = _Run(fleet, text, state=state, store=opened, url=url, lease_s=lease_s)
        run.identity = identity
        run.are_local_allowed = are_local_allowed
        import uvloop

        uvloop.run(run.main(listener, token))


class _Run:
    """From the start until it is told to stop: following, or leading."""

    def __init__(
        self,
        fleet: Fleet,
        text: str,
        *,
        state: Path,
        store: "StoreEngine",
        url: str,
        lease_s: float,
    ) -> None:
        self._fleet = fleet
        self._text = text
        self._state = state
        self._store = store
        self._url = url
        self._lease_s = lease_s
        self.are_local_allowed = False
        self.identity: Identity | None = None  # None: in the clear

    async def main(self, listener: socket.socket, token: str) -> None:
        """Returns when it has been told to stop, and another may lead."""
        # All that a leader needs is imported by those that follow: then they lead at once.
        from argosy.cli.control_desk import ControlDesk
        from argosy.cli.control_plane import awake_s
        from argosy.cli.fetch import weights_of
        from argosy.cli.signals import Stopping
        from argosy.control.api import Api
        from argosy.control.leading import Leading, holder_of

        self._stopping = Stopping()
        await asyncio.to_thread(weights_of, self._fleet)
        holder = holder_of(self._url, host=socket.gethostname(), pid=os.getpid())
        leading = Leading(
            self._store, self._fleet.fleet, str(holder), clock_s=awake_s, ttl_s=self._lease_s
        )
        tls = self.identity
        desk = ControlDesk(
            self._store, self._fleet, leading, url=self._url, token=token, identity=tls
        )
        api = Api(desk, listener, token=token, tls=None if tls is None else tls.server)
        api.start()
        desk.start()
        refreshing = None if tls is None else asyncio.create_task(tls.refresh_forever())
        _say(f"control plane of fleet {self._fleet.fleet} at {self._url}; Ctrl-C ends it")
        try:
            await self._take_turns(leading, desk)
        finally:
            if refreshing is not None:
                refreshing.cancel()
            await desk.stop()
            await api.stop()
            await leading.resign()
            leading.close()
        _say("stopped; replicas run on")

    async def _take_turns(self, leading: "Leading", desk: "ControlDesk") -> None:
        while not self._stopping.stop.is_set():
            leads = asyncio.create_task(leading.lead())
            await self._stopping.or_stopped(leads)
            if not leads.done():
                leads.cancel()
                await asyncio.wait((leads,))
                return
            await self._lead(leads.result(), leading, desk)

    async def _lead(self, lease: "Lease", leading: "Leading", desk: "ControlDesk") -> None:
        from argosy.cli.wanted import LauncherChangedError
        from argosy.engines.weights import WeightsError
        from argosy.store.errors import FencedError, StoreError

        loop = asyncio.get_running_loop()
        began_s, control, why = loop.time(), None, "it was told to stop"
        try:
            control = await self._built(lease, leading, desk)
            await control.start()
            desk.leads(control)
            count = len(control.controller.records)
            _say(
                f"leads fleet {leading.fleet} with token {lease.token}, "
                f"{loop.time() - began_s:.2f} s after the lease was taken; replicas: {count}"
            )
            lost = asyncio.create_task(leading.lost())
            if not await self._stopping.or_stopped(lost):
                why = lost.result()
            lost.cancel()
        except (
            StoreError, FencedError, UnreadableFleetError, MissingKeyError, WeightsError,
            LauncherChangedError, OSError,
        ) as error:  # fmt: skip
            why = str(error)
        finally:
            desk.follows()
            if control is not None:
                await _ended(control)
            await leading.resign()
        _say(f"leads no more: {why}")
        if control is None:  # another one may be able to
            await asyncio.sleep(self._lease_s)

    async def _built(
        self, lease: "Lease", leading: "Leading", desk: "ControlDesk"
    ) -> "ControlPlane":
        """With the fleet file that holds: the one that was applied last, or else our own."""
        from argosy.cli.control_plane import ControlPlane
        from argosy.cli.fetch import weights_of
        from argosy.store.control import Fenced

        fenced = Fenced(self._store, leading.fleet, lease.token)
        applied = await asyncio.to_thread(fenced.spec)
        fleet, text = self._fleet, self._text
        if applied is None:
            await asyncio.to_thread(fenced.put_spec, text, by=leading.holder)
        elif applied.text != text:
            _say(
                f"the fleet file that holds is revision {applied.revision}, not the one given "
                "here; to change it: argosy apply FLEET.YAML --control URL"
            )
            fleet, text = parse_fleet(applied.text, source="the store"), applied.text
            _check(fleet, are_local_allowed=self.are_local_allowed)
        desk.publication.offer_spec(text)
        return ControlPlane(
            fleet,
            file=None,
            port=None,
            state=self._state,
            store=self._store,
            weights=await asyncio.to_thread(weights_of, fleet),
            gateways=desk.audience,
            publish=desk.publication.offer,
            leading=leading,
        )


async def _ended(control: "ControlPlane") -> None:
    """Replicas run on. Whatever a pool says to it, another one can lead."""
    try:
        await control.stop(0.0, is_final=False)
    except Exception:
        logger.exception("A pool could not be let go of")
    await control.close()


def _read(file: Path | None) -> tuple[str, Fleet]:
    """Raises UnreadableFleetError."""
    from argosy.fleet import load

    fleet = load_fleet(file)
    return (load.embedded() if file is None else file.read_text("utf-8")), fleet


def _check(fleet: Fleet, *, are_local_allowed: bool) -> None:
    """Raises UnreadableFleetError, MissingKeyError."""
    check_startable(fleet)
    upstream_keys(fleet)
    local = [pool.name for pool in fleet.pools if isinstance(pool.launcher, LocalLauncher)]
    if local and not are_local_allowed:
        raise UnreadableFleetError(
            f"fleet {fleet.fleet} has local pools ({', '.join(local)}), whose replicas die with "
            "the control plane that started them. Give these pools launcher ray, kubernetes, "
            "skypilot or endpoint; or run all of it on this machine: argosy up. "
            "(--allow-local: for tests.)"
        )


def _check_clear(listen: str, host: str) -> None:
    """Exits with 1 where the token would cross a network for all to read."""
    from argosy.fleet.rules import is_loopback

    if not is_loopback(host):
        refuse(
            f"--listen {listen} is reached by other hosts, and would speak to them in the clear, "
            "the token too. Give it certificates: --tls DIR; or listen on 127.0.0.1 behind what "
            "speaks TLS; or, in a network that nobody else reads: --clear-text"
        )


def _bound(
    listen: str, advertise: str | None, *, scheme: str, is_open: bool
) -> tuple[socket.socket, str]:
    """The listening socket and the URL. Exits with 1 where there is none."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        refuse(f"--listen {listen}: it is HOST:PORT, e.g. 0.0.0.0:8470")
    if advertise is not None and urlsplit(advertise).scheme not in ("http", "https"):
        refuse(f"--advertise {advertise}: it is a URL, e.g. http://control-1.example:8470")
    host = host.strip("[]")
    if not is_open:
        _check_clear(listen, host)
    try:
        listener = socket.create_server(
            (host, int(port)),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=256,
        )
    except (OSError, OverflowError) as error:
        refuse(f"cannot listen on {listen}: {error}. Name another: --listen HOST:PORT")
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    name = f"[{name}]" if ":" in name else name
    url = advertise or f"{scheme}://{name}:{listener.getsockname()[1]}"
    return listener, url.rstrip("/")


def _say(line: str) -> None:
    typer.echo(line, err=True)
