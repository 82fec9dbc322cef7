"""What the gateway answers by itself: health, readiness, metrics, the models, the fleet's status.

`/health`, `/ready` and `/metrics` are open; the models want a key; the status wants the token of
the run, which only whoever may read the state folder knows.
"""

from typing import Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from argosy.fleet.messages import FleetStatus, Refusal
from argosy.gateway.http import Request, whole_response
from argosy.gateway.surfaces.decode import look_up
from argosy.gateway.surfaces.port import Catalog, Dialect, RefusedError

_OPEN = frozenset({"/health", "/ready", "/metrics"})
_STATUS = "/argosy/status"
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
        return path in _OPEN or path in (_STATUS, _MODELS) or path.startswith(_MODELS + "/")

    def precheck(self, request: Request) -> Refusal | None:
        """Method and key."""
        if request.method not in ("GET", "HEAD"):
            message = f"{request.method} {request.path[:200]}: this path takes GET."
            return Refusal(kind="wrong_method", message=message)
        if request.path in _OPEN:
            return None
        refusal = self._floor.authenticate(request)
        if refusal is None and request.path == _STATUS:
            key = request.key
            if key is None or key.id != "operator":
                message = "The status wants the operator token of this run: use argosy status."
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
            case _:
                return self._models(request)

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
