"""Files of recorded demand as bytes: opened again and again, unpacked, cut into whole lines.

Owns where a row is (file and line) and what a refusal quotes. What the lines mean is left to the
loaders beside this file.
"""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from argosy.simulator.traces.window import TOKENS_MAX, TraceError

BLOCK_BYTES = 2**20  # read at once: some ten thousand rows
LINE_BYTES_MAX = 2**26  # a longer one is no trace
QUOTED_CHARACTERS = 80  # of a bad line, in a message
GZIP_MAGIC, ZSTD_MAGIC, PARQUET_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some whole lines of a file; `lines[0]` is line `first_line` (1 is the file's first)."""

    file: str
    first_line: int
    data: bytes

    def lines(self) -> list[bytes]:
        """Each line, without its end."""
        return self.data.rstrip(b"\r\n").replace(b"\r\n", b"\n").split(b"\n")

    def refusal(self, index: int, wrong: str) -> TraceError:
        """Names the file, the line, what is wrong and what the line says."""
        lines = self.lines()
        text = lines[index].decode("utf-8", "replace") if index < len(lines) else ""
        if len(text) > QUOTED_CHARACTERS:
            text = text[:QUOTED_CHARACTERS] + "…"
        text = "".join(one if one.isprintable() else "\ufffd" for one in text)
        return TraceError(f"{self.file}:{self.first_line + index}: {wrong} The line: {text}")


class TraceFile:
    """A path, or a binary file that the caller opened; read from the beginning each time."""

    def __init__(self, source: str | Path | BinaryIO) -> None:
        self._source = Path(source) if isinstance(source, str | Path) else source
        if isinstance(self._source, Path):
            self.name = self._source.name
            if not self._source.is_file():
                raise TraceError(f"{self._source}: there is no such file; give a trace's path")
        else:
            self.name = Path(str(getattr(source, "name", "the open file"))).name
            if not self._source.seekable():
                raise TraceError(f"{self.name} cannot be read twice; save it to a file first")

    @property
    def path(self) -> Path | None:
        """None: the caller opened it."""
        return self._source if isinstance(self._source, Path) else None

    def packing(self) -> str:
        """How the bytes are packed, by their beginning: "gzip", "zstd", "parquet" or "plain"."""
        with self.opened() as raw:
            magic = raw.read(4)
        known = {GZIP_MAGIC: "gzip", ZSTD_MAGIC: "zstd", PARQUET_MAGIC: "parquet"}
        return next((name for start, name in known.items() if magic.startswith(start)), "plain")

    def blocks(self) -> Iterator[Block]:
        """All lines, about BLOCK_BYTES at a time."""
        line, rest = 1, b""
        for chunk in self._chunks():
            *whole, tail = chunk.rpartition(b"\n")
            if not whole[1]:
                rest += tail
                if len(rest) > LINE_BYTES_MAX:
                    raise TraceError(f"{self.name}:{line}: a line of over {len(rest)} bytes")
                continue
            data = rest + whole[0] + whole[1]
            yield Block(file=self.name, first_line=line, data=_without_mark(data, line))
            line, rest = line + data.count(b"\n"), tail
        if rest:
            yield Block(file=self.name, first_line=line, data=_without_mark(rest, line))

    def _chunks(self) -> Iterator[bytes]:
        """The bytes, unpacked; TraceError where they are damaged or end early."""
        unpack = {"gzip": _gunzipped, "zstd": _unzstd}.get(self.packing(), _plain)
        with self.opened() as raw:
            try:
                yield from unpack(raw)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise TraceError(
                    f"{self.name}: the file is damaged or cut short ({error}); fetch it again"
                ) from error

    def opened(self) -> BinaryIO | io.RawIOBase:
        """The bytes as they lie there, to be closed; a file of the caller's stays open."""
        return self._source.open("rb") if isinstance(self._source, Path) else _View(self._source)


class _View(io.RawIOBase):
    """The caller's file, read from the start at a place of its own; it stays open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_CUR:
            offset, whence = self._place + offset, io.SEEK_SET
        self._place = self._file.seek(offset, whence)
        return self._place

    def readinto(self, buffer: "memoryview", /) -> int:  # type: ignore[override]
        self._file.seek(self._place)
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _without_mark(data: bytes, line: int) -> bytes:
    return data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data


def _plain(raw: BinaryIO | io.RawIOBase) -> Iterator[bytes]:
    while chunk := raw.read(BLOCK_BYTES):
        yield chunk


def _gunzipped(raw: BinaryIO | io.RawIOBase) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=raw) as file:
        while chunk := file.read(BLOCK_BYTES):
            yield chunk


def _unzstd(raw: BinaryIO | io.RawIOBase) -> Iterator[bytes]:
    """Frame by frame, for the library's reader takes a file that is cut short for a whole one."""
    try:
        import zstandard
    except ImportError as error:
        raise TraceError(
            "a .zst trace needs the package zstandard: pip install 'argosy[simulate]'"
        ) from error
    frame = None
    unpacker = zstandard.ZstdDecompressor()
    try:
        while packed := raw.read(BLOCK_BYTES // 8):
            while packed:
                frame = frame or unpacker.decompressobj()
                chunk = frame.decompress(packed)
                packed = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
                if chunk:
                    yield chunk
    except zstandard.ZstdError as error:
        raise EOFError(error) from error
    if frame is not None:
        raise EOFError("the last zstd frame has no end")


def check_rows(
    refusal: Callable[[int, str], TraceError],
    columns: dict[str, NDArray[np.float64] | NDArray[np.int64]],
    *,
    after_s: float | None,
) -> None:
    """Refuse what no request can have; `after_s`: the arrival before these (None: any order)."""
    arrival_s = columns["arrival_s"]
    _refuse_first(refusal, ~np.isfinite(arrival_s), "the time is not a finite number.")
    for name in ("prompt_tokens", "output_tokens"):
        tokens = columns[name]
        bad = (tokens < 1) | (tokens > TOKENS_MAX)
        if bad.any():
            index = int(bad.argmax())
            hint = ""
            if name == "output_tokens" and tokens[index] == 0:
                hint = " (zero_output_as_one=True reads 0 as 1: prefill makes a token)"
            raise refusal(index, f"{name} is {tokens[index]}; 1 to {TOKENS_MAX} would do{hint}.")
    if after_s is None or not arrival_s.size:
        return
    before_s = np.concatenate([[after_s], arrival_s[:-1]])
    back = arrival_s < before_s
    if back.any():
        index = int(back.argmax())
        raise refusal(
            index,
            f"this line goes back in time, {before_s[index] - arrival_s[index]:.6g} s before the "
            "one above; sort the file by time, or read it with sort=True if it fits in memory.",
        )
    # The first row of all has nothing before it but second 0.
    _refuse_first(refusal, arrival_s < 0, "the time is before second 0.")


def _refuse_first(
    refusal: Callable[[int, str], TraceError], bad: NDArray[np.bool_], wrong: str
) -> None:
    if bad.any():
        raise refusal(int(bad.argmax()), wrong)
