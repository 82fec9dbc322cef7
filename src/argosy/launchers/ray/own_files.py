"""Files that a program on a node was sent: in a folder of its own, which only its owner reads.

They may be secrets, so they are removed when the program has ended; those of an actor that was
killed, by the next one of the fleet on that machine, when it begins or ends.
"""

import contextlib
import os
import shutil
import socket
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import psutil


class OwnFiles:
    """Of the program `name`, in `folder`, which is the fleet's on this machine."""

    def __init__(self, folder: Path, name: str) -> None:
        _remove_left(folder)
        self._fleets = folder
        self.folder = folder / f"{quote(name, safe=':@')}.{os.getpid()}{_host()}"

    def make(self) -> None:
        """The folder, empty. Raises OSError."""
        self._fleets.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.remove()
        self.folder.mkdir(mode=0o700)

    def put(self, files: dict[str, bytes]) -> None:
        """By relative path, in their order, each whole; where there is no folder any more, nothing.

        Raises OSError, also for a path that leads out.
        """
        for name, content in files.items() if self.folder.is_dir() else ():
            told = PurePosixPath(name)
            if told.is_absolute() or ".." in told.parts or not told.parts:
                raise OSError(f"{name!r} is no file of its own folder")
            _put(self.folder.joinpath(*told.parts), content)

    def remove(self) -> None:
        """All of them, and what others left."""
        shutil.rmtree(self.folder, ignore_errors=True)
        _remove_left(self._fleets)


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)


def _remove_left(folder: Path) -> None:
    """Those of actors that are gone; of this machine's, for hosts may share a home."""
    for one in folder.iterdir() if folder.is_dir() else ():
        pid = one.name.removesuffix(_host()).rpartition(".")[2]
        with contextlib.suppress(OSError):
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(one, ignore_errors=True)


def _host() -> str:
    return f"@{quote(socket.gethostname(), safe='')}"
