"""Small datasets, packages and texts for tests, made in milliseconds; no tokenizer is trained."""

import io
import tarfile
from pathlib import Path

import numpy as np

from argosy.training.data.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    Manifest,
    Packing,
    Tokenizer,
    encode,
    sha256,
)
from argosy.training.data.shards import write_shards, write_whole

_TOKENIZER = b'{"none": "these ids came of chance"}'


def dataset(
    out: Path, *, blocks: int = 100, context_tokens: int = 16, vocab: int = 512, shards: int = 1
) -> Path:
    """Ids by chance; the same for the same numbers. No two blocks are alike."""
    chance = np.random.default_rng(blocks)
    ids = chance.integers(0, vocab, size=(blocks, context_tokens + 1))
    starts = chance.random(ids.shape) < 0.1
    starts[:, 0] = True
    parts = zip(np.array_split(ids, shards), np.array_split(starts, shards), strict=True)
    written = write_shards(out, parts, vocab)
    write_whole(out / "tokenizer.json", _TOKENIZER)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        corpus="chance",
        context_tokens=context_tokens,
        blocks=blocks,
        tokens=blocks * (context_tokens + 1),
        dtype="uint16" if vocab <= 2**16 else "uint32",
        tokenizer=Tokenizer(
            file="tokenizer.json",
            sha256=sha256(_TOKENIZER),
            vocab_size=vocab,
            end_token="<|endoftext|>",
            end_id=0,
            is_trained=False,
        ),
        shards=tuple(written),
        sources=(),
        packing=Packing(
            documents=blocks,
            segments=blocks,
            documents_longer_than_a_block=0,
            fillings=0,
            tokens_dropped=0,
        ),
        seed=0,
        recipe_sha256="0" * 64,
        inputs_sha256="0" * 64,
    )
    write_whole(out / MANIFEST_FILE, encode(manifest))
    return out


def deb(files: dict[str, bytes]) -> bytes:
    """A Debian package of those files, as `dpkg-deb` lays it out."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    members = {"debian-binary": b"2.0\n", "data.tar.xz": packed.getvalue()}
    return b"!<arch>\n" + b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        + data
        + b"\n" * (len(data) % 2)
        for name, data in members.items()
    )


_WORDS = (
    "the a of to in is that it for on with as be this by from at an are or which each one all when"
    " value table index query row column key page file record block token shard reader order seed"
    " position epoch span document corpus licence weight mix pack train islands round delta version"
)


def text(seed: int, words: int = 200) -> str:
    """Words by chance, in sentences and paragraphs."""
    chance = np.random.default_rng(seed)
    picked = chance.choice(_WORDS.split(), size=words).tolist()
    lines = [" ".join(picked[at : at + 12]) + "." for at in range(0, words, 12)]
    return "\n\n".join("\n".join(lines[at : at + 4]) for at in range(0, len(lines), 4))
