"""The adapter of llama.cpp: its server runs in the replica's process, see `llama_cpp_server.py`.

Knows what that server honours and how it words its errors. Loads nothing: the library is
imported by the replica alone.
"""

import re
import sys
from pathlib import Path

import msgspec

from argosy.engines.port import THIS_MACHINE, Abilities, Place
from argosy.fleet.config import EngineConfig, LlamaCppEngine, Model
from argosy.fleet.messages import Command, Refusal

# One text that is embedded must fit one batch; the batch's buffers are resident once used:
# +365 MB of RSS for 1024 tokens of a vocabulary of 49152 (measured 2026-11-21), +165 MB for 512.
EMBEDDING_TOKENS_MAX = 1024

_TOO_LARGE_TO_EMBED = re.compile(r"input \((\d+) tokens\) is too large .*batch size: (\d+)")


class LlamaCppSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The argument of `python -m argosy.engines.llama_cpp_server`, as JSON."""

    model: str  # the name that it answers to
    weights: str  # path of a GGUF file
    context_tokens: int  # of one request
    slots: int
    threads: int
    prefix_cache: bool
    host: str = "127.0.0.1"  # that it binds


class LlamaCpp:
    """llama.cpp's own server."""

    kind = "llama.cpp"
    health_path = "/health"

    def abilities(self, config: EngineConfig) -> Abilities:
        assert isinstance(config, LlamaCppEngine)
        return Abilities(
            forces_tool_choice=False,  # accepted, and answered in prose (measured)
            reports_stop_sequence=False,
            continuation="trailing",
            running_counts="timings_per_token",
            counts_every_choice=False,  # n=3 and three prompts: one is counted (measured)
            counts_tokens_at_messages=True,
            embeddings=True,
            context_tokens=config.context_tokens,
            slots=config.slots,
            keeps_body=True,
        )

    def command(
        self,
        config: EngineConfig,
        *,
        model: Model,
        weights: Path | None,
        threads: int,
        place: Place = THIS_MACHINE,
    ) -> Command | None:
        assert isinstance(config, LlamaCppEngine)
        assert weights is not None, "needs_weights() is true, so weights were fetched"
        spec = LlamaCppSpec(
            model=model.name,
            weights=str(weights),
            context_tokens=config.context_tokens,
            slots=config.slots,
            threads=config.threads or threads,
            prefix_cache=config.prefix_cache,
            host=place.host,
        )
        module = "argosy.engines.llama_cpp_server"
        return Command(
            argv=(sys.executable, "-P", "-m", module, msgspec.json.encode(spec).decode()),
            # Threads that spin for work starve each other on a shared machine: 2 threads at
            # load 5-9 gave 0.9-3.2 tokens/s, passive ones 20-60 (measured 2026-11-21).
            env={"OMP_WAIT_POLICY": "passive"},
        )

    def needs_weights(self) -> bool:
        return True

    def adapt(
        self, fields: dict[str, msgspec.Raw], *, config: EngineConfig, model: str
    ) -> dict[str, msgspec.Raw]:
        return {**fields, "model": msgspec.Raw(msgspec.json.encode(model))}

    def read_refusal(self, status: int, body: bytes) -> Refusal:
        error = _read(body)
        if error.n_prompt_tokens is not None and error.n_ctx is not None:
            return _overflow(error.n_prompt_tokens, error.n_ctx)
        if too_large := _TOO_LARGE_TO_EMBED.search(error.message):
            tokens, tokens_max = too_large.groups()
            message = f"a text to embed has {tokens} tokens; this replica embeds {tokens_max}"
            return Refusal(kind="context_overflow", message=message)
        match error.type:
            case "exceed_context_size_error":
                return Refusal(kind="context_overflow", message=error.message)
            case "not_supported_error":
                return Refusal(kind="unsupported", message=f"the engine says: {error.message}")
            case "unavailable_error":
                return _loading(error.message)
        if status == 503:
            return _loading(error.message)
        kind = "upstream_failed" if status >= 500 else "upstream_refused"
        return Refusal(kind=kind, message=f"the engine answered {status}: {error.message}")


class _Error(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str = ""
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    error: _Error


def _read(body: bytes) -> _Error:
    """The error in an answer's body; one without a type when the body is something else."""
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error
    except (ValueError, RecursionError):
        text = body[:200].decode(errors="replace").strip()
        return _Error(message=text or "an empty body")


def _overflow(prompt_tokens: int, context_tokens: int) -> Refusal:
    message = f"the prompt has {prompt_tokens} tokens; this model's context is {context_tokens}"
    return Refusal(kind="context_overflow", message=f"{message} tokens")


def _loading(message: str) -> Refusal:
    return Refusal(
        kind="no_replica", message=f"the replica is not ready: {message}", retry_after_s=1.0
    )
