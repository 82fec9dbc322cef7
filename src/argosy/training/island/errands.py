"""What an island does beside its training: beats, sending deltas, following versions.

Three threads, and what passes between them and the one that trains: leases and news one way,
snapshots and numbers the other. What fails for good in one of them is raised in the training
thread, at its next look.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

import msgspec

from argosy.fleet.runs import Run
from argosy.training.inner import Figures, Vector
from argosy.training.island.fragments import sha256_of, unlike
from argosy.training.island.joining import Entry, RejectedError, fetch_whole
from argosy.training.island.link import ClosedError, GoneError, Link
from argosy.training.island.peers import PeerShare
from argosy.training.outer.codec import DamagedError, NotFiniteError, encode, encoded_bytes
from argosy.training.outer.step import publish
from argosy.training.wire import (
    Accepted,
    Beat,
    Beaten,
    Contribution,
    Evaluated,
    Lease,
    Parameters,
    Peer,
    Refused,
    Settled,
    Update,
)

_ASK_S = 0.1  # between two beats that ask for a lease
_LEAVING_S = 0.5  # between two beats of one that is to leave: perhaps the run was stopped

logger = logging.getLogger(__name__)


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A delta that is to be sent."""

    number: int
    delta: Vector  # raw
    base_version: int
    lease: str
    steps: int
    blocks: int
    loss: float
    tokens_sha256: str
    figures: Figures | None


class NewVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that came."""

    version: int
    published: Vector
    number: int | None  # the last own contribution in it, or before
    distrusted: str | None
    begins_anew: bool


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What came since the last look; of several versions the newest alone."""

    encoded: tuple[tuple[int, tuple[bytes, ...]], ...]  # of which the local state is to know first
    accepted: tuple[tuple[int, int], ...]  # number, blocks
    refused: tuple[tuple[int, int], ...]  # number, steps
    version: NewVersion | None
    is_diverged: bool


class Errands:
    """The threads of one life; `close` ends them, and the link stays."""

    def __init__(
        self,
        link: Link,
        entry: Entry,
        *,
        run: Run,
        island: str,
        share: PeerShare | None = None,
    ) -> None:
        """`share`: where peers fetch what this island has."""
        self._link = link
        self._entry = entry
        self._run = run
        self._island = island
        self._share = share
        if share is not None:
            share.offer(entry.map, entry.published, entry.names)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._beat_now = threading.Event()
        self._closing = threading.Event()
        self._fault: BaseException | None = None
        self._leases: deque[Lease] = deque()
        self._holds: list[str] = []
        self._lost: set[str] = set()
        self._told: dict[str, float | int | None] = {}
        self._loss: float | None = None
        self._figures: Figures | None = None
        self._snapshots: deque[Snapshot] = deque()
        self._is_encoding = False
        self._numbers = 0
        self._encoded: list[tuple[int, tuple[bytes, ...]]] = []
        self._accepted: list[tuple[int, int]] = []
        self._refused: list[tuple[int, int]] = []
        self._version: NewVersion | None = None
        self._is_diverged = False
        self._evaluate: int | None = None
        self._evaluated = 0
        self._beats = 0
        self._reports: list[threading.Thread] = []
        self._peers: tuple[Peer, ...] = entry.peers
        self._is_leaving = False
        self.state: str = "training"
        self.newest_version = entry.version
        self._threads = [
            threading.Thread(target=self._guarded, args=(act,), name=name, daemon=True)
            for name, act in (
                ("beats", self._beat_forever),
                ("sender", self._send_forever),
                ("follower", self._follow_forever),
            )
        ]

    def start(self) -> None:
        """From now on it is heard."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends soon; calls under way are not waited for."""
        self._closing.set()
        self._beat_now.set()
        with self._changed:
            self._changed.notify_all()

    # For the training thread.

    def tell(self, *, version: int, steps_per_s: float | None, waited_s: float) -> None:
        """What the next beat says."""
        with self._lock:
            is_news = version != self._told.get("version")
            self._told = {"version": version, "steps_per_s": steps_per_s, "waited_s": waited_s}
        if is_news:
            self._beat_now.set()

    def take_lease(self) -> Lease | None:
        """The next one, if there is one; another is asked for. Raises what went wrong for good."""
        with self._lock:
            self._raise_fault()
            lease = self._leases.popleft() if self._leases else None
        self._beat_now.set()
        return lease

    def take_no_more(self) -> None:
        """It is to leave: no lease is asked for, and whether the run was stopped is heard soon."""
        if not self._is_leaving:
            self._is_leaving = True
            self._beat_now.set()

    def is_lost(self, lease: str) -> bool:
        """It is another's now; it is then held no more."""
        with self._lock:
            if lease not in self._lost:
                return False
            self._drop(lease)
            return True

    def news(self) -> News | None:
        """What came since the last look. Raises what went wrong for good."""
        with self._lock:
            self._raise_fault()
            came = (self._encoded, self._accepted, self._refused, self._version)
            if not (any(came) or self._is_diverged):
                return None
            news = News(
                encoded=tuple(self._encoded),
                accepted=tuple(self._accepted),
                refused=tuple(self._refused),
                version=self._version,
                is_diverged=self._is_diverged,
            )
            self._encoded, self._accepted, self._refused = [], [], []
            self._version, self._is_diverged = None, False
            return news

    def wait(self, seconds: float) -> None:
        """For whatever comes."""
        with self._changed:
            if not (self._version or self._leases or self._refused or self._closing.is_set()):
                self._changed.wait(seconds)

    def next_number(self) -> int:
        """Of the next contribution."""
        self._numbers += 1
        return self._numbers

    def send(self, snapshot: Snapshot) -> None:
        """In its turn."""
        with self._changed:
            self._snapshots.append(snapshot)
            self._is_encoding = True
            self._changed.notify_all()

    def wait_encoded(self) -> None:
        """Until what was sent is among the news. Raises what went wrong for good."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._is_encoding or self._fault or self._closing.is_set()
            )
            self._raise_fault()

    def finish_sending(self) -> None:
        """Until all is answered. Raises what went wrong for good."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._snapshots or self._fault or self._closing.is_set()
            )
            self._raise_fault()

    def to_evaluate(self) -> int | None:
        """A version whose loss is asked for."""
        with self._lock:
            return self._evaluate

    def evaluated(self, version: int) -> None:
        """It is measured, or will not be."""
        with self._lock:
            self._evaluated, self._evaluate = version, None

    def report(self, what: Evaluated) -> None:
        """Tell the syncer; one that is away hears nothing of it."""
        thread = threading.Thread(
            target=self._guarded, args=(lambda: self._link.evaluated(what),), daemon=True
        )
        thread.start()
        self._reports.append(thread)

    def ask_once_more(self, *, wait_s: float) -> None:
        """The last version may be this island's to measure: until the syncer has said so."""
        with self._changed:
            beats = self._beats
            self._beat_now.set()
            self._changed.wait_for(
                lambda: self._beats >= beats + 2 or self._fault or self._closing.is_set(), wait_s
            )

    def join_reports(self, *, wait_s: float) -> None:
        """Until the syncer has heard them, or for so long."""
        for thread in self._reports:
            thread.join(wait_s)

    # For whoever sends something of less haste.

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Islands that listen, by the syncer's last word."""
        return self._peers

    @property
    def is_sending(self) -> bool:
        """A delta is on its way."""
        return bool(self._snapshots)

    # Threads.

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except ClosedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised in the training thread
            with self._changed:
                self._fault = self._fault or error
                self._changed.notify_all()

    def _beat_forever(self) -> None:
        while not self._closing.is_set():
            answer = self._link.beat(self._beat())
            if self._closing.is_set():
                return
            if isinstance(answer, Refused):
                raise RejectedError(f"{self._island} is not this process any more: {answer.reason}")
            self._hear(answer)
            self._beat_now.wait(min(self._entry.lease_s / 3, self._soon_s()))
            self._beat_now.clear()

    def _soon_s(self) -> float:
        """Until the next beat, where a third of lease_s is not sooner."""
        with self._lock:
            if self._wants():
                return _ASK_S
        return _LEAVING_S if self._is_leaving else self._entry.lease_s

    def _wants(self) -> bool:
        is_over = self._is_leaving or self.state not in ("training", "finishing")
        return not self._leases and not is_over

    def _beat(self) -> Beat:
        with self._lock:
            return Beat(
                island=self._island,
                epoch=self._entry.epoch,
                version=int(self._told.get("version") or 0),
                steps_per_s=self._told.get("steps_per_s"),
                loss=self._loss,
                waited_s=float(self._told.get("waited_s") or 0.0),
                wants_lease=self._wants(),
                holds=tuple(self._holds),
                peer_url=None if self._share is None else self._share.url,
                unsent=len(self._snapshots),
                figures=self._figures,
            )

    def _hear(self, answer: Beaten) -> None:
        with self._changed:
            self.state = answer.state
            self._beats += 1
            self.newest_version = max(self.newest_version, answer.version)
            self._peers = answer.peers
            if answer.evaluate is not None and answer.evaluate > self._evaluated:
                self._evaluate = answer.evaluate
            for name in answer.lost:
                waiting = [lease for lease in self._leases if lease.lease == name]
                if waiting:
                    self._leases.remove(waiting[0])
                    self._holds.remove(name)
                else:
                    self._lost.add(name)
            if answer.lease is not None and answer.lease.lease not in self._holds:
                self._leases.append(answer.lease)
                self._holds.append(answer.lease.lease)
            self._changed.notify_all()

    def _send_forever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._snapshots or self._closing.is_set())
                if not self._snapshots:
                    return
                snapshot = self._snapshots[0]
            self._send(snapshot)
            with self._changed:
                self._snapshots.popleft()
                self._changed.notify_all()

    def _send(self, snapshot: Snapshot) -> None:
        try:
            parts = [
                encode(part.of(snapshot.delta), bits=self._entry.bits)
                for part in self._entry.map.fragments
            ]
        except NotFiniteError:
            logger.exception("contribution %d is not sent", snapshot.number)
            with self._changed:
                self._is_diverged, self._is_encoding = True, False
                self._changed.notify_all()
            return
        with self._changed:
            self._encoded.append((snapshot.number, tuple(parts)))
            self._is_encoding = False
            self._loss, self._figures = snapshot.loss, snapshot.figures
            self._changed.notify_all()
        names = tuple(sha256_of(part) for part in parts)
        contribution = Contribution(
            island=self._island,
            epoch=self._entry.epoch,
            number=snapshot.number,
            base_version=snapshot.base_version,
            lease=snapshot.lease,
            steps=snapshot.steps,
            blocks=snapshot.blocks,
            loss=snapshot.loss,
            fragments=names,
            tokens_sha256=snapshot.tokens_sha256,
        )
        verdict = self._link.contribute(contribution, dict(zip(names, parts, strict=True)))
        self._settle(snapshot, verdict)

    def _settle(self, snapshot: Snapshot, verdict: Accepted | Refused) -> None:
        with self._changed:
            self._drop(snapshot.lease)
            if isinstance(verdict, Refused):
                if verdict.code == "stale_epoch":
                    raise RejectedError(f"{self._island} is replaced: {verdict.reason}")
                logger.warning("contribution %d is refused: %s", snapshot.number, verdict.reason)
                self._refused.append((snapshot.number, snapshot.steps))
            else:
                self._accepted.append((snapshot.number, snapshot.blocks))
            self._changed.notify_all()

    def _follow_forever(self) -> None:
        """Versions one by one; each is checked against its name, fragment by fragment."""
        version, published = self._entry.version, self._entry.published
        while not self._closing.is_set():
            found = self._link.update(version + 1)
            if found is None:  # it waited long enough, or the run was stopped
                self._beat_now.set()
                self._closing.wait(_ASK_S)
                continue
            if isinstance(found, Parameters):
                version, published = fetch_whole(
                    self._link, self._entry.map, found, peers=self._peers
                )
                settled, names = found.settled, found.fragments
            else:
                published = self._next(found, published)
                version, settled = found.version, found.parameters.settled
                names = found.parameters.fragments
            if self._share is not None:
                self._share.offer(self._entry.map, published, names)
            self._publish(version, published, settled)

    def _next(self, update: Update, before: Vector) -> Vector:
        parts = self._entry.map.fragments
        sizes = {
            name: encoded_bytes(part.values, self._entry.bits)
            for part, name in zip(parts, update.fragments, strict=True)
        }
        try:
            contents = self._link.fetch(sizes)
            published = before.copy()
            for part, name in zip(parts, update.fragments, strict=True):
                part.of(published)[:] = publish(part.of(before), contents[name])
            wrong = unlike(self._entry.map, published, update.parameters.fragments)
            fault = f"fragments {wrong} came out otherwise" if wrong else None
        except (GoneError, DamagedError) as error:
            published, fault = before, str(error)
        if fault is not None:
            logger.warning("version %d is fetched whole: %s", update.version, fault)
            _, published = fetch_whole(self._link, self._entry.map, update.parameters)
        return published

    def _publish(self, version: int, published: Vector, settled: tuple[Settled, ...]) -> None:
        mine = [
            one for one in settled if one.island == self._island and one.epoch == self._entry.epoch
        ]
        with self._changed:
            before = self._version
            self._version = NewVersion(
                version=version,
                published=published,
                number=mine[0].number if mine else None,
                distrusted=(mine[0].distrusted if mine else None)
                or (before.distrusted if before else None),
                begins_anew=any(one.begins_anew for one in mine)
                or (before is not None and before.begins_anew),
            )
            self.newest_version = max(self.newest_version, version)
            self._changed.notify_all()

    def _drop(self, lease: str) -> None:
        if lease in self._holds:
            self._holds.remove(lease)
        self._lost.discard(lease)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault
