"""All documents of a recipe, chunk by chunk, and what became of each; never all text at once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.training.data import documents
from argosy.training.data.documents import Document, Documents
from argosy.training.data.duplicates import Hashes, Mark, marks
from argosy.training.data.recipe import Cleaning
from argosy.training.data.sources import Chunk

_EXAMPLES_MAX = 5


class Counted(msgspec.Struct, kw_only=True):
    """Of one source, as it grows."""

    files: int = 0
    bytes: int = 0
    found: int = 0
    kept: int = 0
    characters: int = 0
    paragraphs_dropped: int = 0
    dropped: Counter[str] = msgspec.field(default_factory=Counter)
    examples: dict[str, tuple[str, ...]] = {}

    def add_chunk(self, made: Documents) -> None:
        self.files += made.files
        self.bytes += made.bytes
        self.found += made.found
        self.dropped.update(made.dropped)
        for reason, names in made.examples.items():
            self._note(reason, names)

    def add_document(self, document: Document, mark: Mark, text: str | None) -> None:
        if mark.dropped is not None or text is None:
            reason = mark.dropped or "only_repeated_paragraphs"
            self.dropped[reason] += 1
            self._note(reason, (document.name,))
            return
        self.kept += 1
        self.characters += len(text)
        self.paragraphs_dropped += len(mark.paragraphs_dropped)

    def _note(self, reason: str, names: tuple[str, ...]) -> None:
        self.examples[reason] = (*self.examples.get(reason, ()), *names)[:_EXAMPLES_MAX]


class Corpus:
    """The chunks' files in the cache, and a mark for each document in them."""

    def __init__(self, chunks: Sequence[Chunk], paths: Sequence[Path], rules: Cleaning) -> None:
        self.chunks = chunks
        self.paths = paths
        self._rules = rules
        self._marks: list[list[Mark]] = []
        self.counted: dict[int, Counted] = {chunk.source: Counted() for chunk in chunks}
        self.digests: list[list[bytes]] = []  # by chunk: what of it is kept, exactly
        self.bytes_kept = 0

    def settle(self) -> None:
        """Decides what stays, and counts."""
        hashes = Hashes()
        sizes: list[int] = []
        for path in self.paths:
            made = documents.load(path)
            sizes.append(len(made.documents))
            for one in made.documents:
                hashes.add(one)
        found = marks(hashes, self._rules)
        cuts = np.cumsum([0, *sizes]).tolist()
        self._marks = [found[cuts[at] : cuts[at + 1]] for at in range(len(sizes))]
        for at, chunk in enumerate(self.chunks):
            self._count(at, self.counted[chunk.source])

    def texts(self, at: int) -> list[str]:
        """Of the documents of a chunk that stay, in order."""
        made = documents.load(self.paths[at]).documents
        found = (_text(one, mark) for one, mark in zip(made, self._marks[at], strict=True))
        return [text for text in found if text is not None]

    def all_texts(self) -> Iterator[str]:
        """Of all chunks."""
        for at in range(len(self.paths)):
            yield from self.texts(at)

    def why_dropped(self) -> str:
        """How many documents of all sources for which reason."""
        every = sum((one.dropped for one in self.counted.values()), Counter[str]())
        return ", ".join(f"{count} {reason}" for reason, count in sorted(every.items()))

    def sources(self, counts: Sequence[int]) -> NDArray[np.int64]:
        """The source of each document, given how many each chunk has."""
        return np.repeat(np.array([one.source for one in self.chunks], dtype=np.int64), counts)

    def _count(self, at: int, counted: Counted) -> None:
        made = documents.load(self.paths[at])
        counted.add_chunk(made)
        digests: list[bytes] = []
        for one, mark in zip(made.documents, self._marks[at], strict=True):
            text = _text(one, mark)
            counted.add_document(one, mark, text)
            if text is not None:
                digests.append(one.sha256 + bytes(str(mark.paragraphs_dropped), "ascii"))
                self.bytes_kept += len(text.encode())
        self.digests.append(digests)


def _text(document: Document, mark: Mark) -> str | None:
    """What of it stays; None where nothing does."""
    if mark.dropped is not None:
        return None
    if not mark.paragraphs_dropped:
        return document.text
    out = frozenset(mark.paragraphs_dropped)
    pieces = documents.paragraphs_of(document.text)
    text = "\n\n".join(piece for at, piece in enumerate(pieces) if at not in out).strip()
    return text or None
