"""One island of a run as a process of its supervisor: made from the run's folder, tied to it.

Exits with 0 when the run is over or it was told to leave, with `REFUSED` where starting it again is
no use, and with 1 for all else. What it tells goes to its log; that it has joined, to the
supervisor, as the line that a listening process prints.
"""

import argparse
import contextlib
import io
import sys
from pathlib import Path
from typing import TextIO

import msgspec

from argosy.cli.training_folder import KeptRun, RunFolder
from argosy.cli.training_supervisor import REFUSED
from argosy.cli.training_tie import tie_to_parent


def main() -> int:
    """Until the run ends, or the supervisor wants it; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--island", required=True)
    asked = parser.parse_args()
    tie_to_parent()
    folder = RunFolder(asked.state, asked.run)
    return _train(folder, folder.read(), asked.island)


def write_spec(folder: RunFolder, kept: KeptRun, island: str) -> Path:
    """What `python -m argosy.training.island` takes; elsewhere its paths are to be changed."""
    from argosy.training.credentials import folder_of
    from argosy.training.island.process import IslandSpec

    spec = IslandSpec(
        run=kept.run,
        island=island,
        url=f"https://127.0.0.1:{kept.syncer_port}",
        credentials=str(folder_of(folder.credentials, "island", island)),
        folder=str(folder.island(island)),
        inner=kept.inner,
        step_s=kept.step_s,
        tells_steps=False,
    )
    path = folder.path / f"island-{island}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(spec), indent=1))
    return path


def _train(folder: RunFolder, kept: KeptRun, island: str) -> int:
    from argosy.training.data.manifest import DatasetError
    from argosy.training.island import process

    path = write_spec(folder, kept, island)
    with contextlib.redirect_stdout(_Told(sys.stdout)):
        try:
            return process.main([str(path)])
        except (DatasetError, ImportError) as error:
            sys.stderr.write(f"{island}: {error}\n")
            return REFUSED


class _Told(io.TextIOBase):
    """Where the island's events go."""

    def __init__(self, supervisor: TextIO) -> None:
        self._supervisor = supervisor
        self._joined = '{"url": "joined"}\n'  # it listens nowhere; what counts is that it is up

    def write(self, text: str) -> int:
        if self._joined and '"event":"joined"' in text:
            self._supervisor.write(self._joined)
            self._supervisor.flush()
            self._joined = ""
        with contextlib.suppress(OSError):  # a full disk: what the log lacks stops nobody
            sys.stderr.write(text)
        return len(text)


if __name__ == "__main__":
    sys.exit(main())
