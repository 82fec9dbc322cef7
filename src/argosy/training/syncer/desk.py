"""What the syncer answers, and in which order things become durable.

- A delta is Accepted once its bytes are on the disk and its row is in the ledger.
- A round is in the ledger, with all that it is made of, before it is computed; islands hear of a
  version once it is computed. A full disk delays it; it is tried again.
- A restart reads the ledger, computes the rounds since the last snapshot again, and goes on: what
  is only in memory (who waits for what) is heard anew; islands that lived are waited for 5 s.

What it knows is in `affairs.py`; `intake.py` takes deltas in, `closing.py` closes rounds.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Iterator

from argosy.store.errors import FencedError, StoreError
from argosy.store.runs import (
    LeaseRecord,
)
from argosy.training.syncer.affairs import Affairs, blocks_free
from argosy.training.syncer.closing import RETRY_S, Closing
from argosy.training.syncer.intake import Intake
from argosy.training.syncer.seats import Seat
from argosy.training.syncer.vault import FullError
from argosy.training.wire import (
    Accepted,
    Beat,
    Beaten,
    Contribution,
    Evaluated,
    Join,
    Joined,
    Lease,
    Leave,
    Missing,
    Parameters,
    Refused,
    Seed,
    Seeding,
    Span,
    Status,
    Update,
)

TICK_S = 0.05
_STALL_S = 0.5
NOTE_EVERY_S = 1.0  # what islands say of themselves is written that often
_LEASES_AHEAD = 2  # the one that is trained on, and the next; others wait to be answered

logger = logging.getLogger(__name__)


class Desk:
    """The syncer without HTTP. Raises StoreError, FencedError and FullError where they say so."""

    def __init__(self, affairs: Affairs) -> None:
        self.run = affairs.run
        self.vault = affairs.vault
        self.seats = affairs.seats
        self._at = affairs
        self._intake = Intake(affairs)
        self._closing = Closing(affairs)
        self._noted_s = 0.0
        self._ticked_s = 0.0
        self._seeder: tuple[str, int] | None = None

    @property
    def fenced(self) -> FencedError | None:
        """Another syncer has the run: this one is to end."""
        return self._at.fenced

    def fence(self, error: FencedError) -> None:
        """It is so: nothing is written any more."""
        self._at.fenced = error

    def parameters_now(self) -> Parameters | None:
        """The newest version; None: nobody has sent any."""
        return self._at.parameters_now()

    async def start(self) -> None:
        """Compute what the ledger is ahead by, and expect the islands that were there.

        Raises StoreError, LostError, FullError.
        """
        if self._at.record.version is not None:
            begin = functools.partial(
                self._at.versions.begin, self._at.record.version, self._at.rounds
            )
            await self._at.in_numbers(begin)
        now_s = self._at.now_s()
        for island, epoch in self._at.lived.items():
            self.seats.expect(island, epoch, now_s=now_s)
        for lease in await self._at.in_books(self._at.ledger.open_leases):
            seat = self.seats.seats.get(lease.island)
            if seat is None or seat.epoch < lease.epoch:
                seat = self.seats.expect(lease.island, lease.epoch, now_s=now_s)
            self.seats.leased(seat, lease.lease, blocks=lease.blocks, now_s=now_s)
        for one in await self._at.in_books(self._at.ledger.pending):
            self.seats.contributed(one.island, now_s=now_s)
        if self._at.record.state == "stopped":
            await self._at.in_books(lambda: self._at.ledger.set_state("training"))
        await self._at.check_end()

    async def tick_forever(self) -> None:
        """Expire, close, note; ends when the lease on the run is lost."""
        self._ticked_s = self._at.now_s()
        while self._at.fenced is None:
            await asyncio.sleep(TICK_S)
            try:
                await self._tick()
            except FencedError as error:
                self._at.fenced = error
            except StoreError as error:
                self._at.say(str(error))
                await asyncio.sleep(RETRY_S)

    async def dismiss(self) -> None:
        """Whoever waits for news is answered now, with what there is."""
        self._at.is_ending = True
        await self._at.tell()

    async def close(self) -> None:
        """What can be written is; threads end."""
        await self._closing.wait()
        if self._at.versions.version is not None and self._at.fenced is None:
            try:
                await self._at.in_numbers(
                    functools.partial(self._at.versions.snapshot_if_due, always=True)
                )
            except FullError as error:
                logger.warning("no snapshot was written at the end: %s", error)
        self._at.book_thread.shutdown()
        self._at.number_thread.shutdown()

    @property
    def state(self) -> str:
        """Of the run."""
        return self._at.record.state

    def version(self) -> int | None:
        """The newest that was computed."""
        return self._at.versions.version

    async def join(self, join: Join) -> Joined | Refused:
        """It takes part, whatever it was before."""
        refused = self._at.unlike(join)
        if refused is not None:
            return refused
        async with self._at.lock:
            epoch = await self._at.in_books(
                lambda: self._at.ledger.join(join.island, join.steps_per_s)
            )
            seat = self.seats.sit(join.island, epoch, now_s=self._at.now_s())
            seat.steps_per_s = join.steps_per_s or seat.steps_per_s
            self._at.uploaded.pop(join.island, None)
            await asyncio.to_thread(self.vault.drop_parts, join.island)
            if self._at.record.version is None and not self._seeder_lives():
                self._seeder = (join.island, epoch)
        logger.info("%s joined, epoch %d", join.island, epoch)
        return Joined(
            epoch=epoch,
            parameters=self._at.parameters_now(),
            blocks=self._at.record.blocks,
            blocks_done=self._at.record.blocks_done,
            lease_s=self.run.outer.lease_s,
            bits=self.run.outer.bits,
            fragment_bytes_max=self.run.outer.fragment_bytes_max,
            seeder=None if self._seeder is None else self._seeder[0],
            peers=self.seats.peers(join.island),
        )

    async def beat(self, beat: Beat) -> Beaten | Refused:
        """It lives; it may get its next lease."""
        seat = await self._seat(beat.island, beat.epoch)
        if isinstance(seat, Refused):
            return seat
        self.seats.take(seat, beat)
        lease: LeaseRecord | None = None
        with self._waiting_for_us(seat):
            async with self._at.lock:
                lease = await self._next_lease(seat, beat)
        lost = tuple(name for name in beat.holds if name not in seat.held)
        return Beaten(
            state=self._at.record.state,
            version=self._at.versions.version or 0,
            lease=None if lease is None else _on_the_wire(lease),
            blocks_done=self._at.record.blocks_done,
            lost=lost,
            evaluate=self._to_evaluate(seat),
            peers=self.seats.peers(beat.island),
        )

    async def contribute(self, sent: Contribution) -> Accepted | Refused | Missing:
        """A delta whose bytes are here. Raises StoreError: send it again."""
        seat = await self._seat(sent.island, sent.epoch)
        if isinstance(seat, Refused):
            return seat
        with self._waiting_for_us(seat):
            return await self._intake.take_in(seat, sent)

    async def seed(self, seed: Seed) -> Parameters | Refused | Missing:
        """The first parameters; those that are there already are the answer to whoever is late."""
        seat = await self._seat(seed.island, seed.epoch)
        if isinstance(seat, Refused):
            return seat
        missing = await asyncio.to_thread(
            self._intake.missing, tuple(part.sha256 for part in seed.fragments)
        )
        if missing:
            return Missing(fragments=missing)
        async with self._at.lock:
            if self._at.record.version is None:
                try:
                    row = await self._at.in_numbers(
                        lambda: self._at.versions.seed(seed.island, seed.tensors, seed.fragments)
                    )
                except ValueError as error:
                    return Refused(code="unlike", reason=str(error))
                await self._at.in_books(lambda: self._at.ledger.seed(row))
                await self._at.in_numbers(lambda: self._at.versions.begin(0, self._at.rounds))
                self._at.uploaded.pop(seed.island, None)
                await self._at.tell()
        parameters = self._at.parameters_now()
        return parameters or Refused(code="unlike", reason="there are no parameters")

    async def parameters(self, *, newer_than: int | None, wait_s: float) -> Parameters | Seeding:
        """The newest, once it is beyond that; after `wait_s`, whatever there is."""

        def is_there() -> bool:
            version = self._at.versions.version
            return version is not None and (newer_than is None or version > newer_than)

        await self._at.wait(is_there, wait_s)
        if self._at.record.version is None and not self._seeder_lives():
            self._seeder = next(
                ((seat.island, seat.epoch) for seat in self.seats.seats.values()), None
            )
        return self._at.parameters_now() or Seeding(island=self._seeder[0] if self._seeder else "")

    async def update(self, version: int, *, wait_s: float) -> Update | Parameters | None:
        """What leads to that version. None: not yet; Parameters: it is kept no more.

        Of a stopped run that is told at once, so that islands ask what became of it.
        """
        await self._at.wait(
            lambda: (self._at.versions.version or 0) >= version or self.state == "stopped", wait_s
        )
        made = self._at.versions.made.get(version)
        if made is not None and made.update:
            return Update(
                version=version, fragments=made.update, parameters=self._at.parameters_of(made)
            )
        if (self._at.versions.version or 0) >= version:
            return self._at.parameters_now()
        return None

    async def evaluated(self, what: Evaluated) -> None:
        """A point of the validation curve."""
        await self._at.in_books(
            lambda: self._at.ledger.note_loss(what.island, what.version, what.loss)
        )
        self._at.measuring.done(what.island, what.version)

    async def leave(self, leave: Leave) -> None:
        """It goes."""
        seat = self.seats.seats.get(leave.island)
        if seat is not None and seat.epoch == leave.epoch:
            async with self._at.lock:
                await self._at.part(seat, "left")

    async def status(self) -> Status:
        """For people."""
        now_s = self._at.now_s()
        record = self._at.record
        free = blocks_free(record)
        return Status(
            run=self.run.run,
            state=record.state,
            version=self._at.versions.version,
            blocks=record.blocks,
            blocks_done=record.blocks_done,
            blocks_leased=record.blocks - record.blocks_done - free,
            waits=self._closing.waits,
            refused=tuple(self._at.refusals),
            fault=self._at.fault,
            islands=self.seats.status(now_s=now_s, blocks_done=self._at.done),
        )

    def fragment(self, name: str) -> memoryview | None:
        """Of the newest parameters, or the version before; others are in the vault."""
        return self._at.versions.published_fragment(name)

    def may_upload(self, island: str, name: str) -> bool:
        """Not more than a few deltas that were never contributed."""
        parts = self._at.versions.map
        most = 4096 if parts is None else len(parts.fragments) * (self.run.outer.staleness_max + 2)
        names = self._at.uploaded.setdefault(island, set())
        if name not in names and len(names) >= most:
            return False
        names.add(name)
        return True

    def count_bytes(self, island: str, *, came: int = 0, went: int = 0) -> None:
        """Of fragments, by island."""
        self.seats.count_bytes(island, came=came, went=went)

    async def _tick(self) -> None:
        now_s = self._at.now_s()
        if now_s - self._ticked_s > _STALL_S:  # this process was paused: nobody could be heard
            self.seats.excuse(now_s - self._ticked_s)
        self._ticked_s = now_s
        gone = self.seats.silent(now_s=now_s)
        if gone:
            async with self._at.lock:
                for seat in gone:
                    logger.warning("%s was silent for too long: its blocks are free", seat.island)
                    await self._at.part(seat, "silent")
        if now_s - self._noted_s >= NOTE_EVERY_S:
            self._noted_s = now_s
            await self._at.note()
        self._closing.close_if_due(now_s=now_s)

    async def _next_lease(self, seat: Seat, beat: Beat) -> LeaseRecord | None:
        """One that it does not know it has, else a new one."""
        lost = [name for name in seat.held if name not in beat.holds]
        if lost:
            for lease in await self._at.in_books(self._at.ledger.open_leases):
                if lease.lease == lost[0]:
                    return lease
            seat.held.pop(lost[0])
        if not beat.wants_lease or len(seat.held) > self.run.outer.staleness_max + _LEASES_AHEAD:
            return None
        blocks = self.seats.blocks_to_lease(seat, blocks_free=blocks_free(self._at.record))
        if blocks == 0 or self._at.versions.version is None:
            return None
        lease = await self._at.in_books(
            lambda: self._at.ledger.grant(seat.island, seat.epoch, blocks=blocks)
        )
        if lease is not None:
            self.seats.leased(seat, lease.lease, blocks=lease.blocks, now_s=self._at.now_s())
            await self._at.check_end()
        return lease

    async def _seat(self, island: str, epoch: int) -> Seat | Refused:
        """Of an island whose newest life this is; one that was silent is heard again."""
        seat = self.seats.seats.get(island)
        if seat is None or seat.epoch != epoch:
            newest = await self._at.in_books(lambda: self._at.ledger.epoch(island))
            if newest != epoch:
                reason = f"{island} is at epoch {newest}, this is {epoch}: join anew"
                return Refused(code="stale_epoch", reason=reason)
            seat = self.seats.sit(island, epoch, now_s=self._at.now_s())
            for lease in await self._at.in_books(self._at.ledger.open_leases):
                if lease.island == island and lease.epoch == epoch:
                    self.seats.leased(
                        seat, lease.lease, blocks=lease.blocks, now_s=self._at.now_s()
                    )
        self.seats.hear(seat, now_s=self._at.now_s())
        return seat

    @contextlib.contextmanager
    def _waiting_for_us(self, seat: Seat) -> Iterator[None]:
        """An island is not silent because the ledger's disk is slow to answer it."""
        seat.asking += 1
        try:
            yield
        finally:
            seat.asking -= 1
            self.seats.hear(seat, now_s=self._at.now_s())

    def _to_evaluate(self, seat: Seat) -> int | None:
        """The newest version is measured by one island that has it."""
        version = self._at.versions.version
        if not version or seat.version != version or not self.run.data.validation_blocks:
            return None
        return self._at.measuring.asked(seat.island, version)

    def _seeder_lives(self) -> bool:
        if self._seeder is None:
            return False
        seat = self.seats.seats.get(self._seeder[0])
        return seat is not None and seat.epoch == self._seeder[1]


def _on_the_wire(lease: LeaseRecord) -> Lease:
    spans = tuple(Span(start=start, stop=stop) for start, stop in lease.spans)
    return Lease(lease=lease.lease, spans=spans)
