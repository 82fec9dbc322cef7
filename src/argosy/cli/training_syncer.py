"""The syncer of a run as a process of its supervisor: made from the run's folder, tied to it."""

import argparse
import sys
from pathlib import Path

import msgspec

from argosy.cli.state import STORE_FILE
from argosy.cli.training_folder import RunFolder
from argosy.cli.training_tie import tie_to_parent


def main() -> int:
    """Until the run ends, or the supervisor wants it; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--run", required=True)
    asked = parser.parse_args()
    tie_to_parent()
    from argosy.training.credentials import folder_of
    from argosy.training.syncer import process

    folder = RunFolder(asked.state, asked.run)
    kept = folder.read()
    spec = process.SyncerSpec(
        run=kept.run,
        text=kept.spec,
        store=str(folder.state / STORE_FILE),
        folder=str(folder.syncer),
        credentials=str(folder_of(folder.credentials, "syncer")),
        host=kept.syncer_host,
        port=kept.syncer_port,
    )
    path = folder.path / "syncer.json"
    path.write_bytes(msgspec.json.encode(spec))
    return process.main([str(path)])


if __name__ == "__main__":
    sys.exit(main())
