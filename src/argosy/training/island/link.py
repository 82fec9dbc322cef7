"""An island's line to the syncer: HTTPS, tried again for as long as it makes sense.

Owns retries: with jitter, and with a bound, after which AwayError says so. A syncer that is away
for minutes costs nothing as long as the island has leases. What passes is `wire.py`'s.
"""

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import httpx
import msgspec

from argosy.training import credentials
from argosy.training.island.caller import Caller
from argosy.training.island.fragments import sha256_of
from argosy.training.wire import (
    Accepted,
    Beat,
    Beaten,
    Contribution,
    Evaluated,
    Join,
    Joined,
    Leave,
    Missing,
    Parameters,
    Peer,
    Refused,
    Seed,
    Seeding,
    Status,
    Update,
)

AWAY_S_MAX = 900.0  # a syncer that does not answer for so long is given up
PAUSE_S, PAUSE_S_MAX = 0.05, 2.0  # between tries: doubles, with jitter
STREAMS = 4  # fragments at once
_WAIT_S = 20.0  # of a long poll
_TIMEOUT = httpx.Timeout(15.0, connect=3.0, read=_WAIT_S + 15.0)
_AGAIN = (408, 425, 429, 500, 502, 503, 504, 507)

_Answer = TypeVar("_Answer")

logger = logging.getLogger(__name__)


class AwayError(Exception):
    """The syncer did not answer for too long; the message says since when and why."""


class ClosedError(Exception):
    """The island is ending: what was under way is given up."""


class DeniedError(Exception):
    """The syncer refuses this island's certificate or message: trying again is no use."""


class GoneError(Exception):
    """A fragment is kept no more: ask for the newest version."""


class Link:
    """To one syncer. Thread-safe; every call blocks until it is answered.

    Each raises AwayError, DeniedError, and ClosedError after `close`.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        chance: random.Random | None = None,
        away_s_max: float = AWAY_S_MAX,
    ) -> None:
        """`folder` has the island's credentials. Raises CredentialsError."""
        self._url = url.rstrip("/")
        self._chance = chance or random.Random()
        self._away_s_max = away_s_max
        self._closing = threading.Event()
        self._caller = Caller(folder, _TIMEOUT, connections_max=STREAMS + 8)
        self._pool = ThreadPoolExecutor(STREAMS, "fragments")
        self.bytes_up = 0
        self.bytes_down = 0
        self.tries_failed = 0

    def close(self) -> None:
        """Whoever waits in a call gets ClosedError."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)
        self._caller.close()

    def join(self, join: Join) -> Joined | Refused:
        """Take part."""
        return self._post("/v1/join", join, Joined)

    def beat(self, beat: Beat) -> Beaten | Refused:
        """Say that it lives."""
        return self._post("/v1/beat", beat, Beaten)

    def contribute(
        self, contribution: Contribution, contents: Mapping[str, bytes]
    ) -> Accepted | Refused:
        """Send all fragments, then the contribution, until it is answered."""
        self._send_all(contents)
        while True:
            answer = self._request("POST", "/v1/contribution", contribution)
            match _decoded(answer, Accepted | Refused | Missing):
                case Missing(fragments=names):
                    self._send_all({name: contents[name] for name in names})
                case verdict:
                    return verdict

    def seed(self, seed: Seed, contents: Mapping[str, bytes]) -> Parameters | Refused:
        """Send the first parameters."""
        self._send_all(contents)
        while True:
            answer = self._request("POST", "/v1/seed", seed)
            if answer.status_code == 200:
                return _decoded(answer, Parameters)
            match _decoded(answer, Refused | Missing):
                case Missing(fragments=names):
                    self._send_all({name: contents[name] for name in names})
                case refused:
                    return refused

    def parameters(self, *, wait_s: float = 0.0) -> Parameters | Seeding:
        """The newest version, if there is one."""
        body = self._request("GET", f"/v1/parameters?wait_s={wait_s}").content
        found = msgspec.json.decode(body)
        return msgspec.convert(found, Seeding if "island" in found else Parameters)

    def update(self, version: int) -> Update | Parameters | None:
        """What leads to that version. None: not yet, though some time was waited."""
        answer = self._request("GET", f"/v1/update/{version}?wait_s={_WAIT_S}")
        if answer.status_code == 204:
            return None
        found = msgspec.json.decode(answer.content)
        return msgspec.convert(found, Update if "parameters" in found else Parameters)

    def evaluated(self, what: Evaluated) -> None:
        """Report a loss."""
        self._request("POST", "/v1/evaluated", what)

    def leave(self, leave: Leave) -> None:
        """Say goodbye."""
        self._request("POST", "/v1/leave", leave)

    def status(self) -> Status:
        """Of the run."""
        return _decoded(self._request("GET", "/v1/status"), Status)

    def fetch(self, sizes: Mapping[str, int], *, peers: Sequence[Peer] = ()) -> dict[str, bytes]:
        """Fragments by SHA-256, each of so many bytes at most; several at once, peers' first.

        Each is checked. Raises GoneError.
        """
        names = list(sizes)
        order = self._chance.sample(peers, len(peers))

        def one(at: int) -> bytes:
            name = names[at]
            for peer in order[at % max(1, len(order)) :][:1]:
                content = self._from_peer(peer, name, sizes[name])
                if content is not None:
                    return content
            return self._fetch_one(name, sizes[name])

        return dict(zip(names, self._pool.map(one, range(len(names))), strict=True))

    # Inside.

    def _from_peer(self, peer: Peer, name: str, bytes_max: int) -> bytes | None:
        """None: it does not have it, or does not answer: nothing is lost but a try."""
        host = {"sni_hostname": credentials.island_host(peer.island)}
        try:
            answer = self._read(f"{peer.url}/v1/fragments/{name}", host, bytes_max, b"")
        except (httpx.HTTPError, OSError) as error:
            logger.info("%s gave no fragment: %s", peer.island, error)
            return None
        return answer if sha256_of(answer) == name else None

    def _fetch_one(self, name: str, bytes_max: int) -> bytes:
        """From the syncer; what came before a cut is kept."""
        content = b""
        host = {"sni_hostname": credentials.SYNCER_HOST}

        def attempt() -> bytes:
            nonlocal content
            try:
                content = self._read(f"{self._url}/v1/fragments/{name}", host, bytes_max, content)
            except _CutError as error:
                content = error.content
                raise httpx.ReadError(str(error)) from error
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if status in (404, 416):
                    raise GoneError(f"fragment {name} is gone") from error
                if status < 500:
                    raise DeniedError(f"GET {name}: {_told(error.response)}") from error
                raise
            return content

        while True:
            whole = self._persist(attempt)
            if sha256_of(whole) == name:
                return whole
            logger.warning("fragment %s came damaged: it is fetched again", name)
            content = b""
            self._pause(0)

    def _read(self, url: str, host: dict[str, str], bytes_max: int, before: bytes) -> bytes:
        headers = {"range": f"bytes={len(before)}-"} if before else {}
        parts = [before]
        total = len(before)
        with self._caller.client.stream("GET", url, headers=headers, extensions=host) as answer:
            answer.raise_for_status()
            try:
                for chunk in answer.iter_bytes():
                    total += len(chunk)
                    if total > bytes_max:
                        raise GoneError(f"{url} has more than {bytes_max} bytes")
                    parts.append(chunk)
            except httpx.HTTPError as error:
                raise _CutError(b"".join(parts)) from error
        self.bytes_down += total - len(before)
        return b"".join(parts)

    def _send_all(self, contents: Mapping[str, bytes]) -> None:
        for _ in self._pool.map(lambda item: self._send(*item), contents.items()):
            pass

    def _send(self, name: str, content: bytes) -> None:
        """All of a fragment, from where an earlier try got to."""
        path = f"/v1/fragments/{name}"
        offset = 0
        while True:
            headers = {"upload-offset": str(offset)}
            try:
                answer = self._request("PUT", path, content=content[offset:], headers=headers)
                self.bytes_up += len(content) - offset
            except _OffsetError:
                answer = None
            if answer is not None and answer.status_code < 400:
                return
            there = self._request("HEAD", path).headers
            if there.get("upload-whole") == "1":
                return
            offset = min(int(there.get("upload-offset", "0")), len(content))

    def _post(self, path: str, message: msgspec.Struct, kind: type[_Answer]) -> _Answer | Refused:
        answer = self._request("POST", path, message)
        return _decoded(answer, Refused if answer.status_code == 409 else kind)

    def _request(
        self,
        method: str,
        path: str,
        message: msgspec.Struct | None = None,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        body = msgspec.json.encode(message) if message is not None else content

        def attempt() -> httpx.Response:
            answer = self._caller.client.request(
                method,
                self._url + path,
                content=body,
                headers=headers,
                extensions={"sni_hostname": credentials.SYNCER_HOST},
            )
            if answer.status_code in _AGAIN:
                answer.raise_for_status()
            if method == "PUT" and answer.status_code in (409, 422):
                raise _OffsetError(path)
            if answer.status_code >= 400 and answer.status_code != 409:
                raise DeniedError(f"{method} {path}: {_told(answer)}")
            return answer

        return self._persist(attempt)

    def _persist(self, attempt: Callable[[], _Answer]) -> _Answer:
        """Again and again, until it is answered, denied, closed, or too long ago."""
        since_s = perf_counter()
        tries = 0
        while True:
            if self._closing.is_set():
                raise ClosedError("the island is ending")
            try:
                return attempt()
            except (httpx.TransportError, httpx.HTTPStatusError, OSError) as error:
                if self._closing.is_set():
                    raise ClosedError("the island is ending") from error
                tries += 1
                self.tries_failed += 1
                self._give_up_or_say(error, tries, perf_counter() - since_s)
                self._pause(tries)

    def _give_up_or_say(self, error: Exception, tries: int, away_s: float) -> None:
        told = _told(error.response) if isinstance(error, httpx.HTTPStatusError) else str(error)
        if "certificate has expired" in told:
            raise DeniedError(
                f"{self._url} shows a certificate that has expired: argosy runs resume makes others"
            ) from error
        if "CERTIFICATE_VERIFY_FAILED" in told or "certificate verify failed" in told:
            raise DeniedError(f"{self._url} shows a certificate of another run: {told}") from error
        if "alert" in told.lower() and tries >= 5:
            raise DeniedError(f"{self._url} refuses this island's certificate: {told}") from error
        if away_s > self._away_s_max:
            raise AwayError(
                f"the syncer at {self._url} did not answer for {away_s:.0f} s in {tries} tries:"
                f" {told}. Start it again, then this island: what was accepted is safe"
            ) from error
        if tries in (3, 30, 300):
            logger.warning("%s, tried %d times: %s", self._url, tries, told)

    def _pause(self, tries: int) -> None:
        pause_s = min(PAUSE_S * 2 ** min(tries, 10), PAUSE_S_MAX)
        self._closing.wait(pause_s * self._chance.uniform(0.5, 1.0))


class _OffsetError(Exception):
    """The syncer has another part of the fragment than we thought."""


class _CutError(Exception):
    """A stream ended too early; this came."""

    def __init__(self, content: bytes) -> None:
        super().__init__(f"cut off after {len(content)} bytes")
        self.content = content


def _decoded(answer: httpx.Response, kind: Any) -> Any:  # noqa: ANN401
    return msgspec.json.decode(answer.content, type=kind)


def _told(answer: httpx.Response) -> str:
    try:
        answer.read()
        told = msgspec.json.decode(answer.content, type=dict[str, str]).get("error", "")
    except (msgspec.DecodeError, httpx.HTTPError, httpx.StreamError):
        told = ""
    return f"{answer.status_code} {told}".strip()
