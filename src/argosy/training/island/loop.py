"""What an island does from joining to leaving, whatever trains inside it.

The calling thread trains, and does nothing else but copy and add vectors of parameters between two
steps. Beats, sending and following run in threads of their own: see `errands.py`. Owns the order in
which deltas are taken and versions taken up (`outer/adopt.py` has the arithmetic), and the seconds
that were waited.

An island that was killed and comes back starts from the newest version: what it had sent is in the
ledger, what it had not is leased anew. Of its checkpoint it takes the optimizer's state alone.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter

import msgspec

from argosy.fleet.runs import Run
from argosy.training.data.ahead import Source, read_ahead
from argosy.training.data.reader import TokensHash
from argosy.training.inner import Blocks, Inner, Vector
from argosy.training.island.copies import CheckpointCopies
from argosy.training.island.errands import Errands, News, Snapshot
from argosy.training.island.fragments import sha256_of
from argosy.training.island.joining import Entry, enter
from argosy.training.island.link import ClosedError, Link
from argosy.training.island.own_checkpoints import OwnCheckpoints
from argosy.training.island.peers import PeerShare
from argosy.training.outer.adopt import LocalState, UnknownNumberError
from argosy.training.wire import Evaluated, Lease, Leave

_WAIT_S = 0.05  # looks for news that often where there is nothing to train on
_LAST_WORD_S = 10.0  # for what is no loss if it does not come
_EWMA = 0.2  # weight of the newest step in the measured speed
_SENSELESS_MAX = 3  # of its last deltas: see IslandLoop._rejoin

logger = logging.getLogger(__name__)


class DivergedError(Exception):
    """Its deltas make no sense again and again, each time from the newest version on."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What an island's life came to."""

    state: str  # finished, stopped, left
    version: int
    published_sha256: str  # of the whole vector of that version, fp32
    steps: int
    blocks: int  # whose deltas were accepted
    lost_steps: int  # made, and then taken back: refused, or of a lease that was lost
    contributions: int
    refused: int
    lives: int  # times it joined
    wall_s: float
    joined_s: float  # from the start until it could train
    waited_s: float  # without a block to train on
    stopped_s: float  # for snapshots, versions and checkpoints
    bytes_up: int
    bytes_down: int


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Which island of which run."""

    run: Run
    island: str
    folder: str | None = None  # for its checkpoints; None: none are kept
    share: PeerShare | None = None  # where peers fetch what it has
    copies: CheckpointCopies | None = None  # of its checkpoints, in a peer's memory


class IslandLoop:
    """One life of an island. `run` it once."""

    def __init__(
        self,
        inner: Inner,
        source: Source,
        link: Link,
        setting: Setting,
        *,
        validation: Callable[[], Blocks] | None = None,
        say: Callable[[dict[str, object]], None] = lambda _: None,
    ) -> None:
        """`validation`: the blocks that are kept back. `say` hears of each step and event."""
        self._inner = inner
        self._source = source
        self._link = link
        self._run = setting.run
        self._name = setting.island
        self._share = setting.share
        folder = None if setting.folder is None else Path(setting.folder)
        self._checkpoints = OwnCheckpoints(inner, setting.run, folder, setting.copies)
        self._validation = validation
        self._say = say
        self._steps_per_s: float | None = None
        self._started_s = perf_counter()
        self._trained_s = 0.0
        self._steps = self._blocks = self._lost_steps = 0
        self._contributions = self._refused = self._lives = 0
        self._waited_s = self._stopped_s = self._joined_s = 0.0
        self._senseless_at: list[int] = []  # contributions when it began anew
        self._is_draining = self._is_hurried = False

    @property
    def has_joined(self) -> bool:
        """It takes part, or did."""
        return self._lives > 0

    def drain(self) -> None:
        """From another thread or a signal: finish the lease under way, send it, and leave.

        Again: leave at the next step, and give up that lease.
        """
        self._is_hurried = self._is_draining
        self._is_draining = True

    def run(self) -> Outcome:
        """Train until the run is over. Raises AwayError, DeniedError, DivergedError, RejectedError.

        What the framework raises comes through; the island's leases then expire by themselves.
        """
        self._checkpoints.load()
        self._enter()
        try:
            self._restore()
            state = self._train_all()
        finally:
            self._errands.close()
        return self._outcome(state)

    # The life of it.

    def _enter(self) -> None:
        began_s = perf_counter()
        entry: Entry = enter(
            self._link, self._inner, run=self._run, island=self._name, speed=self._steps_per_s
        )
        self._lives += 1
        self._entry = entry
        self._local = LocalState(entry.map, entry.published, version=entry.version)
        self._errands = Errands(
            self._link, entry, run=self._run, island=self._name, share=self._share
        )
        self._joined_s = perf_counter() - (began_s if self._lives > 1 else self._started_s)
        self._checkpoints.attach(self._errands)
        self._say({"event": "joined", "epoch": entry.epoch, "version": entry.version})
        self._tell()
        self._errands.start()

    def _train_all(self) -> str:
        self._inner.figures()  # begin here: joining was no training
        while True:
            lease = self._next_lease()
            if lease is None:
                break
            if not self._train(lease):
                continue
            self._stopped_s += self._checkpoints.save_if_due(
                epoch=self._entry.epoch, steps=self._steps
            )
        return self._end()

    def _restore(self) -> None:
        """What is on no disk here, a peer may have in memory."""
        began_s = perf_counter()
        if self._checkpoints.restore(self._entry, self._errands):
            self._inner.set_parameters(self._entry.published)
            self._stopped_s += perf_counter() - began_s

    def _next_lease(self) -> Lease | None:
        """Waits for one; None: there will be none any more."""
        began_s = perf_counter()
        waited = False
        try:
            while True:
                self._take_news()
                is_over = self._errands.state in ("finished", "stopped") or self._is_draining
                if is_over:
                    return None
                if len(self._local.pending) <= self._run.outer.staleness_max:
                    lease = self._errands.take_lease()
                    if lease is not None:
                        return lease
                waited = True
                self._errands.wait(_WAIT_S)
        finally:
            if waited:
                self._waited_s += perf_counter() - began_s

    def _train(self, lease: Lease) -> bool:
        """Whether its delta is on the way."""
        self._tell()
        seen = TokensHash()
        losses: list[float] = []
        life = self._lives
        spans = [(span.start, span.stop) for span in lease.spans]
        with closing(read_ahead(self._source, spans, blocks=self._run.batch_blocks)) as portions:
            for start in self._starts_of(lease):
                self._take_news()
                why = self._why_void(lease, life) or self._why_ended()
                if why is not None:
                    self._lose(len(losses), why)
                    return False
                losses.append(self._step(start, portions, seen))
        self._errands.wait_encoded()
        self._take_news()
        why = self._why_void(lease, life)
        if why is not None:
            self._lose(len(losses), why)
            return False
        snapshot = self._snapshot(lease, losses, seen.hexdigest())
        self._contributions += 1
        self._errands.send(snapshot)
        return True

    def _step(self, start: int, portions: Iterator[Blocks], seen: TokensHash) -> float:
        """Its loss."""
        began_s = perf_counter()
        blocks = next(portions)
        report = self._inner.step(blocks, share_done=start / self._entry.blocks)
        seen.add(blocks)
        self._measure(perf_counter() - began_s)
        self._say({"event": "step", "loss": report.loss, "position": start})
        return report.loss

    def _why_ended(self) -> str | None:
        """Why the lease is given up in its middle; it is free again when the island has left."""
        if self._errands.state == "stopped":
            return "the run was stopped"
        return "it was told twice to leave" if self._is_hurried else None

    def _lose(self, steps: int, why: str) -> None:
        self._lost_steps += steps
        self._say({"event": "lost", "steps": steps, "why": why})

    def _why_void(self, lease: Lease, life: int) -> str | None:
        """Why what was trained on it is forgotten: it is another's, or of a life that is over."""
        if self._lives != life:
            return "it joined anew"
        if not self._errands.is_lost(lease.lease):
            return None
        logger.warning("the lease %s is another's now: its steps are taken back", lease.lease)
        self._errands.wait_encoded()
        self._take_news()
        self._inner.set_parameters(self._local.restart())
        return "the lease is another's now"

    def _snapshot(self, lease: Lease, losses: list[float], tokens_sha256: str) -> Snapshot:
        """All that was not yet told of the training: at this one point in time."""
        began_s = perf_counter()
        figures = self._inner.figures()
        delta = self._local.snapshot(self._inner.parameters())
        blocks = sum(span.stop - span.start for span in lease.spans)
        self._stopped_s += perf_counter() - began_s
        return Snapshot(
            number=self._errands.next_number(),
            delta=delta,
            base_version=self._local.version,
            lease=lease.lease,
            steps=len(losses),
            blocks=blocks,
            loss=sum(losses) / len(losses),
            tokens_sha256=tokens_sha256,
            figures=figures,
        )

    def _end(self) -> str:
        """What was sent is answered, and the last version taken up; then it goes."""
        state = "left" if self._is_draining else self._errands.state
        self._errands.finish_sending()
        while state == "finished" and self._local.version < self._errands.newest_version:
            self._take_news()
            self._errands.wait(_WAIT_S)
        self._take_news()
        if state == "finished" and self._validation is not None:
            self._errands.ask_once_more(wait_s=_LAST_WORD_S)
            self._take_news()
        self._errands.join_reports(wait_s=_LAST_WORD_S)
        leave = Leave(island=self._name, epoch=self._entry.epoch)
        try:
            self._link.leave(leave)
        except ClosedError:
            logger.info("it left without a word: the link was closed")
        return state

    # News.

    def _take_news(self) -> None:
        """Versions and verdicts that came since the last step."""
        if self._is_draining:
            self._errands.take_no_more()
        news = self._errands.news()
        if news is not None:
            began_s = perf_counter()
            self._take(news)
            self._stopped_s += perf_counter() - began_s
        evaluate = self._errands.to_evaluate()
        is_wanted = evaluate == self._local.version and self._errands.state != "stopped"
        if evaluate is not None and is_wanted:
            self._evaluate(evaluate)

    def _take(self, news: News) -> None:
        for number, parts in news.encoded:
            self._local.sent(number, parts)
        for number, blocks in news.accepted:
            self._blocks += blocks
            self._say({"event": "accepted", "number": number})
        for number, steps in news.refused:
            self._refused += 1
            self._lose(steps, f"contribution {number} was refused")
            try:
                self._inner.add(0, self._local.refused(number))
            except UnknownNumberError:
                logger.info("contribution %d was forgotten already", number)
        if news.version is not None:
            movement = self._local.adopt_whole(
                news.version.version, news.version.published, number=news.version.number
            )
            self._inner.add(0, movement)
            self._say({"event": "version", "version": self._local.version})
        distrusted = None if news.version is None else news.version.distrusted
        if distrusted is not None:
            self._say({"event": "distrusted", "why": distrusted})
        if news.is_diverged or (news.version is not None and news.version.begins_anew):
            logger.warning("joins anew: %s", distrusted or "its parameters are not finite")
            self._rejoin()
        elif distrusted is not None:
            logger.warning("its last delta is taken back: %s", distrusted)
        self._tell()

    def _rejoin(self) -> None:
        """A delta made no sense: leases go back, and all starts from the newest version.

        That an island's bytes are accepted says nothing: a round judges them later. So what counts
        is how often it came to this within the last deltas, of which those that follow a senseless
        one are lost as well, `staleness_max` + 1 each time.
        """
        window = (_SENSELESS_MAX + 1) * (self._run.outer.staleness_max + 2)
        recent = [at for at in self._senseless_at if at > self._contributions - window]
        self._senseless_at = [*recent, self._contributions]
        times = len(self._senseless_at)
        if times > _SENSELESS_MAX:
            raise DivergedError(
                f"{self._name} began anew from the newest version {times} times within its last"
                f" {window} deltas, for they made no sense. Lower optimizer.lr, or replace the chip"
            )
        self._errands.close()
        self._enter()

    def _evaluate(self, version: int) -> None:
        """The loss of the version itself, without what this island trained since."""
        blocks = None if self._validation is None else self._validation()
        self._errands.evaluated(version)
        if blocks is None or not len(blocks):
            return
        began_s = perf_counter()
        now = self._inner.parameters()
        self._inner.set_parameters(self._local.published)
        batch = self._run.batch_blocks
        parts = [blocks[at : at + batch] for at in range(0, len(blocks), batch)]
        total = sum(self._inner.loss(part) * len(part) for part in parts)
        self._inner.set_parameters(now)
        loss = total / len(blocks)
        self._stopped_s += perf_counter() - began_s
        self._say({"event": "evaluated", "version": version, "loss": loss})
        what = Evaluated(island=self._name, epoch=self._entry.epoch, version=version, loss=loss)
        self._errands.report(what)

    def _tell(self) -> None:
        """What the next beat says."""
        self._errands.tell(
            version=self._local.version,
            steps_per_s=self._steps_per_s,
            waited_s=self._waited_s,
        )

    # Small things.

    def _starts_of(self, lease: Lease) -> Iterator[int]:
        """Of its steps, in order."""
        for span in lease.spans:
            yield from range(span.start, span.stop, self._run.batch_blocks)

    def _measure(self, step_s: float) -> None:
        self._steps += 1
        self._trained_s += step_s
        speed = 1.0 / max(step_s, 1e-9)
        before = self._steps_per_s
        # the mean of times, not of speeds: a slow step counts as long as it was
        self._steps_per_s = (
            speed if before is None else 1.0 / ((1 - _EWMA) / before + _EWMA / speed)
        )

    def _outcome(self, state: str) -> Outcome:
        published: Vector = self._local.published
        return Outcome(
            state=state,
            version=self._local.version,
            published_sha256=sha256_of(published.astype("<f4", copy=False).data),
            steps=self._steps,
            blocks=self._blocks,
            lost_steps=self._lost_steps,
            contributions=self._contributions,
            refused=self._refused,
            lives=self._lives,
            wall_s=perf_counter() - self._started_s,
            joined_s=self._joined_s,
            waited_s=self._waited_s,
            stopped_s=self._stopped_s,
            bytes_up=self._link.bytes_up,
            bytes_down=self._link.bytes_down,
        )
