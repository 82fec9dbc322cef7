"""Which bytes a recipe's sources are, in chunks: the unit of work, and of what a kill costs."""

import glob
import gzip
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from argosy.training.data.builtin import builtin_lines
from argosy.training.data.cache import Cache, key_of
from argosy.training.data.extract import Kind, kind_of
from argosy.training.data.packages import LICENCE_FILE, SourceError, unpacked
from argosy.training.data.recipe import Builtin, Files, Package, Source

CHUNK_BYTES = 4 * 2**20


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """A file, or whole lines of one."""

    name: str  # for people, and in the chunk's key
    path: str
    kind: Kind
    start: int = 0
    stop: int | None = None  # None: to its end


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Some inputs of one source."""

    source: int  # its place in the recipe
    inputs: tuple[Input, ...]
    text_field: str


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A source whose bytes are here."""

    origin: str
    origin_sha256: str | None
    licence_text: bytes | None
    chunks: tuple[Chunk, ...]


def find(source: Source, position: int, cache: Cache, *, chunk_bytes: int = CHUNK_BYTES) -> Found:
    """Fetches what is not here. Raises SourceError."""
    found = _found_inputs(source, cache)
    text_field = source.text_field if isinstance(source, Files) else "text"
    chunks = tuple(
        Chunk(source=position, inputs=some, text_field=text_field)
        for some in _grouped(found.inputs, chunk_bytes)
    )
    if not chunks:
        raise SourceError(f"source {source.name} has no files; name some that are there")
    return Found(
        origin=found.origin,
        origin_sha256=found.sha256,
        licence_text=found.licence,
        chunks=chunks,
    )


class _Inputs(msgspec.Struct, frozen=True, kw_only=True):
    inputs: list[Input]
    origin: str
    sha256: str | None = None
    licence: bytes | None = None


def _found_inputs(source: Source, cache: Cache) -> _Inputs:
    match source:
        case Files():
            return _Inputs(inputs=[*_files(source)], origin="files")
        case Package():
            folder, version = unpacked(source, cache)
            root = folder / "files"
            paths = sorted(path for path in root.rglob("*") if path.is_file())
            return _Inputs(
                inputs=[_input(path, root, source.format) for path in paths],
                origin=f"{source.package} {version.version}",
                sha256=version.sha256,
                licence=(folder / LICENCE_FILE).read_bytes(),
            )
        case Builtin():
            key = key_of("builtin 1", sys.version, source.bytes_max)
            path = cache.get_or_make("builtin", key, lambda: builtin_lines(source.bytes_max))
            return _Inputs(
                inputs=[Input(name="builtin.jsonl", path=str(path), kind="jsonl")],
                origin=f"Python {sys.version.split()[0]}",
            )


def _files(source: Files) -> Iterator[Input]:
    for pattern in source.paths:
        path = Path(pattern)
        if path.is_dir():
            inside = (one for one in sorted(path.rglob("*")) if not _is_hidden(one, path))
            yield from (_input(one, path, source.format) for one in inside if _is_text(one))
        elif path.exists():
            yield _input(path, path.parent, source.format)
        else:
            matches = sorted(Path(one) for one in glob.glob(pattern, recursive=True))  # noqa: PTH207
            if not matches:
                raise SourceError(
                    f'source {source.name}: nothing is at "{pattern}". Name files, folders or '
                    "globs that are there, or builtin"
                )
            yield from (_input(one, Path(), source.format) for one in matches if _is_text(one))


def _is_text(path: Path) -> bool:
    """A link to nothing counts, so that it is refused and not passed over in silence."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _input(path: Path, root: Path, format_: str) -> Input:
    name = path.relative_to(root).as_posix() if root != Path() else path.as_posix()
    kind = kind_of(path.name) if format_ == "auto" else format_
    return Input(name=name, path=str(path), kind=kind)  # type: ignore[arg-type]  of the same names


def _grouped(inputs: Iterable[Input], chunk_bytes: int) -> Iterator[tuple[Input, ...]]:
    """Neighbours together until they are a chunk; long files of lines are cut at lines."""
    group: list[Input] = []
    size = 0
    for one in (piece for whole in inputs for piece in _pieces(whole, chunk_bytes)):
        bytes_ = _bytes(one)
        if group and size + bytes_ > chunk_bytes:
            yield tuple(group)
            group, size = [], 0
        group.append(one)
        size += bytes_
    if group:
        yield tuple(group)


def _bytes(one: Input) -> int:
    if one.stop is not None:
        return one.stop - one.start
    try:
        return Path(one.path).stat().st_size
    except OSError as error:
        raise unreadable(one.path, error) from error


def _pieces(one: Input, chunk_bytes: int) -> Iterator[Input]:
    size = _bytes(one)
    if one.kind != "jsonl" or one.path.endswith(".gz") or size <= chunk_bytes:
        yield one
        return
    with Path(one.path).open("rb") as file:
        start = 0
        while start < size:
            file.seek(min(size, start + chunk_bytes))
            file.readline()  # to the end of the line that the cut fell into
            yield msgspec.structs.replace(one, start=start, stop=file.tell())
            start = file.tell()


def read(one: Input) -> bytes:
    """Raises SourceError where it cannot be read."""
    try:
        with Path(one.path).open("rb") as file:
            file.seek(one.start)
            data = file.read() if one.stop is None else file.read(one.stop - one.start)
        return gzip.decompress(data) if one.path.endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(one.path, error) from error


def unreadable(path: str, error: Exception) -> SourceError:
    """Nothing is skipped in silence: a file that is named has to be read."""
    why = getattr(error, "strerror", None) or str(error)
    return SourceError(
        f"{path} cannot be read: {why}. Make it readable or leave it out of the sources, then run "
        "the same again: what was done is kept"
    )
