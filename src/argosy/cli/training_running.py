"""A run while a command keeps it: its processes, the page, Ctrl-C.

Owns what is started with which command line, and how the end is told. The processes are kept by
`training_supervisor.py`; the figures come from the ledger, read in a thread.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import msgspec
import typer

from argosy.cli.signals import Stopping
from argosy.cli.state import now_s
from argosy.cli.training_folder import KeptRun, RunFolder
from argosy.cli.training_page import duration, json_line, number, page, plain_line, rate
from argosy.cli.training_picture import Picture, picture
from argosy.cli.training_placing import (
    begin_placing,
    clusters_of,
    end_placed,
    placement_of,
    places_of,
)
from argosy.cli.training_renewing import keep_renewed
from argosy.cli.training_supervisor import Child, ChildState, End, Supervisor
from argosy.fleet.messages import Command

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from argosy.cli.training_places import Place

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_REFRESH_S = 1.0
_PLAIN_S = 10.0
_ISLAND = "island-"  # before its name, for the syncer's could be an island's too


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown while it trains."""

    is_page: bool  # on a terminal
    is_json: bool  # a line a second to stdout


def keep_running(folder: RunFolder, kept: KeptRun, engine: "Engine", watch: Watch) -> End:
    """Until the run is finished, was stopped, or cannot go on; how it ended is told on stderr."""
    return asyncio.run(_keep(folder, kept, engine, watch))


def children_of(
    folder: RunFolder, kept: KeptRun, places: "Mapping[str, Place]"
) -> tuple[Child, list[Child]]:
    """The syncer and the islands: processes of this machine, but those that have a place."""
    where = ("--state", str(folder.state), "--run", folder.name)
    syncer = Child(name="syncer", command=_command("training_syncer", *where, on=1))
    islands = [
        Child(
            name=f"{_ISLAND}{island.name}",
            place=places.get(island.name),
            command=_command("training_island", *where, "--island", island.name, on=island.threads),
        )
        for island in kept.run.islands
        if island.name not in kept.elsewhere
    ]
    return syncer, islands


def _command(module: str, *arguments: str, on: int | None = None) -> Command:
    """`on`: so many threads of arithmetic; None: as many as the libraries like."""
    argv = (sys.executable, "-m", f"argosy.cli.{module}", *arguments)
    return Command(argv=argv, env=threads_env(on))


def threads_env(threads: int | None) -> dict[str, str]:
    """What libraries of arithmetic read when they are loaded."""
    return {} if threads is None else {name: str(threads) for name in _THREADS}


async def _keep(folder: RunFolder, kept: KeptRun, engine: "Engine", watch: Watch) -> End:
    placement = placement_of(kept)
    await begin_placing(folder, placement)
    if not placement.islands:
        return await _keep_children(folder, kept, {}, engine, watch)
    clusters = clusters_of(folder, placement)
    env = {island.name: threads_env(island.threads) for island in kept.run.islands}
    try:
        places = places_of(folder, kept, clusters, env)
        return await _keep_children(folder, kept, places, engine, watch)
    finally:
        await end_placed(folder, clusters)
        await clusters.close()


async def _keep_children(
    folder: RunFolder,
    kept: KeptRun,
    places: "Mapping[str, Place]",
    engine: "Engine",
    watch: Watch,
) -> End:
    from argosy.store.runs import set_wanted

    stopping = Stopping()
    syncer, islands = children_of(folder, kept, places)
    supervisor = Supervisor(syncer, islands, folder=folder.path, say=_say)
    running = asyncio.create_task(supervisor.run())
    watcher = asyncio.create_task(_watch(engine, kept, supervisor, watch))
    renewing = asyncio.create_task(keep_renewed(folder, kept, _say))
    try:
        if await stopping.or_stopped(running):
            _say("stopping: islands leave at their next step (Ctrl-C again: at once)")
            await asyncio.to_thread(set_wanted, engine, kept.run.run, "stopped")
            supervisor.stop.set()
            if await _hurried(stopping, running):
                await supervisor.kill()
        end = await running
    finally:
        renewing.cancel()
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
    seen = await asyncio.to_thread(_picture, engine, kept)
    if seen.state == "finished":  # the ledger knows, whatever ended first here
        end = "finished"
    elif end == "finished":  # `argosy runs stop`, from elsewhere
        end = "stopped"
    _say_end(end, kept, seen)
    return end


async def _hurried(stopping: Stopping, running: "asyncio.Task[End]") -> bool:
    hurry = asyncio.create_task(stopping.hurry.wait())
    await asyncio.wait((hurry, running), return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    return not running.done()


def _picture(engine: "Engine", kept: KeptRun) -> Picture:
    return picture(engine, kept.run, is_kept=True, now_s=now_s())


async def _watch(engine: "Engine", kept: KeptRun, supervisor: Supervisor, watch: Watch) -> None:
    if not watch.is_page:
        await _watch_plainly(engine, kept, watch)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    with Live(console=console, auto_refresh=False, redirect_stderr=True) as live:
        async for seen in _pictures(engine, kept):
            names = [_of_island(child) for child in supervisor.children]
            live.update(page(seen, names), refresh=True)
            if watch.is_json:
                typer.echo(json_line(seen))


async def _watch_plainly(engine: "Engine", kept: KeptRun, watch: Watch) -> None:
    told_s, version = -_PLAIN_S, None
    async for seen in _pictures(engine, kept):
        if watch.is_json:
            typer.echo(json_line(seen))
        at_s = asyncio.get_running_loop().time()
        if at_s - told_s >= _PLAIN_S or (version is None and seen.version is not None):
            told_s, version = at_s, seen.version
            _say(plain_line(seen))


async def _pictures(engine: "Engine", kept: KeptRun) -> AsyncIterator[Picture]:
    from argosy.store.errors import StoreError

    while True:
        with contextlib.suppress(StoreError):  # it is locked for a moment: the next one tells
            yield await asyncio.to_thread(_picture, engine, kept)
        await asyncio.sleep(_REFRESH_S)


def _of_island(child: ChildState) -> ChildState:
    return msgspec.structs.replace(child, name=child.name.removeprefix(_ISLAND))


def _say_end(end: End, kept: KeptRun, seen: Picture) -> None:
    name = kept.run.run
    _say(
        f"{name}: {seen.tokens_done:,} of {seen.tokens:,} tokens in {duration(seen.lasted_s)}, "
        f"round {seen.version or 0}, loss {number(seen.loss)}, validation "
        f"{number(seen.loss_validation)}, {rate(seen.tokens_done / max(1.0, seen.lasted_s))}"
    )
    match end:
        case "finished":
            _say(f"finished. Make a model of it: argosy runs export {name} --out DIR --gguf")
        case "stopped":
            _say(f"stopped; what was counted is kept. Go on: argosy runs resume {name}")
        case "refused" | "gave_up":
            _say(f"cannot go on as it is; nothing is lost. Then: argosy runs resume {name}")


def _say(line: str) -> None:
    typer.echo(line, err=True)
