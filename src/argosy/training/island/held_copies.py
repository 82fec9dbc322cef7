"""Checkpoints of other islands, held in this one's memory for as long as its process lives.

Owns what is held and the bound on it. Of each island the newest copy that came whole is held; one
that is on its way replaces it when its last file was checked, and not before (unless both together
do not fit: then the older goes first). Contents are bytes with a SHA-256: nothing here reads them.
The caller has checked who asks. One thread calls all of it.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from argosy.training.wire import Copy, CopyRefused

MEMORY_SHARE = 0.1  # of the machine's (or the container's), for all copies together
PIECE_BYTES_MAX = 8 * 2**20
FILES_MAX = 10_000
_PATH_MAX = 400
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_HEX = frozenset("0123456789abcdef")
_FORGOTTEN_S = 900.0  # a copy of which nothing came for so long makes room for others


class OffsetError(Exception):
    """Bytes were sent from another place than the next one; `there` are here."""

    def __init__(self, there: int) -> None:
        super().__init__(f"{there} bytes are here: go on from there")
        self.there = there


class UnlikeError(Exception):
    """A content is not what its name says; it was thrown away."""


class _Content:
    """One file's bytes, as they come."""

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(size)
        self.there = 0
        self.is_whole = False
        self._seen = hashlib.sha256()

    def add(self, offset: int, piece: bytes, name: str) -> None:
        if offset != self.there or offset + len(piece) > len(self.bytes):
            raise OffsetError(self.there)
        self.bytes[offset : offset + len(piece)] = piece
        self.there += len(piece)
        self._seen.update(piece)
        if self.there == len(self.bytes):
            self.is_whole = self._seen.hexdigest() == name


class _Held:
    """A copy, whole or on its way."""

    def __init__(self, copy: Copy, contents: dict[str, _Content], now_s: float) -> None:
        self.copy = copy
        self.contents = contents
        self.touched_s = now_s


class HeldCopies:
    """At most `bytes_max` of them."""

    def __init__(self, bytes_max: int) -> None:
        """Holds nothing yet."""
        self.bytes_max = bytes_max
        self._whole: dict[str, _Held] = {}
        self._coming: dict[str, _Held] = {}

    @property
    def bytes_held(self) -> int:
        """Of all, also of those on their way, which are counted from their beginning."""
        return _bytes_of([*self._whole.values(), *self._coming.values()])

    def begin(self, copy: Copy, *, now_s: float) -> dict[str, int] | CopyRefused:
        """What of it is missing, with the bytes that are there; {}: it is held now."""
        whole = self._whole.get(copy.island)
        if whole is not None and whole.copy == copy:
            self._coming.pop(copy.island, None)
            return {}
        coming = self._coming.get(copy.island)
        if coming is None or coming.copy != copy:
            refused = self._make_room(copy, now_s=now_s)
            if refused is not None:
                return refused
            coming = self._coming[copy.island] = _Held(copy, self._contents_for(copy), now_s)
        coming.touched_s = now_s
        missing = {
            name: content.there for name, content in coming.contents.items() if not content.is_whole
        }
        if not missing:
            self._whole[copy.island] = self._coming.pop(copy.island)
        return missing

    def add(self, island: str, name: str, offset: int, piece: bytes, *, now_s: float) -> None:
        """More of a content. Raises KeyError: it was not begun; OffsetError, UnlikeError."""
        coming = self._coming[island]
        content = coming.contents[name]
        coming.touched_s = now_s
        if content.is_whole:
            return
        content.add(offset, piece, name)
        if content.there == len(content.bytes) and not content.is_whole:
            coming.contents[name] = _Content(len(content.bytes))
            raise UnlikeError(f"the bytes that came are not those of {name}")

    def newest(self, island: str) -> Copy | None:
        """The manifest of what is held of it."""
        held = self._whole.get(island)
        return None if held is None else held.copy

    def content(self, island: str, name: str) -> memoryview | None:
        """One of the files of what is held of it."""
        held = self._whole.get(island)
        content = None if held is None else held.contents.get(name)
        return None if content is None else memoryview(content.bytes).toreadonly()

    def drop(self, island: str) -> None:
        """It is held elsewhere now."""
        self._whole.pop(island, None)
        self._coming.pop(island, None)

    def _make_room(self, copy: Copy, *, now_s: float) -> CopyRefused | None:
        for island, held in list(self._coming.items()):
            if now_s - held.touched_s > _FORGOTTEN_S:
                del self._coming[island]
        asked = sum({one.sha256: one.bytes for one in copy.files}.values())
        mine = copy.island
        others = _bytes_of(
            held
            for some in (self._whole, self._coming)
            for island, held in some.items()
            if island != mine
        )
        if others + asked > self.bytes_max:
            free = max(0, self.bytes_max - others)
            return CopyRefused(
                reason=f"{copy.label} has {asked} bytes; {free} of {self.bytes_max} are free here."
                " Raise copies_bytes_max of this island, or set checkpoints.is_in_peer_memory:"
                " false",
                bytes_asked=asked,
                bytes_free=free,
            )
        before = self._whole.get(mine)
        if before is not None:
            fresh = _Held(copy, self._contents_for(copy), now_s)
            if others + _bytes_of([before, fresh]) > self.bytes_max:
                del self._whole[mine]
                self._coming[mine] = _Held(before.copy, before.contents, now_s)  # to take from
        return None

    def _contents_for(self, copy: Copy) -> dict[str, _Content]:
        """What is known of the island's other copies is not sent again."""
        known: dict[str, _Content] = {}
        for held in (self._whole.get(copy.island), self._coming.get(copy.island)):
            if held is not None:
                known |= {name: one for name, one in held.contents.items() if one.is_whole}
        wanted = {one.sha256: one.bytes for one in copy.files}
        return {name: known.get(name) or _Content(size) for name, size in wanted.items()}


def fault_of(copy: Copy) -> str | None:
    """Why that cannot be a checkpoint's manifest, wherever it came from; None: it can."""
    if not _is_plain(copy.label):
        return f"label {copy.label[:80]!r} is no name of a folder"
    if not 0 < len(copy.files) <= FILES_MAX:
        return f"{len(copy.files)} files; 1 to {FILES_MAX} are possible"
    sizes: dict[str, int] = {}
    for file in copy.files:
        parts = file.path.split("/")
        if len(file.path) > _PATH_MAX or not all(_is_plain(part) for part in parts):
            return f"{file.path[:80]!r} is no path inside a checkpoint"
        if len(file.sha256) != 64 or not _HEX.issuperset(file.sha256):
            return f"{file.sha256[:80]!r} is no SHA-256"
        if file.bytes < 0 or sizes.setdefault(file.sha256, file.bytes) != file.bytes:
            return f"{file.path} has {file.bytes} bytes, which cannot be"
    paths = {file.path for file in copy.files}
    folders = {str(up) for path in paths for up in Path(path).parents}
    return "a path is there twice" if len(paths) < len(copy.files) or paths & folders else None


def copies_bytes_max(share: float = MEMORY_SHARE) -> int:
    """That share of the memory that this process may have at all."""
    bytes_max = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        told = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        told = "max"
    return int(share * (min(bytes_max, int(told)) if told.isdecimal() else bytes_max))


def _is_plain(part: str) -> bool:
    return 0 < len(part) <= 200 and not part.startswith(".") and _LETTERS.issuperset(part)


def _bytes_of(some: Iterable[_Held]) -> int:
    contents = {id(one): len(one.bytes) for held in some for one in held.contents.values()}
    return sum(contents.values())
