"""An island as a child of whoever keeps it alive: here, or in an actor on a node of a pool.

Says on stdout, once it has joined, the line that a listening process prints; all else goes to its
log. Exits with 0 when the run is over or it was told to leave, with `REFUSED` where starting it
again is no use, and with 1 for all else. On a node:
`python -m argosy.training.island.launched FILES --folder DIR --host HOST`.
"""

import argparse
import contextlib
import io
import os
import sys
import threading
from pathlib import Path
from typing import TextIO

import msgspec

REFUSED = 3  # an exit code: what it was asked cannot be done, and will not be the next time

SPEC_FILE = "island.json"  # of what is sent to a node; its paths are made there
CREDENTIALS_FOLDER = "credentials"


def main(arguments: list[str]) -> int:
    """On a node, until the run ends or it is told to leave; the exit status."""
    from argosy.training.island.process import IslandSpec

    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--host", required=True)
    asked = parser.parse_args(arguments)
    threading.Thread(target=_end_with_parent, name="tie", daemon=True).start()
    spec = msgspec.json.decode((asked.files / SPEC_FILE).read_bytes(), type=IslandSpec)
    here = msgspec.structs.replace(
        spec,
        credentials=str(asked.files / CREDENTIALS_FOLDER),
        folder=str(asked.folder / "islands" / spec.island),
        peer_host=asked.host,
    )
    path = asked.files / "here.json"
    path.write_bytes(msgspec.json.encode(here))
    return train(path)


def train(spec: Path) -> int:
    """As `argosy.training.island.process` does, told as above."""
    from argosy.training.data.manifest import DatasetError
    from argosy.training.island import process

    with contextlib.redirect_stdout(_Told(sys.stdout)):
        try:
            status = process.main([str(spec)])
        except (DatasetError, ImportError) as error:
            sys.stderr.write(f"{error}\n")
            return REFUSED
    return REFUSED if status == process.DIVERGED else status


class _Told(io.TextIOBase):
    """Where the island's events go."""

    def __init__(self, parent: TextIO) -> None:
        self._parent = parent
        self._joined = '{"url": "joined"}\n'  # it listens nowhere; what counts is that it is up

    def write(self, text: str) -> int:
        if self._joined and '"event":"joined"' in text:
            self._parent.write(self._joined)
            self._parent.flush()
            self._joined = ""
        with contextlib.suppress(OSError):  # a full disk: what the log lacks stops nobody
            sys.stderr.write(text)
        return len(text)


def _end_with_parent() -> None:
    """Where no kernel does it: the actor holds our stdin open for as long as it lives."""
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
