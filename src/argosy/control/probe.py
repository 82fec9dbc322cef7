"""Asks one URL over HTTP whether a replica is well, and always has an answer within the timeout.

A bare GET over `asyncio.open_connection`: httpx takes 90 ms to import and keeps a pool of
connections, and a probe has to find out whether a *new* connection is answered.
What a failed probe means is left to `policies/health.py`.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from argosy.policies.health import Probe

BODY_BYTES_MAX = 65536  # of a health answer; more is not read


class Prober(Protocol):
    """Asks a replica of that pool; an answer comes whatever happens, `timeout_s` at the latest."""

    async def probe(self, url: str, *, pool: str, timeout_s: float) -> Probe:
        """GET the URL: well when the answer is 200."""
        ...


class HttpProber:
    """Probes over HTTP(S). `keys` are sent as bearer tokens to the pools that they belong to."""

    def __init__(self, *, keys: Mapping[str, str] | None = None) -> None:
        self._keys = dict(keys or {})

    async def probe(self, url: str, *, pool: str, timeout_s: float) -> Probe:
        started_s = _now_s()
        ok = False
        try:
            async with asyncio.timeout(timeout_s):
                status = await _get_status(urlsplit(url), key=self._keys.get(pool))
            ok, detail = status == 200, f"HTTP {status}"
        except TimeoutError:
            detail = f"no answer within {timeout_s:.1f} s"
        except (EOFError, asyncio.LimitOverrunError):
            detail = "the answer is cut or no HTTP"
        except (OSError, ValueError) as error:  # refused, reset, TLS; a bad port, a bad host
            detail = _in_words(error)
        return Probe(ok=ok, seconds=_now_s() - started_s, detail=detail)


async def _get_status(url: SplitResult, *, key: str | None) -> int:
    """The status of a GET; the body is read first, so that the replica can finish its answer."""
    tls = _tls() if url.scheme == "https" else None
    port = url.port or (443 if tls else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=tls)
    try:
        writer.write(_request(url, key))
        head = await reader.readuntil(b"\r\n\r\n")
        status = _read_status(head)
        await reader.readexactly(min(_read_length(head), BODY_BYTES_MAX))
        return status
    finally:
        writer.transport.abort()  # close() would wait for a peer that does not read


def _request(url: SplitResult, key: str | None) -> bytes:
    path = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
    host = url.netloc.rpartition("@")[2]
    bearer = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: argosy\r\nAccept: */*\r\n"
        f"{bearer}Connection: close\r\n\r\n"
    ).encode()


def _read_status(head: bytes) -> int:
    """Raises `ValueError` when the head is not HTTP/1's."""
    version, _, rest = head.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError(f"no HTTP answer: {head[:40]!r}")
    return int(rest[:3])


def _read_length(head: bytes) -> int:
    """The body's bytes; 0 where the head does not tell: the status is what was asked for."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return max(0, int(value))
    return 0


def _in_words(error: OSError | ValueError) -> str:
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # event loops word it differently
    return str(error) or type(error).__name__


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads the system's authorities once: tens of ms


def _now_s() -> float:
    return asyncio.get_running_loop().time()
