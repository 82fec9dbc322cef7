"""The readers measured beside ours: each from PyPI, in a virtual environment of its own.

MosaicML's imports torchvision, whose build on PyPI fits no CPU build of PyTorch: it gets a stub of
the four names that it imports, none of which reading tokens calls.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(tempfile.gettempdir()) / "argosy-data-peers"
_CHILDREN = Path(__file__).parent
_TORCHVISION = {
    "__init__.py": "",
    "datasets.py": "class VisionDataset: ...\nclass CIFAR10: ...\n",
    "transforms/__init__.py": "",
    "transforms/functional.py": "def to_tensor(picture): raise NotImplementedError\n",
}


class PeerFailedError(Exception):
    """It cannot be installed or run: the reason goes into the report."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One reader, and the script of this folder that its own Python runs."""

    name: str
    requirements: tuple[str, ...]
    script: str
    has_stub: bool = False


LITDATA = Peer(
    name="LitData 0.2.76",
    requirements=("litdata==0.2.76", "torch==2.13.0"),
    script="data_child_litdata.py",
)
MDS = Peer(
    name="MDS 0.13.0",
    requirements=("mosaicml-streaming==0.13.0", "torch==2.13.0"),
    script="data_child_mds.py",
    has_stub=True,
)
ALL = (LITDATA, MDS)


def installed(peer: Peer) -> Path:
    """Its Python; installed first where it is not. Raises PeerFailedError."""
    folder = _ROOT / peer.script.removeprefix("data_child_").removesuffix(".py")
    python = folder / "bin" / "python"
    if (folder / ".done").exists():
        return python
    print(f"installing {peer.name} (minutes)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", *peer.requirements])
    if peer.has_stub:
        _run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"])
        site = next(folder.glob("lib/python3.*/site-packages")) / "torchvision"
        for name, text in _TORCHVISION.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
    (folder / ".done").touch()
    return python


def ask(python: Path, script: str, *arguments: str) -> dict[str, float]:
    """What the script says in its last line. Raises PeerFailedError."""
    said = _run([str(python), str(_CHILDREN / script), *arguments]).strip().splitlines()
    return json.loads(said[-1]) if said and said[-1].startswith("{") else {}


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise PeerFailedError(f"{' '.join(command[:4])} …: {last}")
    return done.stdout
