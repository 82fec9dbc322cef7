"""What is there twice: documents alike to the word, documents nearly alike, repeated paragraphs.

Of equal ones the first stays, in the order of the recipe. Works on hashes alone: about 600 bytes of
memory a document.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.training.data.documents import Document
from argosy.training.data.near import PLACES, near_duplicates
from argosy.training.data.recipe import Cleaning


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one document."""

    dropped: str | None  # the reason, or None: it stays
    paragraphs_dropped: tuple[int, ...] = ()


class Hashes(msgspec.Struct, kw_only=True):
    """Of all documents, in order; text is not kept."""

    sha256: list[bytes] = []
    paragraphs: list[NDArray[np.uint64]] = []
    signatures: list[bytes] = []

    def add(self, document: Document) -> None:
        self.sha256.append(document.sha256)
        self.paragraphs.append(np.frombuffer(document.paragraphs, dtype="<u8"))
        self.signatures.append(document.signature)


def marks(hashes: Hashes, rules: Cleaning) -> list[Mark]:
    """One for each document."""
    reasons = _exact(hashes)
    if rules.near_duplicate_share is not None:
        _near(hashes, reasons, rules.near_duplicate_share)
    return _repeated_paragraphs(hashes, reasons, rules.paragraph_documents_max)


def _exact(hashes: Hashes) -> list[str | None]:
    seen: set[bytes] = set()
    reasons: list[str | None] = []
    for one in hashes.sha256:
        reasons.append("duplicate" if one in seen else None)
        seen.add(one)
    return reasons


def _near(hashes: Hashes, reasons: list[str | None], share: float) -> None:
    able = [
        place for place, signed in enumerate(hashes.signatures) if signed and reasons[place] is None
    ]
    if not able:
        return
    joined = b"".join(hashes.signatures[place] for place in able)
    signatures = np.frombuffer(joined, dtype="<u4").reshape(-1, PLACES)
    for place, is_dropped in zip(able, near_duplicates(signatures, share).tolist(), strict=True):
        if is_dropped:
            reasons[place] = "near_duplicate"


def _repeated_paragraphs(
    hashes: Hashes, reasons: list[str | None], documents_max: int
) -> list[Mark]:
    """In the first document that has it, a paragraph stays: boilerplate is read once."""
    kept = [np.unique(hashes.paragraphs[place]) for place, why in enumerate(reasons) if why is None]
    every = np.concatenate(kept) if kept else np.empty(0, dtype=np.uint64)
    values, counts = np.unique(every, return_counts=True)
    repeated = values[(counts > documents_max) & (values != 0)]
    seen: set[int] = set()
    found: list[Mark] = []
    for place, why in enumerate(reasons):
        here = hashes.paragraphs[place]
        if why is not None or not len(repeated):
            found.append(Mark(dropped=why))
            continue
        hits = np.flatnonzero(np.isin(here, repeated)).tolist()
        out = tuple(hit for hit in hits if int(here[hit]) in seen)
        seen.update(int(here[hit]) for hit in hits)
        found.append(Mark(dropped=None, paragraphs_dropped=out))
    return found
