"""What a dataset says of itself: `manifest.json`, version 1.

Everything that a reader needs to check what it reads is here, and everything that a person needs
to answer for it: which texts under which licence, what was dropped and why. It holds no time and no
path of a machine: the same inputs give the same bytes.
"""

import hashlib
from typing import Literal

import msgspec

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"


class DatasetError(Exception):
    """A dataset cannot be used; the message says what is wrong with it and what to do."""


class CorruptShardError(DatasetError):
    """A file is not the one that the manifest speaks of."""


class Shard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whole blocks, one after the other, as little-endian ids; and where documents begin."""

    file: str
    bytes: int
    sha256: str
    blocks: int
    starts_file: str  # one bit per token, the first the highest of its byte; a block is padded
    starts_bytes: int
    starts_sha256: str


class Tokenizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `tokenizer.json` of Hugging Face's `tokenizers` that made the ids."""

    file: str
    sha256: str
    vocab_size: int
    end_token: str  # stands after each document
    end_id: int
    is_trained: bool  # on this very text; else it was given


class SourceCount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of one source."""

    name: str
    licence: str
    licence_file: str | None  # the text of it, in the dataset
    origin: str  # e.g. "python3.11-doc 3.11.2-6"
    origin_sha256: str | None
    files: int
    bytes: int
    documents_found: int
    documents_kept: int
    characters_kept: int
    paragraphs_dropped: int  # repeated in many documents
    dropped: dict[str, int]  # documents by reason
    examples: dict[str, tuple[str, ...]]  # a few of each reason, by name
    tokens: int  # of the documents kept, each once, with its end token
    epochs: float  # how often they are in the dataset, on average
    weight: float | None


class Packing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How documents came into blocks."""

    documents: int  # a document that is in twice counts twice
    segments: int  # runs of one document in a block: their beginnings are in the bitmap
    documents_longer_than_a_block: int
    fillings: int  # segments cut to size, so that no block has a hole
    tokens_dropped: int  # the tail that fills no block


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole dataset."""

    format_version: int
    corpus: str
    context_tokens: int
    blocks: int
    tokens: int  # blocks x (context_tokens + 1)
    dtype: Literal["uint16", "uint32"]
    tokenizer: Tokenizer
    shards: tuple[Shard, ...]
    sources: tuple[SourceCount, ...]
    packing: Packing
    seed: int
    recipe_sha256: str
    inputs_sha256: str  # of the recipe and all text that went in: equal, then so is the dataset

    @property
    def block_tokens(self) -> int:
        """Ids of a block: inputs, and targets one further."""
        return self.context_tokens + 1


def encode(manifest: Manifest) -> bytes:
    """As it stands in the file: the same dataset, the same bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decode(data: bytes, *, source: str) -> Manifest:
    """Raises DatasetError where it is none, is of another version or contradicts itself."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{source} is no manifest of a dataset: {error}. Make it anew: argosy data prepare"
        ) from error
    if manifest.format_version != FORMAT_VERSION:
        raise DatasetError(
            f"{source} is of format {manifest.format_version}; this Argosy reads "
            f"{FORMAT_VERSION}. Make the dataset anew: argosy data prepare"
        )
    told = _contradiction(manifest)
    if told is not None:
        raise DatasetError(f"{source} contradicts itself: {told}. It was altered; make it anew")
    return manifest


def sha256(data: bytes | memoryview) -> str:
    """Of bytes, as hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def starts_row_bytes(block_tokens: int) -> int:
    """Bytes of the bitmap of one block."""
    return (block_tokens + 7) // 8


def _contradiction(manifest: Manifest) -> str | None:
    """What does not add up in it; a file's name that leads elsewhere counts too."""
    width = 2 if manifest.dtype == "uint16" else 4
    tokens, row = manifest.block_tokens, starts_row_bytes(manifest.block_tokens)
    if manifest.context_tokens < 1:
        return f"context_tokens = {manifest.context_tokens}"
    if manifest.blocks != sum(shard.blocks for shard in manifest.shards):
        return f"blocks = {manifest.blocks}, but its shards have another sum"
    if manifest.tokens != manifest.blocks * tokens:
        return f"tokens = {manifest.tokens}, not {manifest.blocks} blocks of {tokens}"
    for shard in manifest.shards:
        wanted = (shard.blocks * tokens * width, shard.blocks * row)
        if shard.blocks < 1 or (shard.bytes, shard.starts_bytes) != wanted:
            return f"{shard.file} has {shard.blocks} blocks, which take other sizes"
    for name in _files(manifest):
        if not _is_plain(name):
            return f'"{name}" is not the plain name of a file'
    return None


def _files(manifest: Manifest) -> list[str]:
    names = [manifest.tokenizer.file]
    for shard in manifest.shards:
        names += [shard.file, shard.starts_file]
    return names


def _is_plain(name: str) -> bool:
    return bool(name) and name not in {".", ".."} and not set(name) & set("/\\:\0")
