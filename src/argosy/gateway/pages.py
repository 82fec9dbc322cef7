"""What the gateway answers by itself: health, readiness, metrics, the models, the status, a story.

`/health`, `/ready` and `/metrics` are open; the models want a key; the status and the story of a
request want the token of the run, which only whoever may read the state folder knows.
"""

from typing import Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from argosy.fleet.messages import FleetStatus, Refusal
from argosy.gateway.explain import Explanation
from argosy.gateway.http import Request, whole_response
from argosy.gateway.surfaces.decode import look_up
from argosy.gateway.surfaces.port import Catalog, Dialect, RefusedError

_OPEN = frozenset({"/health", "/ready", "/metrics"})
_STATUS = "/argosy/status"
EXPLAIN = "/argosy/explain/"  # and the id of a request
_MODELS = "/v1/models"


class Floor(Protocol):
    """What the pages ask of the gateway."""

    catalog: Catalog

    def authenticate(self, request: Request) -> Refusal | None:
        """Put the key on the request, or say what is wrong with it."""
        ...

    def dialect(self, request: Request) -> Dialect:
        """Whose shape the client expects."""
        ...

    def status(self) -> FleetStatus:
        """The fleet as it is now."""
        ...

    def explain(self, request: str) -> Explanation | Refusal:
        """The story of one request, or why it cannot be told."""
        ...

    def not_ready(self) -> list[str]:
        """Why it cannot serve everything; empty when it can."""
        ...

    def metrics_page(self) -> bytes:
        """Prometheus text."""
        ...


class Pages:
    """Every GET."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def has(self, path: str) -> bool:
        """True for a path that is answered here."""
        if path in _OPEN or path in (_STATUS, _MODELS):
            return True
        return path.startswith((_MODELS + "/", EXPLAIN))

    def asks_all(self, path: str) -> bool:
        """True for a page that tells of all gateway processes, not of the one that is asked."""
        return path in ("/metrics", _STATUS) or path.startswith(EXPLAIN)

    def precheck(self, request: Request) -> Refusal | None:
        """Method and key."""
        if request.method not in ("GET", "HEAD"):
            message = f"{request.method} {request.path[:200]}: this path takes GET."
            return Refusal(kind="wrong_method", message=message)
        if request.path in _OPEN:
            return None
        refusal = self._floor.authenticate(request)
        if refusal is None and not request.path.startswith(_MODELS):
            key = request.key
            if key is None or key.id != "operator":
                verb = request.path.split("/")[2]
                message = f"The {verb} page wants the operator token of this run: argosy {verb}"
                return Refusal(kind="wrong_key", message=message)
        return refusal

    def answer(self, request: Request) -> bytes:
        """The response."""
        floor = self._floor
        match request.path:
            case "/health":
                return whole_response(200, b'{"status":"ok"}', request=request)
            case "/ready":
                missing = floor.not_ready()
                body = msgspec.json.encode({"ready": not missing, "missing": missing})
                return whole_response(503 if missing else 200, body, request=request)
            case "/metrics":
                page = floor.metrics_page()
                return whole_response(200, page, request=request, content_type=CONTENT_TYPE_LATEST)
            case "/argosy/status":
                return whole_response(200, msgspec.json.encode(floor.status()), request=request)
            case path if path.startswith(EXPLAIN):
                return self._explain(request)
            case _:
                return self._models(request)

    def _explain(self, request: Request) -> bytes:
        told = self._floor.explain(request.path[len(EXPLAIN) :])
        if not isinstance(told, Refusal):
            return whole_response(200, msgspec.json.encode(told), request=request)
        status, body = self._floor.dialect(request).refusal(told, request=request.id)
        return whole_response(status, body, request=request)

    def _models(self, request: Request) -> bytes:
        dialect = self._floor.dialect(request)
        name = request.path[len(_MODELS) + 1 :]
        if not name:
            body = dialect.model_list(self._floor.catalog)
            return whole_response(200, body, request=request)
        try:
            body = dialect.model(look_up(self._floor.catalog, name))
        except RefusedError as error:
            status, body = dialect.refusal(error.refusal, request=request.id)
            return whole_response(status, body, request=request)
        return whole_response(200, body, request=request)


def draining() -> Refusal:
    """What is said to a request that comes too late."""
    message = "The gateway is stopping and takes no new requests."
    return Refusal(kind="no_replica", message=message, retry_after_s=5.0)


def unknown_path(request: Request, paths: list[str]) -> Refusal:
    """What is said to a path that nobody answers; `paths` are those of the APIs."""
    message = f"{request.method} {request.path[:200]}: no such path. APIs: {', '.join(paths)}."
    return Refusal(kind="unknown_path", message=message)
