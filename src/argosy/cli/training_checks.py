"""All that may refuse a run before anything starts: packages, data, model, pools, room on the disk.

Each check ends the command with what was asked, what is true and what would work.
"""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from argosy.cli.running import refuse
from argosy.cli.training_placing import ray_pools, used_pools
from argosy.fleet.document import Path as At
from argosy.fleet.rules_runs import DataFacts, check_data, check_pools, parameters_of
from argosy.fleet.runs import NewModel, PretrainedModel, Run
from argosy.training.pools import PlacedPool

if TYPE_CHECKING:
    from argosy.training.data.reader import Dataset

_PACKAGES = ("torch", "numpy", "safetensors", "tokenizers", "cryptography")
_HASHED_BYTES_MAX = 8 * 2**30  # a pass over more data takes longer than a start should
# Of an fp32 vector: the syncer's state and two snapshots, an island's two checkpoints with both
# moments of AdamW, and deltas under way.
_DISK_VECTORS_SYNCER, _DISK_VECTORS_ISLAND = 12, 8


def check_installed(*, needs_torch: bool) -> None:
    """Exits with 1 where packages of the extra `train` are missing."""
    wanted = _PACKAGES if needs_torch else _PACKAGES[1:]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        refuse(
            f"training takes {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
            "not installed: make train, or pip install -c constraints.txt -e '.[train]'"
        )


def checked_pools(
    run: Run,
    *,
    fleet: Path | None,
    known: tuple[PlacedPool, ...] = (),
    elsewhere: tuple[str, ...] = (),
) -> tuple[PlacedPool, ...]:
    """The pools that the run's islands are on: the fleet's, without one those that are `known`.

    Exits with 1 where an island is to run where this command starts nothing.
    """
    pools = known if fleet is None else ray_pools(fleet)
    names = None if fleet is None and not known else tuple(pool.name for pool in pools)
    here = msgspec.structs.replace(
        run, islands=tuple(one for one in run.islands if one.name not in elsewhere)
    )
    _refuse_any(run.run, check_pools(here, names))
    return used_pools(run, pools, elsewhere=elsewhere)


def open_data(run: Run) -> "Dataset":
    """The run's data, whole. Exits with 1 where it is missing, corrupt or unfit."""
    from argosy.training.data.manifest import DatasetError
    from argosy.training.data.reader import Dataset

    try:
        dataset = Dataset.open(run.data.path)
        shards = dataset.manifest.shards
        if "://" not in run.data.path and sum(one.bytes for one in shards) <= _HASHED_BYTES_MAX:
            dataset.verify()
    except DatasetError as error:
        return refuse(f"{error}{_recipe_hint(run)}")
    facts = DataFacts(
        blocks=dataset.blocks,
        context_tokens=dataset.context_tokens,
        vocab_size=dataset.vocab_size,
    )
    _refuse_any(run.run, [*check_data(run, facts), *_unfit_model(run, facts)])
    return dataset


def is_prepared(run: Run) -> bool:
    """Whether there is something at the data's path; a URL is taken for granted."""
    return "://" in run.data.path or (Path(run.data.path) / "manifest.json").exists()


def check_disk(folder: Path, run: Run, parameters: int) -> None:
    """Exits with 1 where the state folder's disk has no room for the run."""
    vectors = _DISK_VECTORS_SYNCER + _DISK_VECTORS_ISLAND * len(run.islands)
    needed = vectors * 4 * parameters
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        refuse(
            f"run {run.run} keeps up to {needed / 1e9:.2f} GB of {parameters / 1e6:.1f} million "
            f"parameters in {folder}, and {free / 1e9:.2f} GB are free there. Free some space, or "
            "name a folder elsewhere: --state DIR"
        )


def parameters_in(run: Run, vocab_size: int) -> int:
    """How many values are trained; of a pretrained model, as its files say."""
    if isinstance(run.model, NewModel):
        return parameters_of(run.model, vocab_size)
    return sum(path.stat().st_size for path in Path(run.model.path).glob("*.safetensors")) // 2


def _unfit_model(run: Run, facts: DataFacts) -> Iterator[tuple[At, str]]:
    if not isinstance(run.model, PretrainedModel):
        return
    folder = Path(run.model.path)
    try:
        config = json.loads((folder / "config.json").read_bytes())
        vocab = config["vocab_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = f'= "{folder}" holds no config.json of a language model ({error}).'
        yield ("model", "path"), f"{told} Name a folder in Hugging Face's format."
        return
    if not list(folder.glob("*.safetensors")):
        told = f'= "{folder}" holds no *.safetensors.'
        yield ("model", "path"), f"{told} Other formats are not read: they may run code."
    if facts.vocab_size > vocab:
        told = f'= "{folder}" knows {vocab:,} ids, the data {facts.vocab_size:,}.'
        yield ("model", "path"), f"{told} Prepare the data with its tokenizer: --tokenizer FILE"


def _recipe_hint(run: Run) -> str:
    if run.data.recipe is None or is_prepared(run):
        return ""
    return f" Its recipe: argosy data prepare {run.data.recipe} --out {run.data.path}"


def _refuse_any(name: str, findings: "list[tuple[At, str]] | Iterator[tuple[At, str]]") -> None:
    told = [f"{_dotted(path)} {words}" for path, words in findings]
    if told:
        typer.echo("\n".join(f"run {name}: {line}" for line in told), err=True)
        raise typer.Exit(1)


def _dotted(path: At) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")
