"""An island's checkpoint in a peer's memory: sent behind the training, fetched after a loss.

Owns one thread, which sends the newest whole checkpoint to one peer, and the choice of that peer:
one on another machine if there is any, of another pool if there is any, and of those the next by
name. It sends a small share of the time while a delta is on its way, and half of it otherwise.
Nothing here ever stops the training: what fails is said, and tried with the next checkpoint.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import BinaryIO, Protocol
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from argosy.training import credentials
from argosy.training.inner import CheckpointError
from argosy.training.island import copied_files
from argosy.training.island.caller import Caller
from argosy.training.island.held_copies import PIECE_BYTES_MAX, fault_of
from argosy.training.wire import CopiedFile, Copy, CopyRefused, CopyWanted, Peer

_PIECE_BYTES = 2**20  # of the first piece; later ones take about _PIECE_S
_PIECE_BYTES_MIN = 2**16
_PIECE_S = 0.25  # between two looks at whether a delta is on its way
_SHARE, _SHARE_BEHIND_DELTAS = 0.5, 0.1  # of the time that pieces are on the line
_PAUSE_S_MAX = 5.0
_TRIES = 4  # of one peer
_LOOK_S = 0.2  # whether a checkpoint became whole
_CHECK_S = 2.0  # whether the holder of the copy is still there
_TIMEOUT = httpx.Timeout(20.0, connect=3.0)
_ERRORS = (httpx.HTTPError, OSError, CheckpointError, msgspec.MsgspecError)

logger = logging.getLogger(__name__)


class Traffic(Protocol):
    """What the sender looks at: `errands.Errands` is one."""

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Islands that listen, by the syncer's last word."""
        ...

    @property
    def is_sending(self) -> bool:
        """A delta is on its way."""
        ...


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that a peer has."""

    label: str
    peer: Peer
    bytes: int  # that were sent for it
    seconds: float


class CheckpointCopies:
    """Of one island. `offer` what is saved; `restore` what was lost; `close` at the end."""

    def __init__(
        self,
        folder: Path,
        island: str,
        *,
        url: str | None = None,
        pools: Mapping[str, str | None] | None = None,
        say: Callable[[dict[str, object]], None] = lambda _: None,
    ) -> None:
        """`folder` has the island's credentials; `url` is where it listens, `pools` each island's.

        Raises CredentialsError.
        """
        self._island = island
        self._url = url
        self._pools = dict(pools or {})
        self._say = say
        self._caller = Caller(folder, _TIMEOUT)
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._traffic: Traffic | None = None
        self._newest: Path | None = None
        self.sent: Sent | None = None
        self._in_vain: tuple[str, tuple[Peer, ...]] | None = None  # label, whom it was sent to
        self._thread = threading.Thread(target=self._send_forever, name="copies", daemon=True)
        self._thread.start()

    def attach(self, traffic: Traffic) -> None:
        """Of the island's present life."""
        self._traffic = traffic

    def offer(self, folder: Path) -> None:
        """The newest checkpoint, whole already or soon; an older one is sent no more."""
        self._newest = folder
        self._wake.set()

    def close(self) -> None:
        """What is being sent is given up."""
        self._closing.set()
        self._wake.set()
        self._thread.join(5)
        self._caller.close()

    # Fetching.

    def restore(
        self,
        parent: Path,
        peers: Sequence[Peer],
        *,
        newer_than: str | None,
        bytes_max: int,
    ) -> Path | None:
        """The newest copy that any of them has, as a folder in `parent`. None: none has a newer."""
        with ThreadPoolExecutor(max(1, min(16, len(peers))), "copies") as pool:
            answers = pool.map(self._newest_at, peers)
            found = [(copy, peer) for copy, peer in zip(answers, peers, strict=True) if copy]
        found.sort(key=lambda pair: pair[0].label, reverse=True)
        for copy, peer in found:
            if newer_than is not None and copy.label <= newer_than:
                break
            folder = self._fetch(parent, copy, peer, bytes_max=bytes_max)
            if folder is not None:
                return folder
        return None

    def _newest_at(self, peer: Peer) -> Copy | None:
        try:
            answer = self._ask("GET", peer, "")
            if answer.status_code == 404:
                return None
            answer.raise_for_status()
            copy = msgspec.json.decode(answer.content, type=Copy)
        except _ERRORS as error:
            logger.info("%s does not say what it has of us: %s", peer.island, error)
            return None
        return copy if copy.island == self._island and fault_of(copy) is None else None

    def _fetch(self, parent: Path, copy: Copy, peer: Peer, *, bytes_max: int) -> Path | None:
        size = sum(one.bytes for one in copy.files)
        began_s = perf_counter()
        try:
            if size > bytes_max:
                raise CheckpointError(f"it has {size} bytes, ours has {bytes_max} at most")
            folder = copied_files.put_back(parent, copy, lambda file: self._read(peer, file))
        except _ERRORS as error:
            logger.warning("the copy %s at %s is not used: %s", copy.label, peer.island, error)
            return None
        seconds = round(perf_counter() - began_s, 3)
        told = {"label": copy.label, "peer": peer.island, "bytes": size, "seconds": seconds}
        self._say({"event": "restored", **told})
        return folder

    def _read(self, peer: Peer, file: CopiedFile) -> Iterator[bytes]:
        """From where a cut was, again."""
        came = 0
        for left in reversed(range(_TRIES)):
            url = self._path(peer, f"/{file.sha256}")
            headers = {"range": f"bytes={came}-"}
            host = {"sni_hostname": credentials.island_host(peer.island)}
            try:
                with self._caller.client.stream(
                    "GET", url, headers=headers, extensions=host
                ) as answer:
                    answer.raise_for_status()
                    for chunk in answer.iter_bytes():
                        came += len(chunk)
                        yield chunk
            except httpx.TransportError:
                if not left:
                    raise
            else:
                return

    # Sending: in the thread.

    def _send_forever(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(_CHECK_S)
            self._wake.clear()
            folder, traffic = self._newest, self._traffic
            if folder is None or traffic is None or self._closing.is_set():
                continue
            if self.sent is not None and self.sent.label == folder.name:
                held_by = traffic.peers  # none at all: the syncer has just begun
                if self.sent.peer in held_by or not held_by:
                    continue
            try:
                self._send_when_whole(folder, traffic)
            except _ERRORS as error:
                logger.warning("no copy of the checkpoint %s: %s", folder.name, error)
            except Exception:
                if self._closing.is_set():
                    return  # the line was taken away meanwhile
                logger.exception("no copy of the checkpoint %s", folder.name)

    def _send_when_whole(self, folder: Path, traffic: Traffic) -> None:
        while not folder.is_dir():
            if self._newest != folder or self._closing.wait(_LOOK_S):
                return
        candidates = self.in_order(traffic.peers)
        if not candidates or self._in_vain == (folder.name, tuple(candidates)):
            return
        with copied_files.opened(folder, self._island) as (copy, contents):
            for peer in candidates:
                if self._send(peer, copy, contents, traffic) or self._closing.is_set():
                    return
        logger.warning("no peer has a copy of the checkpoint %s", copy.label)
        self.sent, self._in_vain = None, (copy.label, tuple(candidates))

    def in_order(self, peers: Sequence[Peer]) -> list[Peer]:
        """Whom to ask first: of another machine, of another pool, the next in a ring by names."""
        here = None if self._url is None else urlsplit(self._url).hostname
        pool = self._pools.get(self._island)

        def rank(peer: Peer) -> tuple[bool, bool, bool, str]:
            is_near = urlsplit(peer.url).hostname == here
            is_alike = self._pools.get(peer.island) == pool
            return is_near, is_alike, peer.island < self._island, peer.island

        return sorted((peer for peer in peers if peer.island != self._island), key=rank)

    def _send(
        self, peer: Peer, copy: Copy, contents: Mapping[str, BinaryIO], traffic: Traffic
    ) -> bool:
        began_s = perf_counter()
        sent_bytes = 0
        for _ in range(_TRIES):
            try:
                answer = self._ask("POST", peer, "", content=msgspec.json.encode(copy))
                if answer.status_code == 413:
                    refused = msgspec.json.decode(answer.content, type=CopyRefused)
                    logger.info("%s has no room: %s", peer.island, refused.reason)
                    told = {"label": copy.label, "peer": peer.island}
                    self._say({"event": "copy refused", **told, "free": refused.bytes_free})
                    return False
                answer.raise_for_status()
                wanted = msgspec.json.decode(answer.content, type=CopyWanted).there
                if not wanted:
                    self._is_sent(peer, copy, sent_bytes, perf_counter() - began_s)
                    return True
                for name, there in wanted.items():
                    sent_bytes += self._send_one(peer, name, there, contents[name], traffic)
            except (httpx.HTTPError, msgspec.MsgspecError, KeyError) as error:
                logger.info("%s took no copy: %s", peer.island, error)
            if self._closing.wait(_LOOK_S if not sent_bytes else 0):
                return False
        return False

    def _is_sent(self, peer: Peer, copy: Copy, sent_bytes: int, seconds: float) -> None:
        before = self.sent
        self.sent = Sent(label=copy.label, peer=peer, bytes=sent_bytes, seconds=seconds)
        told = {"label": copy.label, "peer": peer.island, "bytes": sent_bytes}
        self._say({"event": "copied", **told, "seconds": round(seconds, 3)})
        if before is not None and before.peer.island != peer.island:
            try:
                self._ask("DELETE", before.peer, "")
            except httpx.HTTPError as error:
                logger.info("%s keeps an older copy: %s", before.peer.island, error)

    def _send_one(self, peer: Peer, name: str, there: int, file: BinaryIO, traffic: Traffic) -> int:
        """The rest of one file, in pieces; how many bytes."""
        file.seek(max(0, there))
        sent_bytes, piece_bytes = 0, _PIECE_BYTES
        while True:
            piece = file.read(piece_bytes)
            if not piece and sent_bytes:
                return sent_bytes
            began_s = perf_counter()
            headers = {"upload-offset": str(there + sent_bytes)}
            self._ask("PUT", peer, f"/{name}", content=piece, headers=headers).raise_for_status()
            sent_bytes += len(piece)
            if not piece:
                return 0
            took_s = perf_counter() - began_s
            piece_bytes = _next_piece(piece_bytes, took_s)
            share = _SHARE_BEHIND_DELTAS if traffic.is_sending else _SHARE
            pause_s = took_s * (1 / share - 1)
            if self._closing.wait(min(pause_s, _PAUSE_S_MAX)):
                return sent_bytes

    def _ask(
        self,
        method: str,
        peer: Peer,
        path: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        host = {"sni_hostname": credentials.island_host(peer.island)}
        return self._caller.client.request(
            method, self._path(peer, path), content=content, headers=headers, extensions=host
        )

    def _path(self, peer: Peer, path: str) -> str:
        return f"{peer.url}/v1/copy{path}?island={quote(self._island, safe='')}"


def _next_piece(size: int, took_s: float) -> int:
    """A long line wants large pieces, a thin one small ones."""
    if took_s > 2 * _PIECE_S:
        return max(_PIECE_BYTES_MIN, size // 2)
    return min(PIECE_BYTES_MAX, size * 2) if took_s < _PIECE_S else size
