"""Islands of a run on Ray pools: what is checked, where each is put, and that none is left behind.

Wires `argosy.training.placing` to a run's folder. What is placed is on record there from before the
first start until all of it has ended, so that whoever comes next ends what a killed command left.
"""

import asyncio
import contextlib
import importlib.util
import ipaddress
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from argosy.cli.files import read_fleet
from argosy.cli.running import refuse
from argosy.cli.training_folder import KeptRun, RunFolder
from argosy.fleet.catalogue import chip
from argosy.fleet.launchers import RayLauncher
from argosy.fleet.runs import Run
from argosy.training.pools import PlacedPool, Placement

if TYPE_CHECKING:
    from argosy.cli.training_places import Place
    from argosy.training.placing import Clusters

_RECORD = "placed.json"


def ray_pools(fleet: Path) -> tuple[PlacedPool, ...]:
    """Those of a fleet file."""
    read = read_fleet(fleet)
    return tuple(
        PlacedPool(
            name=pool.name,
            fleet=read.fleet,
            launcher=pool.launcher,
            chip=pool.chip,
            maker=None if pool.chip is None else chip(pool.chip).maker,
        )
        for pool in read.pools
        if isinstance(pool.launcher, RayLauncher)
    )


def used_pools(
    run: Run, pools: tuple[PlacedPool, ...], *, elsewhere: tuple[str, ...]
) -> tuple[PlacedPool, ...]:
    """Those that islands are on. Exits with 1 where nothing can be started there."""
    from argosy.launchers.ray.resources import UnknownResourceError, resources_of

    names = {island.pool for island in run.islands if island.name not in elsewhere}
    used = tuple(pool for pool in pools if pool.name in names)
    if used and importlib.util.find_spec("ray") is None:
        refuse("islands on Ray pools take Ray, which is not installed: pip install ray==2.60.0")
    for pool in used:
        try:
            resources_of(pool.launcher, chip=pool.chip, maker=pool.maker)
        except UnknownResourceError as error:
            refuse(f"pool {pool.name}: {error}")
    return used


def syncer_host(pools: tuple[PlacedPool, ...], asked: str | None) -> str:
    """Where the syncer listens: on loopback, or as the clusters' nodes reach this host.

    Exits with 1 where that is not known.
    """
    hosts = [asked] if asked else sorted({_towards(pool.launcher.address) for pool in pools})
    if len(hosts) > 1:
        refuse(
            f"clusters reach this host by different addresses, {' and '.join(hosts)}, and the "
            "syncer listens on one. Name it: --syncer-host ADDRESS"
        )
    if not hosts:
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(hosts[0])
    except ValueError:
        refuse(f"--syncer-host {hosts[0]}: it is an address of this host, e.g. 10.0.3.2")
    if address.is_unspecified:
        refuse(f"--syncer-host {hosts[0]}: islands are told it, so it is one address of this host")
    if address.is_loopback and pools:
        typer.echo(
            f"the syncer listens on {hosts[0]}, which nodes on other hosts do not reach: for "
            "these say --syncer-host ADDRESS",
            err=True,
        )
    return hosts[0]


def _towards(address: str) -> str:
    """Our own address on the way there; nothing is sent."""
    host, _, port = address.rpartition(":")
    try:
        family, _, _, _, to = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(to)
            return str(probe.getsockname()[0])
    except OSError as error:
        return refuse(
            f"the Ray cluster at {address} cannot be found: {error.strerror}. Mend its address in "
            "the fleet file, or say --syncer-host ADDRESS"
        )


def placement_of(kept: KeptRun) -> Placement:
    """Of the islands that the command starts on pools."""
    return Placement(
        pools=kept.pools,
        islands={
            island.name: island.pool
            for island in kept.run.islands
            if island.pool is not None and island.name not in kept.elsewhere
        },
    )


def clusters_of(folder: RunFolder, placement: Placement) -> "Clusters":
    """To be used in one event loop. The run's credentials must be there."""
    from argosy.training.credentials import CA
    from argosy.training.placing import Clusters, fleet_of

    fleet = fleet_of(folder.name, (folder.credentials / CA).read_bytes())
    return Clusters(placement.pools, fleet=fleet, logs=folder.path / "logs")


def places_of(
    folder: RunFolder, kept: KeptRun, clusters: "Clusters", env: dict[str, dict[str, str]]
) -> "dict[str, Place]":
    """By island; `env` too."""
    from argosy.cli.training_island import spec_of
    from argosy.training.credentials import folder_of
    from argosy.training.placing import PlacedIsland

    islands = {island.name: island for island in kept.run.islands}
    return {
        name: PlacedIsland(
            clusters.pool(pool),
            islands[name],
            clusters.guests[pool],
            msgspec.json.encode(spec_of(folder, kept, name)),
            credentials=folder_of(folder.credentials, "island", name),
            env=env[name],
        )
        for name, pool in placement_of(kept).islands.items()
    }


async def begin_placing(folder: RunFolder, placement: Placement) -> None:
    """Put it on record. What another life of the run had placed otherwise is ended first."""
    before = _recorded(folder)
    if before is not None and before != placement:
        await _end(folder, before)
    if placement.islands:
        fresh = folder.path / f"{_RECORD}.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(placement))
        fresh.replace(folder.path / _RECORD)


async def end_placed(folder: RunFolder, clusters: "Clusters") -> None:
    """End what is left, and strike it off the record; says what could not be seen."""
    unseen = await clusters.end_all()
    for line in unseen:
        typer.echo(f"islands may run on, for 15 minutes at most: {line}", err=True)
    if not unseen:
        (folder.path / _RECORD).unlink(missing_ok=True)


def end_left(folder: RunFolder) -> None:
    """What a killed command left on pools, if it did. Nobody must keep the run."""
    before = _recorded(folder)
    if before is not None:
        asyncio.run(_end(folder, before))


async def _end(folder: RunFolder, placement: Placement) -> None:
    clusters = clusters_of(folder, placement)
    try:
        await end_placed(folder, clusters)
    finally:
        await clusters.close()


def _recorded(folder: RunFolder) -> Placement | None:
    with contextlib.suppress(FileNotFoundError):
        return msgspec.json.decode((folder.path / _RECORD).read_bytes(), type=Placement)
    return None
