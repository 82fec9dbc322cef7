"""The paths of files and batches: which there are, and who answers them.

The gateway checks the key before and writes the answer after; database work is done in threads.
"""

import logging
import re
from collections.abc import Awaitable, Callable

import msgspec

from argosy.fleet.batches import FILE_BYTES_MAX
from argosy.fleet.messages import Refusal
from argosy.gateway.batches.anthropic_api import AnthropicBatches
from argosy.gateway.batches.openai_api import OpenAIBatches, OpenAIFiles
from argosy.gateway.batches.ports import BatchBook, FileStore
from argosy.gateway.batches.replies import Call, Reply, owner_of, read_query
from argosy.gateway.http import Request, retry_after, whole_response
from argosy.gateway.surfaces.port import RefusedError
from argosy.gateway.surfaces.registry import dialect_of

log = logging.getLogger(__name__)

_ROOTS = ("/v1/files", "/v1/batches", "/v1/messages/batches")
_UPLOADS = ("/v1/files", "/v1/messages/batches")
_FORM_BYTES_MAX = 64 * 1024  # of an upload, beside the file

_Handler = Callable[[Call], Awaitable[Reply]]


class _Route(msgspec.Struct, frozen=True):
    path: re.Pattern[str]
    handlers: dict[str, _Handler]  # by method


class BatchApi:
    """Files and batches over HTTP. `changed` is called when the runner has something to see."""

    def __init__(
        self,
        *,
        files: FileStore,
        batches: BatchBook,
        unix_time_s: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._routes = _routes(
            OpenAIFiles(files, unix_time_s=unix_time_s),
            OpenAIBatches(files, batches, unix_time_s=unix_time_s, changed=changed),
            AnthropicBatches(batches, unix_time_s=unix_time_s, changed=changed),
        )

    def has(self, path: str) -> bool:
        """True for a path that is answered here, be it with an error."""
        return path.startswith(_ROOTS) and any(
            path == root or path.startswith(root + "/") for root in _ROOTS
        )

    def body_bytes_max(self, request: Request) -> int | None:
        """The longest body that the path takes; None: what any path takes."""
        if request.method == "POST" and request.path in _UPLOADS:
            return FILE_BYTES_MAX + _FORM_BYTES_MAX
        return None

    def precheck(self, request: Request) -> Refusal | None:
        """Path and method."""
        found = self._find(request.path)
        if found is None:
            message = f"{request.method} {request.path[:200]}: no such path."
            return Refusal(kind="unknown_path", message=message)
        if request.method not in found[0].handlers:
            takes = " and ".join(sorted(found[0].handlers))
            message = f"{request.method} {request.path[:200]}: this path takes {takes}."
            return Refusal(kind="wrong_method", message=message)
        return None

    async def answer(self, request: Request) -> Reply:
        """The response to a request that passed `precheck`: whole, or piece by piece.

        A download that fails halfway raises: the connection must then be closed.
        """
        found = self._find(request.path)
        if found is None:
            raise ValueError(f"{request.path} did not pass the precheck")
        route, asked = found
        query, owner = read_query(request.query), owner_of(request)
        call = Call(request=request, id=asked, query=query, owner=owner)
        try:
            return await route.handlers[request.method](call)
        except RefusedError as error:
            return _refuse(request, error.refusal)
        except Exception:  # a bug, or a store that fails, must end this request alone
            log.exception("request %s: %s %s", request.id, request.method, request.path)
            message = "The gateway failed on this request."
            return _refuse(request, Refusal(kind="internal", message=message))

    def _find(self, path: str) -> tuple[_Route, str] | None:
        for route in self._routes:
            if match := route.path.fullmatch(path):
                return route, match.group(1) if match.groups() else ""
        return None


def _refuse(request: Request, refusal: Refusal) -> bytes:
    dialect = dialect_of(request.path, has_anthropic_header=False)
    status, body = dialect.refusal(refusal, request=request.id)
    return whole_response(status, body, request=request, extra=retry_after(refusal))


def _routes(
    files: OpenAIFiles, batches: OpenAIBatches, messages: AnthropicBatches
) -> tuple[_Route, ...]:
    one = r"([A-Za-z0-9_-]{1,100})"
    table: tuple[tuple[str, dict[str, _Handler]], ...] = (
        ("/v1/files", {"GET": files.list, "POST": files.create}),
        (f"/v1/files/{one}", {"GET": files.retrieve, "DELETE": files.delete}),
        (f"/v1/files/{one}/content", {"GET": files.content}),
        ("/v1/batches", {"GET": batches.list, "POST": batches.create}),
        (f"/v1/batches/{one}", {"GET": batches.retrieve}),
        (f"/v1/batches/{one}/cancel", {"POST": batches.cancel}),
        ("/v1/messages/batches", {"GET": messages.list, "POST": messages.create}),
        (f"/v1/messages/batches/{one}", {"GET": messages.retrieve, "DELETE": messages.delete}),
        (f"/v1/messages/batches/{one}/cancel", {"POST": messages.cancel}),
        (f"/v1/messages/batches/{one}/results", {"GET": messages.results}),
    )
    return tuple(_Route(re.compile(path), handlers) for path, handlers in table)
