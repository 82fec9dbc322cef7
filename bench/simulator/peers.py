"""Who is measured beside: each from PyPI, in a virtual environment under the user's cache folder.

Both replay the same lengths and arrivals by round robin, in a process of their own on the same
core. Timed is the replay: neither the start of Python nor the reading of the requests.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from argosy.simulator.engine.replay import Arrivals

_CACHE = platformdirs.user_cache_path("argosy") / "simulator-peers"


class PeerFailedError(Exception):
    """It cannot be installed or run: the reason goes into the report."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One simulator, and the script of this folder that its own Python runs."""

    name: str
    requirements: tuple[str, ...]  # for pip, pinned
    has_dependencies: bool
    script: str


DYNOSIM = Peer(
    name="DynoSim",
    # Without dependencies: one of them can be had from its maker's own index alone, and offline
    # replay needs none but these two.
    requirements=("ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1", "typing_extensions", "pydantic"),
    has_dependencies=False,
    script="dynosim_child.py",
)
SR_SIM = Peer(
    name="vllm-sr-sim",
    requirements=("vllm-sr-sim==0.1.0.dev20260713123629",),
    has_dependencies=True,
    script="sr_sim_child.py",
)
ALL = (DYNOSIM, SR_SIM)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One replay of a peer."""

    took_s: float
    finished: int
    ttft_s_mean: float | None


def install(peer: Peer) -> str:
    """The path of its Python; the virtual environment is made the first time."""
    home = _CACHE / re.sub(r"\[.*?\]", "", peer.requirements[0]).replace("==", "-")
    if not (home / ".complete").exists():
        print(f"installing {peer.requirements[0]} into {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        _call([sys.executable, "-m", "venv", str(home)])
        pip = [str(home / "bin/python"), "-m", "pip", "install", "-q"]
        if peer.has_dependencies:
            _call([*pip, *peer.requirements])
        else:
            _call([*pip, "--no-deps", *peer.requirements[:2]])
            _call([*pip, *peer.requirements[2:]])
        (home / ".complete").touch()
    return str(home / "bin/python")


def run(peer: Peer, python: str, asked: Arrivals, replicas: int, folder: Path) -> Ran:
    """Replay it, once."""
    path = folder / "asked.jsonl"
    with path.open("w") as file:
        for at_s, prompt, output in zip(*asked[:3], strict=True):
            row = {"at_s": float(at_s), "prompt": int(prompt), "output": int(output)}
            file.write(json.dumps(row) + "\n")
    script = Path(__file__).parent / peer.script
    core = min(os.sched_getaffinity(0))
    printed = _call([python, str(script), str(path), str(replicas), str(core)])
    return Ran(**json.loads(printed.splitlines()[-1]))


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        raise PeerFailedError("; ".join(done.stderr.strip().splitlines()[-2:])[:300])
    return done.stdout
