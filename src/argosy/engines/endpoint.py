"""The adapter of whatever answers at a URL in the OpenAI shape: vLLM, SGLang, a cloud's service.

Starts nothing. What cannot be known of it, it is not trusted with: see `abilities`.
"""

from pathlib import Path
from typing import Literal

import msgspec

from argosy.engines.port import THIS_MACHINE, Abilities, Place
from argosy.fleet.config import EndpointEngine, EngineConfig, Model
from argosy.fleet.messages import Command, Refusal, RefusalKind

_CONTINUATION: dict[str, Literal["trailing", "flags"] | None] = {
    "none": None,
    "trailing": "trailing",
    "vllm": "flags",
}


class Endpoint:
    """An engine that somebody else runs."""

    kind = "endpoint"
    health_path = "/v1/models"

    def abilities(self, config: EngineConfig) -> Abilities:
        assert isinstance(config, EndpointEngine)
        return Abilities(
            forces_tool_choice=config.forces_tool_choice,
            reports_stop_sequence=config.reports_stop_sequence,
            continuation=_CONTINUATION[config.continuation],
            running_counts=None,
            counts_every_choice=True,
            counts_tokens_at_messages=False,
            embeddings=config.embeddings,
            context_tokens=config.context_tokens,
            slots=config.slots,
            keeps_body=config.model is None,
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
        return None

    def needs_weights(self) -> bool:
        return False

    def adapt(
        self, fields: dict[str, msgspec.Raw], *, config: EngineConfig, model: str
    ) -> dict[str, msgspec.Raw]:
        assert isinstance(config, EndpointEngine)
        return {**fields, "model": msgspec.Raw(msgspec.json.encode(config.model or model))}

    def read_refusal(self, status: int, body: bytes) -> Refusal:
        return read_openai_refusal(status, body)


class OpenAIError(msgspec.Struct, frozen=True, kw_only=True):
    """What an error's body says, whichever of the three shapes it has."""

    message: str
    type: str | None = None
    param: str | None = None
    code: str | None = None


def read_openai_refusal(status: int, body: bytes) -> Refusal:
    """What OpenAI, vLLM or FastAPI mean by an answer of that status; never raises."""
    error = _read(body)
    if _is_overflow(error):
        return Refusal(kind="context_overflow", message=error.message, param=error.param)
    message = f"the replica answered {status}: {error.message}"
    kind: RefusalKind = "upstream_refused"
    if status in (401, 403):
        kind = "upstream_failed"
        message = f"the endpoint refused Argosy's own key ({status}): {error.message}"
    elif status == 429:
        kind = "rate_limited"
    elif status == 404 or status >= 500:
        kind = "upstream_failed"  # 404: it has no such path or model; the client's model is right
    code = error.code if kind == "upstream_refused" else None
    return Refusal(kind=kind, message=message, param=error.param, code=code)


def _is_overflow(error: OpenAIError) -> bool:
    return (
        error.code == "context_length_exceeded" or "maximum context length" in error.message.lower()
    )


def _read(body: bytes) -> OpenAIError:
    try:
        said = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        said = None
    fields = said if isinstance(said, dict) else {}
    if isinstance(fields.get("error"), dict):  # OpenAI, vLLM since 0.9
        return _from_fields(fields["error"], body)
    if isinstance(fields.get("error"), str):
        return OpenAIError(message=fields["error"])
    if "detail" in fields:  # FastAPI: a string, or a list of what is wrong
        detail = fields["detail"]
        return OpenAIError(message=detail if isinstance(detail, str) else _start(body))
    return _from_fields(fields, body)  # older vLLM: {"object": "error", "message": ...}


def _from_fields(fields: dict[object, object], body: bytes) -> OpenAIError:
    def text(key: str) -> str | None:
        value = fields.get(key)
        return value if isinstance(value, str) else None

    return OpenAIError(
        message=text("message") or _start(body),
        type=text("type"),
        param=text("param"),
        code=text("code"),  # vLLM's is the status again, a number: no news
    )


def _start(body: bytes) -> str:
    """The start of a body that is not understood, for a person to read."""
    return body[:200].decode(errors="replace").strip() or "an empty body"
