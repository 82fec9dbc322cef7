"""What an island gives to its peers from memory: fragments of the newest version.

    GET /v1/fragments/SHA256

A joiner so fetches from all islands at once and leaves the syncer's line alone; it checks each by
its name, so that a peer can at worst waste its time. A thread of its own, that no step waits for.
"""

import asyncio
import logging
import threading
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.training import credentials
from argosy.training.inner import Vector
from argosy.training.listening import bind, identity_in, make_server, part_of, url_of
from argosy.training.outer.parameters import ParameterMap
from argosy.training.wire import FragmentName

logger = logging.getLogger(__name__)


class PeerShare:
    """Listens from its making until `close`."""

    def __init__(self, folder: Path, run: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """`folder` has the island's credentials. Raises CredentialsError, OSError."""
        self._run = run
        self._fragments: dict[str, memoryview] = {}  # replaced whole, never changed
        self.given = 0
        context = credentials.listening(folder)
        listener = bind(host, port)
        self.url = url_of(host, listener)
        app = Starlette(routes=[Route("/v1/fragments/{name}", self._get, methods=["GET"])])
        self._server = make_server(app, context)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve(sockets=[listener])),
            name="peers",
            daemon=True,
        )
        self._thread.start()

    def offer(
        self, parameter_map: ParameterMap, published: Vector, names: tuple[FragmentName, ...]
    ) -> None:
        """These are the newest; the vector is not written to any more."""
        pairs = zip(parameter_map.fragments, names, strict=True)
        self._fragments = {
            name.sha256: part.of(published).astype("<f4", copy=False).data.cast("B")
            for part, name in pairs
        }

    def close(self) -> None:
        """Whoever is fetching is cut off, and fetches elsewhere."""
        self._server.should_exit = True
        self._thread.join(5)

    async def _get(self, request: Request) -> Response:
        if identity_in(request, self._run) is None:
            return Response(status_code=403)
        content = self._fragments.get(request.path_params["name"])
        if content is None:
            return Response(status_code=404)
        self.given += 1
        return part_of(request, content)
