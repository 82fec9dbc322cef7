"""`argosy runs`: training runs that there are, what became of them, and what to do with them.

All but `resume` read the store and the run's folder: they tell as much of a dead run as of a live
one.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from argosy.cli.files import read_run
from argosy.cli.running import refuse
from argosy.cli.state import StateDir, now_s, open_state_store
from argosy.cli.tables import plain_console, print_table
from argosy.cli.train import (
    AsJson,
    Elsewhere,
    FleetOption,
    SyncerHost,
    SyncerPort,
    Watched,
    checked_elsewhere,
    keep,
)
from argosy.cli.training_folder import KeptRun, RunFolder, RunFolderError, absolute, names_in

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from argosy.fleet.runs import Run
    from argosy.store.runs import RunRecord

runs = typer.Typer(
    name="runs",
    no_args_is_help=True,
    help="Training runs: look at them, stop them, go on with them, make models of them.\n\n"
    "Try:\n\n"
    "  argosy runs list\n\n"
    "  argosy runs export two-islands --out models/two-islands --gguf",
)

RunName = Annotated[str, typer.Argument(metavar="NAME", help="The run's name.")]
_POLL_S = 0.3
# What a run cannot change and stay the same run: its parameters, its text, its order.
_FIXED = ("model", "tokens", "context_tokens", "batch_blocks", "optimizer", "seed")


class ListedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `argosy runs list`."""

    run: str
    state: str
    share_done: float
    tokens: int
    version: int | None
    islands: int
    created_at_s: float  # Unix time


@runs.command("list")
def list_(
    *,
    state: StateDir,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List all runs, oldest first.

    Examples:
        argosy runs list

        argosy runs list --json

    """
    from argosy.store.runs import list_runs

    with open_state_store(state) as store:
        listed = [_listed(state, record) for record in list_runs(store)]
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(listed), indent=2))
        return
    if not listed:
        typer.echo("no run yet. Begin one: argosy train examples/two-islands.yaml", err=True)
        return
    headings = ("RUN", "STATE", "DONE", "TOKENS", "ROUNDS", "ISLANDS", "MADE")
    print_table(headings, [_row(one) for one in listed])


@runs.command()
def show(
    name: RunName,
    *,
    state: StateDir,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show a run: loss, tokens, islands, bytes, refused deltas with their reasons.

    Examples:
        argosy runs show two-islands

        argosy runs show two-islands --watch

    """
    from argosy.cli.training_page import json_line, page, print_page
    from argosy.cli.training_picture import Picture, picture

    folder = RunFolder(state, name)
    with open_state_store(state) as store:
        run = _run_of(folder, _known(store, name))

        def look() -> Picture:
            return picture(store, run, is_kept=folder.is_kept(), now_s=now_s())

        if as_json:
            _print_again(lambda: typer.echo(json_line(look())), watch=watch)
        elif not watch:
            print_page(look(), plain_console())
        else:
            from rich.live import Live

            with Live(page(look()), console=plain_console(), auto_refresh=False) as live:
                _print_again(lambda: live.update(page(look()), refresh=True), watch=True)


@runs.command()
def stop(
    name: RunName,
    *,
    state: StateDir,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds at most.")] = 60.0,
) -> None:
    """Stop a run so that it can go on: islands send the deltas they have, and leave.

    Examples:
        argosy runs stop two-islands

        argosy runs stop two-islands --wait 0

    """
    from argosy.cli.training_placing import end_left
    from argosy.store.runs import set_wanted

    folder = RunFolder(state, name)
    with open_state_store(state) as store:
        _refuse_finished(_known(store, name))
        set_wanted(store, name, "stopped")
    until_s = now_s() + wait_s
    while folder.is_kept():
        if now_s() >= until_s:
            if wait_s:
                refuse(f"run {name} was told to stop and has not yet; see argosy runs show {name}")
            break
        time.sleep(_POLL_S)
    if not folder.is_kept():
        end_left(folder)
    typer.echo(f"{name} is stopped. Go on: argosy runs resume {name}", err=True)


@runs.command()
def resume(
    name: RunName,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN.YAML]", help="Other islands, or other terms between them."),
    ] = None,
    *,
    state: StateDir,
    watch: Watched = None,
    as_json: AsJson = False,
    syncer_port: SyncerPort = None,
    syncer_host: SyncerHost = None,
    fleet: FleetOption = None,
    elsewhere: Elsewhere = None,
) -> None:
    """Go on with a run that was stopped or cut off; with other islands, if a file says so.

    Examples:
        argosy runs resume two-islands

        argosy runs resume two-islands examples/two-islands.yaml

    """
    from argosy.cli.training_checks import check_installed, checked_pools, open_data
    from argosy.cli.training_placing import syncer_host as host_of

    folder = RunFolder(state, name)
    try:
        kept = folder.read()
        with open_state_store(state) as store:
            _refuse_finished(_known(store, name))
        if file is not None:
            kept = msgspec.structs.replace(kept, run=_changed(kept.run, read_run(file), file))
        away = checked_elsewhere(kept.run, elsewhere or [])
        kept = msgspec.structs.replace(kept, elsewhere=away)
        if syncer_port is not None:
            kept = msgspec.structs.replace(kept, syncer_port=syncer_port)
        check_installed(needs_torch=kept.inner == "torch")
        pools = checked_pools(kept.run, fleet=fleet, known=kept.pools, elsewhere=away)
        if syncer_host is not None or (pools and not kept.pools):
            kept = msgspec.structs.replace(kept, syncer_host=host_of(pools, syncer_host))
        kept = msgspec.structs.replace(kept, pools=pools)
        if kept.inner == "torch":
            open_data(kept.run)
        folder.lock()
        folder.write(kept)
        folder.unlock()
    except RunFolderError as error:
        refuse(str(error))
    raise typer.Exit(keep(folder, watch=watch, as_json=as_json))


@runs.command()
def export(
    name: RunName,
    *,
    state: StateDir,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A folder that does not exist yet.")
    ],
    is_gguf: Annotated[
        bool, typer.Option("--gguf", help="A GGUF file in it too, which llama.cpp serves.")
    ] = False,
    dtype: Annotated[
        Literal["f32", "f16", "bf16"], typer.Option("--dtype", help="Of the GGUF file's values.")
    ] = "f16",
) -> None:
    """Write a run's parameters as a model that vLLM, transformers and llama.cpp load.

    Examples:
        argosy runs export two-islands --out models/two-islands --gguf

        argosy runs export two-islands --out models/for-vllm

    """
    from argosy.cli.training_export import export_run

    folder = RunFolder(state, name)
    kept = _kept(folder)
    with open_state_store(state) as store:
        done = export_run(folder, kept, store, out=out, dtype=dtype if is_gguf else None)
    typer.echo(
        f"{done.folder}: {done.parameters / 1e6:.1f} million parameters at round {done.version}, "
        "for vLLM and transformers"
    )
    if done.gguf is not None:
        typer.echo(f'{done.gguf}: for llama.cpp. In a fleet file: weights: "file:{done.gguf}"')


@runs.command()
def curve(
    name: RunName,
    *,
    state: StateDir,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="To a file; unset: to stdout.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw it as well.")
    ] = None,
) -> None:
    """Export a run's loss against tokens and time.

    Examples:
        argosy runs curve two-islands --csv loss.csv

        argosy runs curve two-islands --plot loss.png

    """
    from argosy.cli.training_curve import csv_lines, draw
    from argosy.cli.training_curve import curve as curve_of
    from argosy.store.runs import points_of

    with open_state_store(state) as store:
        record = _known(store, name)
        run = _run_of(RunFolder(state, name), record)
        points = curve_of(record, points_of(store, name), context_tokens=run.context_tokens)
    text = "\n".join(csv_lines(points))
    try:
        if csv is not None:
            csv.write_text(text + "\n", "utf-8")
        elif plot is None:
            typer.echo(text)
        if plot is not None:
            draw(name, points, plot)
    except OSError as error:
        refuse(f"{error.filename} cannot be written: {error.strerror}")


@runs.command()
def forget(
    name: RunName,
    *,
    state: StateDir,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a run: its parameters, its checkpoints, and all that is told of it.

    Examples:
        argosy runs forget two-islands

        argosy runs forget two-islands --yes

    """
    from argosy.cli.training_placing import end_left
    from argosy.store.runs import forget_run

    folder = RunFolder(state, name)
    if folder.is_kept():
        refuse(f"run {name} is being trained. Stop it first: argosy runs stop {name}")
    if not is_sure:
        typer.confirm(f"Delete run {name}, with its parameters and checkpoints?", abort=True)
    end_left(folder)
    with open_state_store(state) as store:
        was_there = forget_run(store, name)
    was_there = folder.path.exists() or was_there
    folder.remove()
    if not was_there:
        refuse(f"there is no run {name}. List them: argosy runs list")
    typer.echo(f"{name} is forgotten", err=True)


def _print_again(act: Callable[[], None], *, watch: bool) -> None:
    try:
        act()
        while watch:
            time.sleep(1.0)
            act()
    except KeyboardInterrupt:
        return


def _known(store: "Engine", name: str) -> "RunRecord":
    from argosy.store.runs import UnknownRunError
    from argosy.store.runs import read_run as read_record

    try:
        return read_record(store, name)
    except UnknownRunError as error:
        return refuse(f"{error}. List them: argosy runs list")


def _refuse_finished(record: "RunRecord") -> None:
    if record.state == "finished":
        name = record.run
        refuse(f"run {name} is finished. Make a model of it: argosy runs export {name}")


def _kept(folder: RunFolder) -> KeptRun:
    try:
        return folder.read()
    except RunFolderError as error:
        return refuse(str(error))


def _run_of(folder: RunFolder, record: "RunRecord") -> "Run":
    """As it is gone on with; of a run whose folder is elsewhere, as it was begun."""
    from argosy.fleet.load_runs import parse

    if folder.name in names_in(folder.state):
        return _kept(folder).run
    return parse(record.spec, source=f"run {record.run} in the store")


def _listed(state: Path, record: "RunRecord") -> ListedRun:
    from argosy.cli.training_picture import state_of

    folder = RunFolder(state, record.run)
    run = _run_of(folder, record)
    return ListedRun(
        run=record.run,
        state=state_of(record, is_kept=folder.is_kept()),
        share_done=record.blocks_done / record.blocks,
        tokens=record.blocks * run.context_tokens,
        version=record.version,
        islands=len(run.islands),
        created_at_s=record.created_at_s,
    )


def _row(one: ListedRun) -> tuple[object, ...]:
    made = datetime.fromtimestamp(one.created_at_s, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    done = f"{one.share_done:.0%}"
    return one.run, one.state, done, f"{one.tokens:,}", one.version, one.islands, made


def _changed(old: "Run", new: "Run", file: Path) -> "Run":
    """The run with the file's islands and terms. Exits with 1 where it would be another run."""
    new = absolute(msgspec.structs.replace(new, run=old.run))
    fixed = [name for name in _FIXED if getattr(old, name) != getattr(new, name)]
    if old.data != msgspec.structs.replace(new.data, recipe=old.data.recipe):
        fixed.append("data")
    if old.outer.fragment_bytes_max != new.outer.fragment_bytes_max:
        fixed.append("outer.fragment_bytes_max")
    if fixed:
        refuse(
            f"{file} has another {', '.join(fixed)} than run {old.run} was begun with. Islands, "
            "outer and checkpoints may change; for the rest begin another run: argosy train"
        )
    return new
