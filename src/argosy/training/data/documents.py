"""A chunk's bytes to clean documents, with all that is needed to tell which are duplicates.

Runs in processes of its own: a function of (inputs, rules) that leaves its result in the cache.
"""

import functools
import hashlib
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import xxhash

from argosy.training.data import clean, extract, near
from argosy.training.data.cache import Cache, key_of
from argosy.training.data.clean import cleaned, why_dropped
from argosy.training.data.extract import NotTextError, texts
from argosy.training.data.manifest import sha256
from argosy.training.data.near import WordHashes, signature
from argosy.training.data.recipe import Cleaning
from argosy.training.data.sources import Chunk, read

STAGE = "documents"
_PARAGRAPH_CHARACTERS_MIN = 40  # shorter ones repeat rightly: "Return value:"
_EXAMPLES_MAX = 5
_words = WordHashes()  # of this process


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Clean text worth keeping."""

    name: str
    text: str
    sha256: bytes  # of its words: case and white space make no other document
    paragraphs: bytes  # uint64 of each, 0 for those too short to tell
    signature: bytes  # uint32 x PLACES, or empty


class Documents(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one chunk."""

    files: int
    bytes: int
    found: int
    documents: tuple[Document, ...]
    dropped: dict[str, int]
    examples: dict[str, tuple[str, ...]]


def known(chunk: Chunk, rules: Cleaning, root: Path) -> Path | None:
    """The cache's file of `Documents`, where there is one. Raises SourceError."""
    path = Cache(root).path(STAGE, _key(chunk, [read(one) for one in chunk.inputs], rules))
    return path if path.exists() else None


def made(chunk: Chunk, rules: Cleaning, root: Path) -> Path:
    """The same; made first where it is missing. Raises SourceError, DiskFullError."""
    data = [read(one) for one in chunk.inputs]
    return Cache(root).get_or_make(
        STAGE,
        _key(chunk, data, rules),
        lambda: msgspec.msgpack.encode(_documents(chunk, data, rules)),
    )


def _key(chunk: Chunk, data: list[bytes], rules: Cleaning) -> str:
    named = [
        (one.name, one.kind, one.start, hashlib.sha256(some).digest())
        for one, some in zip(chunk.inputs, data, strict=True)
    ]
    return key_of(STAGE, _code(), rules, chunk.text_field, named)


@functools.cache
def _code() -> str:
    """Of all that makes a document of bytes: where it changes, old entries are void."""
    files = [Path(one.__file__ or "") for one in (extract, clean, near)] + [Path(__file__)]
    return sha256(b"".join(one.read_bytes() for one in files))


def load(path: Path) -> Documents:
    """What `made` left."""
    return msgspec.msgpack.decode(path.read_bytes(), type=Documents)


def paragraphs_of(text: str) -> list[str]:
    """As `Document.paragraphs` counts them."""
    return text.split("\n\n")


def _documents(chunk: Chunk, data: list[bytes], rules: Cleaning) -> Documents:
    kept: list[Document] = []
    dropped: Counter[str] = Counter()
    examples: dict[str, tuple[str, ...]] = {}
    found = 0

    def drop(reason: str, name: str) -> None:
        dropped[reason] += 1
        if len(examples.get(reason, ())) < _EXAMPLES_MAX:
            examples[reason] = (*examples.get(reason, ()), name)

    for one, raw in zip(chunk.inputs, data, strict=True):
        try:
            for number, text in enumerate(texts(raw, one.kind, text_field=chunk.text_field)):
                found += 1
                name = f"{one.name}#{one.start}+{number}" if one.kind == "jsonl" else one.name
                text = cleaned(text)
                reason = why_dropped(text, rules)
                if reason is None:
                    kept.append(_document(name, text, rules))
                else:
                    drop(reason, name)
        except NotTextError as error:
            found += 1
            drop(str(error), one.name)
    return Documents(
        files=sum(one.start == 0 for one in chunk.inputs),
        bytes=sum(map(len, data)),
        found=found,
        documents=tuple(kept),
        dropped=dict(dropped),
        examples=examples,
    )


def _document(name: str, text: str, rules: Cleaning) -> Document:
    hashes = [
        xxhash.xxh3_64_intdigest(one.strip().encode())
        if len(one) >= _PARAGRAPH_CHARACTERS_MIN
        else 0
        for one in paragraphs_of(text)
    ]
    signed = signature(text, _words) if rules.near_duplicate_share is not None else None
    return Document(
        name=name,
        text=text,
        sha256=hashlib.sha256(" ".join(text.lower().split()).encode()).digest(),
        paragraphs=np.array(hashes, dtype="<u8").tobytes(),
        signature=b"" if signed is None else signed.astype("<u4").tobytes(),
    )
