"""What a person writes in `RECIPE.yaml`: which texts, and what becomes of them.

The defaults live here alone. Paths are relative to where the command runs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from argosy.fleet.checked import checked
from argosy.fleet.document import FileProblemsError
from argosy.fleet.fields import Config, Name, PositiveFloat, PositiveInt, Share

Format = Literal["auto", "text", "markdown", "rst", "html", "jsonl"]
Weight = Annotated[
    PositiveFloat | None,
    Meta(description="Share of the tokens, relative to the other sources'; all or none have one."),
]


class Files(Config, frozen=True, kw_only=True, tag="files", tag_field="kind"):
    """Files of this machine; each is a document, and each line of a .jsonl."""

    name: Name
    paths: Annotated[
        tuple[str, ...], Meta(min_length=1, description="Files, folders (all in them) or globs.")
    ]
    format: Format = "auto"
    text_field: Annotated[str, Meta(description="Of each line of .jsonl.")] = "text"
    licence: str = "unknown"
    weight: Weight = None


class PackageVersion(Config, frozen=True, kw_only=True):
    """One build of a package, whose bytes are known."""

    version: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Package(Config, frozen=True, kw_only=True, tag="package", tag_field="kind"):
    """A Debian package, from the mirror that this machine's apt uses; nothing is installed."""

    name: Name
    package: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
    versions: Annotated[
        tuple[PackageVersion, ...], Meta(min_length=1, description="The first that can be had.")
    ]
    globs: Annotated[
        tuple[str, ...], Meta(min_length=1, description="Of paths in it; * matches / too.")
    ]
    excluded: tuple[str, ...] = ()
    licence_path: Annotated[str, Meta(description="Of its copyright file, kept with the data.")]
    licence: str
    format: Format = "auto"
    weight: Weight = None


class Builtin(Config, frozen=True, kw_only=True, tag="builtin", tag_field="kind"):
    """What every Python has: its language reference and the standard library's docstrings."""

    name: Name = "builtin"
    licence: str = "PSF-2.0"
    bytes_max: Annotated[PositiveInt | None, Meta(description="Of text; None: all.")] = None
    weight: Weight = None


Source = Files | Package | Builtin


class Cleaning(Config, frozen=True, kw_only=True):
    """Which documents are worth keeping. Each one dropped is counted under its reason."""

    characters_min: Annotated[int, Meta(ge=0, description="Shorter ones are dropped.")] = 200
    repeated_lines_share_max: Annotated[
        Share, Meta(description="Of the characters, in lines that stood before in the document.")
    ] = 0.5
    letters_share_min: Annotated[
        float, Meta(ge=0, le=1, description="Of what is not white space: letters of any script.")
    ] = 0.4
    paragraph_documents_max: Annotated[
        PositiveInt,
        Meta(description="A paragraph that is in more documents stays in the first alone."),
    ] = 8
    near_duplicate_share: Annotated[
        Share | None,
        Meta(description="Of two documents' runs of five words in common; None: not looked for."),
    ] = 0.8


class Trained(Config, frozen=True, kw_only=True, tag="train", tag_field="kind"):
    """A byte-level BPE, from this text."""

    vocab: Annotated[int, Meta(ge=257, description="Ids: 256 bytes, the end, and merges.")] = 4096
    sample_bytes_max: PositiveInt = 100_000_000


class Given(Config, frozen=True, kw_only=True, tag="file", tag_field="kind"):
    """One that exists."""

    path: Annotated[str, Meta(min_length=1, description="A tokenizer.json.")]
    end_token: Annotated[
        str | None, Meta(description="After each document; None: a usual name for it.")
    ] = None


class Recipe(Config, frozen=True, kw_only=True):
    """One dataset."""

    corpus: Name
    sources: Annotated[tuple[Source, ...], Meta(min_length=1)]
    cleaning: Cleaning = msgspec.field(default_factory=Cleaning)
    tokenizer: Trained | Given = msgspec.field(default_factory=Trained)
    context_tokens: PositiveInt = 512
    tokens: Annotated[
        PositiveInt | None,
        Meta(description="Of the mix, about; None: as many as the sources have."),
    ] = None
    epochs_max: Annotated[
        PositiveFloat, Meta(description="A source that weights repeat more often is refused.")
    ] = 4.0  # repeated so often, text is still worth about as much: Muennighoff et al. 2023
    shard_bytes_max: PositiveInt = 64 * 2**20
    seed: int = 0


class RecipeError(FileProblemsError):
    """The recipe cannot be used."""


def parse(text: str, *, source: str) -> Recipe:
    """The recipe that `text` describes; `source` is the name that `RecipeError` shows."""
    return checked(text, Recipe, noun="recipe", rules=_odd_mixes, error=RecipeError, source=source)


def of_paths(paths: tuple[str, ...]) -> Recipe:
    """The recipe of files without one: `builtin`, or what is at those paths."""
    if paths == ("builtin",):
        return Recipe(corpus="builtin", sources=(Builtin(),))
    name = Path(paths[0]).name.split(".")[0]
    try:
        corpus = msgspec.convert(name, Name)
    except msgspec.ValidationError:
        corpus = "corpus"
    return Recipe(corpus=corpus, sources=(Files(name=corpus, paths=paths),))


def _odd_mixes(recipe: Recipe) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where it is wrong, and how."""
    names = [one.name for one in recipe.sources]
    for position, one in enumerate(recipe.sources):
        if one.name in names[:position]:
            yield ("sources", position, "name"), f'= "{one.name}" is there twice'
        if (one.weight is None) != (recipe.sources[0].weight is None):
            yield ("sources", position), "and the first: give all sources a weight, or none"
    if recipe.tokens is not None and recipe.sources[0].weight is None:
        yield ("tokens",), "takes sources with weights: say how much of each"
