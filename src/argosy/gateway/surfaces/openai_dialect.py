"""How OpenAI's APIs say no, and how they list models."""

from collections.abc import Mapping

import msgspec

from argosy.fleet.messages import Refusal, RefusalKind
from argosy.gateway.surfaces.port import Catalog, Served

# Kind to HTTP status, `type` and `code`. Clients branch on `code`; failures of the server have
# none in the real API, which tells them apart by the status alone.
_ROWS: Mapping[RefusalKind, tuple[int, str, str | None]] = {
    "bad_request": (400, "invalid_request_error", None),
    "unsupported": (400, "invalid_request_error", "unsupported_parameter"),
    "context_overflow": (400, "invalid_request_error", "context_length_exceeded"),
    "no_key": (401, "invalid_request_error", None),
    "wrong_key": (401, "invalid_request_error", "invalid_api_key"),
    "unknown_model": (404, "invalid_request_error", "model_not_found"),
    "unknown_path": (404, "invalid_request_error", "unknown_url"),
    "wrong_method": (405, "invalid_request_error", "method_not_supported"),
    "slow_request": (408, "invalid_request_error", "request_timeout"),
    "too_large": (413, "invalid_request_error", "request_too_large"),
    "head_too_large": (431, "invalid_request_error", "request_headers_too_large"),
    "upstream_refused": (400, "invalid_request_error", None),
    "rate_limited": (429, "requests", "rate_limit_exceeded"),
    "internal": (500, "server_error", None),
    "upstream_failed": (502, "server_error", None),
    "no_replica": (503, "server_error", None),
    "upstream_timeout": (504, "server_error", None),
}


class OpenAIDialect:
    """The dialect of /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/responses."""

    name = "openai"

    def refusal(self, refusal: Refusal, *, request: str) -> tuple[int, bytes]:
        """HTTP status and `{"error": …}`; OpenAI carries the request's id in a header alone."""
        status, error_type, code = _ROWS[refusal.kind]
        error = {
            "message": refusal.message,
            "type": error_type,
            "param": refusal.param,
            "code": refusal.code or code,
        }
        return status, msgspec.json.encode({"error": error})

    def model_list(self, catalog: Catalog) -> bytes:
        """All models, by name."""
        models = [_model(catalog[name]) for name in sorted(catalog)]
        return msgspec.json.encode({"object": "list", "data": models})

    def model(self, served: Served) -> bytes:
        """One model."""
        return msgspec.json.encode(_model(served))


def _model(served: Served) -> dict[str, object]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created_at_s,
        "owned_by": "argosy",
    }
