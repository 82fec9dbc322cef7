"""One vLLM server on loopback, in a process group of its own; it dies with whoever started it."""

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.system.real_engines.install import CACHE

START_S_MAX = 300.0  # without a compiler pass it takes 50 s on two cores
_PR_SET_PDEATHSIG = 1
_ENV = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB: 46,592 tokens of this model
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CACHE_ROOT": str(CACHE / "vllm"),
}


class VllmServer:
    """vLLM on one port, started as often as it was killed."""

    def __init__(self, *, python: Path, weights: Path, model: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._log = folder / "vllm.log"
        self._command = [
            str(python), "-m", "vllm.entrypoints.openai.api_server",  # `vllm serve` finds no
            "--model", str(weights), "--served-model-name", model,  # package named "vllm"
            "--host", "127.0.0.1", "--port", str(self.port),
            "--max-model-len", "2048", "--max-num-seqs", "8", "--enforce-eager",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Start and wait until it answers; the seconds that it took."""
        began_s = time.monotonic()
        libc = ctypes.CDLL(None)
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **_ENV},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
            )
        while not self._answers():
            assert self._process.poll() is None, f"vLLM ended by itself:\n{self.said}"
            assert time.monotonic() - began_s < START_S_MAX, f"not ready:\n{self.said}"
            time.sleep(0.25)
        return time.monotonic() - began_s

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes: the API server, the engine's core, the worker."""
        assert self._process is not None, "it was not started"
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """`kill -9`; nothing of it is left."""
        if self._process is not None:
            if self._process.poll() is None:
                self.signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    @property
    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-3000:]

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/v1/models")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
