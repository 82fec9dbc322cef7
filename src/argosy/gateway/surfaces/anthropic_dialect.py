"""How Anthropic's API says no, and how it lists models."""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from argosy.fleet.messages import Refusal, RefusalKind
from argosy.gateway.surfaces.port import Catalog, Served

# Kind to HTTP status and error type.
# - no_replica is 529, not 503: clients of this API know `overloaded_error` by that status and
#   wait before they retry. The official SDK retries both, so nothing is lost but the load
#   balancers' habit of reading 503.
# - 502 keeps the status that operators look for; the type is `api_error`, as for every failure of
#   the server.
# - All 4xx without a type of their own are `invalid_request_error`, which the API reserves for
#   them.
_ROWS: Mapping[RefusalKind, tuple[int, str]] = {
    "bad_request": (400, "invalid_request_error"),
    "unsupported": (400, "invalid_request_error"),
    "context_overflow": (400, "invalid_request_error"),
    "no_key": (401, "authentication_error"),
    "wrong_key": (401, "authentication_error"),
    "unknown_model": (404, "not_found_error"),
    "unknown_path": (404, "not_found_error"),
    "wrong_method": (405, "invalid_request_error"),
    "slow_request": (408, "invalid_request_error"),
    "too_large": (413, "request_too_large"),
    "head_too_large": (431, "invalid_request_error"),
    "upstream_refused": (400, "invalid_request_error"),
    "rate_limited": (429, "rate_limit_error"),
    "internal": (500, "api_error"),
    "upstream_failed": (502, "api_error"),
    "no_replica": (529, "overloaded_error"),
    "upstream_timeout": (504, "timeout_error"),
}


class AnthropicDialect:
    """The dialect of /v1/messages and what lies below it."""

    name = "anthropic"

    def refusal(self, refusal: Refusal, *, request: str) -> tuple[int, bytes]:
        """HTTP status and `{"type": "error", …}` with the request's id."""
        body = error_body(refusal) | {"request_id": request}
        return _ROWS[refusal.kind][0], msgspec.json.encode(body)

    def model_list(self, catalog: Catalog) -> bytes:
        """All models, by name, on one page."""
        names = sorted(catalog)
        body = {
            "data": [_model(catalog[name]) for name in names],
            "has_more": False,
            "first_id": names[0] if names else None,
            "last_id": names[-1] if names else None,
        }
        return msgspec.json.encode(body)

    def model(self, served: Served) -> bytes:
        """One model."""
        return msgspec.json.encode(_model(served))


def error_body(refusal: Refusal) -> dict[str, object]:
    """The error object, without the id that only a whole answer carries.

    This API has no field for the parameter at fault; the message opens with it instead.
    """
    message = refusal.message
    if refusal.param and refusal.param not in message:
        message = f"{refusal.param}: {message}"
    return {"type": "error", "error": {"type": _ROWS[refusal.kind][1], "message": message}}


def _model(served: Served) -> dict[str, object]:
    created_at = datetime.fromtimestamp(served.created_at_s, UTC)
    return {
        "type": "model",
        "id": served.name,
        "display_name": served.name,
        "created_at": created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": served.context_tokens,
        "max_tokens": served.context_tokens,
    }
