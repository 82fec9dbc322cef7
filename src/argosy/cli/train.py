"""`argosy train`: a training run from its file to its last round.

Wires: everything that may refuse is asked first (`training_checks.py`), then what it will take is
told (`training_estimate.py`), then its processes are kept (`training_running.py`).
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from argosy.cli.files import read_run
from argosy.cli.running import refuse
from argosy.cli.state import StateDir, now_s, open_state_store
from argosy.cli.training_folder import (
    KeptRun,
    RunFolder,
    RunFolderError,
    absolute,
    free_port,
)

if TYPE_CHECKING:
    from argosy.fleet.runs import Run

Watched = Annotated[
    bool | None,
    typer.Option(
        "--watch/--no-watch",
        help="A page that refreshes itself; unset: on a terminal, else a line each 10 s.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="A line of JSON each second to stdout.")]
SyncerPort = Annotated[
    int | None,
    typer.Option(
        "--syncer-port", min=1, max=65535, help="Where the islands find the syncer; unset: free."
    ),
]
SyncerHost = Annotated[
    str | None,
    typer.Option(
        "--syncer-host",
        metavar="ADDRESS",
        help="Where it listens; unset: loopback, or with islands on pools where their cluster "
        "reaches this host.",
    ),
]
Elsewhere = Annotated[
    list[str] | None,
    typer.Option(
        "--elsewhere",
        metavar="ISLAND",
        help="Not started here but by hand, on another host; may be given again.",
    ),
]
FleetOption = Annotated[
    Path | None,
    typer.Option("--fleet", metavar="FLEET.YAML", help="Where the pools of islands stand."),
]


def train(
    file: Annotated[Path, typer.Argument(metavar="RUN.YAML", help="The run file.")],
    *,
    state: StateDir,
    name: Annotated[
        str | None, typer.Option("--name", help="Another name than the file's.")
    ] = None,
    watch: Watched = None,
    as_json: AsJson = False,
    syncer_port: SyncerPort = None,
    syncer_host: SyncerHost = None,
    fleet: FleetOption = None,
    elsewhere: Elsewhere = None,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Check and estimate; start nothing.")
    ] = False,
    is_estimated: Annotated[
        bool,
        typer.Option("--estimate/--no-estimate", help="Try a step of each island first."),
    ] = True,
    inner: Annotated[
        str, typer.Option("--inner", hidden=True, help="torch, or reference: numpy's bigrams.")
    ] = "torch",
    step_s: Annotated[
        float, typer.Option("--step-s", hidden=True, min=0, help="Of a reference island's step.")
    ] = 0.0,
) -> None:
    """Train a model on islands of unlike chips; Ctrl-C stops it so that it can go on.

    Examples:
        argosy train examples/two-islands.yaml

        argosy train examples/two-islands.yaml --dry-run

    """
    from argosy.cli.training_checks import (
        check_disk,
        check_installed,
        checked_pools,
        is_prepared,
        open_data,
        parameters_in,
    )
    from argosy.cli.training_placing import placement_of
    from argosy.cli.training_placing import syncer_host as host_of

    run = _named(read_run(file), name)
    kind = _kind(inner)
    check_installed(needs_torch=kind == "torch")
    run, away = absolute(run), checked_elsewhere(run, elsewhere or [])
    pools = checked_pools(run, fleet=fleet, elsewhere=away)
    host = host_of(pools, syncer_host)
    kept = KeptRun(
        run=run,
        spec=msgspec.json.encode(run).decode(),
        inner=kind,
        step_s=step_s,
        syncer_port=syncer_port or _free_port(host),
        syncer_host=host,
        elsewhere=away,
        pools=pools,
    )
    if kind == "torch":
        if run.data.recipe is not None and not is_prepared(run):
            _prepare(run)
        dataset = open_data(run)
        check_disk(state, run, parameters_in(run, dataset.vocab_size))
        if is_estimated:
            from argosy.cli.training_estimate import tell_estimate

            tell_estimate(run, dataset, elsewhere=(*away, *placement_of(kept).islands))
    if is_dry:
        return
    folder = RunFolder(state, run.run)
    _start(folder, kept)
    raise typer.Exit(keep(folder, watch=watch, as_json=as_json))


def keep(folder: RunFolder, *, watch: bool | None, as_json: bool) -> int:
    """Keep the run of that folder alive until it ends; the exit code. The folder is locked."""
    from argosy.cli.training_island import write_spec
    from argosy.cli.training_running import Watch, keep_running
    from argosy.launchers.local import reap_stale
    from argosy.store.runs import set_wanted
    from argosy.training.credentials import CredentialsError, make_credentials

    try:
        kept = folder.read()
        folder.lock()
        for line in reap_stale(folder.path):
            typer.echo(line, err=True)
        islands = [island.name for island in kept.run.islands]
        make_credentials(folder.credentials, folder.name, islands, now_s=now_s())
        for island in kept.elsewhere:
            spec = write_spec(folder, kept, island)
            typer.echo(f"{island}: python -m argosy.training.island {spec}", err=True)
        shown = Watch(is_page=sys.stderr.isatty() if watch is None else watch, is_json=as_json)
        with open_state_store(folder.state) as store:
            set_wanted(store, folder.name, "training")
            end = keep_running(folder, kept, store, shown)
    except (RunFolderError, CredentialsError) as error:
        return refuse(str(error))
    finally:
        folder.unlock()
    return 0 if end in ("finished", "stopped") else 1


def _start(folder: RunFolder, kept: KeptRun) -> None:
    """Put the run into the store and its folder. Exits with 1 where the name is taken."""
    from argosy.store.runs import create_run, list_runs

    run = kept.run
    with open_state_store(folder.state) as store:
        taken = next((one for one in list_runs(store) if one.run == run.run), None)
        if taken is not None:
            share = taken.blocks_done / taken.blocks
            refuse(
                f"a run {run.run} is there already, {taken.state} at {share:.0%}. Go on with it: "
                f"argosy runs resume {run.run}. Or give this one another name: --name NAME. Or "
                f"give that one up: argosy runs forget {run.run}"
            )
        try:
            folder.write(kept)
        except RunFolderError as error:
            refuse(str(error))
        create_run(
            store, run.run, spec=kept.spec, blocks=run.blocks, blocks_a_step=run.batch_blocks
        )


def checked_elsewhere(run: "Run", elsewhere: list[str]) -> tuple[str, ...]:
    """Islands of the run. Exits with 1 where one is none."""
    names = [island.name for island in run.islands]
    for name in elsewhere:
        if name not in names:
            refuse(f"--elsewhere {name} is no island of run {run.run}: {', '.join(names)}")
    return tuple(dict.fromkeys(elsewhere))


def _free_port(host: str) -> int:
    """Exits with 1 where that is no address of this host."""
    try:
        return free_port(host)
    except OSError as error:
        return refuse(f"the syncer cannot listen on {host}: {error.strerror}")


def _named(run: "Run", name: str | None) -> "Run":
    from argosy.fleet.rules_runs import cross_check

    if name is None:
        return run
    named = msgspec.structs.replace(run, run=name)
    for _, told in cross_check(named):
        refuse(f"--name {told}")
    return named


def _kind(inner: str) -> Literal["torch", "reference"]:
    if inner == "torch" or inner == "reference":
        return inner
    return refuse(f"--inner {inner}: it is torch, or reference")


def _prepare(run: "Run") -> None:
    """Make the data from its recipe. Exits with 1 where that fails."""
    import subprocess

    assert run.data.recipe is not None
    tokens = ("--context-tokens", str(run.context_tokens))
    command = ("data", "prepare", run.data.recipe, "--out", run.data.path, *tokens)
    typer.echo(f"{run.data.path} is not there yet: argosy {' '.join(command)}", err=True)
    status = subprocess.run([sys.executable, "-m", "argosy.cli.main", *command], check=False)
    if status.returncode:
        refuse(f"{run.data.path} could not be prepared from {run.data.recipe}; see above")
