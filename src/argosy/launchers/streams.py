"""The three streams of a local replica: stdin keeps it alive, stdout says its URL, stderr is a log.

Our own pipes, not asyncio's: its `wait()` returns only when nobody holds a pipe open any more,
be it a grandchild, or a pipe that is full because nobody reads it.
"""

import asyncio
import os
from pathlib import Path
from typing import BinaryIO

_LOG_BYTES_MAX = 5 * 2**20  # a longer log is put aside at the next start
_LINE_BYTES_MAX = 65536
_TAIL_BYTES = 2048
_TAIL_LINES = 5


class Lifeline:
    """The write end of a replica's stdin; nothing is written, its end is the message."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def close(self) -> None:
        """End it. May be called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class FirstLine:
    """The read end of a replica's stdout: its first line counts, what follows is dropped."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd: int | None = fd
        self._head = b""
        self._loop = asyncio.get_running_loop()
        self.line: asyncio.Future[bytes] = self._loop.create_future()  # empty: there was none
        self._loop.add_reader(fd, self._read)

    def close(self) -> None:
        """Take what is still there, then give the pipe up. May be called again."""
        while self._fd is not None and self._read():
            pass
        self._end()

    def _read(self) -> bool:
        """True when there may be more."""
        assert self._fd is not None
        try:
            chunk = os.read(self._fd, 65536)
        except BlockingIOError:
            return False
        if not chunk:
            self._end()
        elif not self.line.done():
            self._head += chunk
            line, newline, _ = self._head.partition(b"\n")
            if newline or len(line) > _LINE_BYTES_MAX:
                self.line.set_result(line)
        return bool(chunk)

    def _end(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
        if not self.line.done():
            self.line.set_result(b"")


class Log:
    """The file that a replica's stderr is appended to, across its restarts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = 0  # the byte where this process began to write

    def open(self) -> BinaryIO:
        """For one process; a long file is kept as `.1` first."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and self._path.stat().st_size > _LOG_BYTES_MAX:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        file = self._path.open("ab")
        self._start = file.seek(0, os.SEEK_END)
        return file

    def tail(self) -> str:
        """The last lines that this process wrote, ready to be put at the end of a message."""
        with self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._start, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        words = "\n".join(lines[-_TAIL_LINES:]).strip()
        return f"saying:\n{words}\n(all of it: {self._path})" if words else "saying nothing"
