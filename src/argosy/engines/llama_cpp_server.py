"""The program inside a llama.cpp replica: `python -m argosy.engines.llama_cpp_server SPEC`.

Runs llama.cpp's own HTTP server in this process; Python only chooses its settings. One server
generates and embeds: mean pooling costs generation nothing that could be measured.
"""

import os
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from argosy.engines import replica_process
from argosy.engines.llama_cpp import EMBEDDING_TOKENS_MAX, LlamaCppSpec

_Xllamacpp = Any  # that module and its objects: compiled, without type stubs

# Prompts that lost their slot wait here for their next turn, beside the 4 x 94 MB of the slots
# (4096 tokens of SmolLM2-135M); llama.cpp's own default is 8192 MiB.
_PROMPT_CACHE_MIB = 256
_LOG_WARNINGS = 2  # 3 writes seven lines a request


def main() -> None:
    """Serve until the parent is gone."""
    announce = replica_process.begin()
    spec = msgspec.json.decode(sys.argv[1], type=LlamaCppSpec)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the library loads
    server = _load(spec)
    announce(server.listening_address)
    threading.Event().wait()  # its threads serve


def _load(spec: LlamaCppSpec) -> _Xllamacpp:
    """The server, listening; a model that cannot be loaded ends the process with its reason."""
    weights = Path(spec.weights)
    if not weights.is_file():
        sys.exit(f"{weights}: there is no such file of weights. Give a GGUF file.")
    with weights.open("rb") as file:
        if file.read(4) != b"GGUF":
            sys.exit(f"{weights} is not a GGUF file. llama.cpp reads no other format.")

    xllamacpp = import_module("xllamacpp")  # 30 MB of code: only after the cheap checks
    try:
        return xllamacpp.Server(_params(spec, xllamacpp))
    except RuntimeError:
        time.sleep(0.2)  # its log is written by a thread; the reason has to be the last line
        sys.exit(f"{weights}: llama.cpp cannot load this model; its own words are above.")


def _params(spec: LlamaCppSpec, xllamacpp: _Xllamacpp) -> _Xllamacpp:
    params = xllamacpp.CommonParams()
    params.model.path = spec.weights
    params.model_alias = {spec.model}
    # One KV cache for all slots: with one each, sequences of unlike length are computed in several
    # parts, and pooling takes the mean of the last part alone. Each slot keeps its own limit.
    params.n_ctx = spec.context_tokens * spec.slots
    params.kv_unified = True
    params.kv_unified_per_slot = spec.context_tokens
    params.n_parallel = spec.slots
    params.n_batch = params.n_ubatch = min(spec.context_tokens, EMBEDDING_TOKENS_MAX)
    params.cpuparams.n_threads = spec.threads
    params.cpuparams_batch.n_threads = spec.threads
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.cache_prompt = spec.prefix_cache
    params.cache_ram_mib = _PROMPT_CACHE_MIB if spec.prefix_cache else 0
    params.hostnames = [spec.host]
    params.port = 0
    params.endpoint_metrics = True
    params.endpoint_slots = False  # it would show one client's prompt to another
    params.ui = False
    params.cors_origins = "http://127.0.0.1"  # default: any web page may read its answers
    params.verbosity = _LOG_WARNINGS
    return params


if __name__ == "__main__":
    main()
