"""The sockets that clients connect to, opened once per run and kept open until it ends.

Gateway processes come and go, and accept on these: a connection that arrives while one is replaced
waits in its socket for the successor.
"""

import os
import socket
from collections.abc import Sequence

from argosy.fleet.config import Gateway as Settings

_BACKLOG = 1024


class Listeners:
    """One group of sockets a gateway process: one for each address that the host stands for."""

    def __init__(self, settings: Settings) -> None:
        """Bind and listen. Raises OSError when the address is taken or is none of this machine."""
        self.groups: list[list[socket.socket]] = []
        try:
            port = self._open_first(settings)
            for _ in range(settings.processes - 1):
                group: list[socket.socket] = []
                self.groups.append(group)
                for family, address in _addresses(settings.host, port):
                    group.append(_bound(family, address, is_shared=True))
            for listener in self._all():
                listener.listen(_BACKLOG)
        except BaseException:
            self.close()
            raise
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"{'http' if settings.tls is None else 'https'}://{host}:{port}"

    def close(self) -> None:
        """New connections are refused from now on, once the processes have closed theirs."""
        for listener in self._all():
            listener.close()

    def _all(self) -> list[socket.socket]:
        return [listener for group in self.groups for listener in group]

    def _open_first(self, settings: Settings) -> int:
        """The port: all addresses have the same."""
        port, is_shared = settings.port, settings.processes > 1
        group: list[socket.socket] = []
        self.groups.append(group)
        for family, address in _addresses(settings.host, port):
            if port and is_shared:
                # A shared socket could be bound beside those of another fleet of this user, and
                # the kernel would mix their clients.
                _bound(family, (address[0], port, *address[2:]), is_shared=False).close()
            listener = _bound(family, (address[0], port, *address[2:]), is_shared=is_shared)
            group.append(listener)
            port = listener.getsockname()[1]
        return port


def in_words(error: OSError) -> str:
    """The system's own words: event loops and resolvers add theirs."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _addresses(host: str, port: int) -> Sequence[tuple[int, tuple[object, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: int, address: tuple[object, ...], *, is_shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
