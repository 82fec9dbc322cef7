"""`control.sock` in the state folder: how a command tells a running `argosy up` to do something.

One line of JSON each way. Whoever may open the folder may speak; it does not depend on the gateway.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

SOCKET_FILE = "control.sock"
_LINE_BYTES_MAX = 2**20


class OperatorRequest(msgspec.Struct, frozen=True, tag=True):
    """The base of what an operator may ask."""


class Apply(OperatorRequest, frozen=True, kw_only=True, tag=True):
    """Take up a fleet file; `file`: an absolute path, None: the same one as before.

    `text`: what it says, for control planes on other hosts; `file` is its name then.
    """

    file: str | None = None
    text: str | None = None
    is_dry: bool = False  # only say what would change


class Hold(OperatorRequest, frozen=True, kw_only=True, tag=True):
    """So many replicas of a deployment; None: as its file and the autoscaling say again."""

    deployment: str
    replicas: int | None


class Drain(OperatorRequest, frozen=True, kw_only=True, tag=True):
    """Empty a pool, a node or a replica, and keep it empty; `undo`: use it again."""

    name: str
    undo: bool = False
    is_forced: bool = False  # though a model has nowhere else to go


class Lose(OperatorRequest, frozen=True, kw_only=True, tag=True):
    """Of a fleet that is pretended: a cloud, region, pool or maker is gone."""

    domain: str


class Back(OperatorRequest, frozen=True, kw_only=True, tag=True):
    """It is there again."""

    domain: str


Asked = Apply | Hold | Drain | Lose | Back


class OperatorReply(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; not done: nothing has changed, and `said` tells why."""

    done: bool
    said: str


Handle = Callable[[Asked], Awaitable[OperatorReply]]


class OperatorSocket:
    """Listens from `start` until `stop`."""

    def __init__(self, state: Path, handle: Handle) -> None:
        self._state = state
        self._handle = handle
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises OSError."""
        path = self._state / SOCKET_FILE
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(self._state) as folder:
            listener.bind(f"{folder}/{SOCKET_FILE}")
        path.chmod(0o600)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=_LINE_BYTES_MAX
        )

    def stop(self) -> None:
        """Nobody can say anything any more."""
        if self._server is not None:
            self._server.close()
            (self._state / SOCKET_FILE).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):  # a caller that left, or says nonsense
            request = msgspec.json.decode(await reader.readline(), type=Asked)
            reply = await self._handle(request)
            writer.write(msgspec.json.encode(reply) + b"\n")
            await writer.drain()
        writer.close()


def ask_operator(state: Path, request: Asked, *, timeout_s: float) -> OperatorReply:
    """Tell the run on that folder, and wait for what comes of it. Raises OSError, DecodeError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(timeout_s)
        with _short(state) as folder:
            asking.connect(f"{folder}/{SOCKET_FILE}")
        asking.sendall(msgspec.json.encode(request) + b"\n")
        with asking.makefile("rb") as answer:
            return msgspec.json.decode(answer.readline(), type=OperatorReply)


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A name of the folder that fits into a socket's address, which holds 107 bytes."""
    if sys.platform != "linux":
        yield str(folder)
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
