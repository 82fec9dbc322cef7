"""A recipe to a dataset, stage by stage; each stage's results are cached by what they were made of.

find -> documents (clean, in processes) -> duplicates -> tokenizer -> tokens -> mix -> pack ->
shards, manifest last. A kill costs the chunks that were under way; the same command again goes on.
A dataset that is there and was made of the same is left as it is.
"""

import concurrent.futures
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.training.data import documents, tokens
from argosy.training.data.cache import Cache, key_of
from argosy.training.data.corpus import Corpus, Counted
from argosy.training.data.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    DatasetError,
    Manifest,
    Packing,
    SourceCount,
    encode,
    sha256,
)
from argosy.training.data.manifest import Tokenizer as Described
from argosy.training.data.mix import mixed
from argosy.training.data.pack import Segments, packed
from argosy.training.data.reader import Dataset
from argosy.training.data.recipe import Given, Recipe
from argosy.training.data.shards import (
    Ids,
    Starts,
    blocks_per_shard,
    id_type,
    write_shards,
    write_whole,
)
from argosy.training.data.sources import CHUNK_BYTES, Chunk, Found, find

_VERSION = 1  # of all stages that are not in a cache's key


class Progress(Protocol):
    """Whoever shows it."""

    def stage(self, name: str, total: int) -> None:
        """The next one begins; of `total` steps."""
        ...

    def advance(self) -> None:
        """One step of it is done."""
        ...


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset, and whether it was there already."""

    manifest: Manifest
    is_unchanged: bool


class Preparation:
    """One preparation: a recipe, where it goes, and what it may use."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        out: Path,
        cache: Path,
        processes: int,
        progress: Progress,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._recipe = recipe
        self._out = out
        self._cache = Cache(cache)
        self._processes = processes
        self._progress = progress
        self._chunk_bytes = chunk_bytes

    def run(self, *, is_replacing: bool = False) -> Prepared:
        """Raises DatasetError, whose message says what to do; what was done is kept."""
        found = self._found()
        chunks = [chunk for one in found for chunk in one.chunks]
        paths = self._documents(chunks)
        given = self._recipe.tokenizer
        given_bytes = tokens.given(given) if isinstance(given, Given) else None
        inputs = key_of(
            "dataset",
            (FORMAT_VERSION, _VERSION),
            self._recipe_sha256(),
            [path.name for path in paths],
            None if given_bytes is None else sha256(given_bytes),
        )
        known = self._known(inputs, is_replacing=is_replacing)
        if known is not None:
            return Prepared(manifest=known, is_unchanged=True)
        corpus = Corpus(chunks, paths, self._recipe.cleaning)
        self._progress.stage("duplicates", 1)
        corpus.settle()
        self._progress.advance()
        if not corpus.bytes_kept:
            raise DatasetError(
                f"nothing is left of the text: {corpus.why_dropped()}. Name other text, or loosen "
                "`cleaning` in the recipe"
            )
        tokenizer, about = self._tokenizer(corpus, given_bytes)
        encoded = self._encoded(corpus, tokenizer, about)
        manifest = _Write(self._recipe, self._out, corpus, encoded, about).run(
            found, tokenizer, inputs, self._recipe_sha256(), self._progress
        )
        return Prepared(manifest=manifest, is_unchanged=False)

    def _found(self) -> list[Found]:
        self._progress.stage("sources", len(self._recipe.sources))
        found: list[Found] = []
        for position, source in enumerate(self._recipe.sources):
            found.append(find(source, position, self._cache, chunk_bytes=self._chunk_bytes))
            self._progress.advance()
        return found

    def _documents(self, chunks: Sequence[Chunk]) -> list[Path]:
        """The cache's file for each chunk; missing ones are made, in several processes."""
        rules, root = self._recipe.cleaning, self._cache.root
        self._progress.stage("documents", len(chunks))
        paths = [documents.known(chunk, rules, root) for chunk in chunks]
        missing = [at for at, path in enumerate(paths) if path is None]
        for _ in range(len(chunks) - len(missing)):
            self._progress.advance()
        for at, path in zip(missing, self._make([chunks[at] for at in missing]), strict=True):
            paths[at] = path
            self._progress.advance()
        return [path for path in paths if path is not None]

    def _make(self, chunks: Sequence[Chunk]) -> Iterator[Path]:
        rules, root = self._recipe.cleaning, self._cache.root
        count = min(self._processes, len(chunks))
        if count <= 1:
            for chunk in chunks:
                yield documents.made(chunk, rules, root)
            return
        with concurrent.futures.ProcessPoolExecutor(
            count, mp_context=multiprocessing.get_context("spawn")
        ) as pool:
            asked = [pool.submit(documents.made, chunk, rules, root) for chunk in chunks]
            try:
                for one in asked:
                    yield one.result()
            except BrokenProcessPool as error:
                raise DatasetError(
                    "a process that cleaned text was killed from outside (by the system, for want "
                    "of memory?). What was done is kept: run the same with --processes 1"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)

    def _known(self, inputs: str, *, is_replacing: bool) -> Manifest | None:
        """The dataset that is there already, made of the same. Raises where another one is."""
        if not (self._out / MANIFEST_FILE).exists():
            return None
        try:
            there = Dataset.open(self._out).manifest
        except DatasetError as error:
            if not is_replacing:
                raise DatasetError(f"{error}. Into the same folder: --replace") from error
            return None
        if there.inputs_sha256 == inputs:
            return there
        if not is_replacing:
            raise DatasetError(
                f"{self._out} holds another dataset ({there.corpus}, {there.tokens:,} tokens), or "
                "one made of other text or settings. Name another folder, or give --replace"
            )
        return None

    def _tokenizer(self, corpus: Corpus, given: bytes | None) -> tuple[bytes, Described]:
        self._progress.stage("tokenizer", 1)
        wanted = self._recipe.tokenizer
        if isinstance(wanted, Given):
            data = b"" if given is None else given
            about = tokens.described(data, is_trained=False, end_token=wanted.end_token)
        else:
            texts = tokens.sampled(corpus.all_texts(), wanted.sample_bytes_max, corpus.bytes_kept)
            path = self._cache.get_or_make(
                "tokenizer",
                key_of("tokenizer 1", wanted, corpus.digests),
                lambda: tokens.trained(texts, wanted.vocab),
            )
            data = path.read_bytes()
            about = tokens.described(data, is_trained=True)
        self._progress.advance()
        return data, about

    def _encoded(self, corpus: Corpus, tokenizer: bytes, about: Described) -> list[tokens.Encoded]:
        self._progress.stage("tokens", len(corpus.paths))
        loaded = tokens.loaded(tokenizer)
        encoded: list[tokens.Encoded] = []
        for at, digests in enumerate(corpus.digests):
            path = self._cache.get_or_make(
                "tokens",
                key_of("tokens 1", about, corpus.paths[at].name, digests),
                lambda at=at: tokens.encoded(corpus.texts(at), loaded, about),
            )
            encoded.append(tokens.load(path, about.vocab_size))
            self._progress.advance()
        return encoded

    def _recipe_sha256(self) -> str:
        return sha256(msgspec.json.encode(self._recipe, order="sorted"))


class _Write:
    """Mix, pack and write: quick, and the same each time, so none of it is cached."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        corpus: Corpus,
        encoded: Sequence[tokens.Encoded],
        about: Described,
    ) -> None:
        self._recipe = recipe
        self._out = out
        self._encoded = encoded
        self._about = about
        self._corpus = corpus
        counts = [len(one.lengths) for one in encoded]
        self._source = corpus.sources(counts)
        self._chunk = np.repeat(np.arange(len(counts)), counts)
        self._length = np.concatenate([one.lengths.astype(np.int64) for one in encoded])
        self._start = np.concatenate(
            [
                np.cumsum(one.lengths, dtype=np.int64) - one.lengths.astype(np.int64)
                for one in encoded
            ]
        )

    def run(
        self,
        found: Sequence[Found],
        tokenizer: bytes,
        inputs: str,
        recipe_sha256: str,
        progress: Progress,
    ) -> Manifest:
        block_tokens = self._recipe.context_tokens + 1
        picked = mixed(self._recipe, self._source, self._length)
        progress.stage("packing", 1)
        segments = packed(self._length[picked], block_tokens)
        progress.advance()
        if not segments.blocks:
            raise DatasetError(
                f"{segments.tokens_dropped} tokens do not fill one block of {block_tokens}. "
                "Name more text, or a smaller context_tokens"
            )
        old = {path.name for path in self._out.glob("*")} if self._out.is_dir() else set()
        shards = write_shards(
            self._out, self._parts(segments, picked, progress), self._about.vocab_size
        )
        write_whole(self._out / self._about.file, tokenizer)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            corpus=self._recipe.corpus,
            context_tokens=self._recipe.context_tokens,
            blocks=segments.blocks,
            tokens=segments.blocks * block_tokens,
            dtype="uint16" if self._about.vocab_size <= 2**16 else "uint32",
            tokenizer=self._about,
            shards=tuple(shards),
            sources=tuple(self._source_count(at, one, picked) for at, one in enumerate(found)),
            packing=_packing(segments, self._length[picked], block_tokens),
            seed=self._recipe.seed,
            recipe_sha256=recipe_sha256,
            inputs_sha256=inputs,
        )
        write_whole(self._out / MANIFEST_FILE, encode(manifest))
        _clear(self._out, old, manifest)
        return manifest

    def _parts(
        self, segments: Segments, picked: NDArray[np.int64], progress: Progress
    ) -> Iterator[tuple[Ids, Starts]]:
        """Shard after shard, of blocks in random order: the last ones are a fair sample."""
        block_tokens = self._recipe.context_tokens + 1
        size = blocks_per_shard(
            block_tokens, self._about.vocab_size, shard_bytes=self._recipe.shard_bytes_max
        )
        chance = np.random.Generator(np.random.Philox(key=self._recipe.seed + 1))
        order = chance.permutation(segments.blocks)
        firsts = np.searchsorted(segments.block, np.arange(segments.blocks + 1))
        document = picked[segments.document]
        chunk = self._chunk[document].tolist()
        begin = (self._start[document] + segments.offset).tolist()
        length = segments.length.tolist()
        progress.stage("shards", -(-segments.blocks // size))
        for first in range(0, segments.blocks, size):
            blocks = order[first : first + size]
            ids = np.empty((len(blocks), block_tokens), dtype=id_type(self._about.vocab_size))
            starts = np.zeros(ids.shape, dtype=np.bool_)
            for row, block in enumerate(blocks.tolist()):
                at = 0
                for one in range(firsts[block], firsts[block + 1]):
                    stop = at + length[one]
                    here = self._encoded[chunk[one]].ids()
                    ids[row, at:stop] = here[begin[one] : begin[one] + length[one]]
                    starts[row, at] = True
                    at = stop
            yield ids, starts
            progress.advance()

    def _source_count(self, position: int, found: Found, picked: NDArray[np.int64]) -> SourceCount:
        source = self._recipe.sources[position]
        counted = self._corpus.counted.get(position, Counted())
        own = int(self._length[self._source == position].sum())
        used = int(self._length[picked[self._source[picked] == position]].sum())
        licence_file = None
        if found.licence_text is not None:
            licence_file = f"LICENCE-{source.name.replace('/', '_').replace(':', '_')}.txt"
            write_whole(self._out / licence_file, found.licence_text)
        return SourceCount(
            name=source.name,
            licence=source.licence,
            licence_file=licence_file,
            origin=found.origin,
            origin_sha256=found.origin_sha256,
            files=counted.files,
            bytes=counted.bytes,
            documents_found=counted.found,
            documents_kept=counted.kept,
            characters_kept=counted.characters,
            paragraphs_dropped=counted.paragraphs_dropped,
            dropped=dict(sorted(counted.dropped.items())),
            examples=dict(sorted(counted.examples.items())),
            tokens=own,
            epochs=used / own if own else 0.0,
            weight=source.weight,
        )


def _packing(segments: Segments, lengths: NDArray[np.int64], block_tokens: int) -> Packing:
    return Packing(
        documents=len(lengths),
        segments=len(segments.length),
        documents_longer_than_a_block=int((lengths > block_tokens).sum()),
        fillings=segments.fillings,
        tokens_dropped=segments.tokens_dropped,
    )


def _clear(out: Path, old: set[str], manifest: Manifest) -> None:
    """Shards of the dataset that was here before, once the new one is whole."""
    new = {name for one in manifest.shards for name in (one.file, one.starts_file)}
    for name in old - new:
        if name.startswith("shard-"):
            (out / name).unlink(missing_ok=True)
        elif name.startswith(".shard-"):  # left by a kill
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
