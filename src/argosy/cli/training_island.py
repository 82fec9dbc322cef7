"""One island of a run as a process of its supervisor: made from the run's folder, tied to it.

Its exit status and what it tells to whom: see `argosy.training.island.launched`.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from argosy.cli.training_folder import KeptRun, RunFolder
from argosy.cli.training_tie import tie_to_parent

if TYPE_CHECKING:
    from argosy.training.island.process import IslandSpec


def main() -> int:
    """Until the run ends, or the supervisor wants it; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--island", required=True)
    asked = parser.parse_args()
    tie_to_parent()
    from argosy.training.island.launched import train

    folder = RunFolder(asked.state, asked.run)
    return train(write_spec(folder, folder.read(), asked.island))


def write_spec(folder: RunFolder, kept: KeptRun, island: str) -> Path:
    """What `python -m argosy.training.island` takes; elsewhere its paths are to be changed."""
    path = folder.path / f"island-{island}.json"
    spec = msgspec.json.encode(spec_of(folder, kept, island))
    path.write_bytes(msgspec.json.format(spec, indent=1))
    return path


def spec_of(folder: RunFolder, kept: KeptRun, island: str) -> "IslandSpec":
    """With paths of this host."""
    from argosy.training.credentials import folder_of
    from argosy.training.island.process import IslandSpec

    host = kept.syncer_host
    asked = next(one for one in kept.run.islands if one.name == island)
    chips = {pool.name: pool.chip for pool in kept.pools}
    return IslandSpec(
        run=kept.run,
        island=island,
        url=f"https://{f'[{host}]' if ':' in host else host}:{kept.syncer_port}",
        credentials=str(folder_of(folder.credentials, "island", island)),
        folder=str(folder.island(island)),
        inner=kept.inner,
        step_s=kept.step_s,
        tells_steps=False,
        chip=None if asked.device == "cpu" else chips.get(asked.pool or ""),
        peer_host="127.0.0.1" if island in kept.elsewhere else host,
    )


if __name__ == "__main__":
    sys.exit(main())
