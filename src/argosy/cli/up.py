"""`argosy up`: a fleet on this machine, from the fleet file to a drained stop.

Wires the rooms: store -> gateway (keys in, usage out), control plane -> gateway (the replica
table). Everything that may refuse is asked before anything starts.
"""

import asyncio
import contextlib
import os
import random
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec
import typer

from argosy.cli.fetch import local_weights
from argosy.cli.files import FleetFile, read_fleet
from argosy.cli.state import UP_KEY_NAME, StateDir, now_s, open_state_store
from argosy.cli.welcome import welcome
from argosy.fleet.config import EndpointLauncher, Fleet
from argosy.fleet.messages import Replica, ReplicaState, ReplicaTable, RunFile

if TYPE_CHECKING:
    from sqlalchemy import Engine as StoreEngine

    from argosy.control.supervisor import Supervisor
    from argosy.gateway.server import Gateway
    from argosy.store.keys import KeyRing
    from argosy.store.usage import UsageWriter

_KEYS_REFRESH_S = 0.25  # a revoked key is refused within a second
_REPLICA_GRACE_S = 3.0


def up(
    file: FleetFile = None,
    *,
    state: StateDir,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The gateway's port; 0 takes a free one.")
    ] = None,
) -> None:
    """Start a fleet and its gateway; Ctrl-C drains and stops it.

    Examples:
        argosy up

        argosy up examples/simulated.yaml --port 8080

    """
    from argosy.launchers.local import reap_stale
    from argosy.launchers.lock import AlreadyRunningError, RunLock

    fleet = read_fleet(file)
    if port is not None:
        fleet = msgspec.structs.replace(
            fleet, gateway=msgspec.structs.replace(fleet.gateway, port=port)
        )
    upstream_keys = _upstream_keys(fleet)
    lock = RunLock(state)
    try:
        lock.acquire()
    except (AlreadyRunningError, OSError) as error:
        _exit(str(error))
    for line in reap_stale(state):
        _say(line)
    weights = local_weights(fleet)
    with open_state_store(state) as store:
        run = _Run(fleet, state=state, store=store, weights=weights, upstream_keys=upstream_keys)
        _loop_runner(run)
    lock.release()


def _loop_runner(run: "_Run") -> None:
    if sys.platform == "win32":
        asyncio.run(run.main())
        return
    import uvloop

    uvloop.run(run.main())


class _Run:
    """One run of a fleet: built, up, drained."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        state: Path,
        store: "StoreEngine",
        weights: dict[str, Path | None],
        upstream_keys: dict[str, str],
    ) -> None:
        self._fleet = fleet
        self._state = state
        self._store = store
        self._weights = weights
        self._upstream_keys = upstream_keys
        self._operator_token = secrets.token_urlsafe(32)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def main(self) -> None:
        """Come up, serve until told to stop, go down in order."""
        from argosy.store.keys import KeyRing, mint, revoke_named
        from argosy.store.usage import UsageWriter

        self._listen_to_signals()
        revoke_named(self._store, UP_KEY_NAME, now_s=now_s())
        tenant = self._fleet.tenants[0]
        secret, _ = mint(
            self._store, tenant=tenant.name, tier=tenant.tier, name=UP_KEY_NAME, now_s=now_s()
        )
        ring = KeyRing(self._store)
        usage = UsageWriter(self._store)
        try:
            await self._serve(ring, usage, secret)
        finally:
            usage.close()
            self._run_file.unlink(missing_ok=True)

    async def _serve(self, ring: "KeyRing", usage: "UsageWriter", secret: str) -> None:
        gateway = self._build_gateway(ring, usage)
        try:
            url = await gateway.start()
        except OSError as error:
            settings = self._fleet.gateway
            _exit(
                f"cannot listen on {settings.host}:{settings.port}: {_in_words(error)}. "
                "Stop what listens there, or take a free port: --port 0"
            )
        self._write_run_file(url)
        supervisor = self._build_supervisor(gateway)
        refreshing = asyncio.create_task(_refresh_forever(ring))
        try:
            await supervisor.start()
            if await self._until_ready(supervisor):
                typer.echo(welcome(self._fleet, url=url, secret=secret))
                await self._stop.wait()
            await self._go_down(gateway, supervisor)
        finally:
            refreshing.cancel()
            await supervisor.stop(0.0)
            await gateway.stop()

    def _build_gateway(self, ring: "KeyRing", usage: "UsageWriter") -> "Gateway":
        from argosy.gateway.server import Gateway, Wiring

        wiring = Wiring(
            find_key=ring.find,
            record=usage.write,
            usage_unwritten=lambda: usage.unwritten,
            usage_is_overloaded=lambda: usage.is_overloaded,
            unix_time_s=now_s,
            operator_token=self._operator_token,
            upstream_keys=self._upstream_keys,
            chance=random.Random(),
        )
        return Gateway(self._fleet, wiring)

    def _build_supervisor(self, gateway: "Gateway") -> "Supervisor":
        from argosy.control.plan import plan_replicas
        from argosy.control.probe import HttpProber
        from argosy.control.supervisor import Supervisor
        from argosy.launchers.endpoint import EndpointPool
        from argosy.launchers.local import LocalProcesses

        local = LocalProcesses(self._state)
        progress = _Progress()

        def publish(table: ReplicaTable) -> None:
            gateway.replace_table(table)
            if not self._stop.is_set():  # that replicas end then is no news
                progress.show(table)

        return Supervisor(
            plan_replicas(self._fleet, weights=self._weights, threads=threads_each(self._fleet)),
            launchers={
                pool.name: EndpointPool(pool.launcher.url)
                if isinstance(pool.launcher, EndpointLauncher)
                else local
                for pool in self._fleet.pools
            },
            prober=HttpProber(keys=self._upstream_keys),
            publish=publish,
            chance=random.Random(),
        )

    async def _until_ready(self, supervisor: "Supervisor") -> bool:
        """Until the first replica is ready; False when told to stop before."""
        ready = asyncio.create_task(supervisor.first_ready())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in (ready, stopped):
            task.cancel()
        return not self._stop.is_set()

    async def _go_down(self, gateway: "Gateway", supervisor: "Supervisor") -> None:
        _say("draining: streams may end, new requests are refused; Ctrl-C again to stop now")
        draining = asyncio.create_task(gateway.drain(self._fleet.gateway.drain_s))
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not draining.done():
            draining.cancel()
            await gateway.drain(0.0)
        await supervisor.stop(_REPLICA_GRACE_S)
        _say("stopped")

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    @property
    def _run_file(self) -> Path:
        return self._state / "run.json"

    def _write_run_file(self, url: str) -> None:
        import psutil

        run = RunFile(
            pid=os.getpid(),
            started_at_s=psutil.Process().create_time(),
            gateway_url=url,
            operator_token=self._operator_token,
        )
        fresh = self._run_file.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(run))
        fresh.replace(self._run_file)


class _Progress:
    """Says on stderr what each replica has come to, once per change."""

    def __init__(self) -> None:
        self._states: dict[str, ReplicaState] = {}
        self._failing: set[str] = set()  # those that died and were not ready since

    def show(self, table: ReplicaTable) -> None:
        """One line for each replica whose state is new; a first death with all of its reason."""
        for replica in table.replicas:
            if self._states.get(replica.name) != replica.state:
                self._states[replica.name] = replica.state
                _say(f"{replica.name}  {replica.state}{self._why(replica)}")

    def _why(self, replica: Replica) -> str:
        match replica.state:
            case "ready":
                self._failing.discard(replica.name)
            case "suspect":
                return f"  ({replica.reason})"
            case "dead":
                is_again = replica.name in self._failing
                self._failing.add(replica.name)
                # Its last line says when it is tried again; what it said before was said once.
                reason = replica.reason.splitlines()[-1] if is_again else replica.reason
                return f"  ({'again; ' if is_again else ''}{reason})"
        return ""


def threads_each(fleet: Fleet) -> dict[str, int]:
    """Threads of one replica, by deployment: all cores but one, shared out, at least one each."""
    ours = [
        deployment
        for deployment in fleet.deployments
        if not isinstance(fleet.pool(deployment.pool).launcher, EndpointLauncher)
    ]
    replicas = sum(deployment.replicas for deployment in ours) or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    each = max(1, ((cores or 2) - 1) // replicas)
    return {deployment.name: each for deployment in fleet.deployments}


def _upstream_keys(fleet: Fleet) -> dict[str, str]:
    """The endpoints' own keys, from the environment. Exits with 1 where one is missing."""
    keys: dict[str, str] = {}
    for pool in fleet.pools:
        name = pool.launcher.key_env if isinstance(pool.launcher, EndpointLauncher) else None
        if name is None:
            continue
        if not os.environ.get(name):
            _exit(f"pool {pool.name} wants its key in the environment variable {name}: it is unset")
        keys[pool.name] = os.environ[name]
    return keys


async def _refresh_forever(ring: "KeyRing") -> None:
    from argosy.store.schema import StoreError

    while True:
        await asyncio.sleep(_KEYS_REFRESH_S)
        with contextlib.suppress(StoreError):  # the keys known so far go on; usage tells of trouble
            await asyncio.to_thread(ring.refresh)


def _in_words(error: OSError) -> str:
    """The system's own words: event loops add theirs."""
    return os.strerror(error.errno) if error.errno else str(error)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _exit(message: str) -> NoReturn:
    typer.echo(f"argosy: {message}", err=True)
    raise typer.Exit(1)
