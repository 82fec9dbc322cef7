"""`argosy data`: text to packed tokens, what they are, and whether they are whole.

Owns the edge to a person: options to a recipe, progress on stderr, errors as a line and exit 1.
What happens to text is decided in `training/data`.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import platformdirs
import typer

from argosy.cli.tables import plain_console, print_table

if TYPE_CHECKING:
    from rich.progress import Progress

    from argosy.training.data.manifest import Manifest
    from argosy.training.data.reader import Dataset
    from argosy.training.data.recipe import Recipe

data = typer.Typer(
    name="data",
    no_args_is_help=True,
    help="Make datasets of packed tokens out of text, look at them, check them.\n\n"
    "Try:\n\n"
    "  argosy data prepare builtin --out corpus/builtin\n\n"
    "  argosy data show corpus/builtin",
)


def default_cache() -> Path:
    """Where stages keep what they made, e.g. ~/.cache/argosy/data."""
    return platformdirs.user_cache_path("argosy") / "data"


JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
DatasetPath = Annotated[
    str, typer.Argument(metavar="DATASET", help="A folder or fsspec URL with manifest.json.")
]


@data.command()
def prepare(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE.yaml|PATH...",
            help="A recipe; or files, folders and globs of text; or builtin, which Python has.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The dataset's folder.")],
    vocab: Annotated[
        int | None, typer.Option(help="Ids of the tokenizer to train.", show_default="4096")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A tokenizer.json, instead of training one.")
    ] = None,
    context_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a block's inputs.", show_default="512")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all choices.", show_default="0")] = None,
    cache: Annotated[
        Path, typer.Option(metavar="DIR", default_factory=default_cache, show_default="~/.cache/…")
    ],
    processes: Annotated[
        int, typer.Option(min=1, help="That clean text at once.", show_default="all cores")
    ] = os.cpu_count() or 1,
    replace: Annotated[bool, typer.Option(help="Give up another dataset in DIR.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Clean, deduplicate, tokenize, mix and pack text; again: go on, or find it done.

    Examples:
        argosy data prepare builtin --out corpus/builtin

        argosy data prepare examples/corpus-docs.yaml --out corpus/docs

        argosy data prepare notes/ 'books/*.txt' --out corpus/own --vocab 8192 --context-tokens 1024

    """
    with _told():
        from argosy.training.data.prepare import Preparation

        recipe = _recipe(tuple(paths), vocab, tokenizer, context_tokens, seed)
        with _shown() as progress:
            prepared = Preparation(
                recipe, out=out, cache=cache, processes=processes, progress=progress
            ).run(is_replacing=replace)
    if prepared.is_unchanged:
        typer.echo(f"{out} was made of the same before: it stays as it is", err=True)
    if as_json:
        typer.echo(msgspec.json.encode(prepared.manifest))
        return
    _print_manifest(prepared.manifest)
    typer.echo(f"\n{out}")


@data.command()
def show(
    path: DatasetPath,
    *,
    block: Annotated[
        int | None, typer.Option(min=0, help="Print the text of this block instead.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is in a dataset, where it came from and what was dropped; or read a block of it.

    Examples:
        argosy data show corpus/builtin

        argosy data show corpus/builtin --block 7

    """
    with _told():
        dataset = _open(path)
        if block is not None:
            _print_block(dataset, block)
            return
    if as_json:
        typer.echo(msgspec.json.encode(dataset.manifest))
        return
    _print_manifest(dataset.manifest)


@data.command()
def verify(path: DatasetPath) -> None:
    """Hash all of a dataset and hold it against its manifest; exit 1 names the first wrong file.

    Examples:
        argosy data verify corpus/builtin

        argosy data verify s3://bucket/corpus/docs

    """
    with _told():
        dataset = _open(path)
        bytes_ = dataset.verify()
    manifest = dataset.manifest
    typer.echo(
        f"{path} is whole: {len(manifest.shards)} shards, {bytes_:,} bytes, "
        f"{manifest.blocks:,} blocks, {manifest.tokens:,} tokens"
    )


@contextmanager
def _told() -> Iterator[None]:
    """What stands in the way becomes a line on stderr, and exit 1."""
    try:
        from argosy.fleet.document import FileProblemsError
        from argosy.training.data.manifest import DatasetError
    except ImportError as error:
        typer.echo(
            f"argosy: datasets take {error.name}, which is not installed: "
            "pip install 'argosy[train]'",
            err=True,
        )
        raise typer.Exit(1) from error
    try:
        yield
    except FileProblemsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    except (DatasetError, OSError) as error:
        typer.echo(f"argosy: {error}", err=True)
        raise typer.Exit(1) from error
    except ImportError as error:
        typer.echo(
            f"argosy: this takes {error.name}, which is not installed: pip install 'argosy[train]'",
            err=True,
        )
        raise typer.Exit(1) from error


def _open(path: str) -> "Dataset":
    from argosy.training.data.reader import Dataset

    return Dataset.open(path)


def _recipe(
    paths: tuple[str, ...],
    vocab: int | None,
    tokenizer: Path | None,
    context_tokens: int | None,
    seed: int | None,
) -> "Recipe":
    """The recipe file's or the paths', with what the options say, which goes before it."""
    from argosy.training.data.recipe import Given, Trained, of_paths, parse

    if vocab is not None and tokenizer is not None:
        raise typer.BadParameter("--vocab is of a tokenizer to train; --tokenizer names one")
    if vocab is not None and vocab < 257:
        raise typer.BadParameter(f"--vocab {vocab}: 256 bytes and the end take 257 ids at least")
    if len(paths) == 1 and paths[0].endswith((".yaml", ".yml")):
        recipe = parse(_text(Path(paths[0])), source=paths[0])
    else:
        recipe = of_paths(paths)
    changes: dict[str, object] = {}
    if vocab is not None:
        changes["tokenizer"] = Trained(vocab=vocab)
    if tokenizer is not None:
        changes["tokenizer"] = Given(path=str(tokenizer))
    if context_tokens is not None:
        changes["context_tokens"] = context_tokens
    if seed is not None:
        changes["seed"] = seed
    return msgspec.structs.replace(recipe, **changes)


def _text(path: Path) -> str:
    from argosy.training.data.manifest import DatasetError

    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}. Name a recipe, files of text, or builtin"
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 text (byte {error.start:,})") from error


class _Bars:
    """A bar for each stage, one below the other."""

    def __init__(self, bars: "Progress") -> None:
        self._bars = bars
        self._task = None

    def stage(self, name: str, total: int) -> None:
        self._task = self._bars.add_task(name, total=total)

    def advance(self) -> None:
        if self._task is not None:
            self._bars.advance(self._task)


@contextmanager
def _shown() -> Iterator[_Bars]:
    """On stderr; nothing that moves where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<11}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        yield _Bars(bars)


def _print_manifest(manifest: "Manifest") -> None:
    tokenizer, packing = manifest.tokenizer, manifest.packing
    how = "trained on it" if tokenizer.is_trained else "given"
    typer.echo(
        f"{manifest.corpus}: {manifest.tokens:,} tokens in {manifest.blocks:,} blocks of "
        f"{manifest.context_tokens} + 1, {len(manifest.shards)} shards of {manifest.dtype}, "
        f"seed {manifest.seed}\n"
        f"tokenizer: {tokenizer.vocab_size:,} ids, {how}; {tokenizer.end_token} = "
        f"{tokenizer.end_id} after each document\n"
        f"packing: {packing.documents:,} documents in {packing.segments:,} segments, "
        f"{packing.fillings:,} of them cut to fill a block; {packing.tokens_dropped:,} tokens left "
        "over\n"
    )
    print_table(
        ("SOURCE", "LICENCE", "ORIGIN", "MB", "DOCUMENTS", "KEPT", "TOKENS", "EPOCHS"),
        [
            (
                source.name,
                source.licence,
                source.origin,
                f"{source.bytes / 1e6:,.1f}",
                source.documents_found,
                source.documents_kept,
                source.tokens,
                f"{source.epochs:.2f}",
            )
            for source in manifest.sources
        ],
    )
    dropped = [
        (source.name, reason, count, ", ".join(source.examples.get(reason, ())[:2]))
        for source in manifest.sources
        for reason, count in source.dropped.items()
    ]
    if dropped:
        plain_console().print()
        print_table(("SOURCE", "DROPPED BECAUSE", "DOCUMENTS", "SUCH AS"), dropped)


def _print_block(dataset: "Dataset", block: int) -> None:
    """Its text; a line between documents, where attention may be masked."""
    import numpy as np

    from argosy.training.data.manifest import DatasetError
    from argosy.training.data.tokens import loaded

    if block >= dataset.blocks:
        raise DatasetError(f"there is no block {block}: they are 0 .. {dataset.blocks - 1}")
    tokenizer = loaded(dataset.tokenizer_json().encode())
    index = np.array([block], dtype=np.int64)
    ids, starts = dataset.take(index)[0], dataset.take_boundaries(index)[0]
    for number, piece in enumerate(np.split(ids, np.flatnonzero(starts)[1:])):
        if number:
            typer.echo("\n" + "-" * 40)
        typer.echo(_plain(tokenizer.decode(piece.tolist(), skip_special_tokens=True)))


def _plain(text: str) -> str:
    """Of strangers: nothing that moves a terminal's cursor."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else json.dumps(char)[1:-1] for char in text
    )
