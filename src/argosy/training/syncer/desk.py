"""What the syncer answers, and in which order things become durable.

- A delta is Accepted once its bytes are on the disk and its row is in the ledger.
- A round is in the ledger, with all that it is made of, before it is computed; islands hear of a
  version once it is computed. A full disk delays it; it is tried again.
- A restart reads the ledger, computes the rounds since the last snapshot again, and goes on: what
  is only in memory (who lives, who waits) is heard anew within one `lease_s`.

One event loop; the ledger has one thread, the parameters another, so that neither a slow disk nor
a long sum keeps an island from being heard.
"""

import asyncio
import contextlib
import functools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from argosy.fleet.runs import Run
from argosy.policies.elasticity import Close
from argosy.store.errors import FencedError, StoreError
from argosy.store.run_ledger import Booked, Declined, Ledger, Noted, Sent
from argosy.store.runs import (
    ContributionRecord,
    IslandRecord,
    LeaseRecord,
    RoundRecord,
    RunRecord,
)
from argosy.training.outer.codec import DamagedError
from argosy.training.syncer.rounds import Judge, RoundPlan
from argosy.training.syncer.seats import Seat, Seats
from argosy.training.syncer.settled import Measuring, SettledByVersion
from argosy.training.syncer.vault import FullError, Vault
from argosy.training.syncer.versions import MadeVersion, Versions
from argosy.training.wire import (
    WIRE_VERSION,
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
RETRY_S = 1.0  # after a full disk or a store that cannot be written
_LEASES_AHEAD = 2  # the one that is trained on, and the next; others wait to be answered
_ORPHAN_S = 120.0  # bytes that no contribution names are kept so long
_RESTART_EXTRA_S = 15.0  # islands try again that often at least, see island/link.py

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says when the syncer starts."""

    record: RunRecord
    islands: tuple[IslandRecord, ...]
    settled: tuple[ContributionRecord, ...]  # in a version, or distrusted by a round


class Desk:
    """The syncer without HTTP. Raises StoreError, FencedError and FullError where they say so."""

    def __init__(
        self,
        run: Run,
        books: Books,
        *,
        ledger: Ledger,
        vault: Vault,
        versions: Versions,
        rounds: Callable[[int], Sequence[RoundRecord]],
    ) -> None:
        self.run = run
        self.vault = vault
        self.seats = Seats(run)
        self._ledger = ledger
        self._versions = versions
        self._rounds = rounds
        self._record = books.record
        self._judge = Judge(run, self.seats.settings)
        self._book_thread = ThreadPoolExecutor(1, "ledger")
        self._number_thread = ThreadPoolExecutor(1, "parameters")
        self._lock = asyncio.Lock()  # one change of ledger and seats at a time
        self._news = asyncio.Condition()  # a version came, or the state changed
        self._round: asyncio.Task[None] | None = None
        self._retry_s = 0.0
        self._noted_s = 0.0
        self._waits = "nobody has joined"
        self._refusals: deque[str] = deque(maxlen=20)
        self._fault: str | None = None
        self._seeder: tuple[str, int] | None = None
        self._uploaded: dict[str, set[str]] = {}  # since the last contribution, by island
        self._bytes_lock = asyncio.Lock()  # nothing is thrown away while a delta is taken in
        self._done: dict[str, int] = {row.island: row.blocks_done for row in books.islands}
        self._settled = SettledByVersion(books.settled)
        self._measuring = Measuring()
        self._is_ending = False
        self._ticked_s = 0.0
        self.fenced: FencedError | None = None

    # The life of it.

    async def start(self) -> None:
        """Compute what the ledger is ahead by, and expect the islands that were there.

        Raises StoreError, LostError, FullError.
        """
        if self._record.version is not None:
            begin = functools.partial(self._versions.begin, self._record.version, self._rounds)
            await self._in_numbers(begin)
        now_s = self._now_s()
        for lease in await self._in_books(self._ledger.open_leases):
            seat = self.seats.seats.get(lease.island)
            if seat is None or seat.epoch < lease.epoch:
                seat = self.seats.sit(
                    lease.island, lease.epoch, now_s=now_s, extra_s=_RESTART_EXTRA_S
                )
            self.seats.leased(seat, lease.lease, blocks=lease.blocks, now_s=now_s)
        for one in await self._in_books(self._ledger.pending):
            self.seats.contributed(one.island, now_s=now_s)
        if self._record.state == "stopped":
            await self._in_books(lambda: self._ledger.set_state("training"))
        await self._check_end()

    async def tick_forever(self) -> None:
        """Expire, close, note; ends when the lease on the run is lost."""
        self._ticked_s = self._now_s()
        while self.fenced is None:
            await asyncio.sleep(TICK_S)
            try:
                await self._tick()
            except FencedError as error:
                self.fenced = error
            except StoreError as error:
                self._say(str(error))
                await asyncio.sleep(RETRY_S)

    async def dismiss(self) -> None:
        """Whoever waits for news is answered now, with what there is."""
        self._is_ending = True
        await self._tell()

    async def close(self) -> None:
        """What can be written is; threads end."""
        if self._round is not None:
            await asyncio.wait([self._round], timeout=30)
        if self._versions.version is not None and self.fenced is None:
            try:
                await self._in_numbers(
                    functools.partial(self._versions.snapshot_if_due, always=True)
                )
            except FullError as error:
                logger.warning("no snapshot was written at the end: %s", error)
        self._book_thread.shutdown()
        self._number_thread.shutdown()

    @property
    def state(self) -> str:
        """Of the run."""
        return self._record.state

    def version(self) -> int | None:
        """The newest that was computed."""
        return self._versions.version

    # What islands ask.

    async def join(self, join: Join) -> Joined | Refused:
        """It takes part, whatever it was before."""
        refused = self._unlike(join)
        if refused is not None:
            return refused
        async with self._lock:
            epoch = await self._in_books(lambda: self._ledger.join(join.island, join.steps_per_s))
            seat = self.seats.sit(join.island, epoch, now_s=self._now_s())
            seat.steps_per_s = join.steps_per_s
            self._uploaded.pop(join.island, None)
            await asyncio.to_thread(self.vault.drop_parts, join.island)
            if self._record.version is None and not self._seeder_lives():
                self._seeder = (join.island, epoch)
        logger.info("%s joined, epoch %d", join.island, epoch)
        return Joined(
            epoch=epoch,
            parameters=self.parameters_now(),
            blocks=self._record.blocks,
            blocks_done=self._record.blocks_done,
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
            async with self._lock:
                lease = await self._next_lease(seat, beat)
        lost = tuple(name for name in beat.holds if name not in seat.held)
        return Beaten(
            state=self._record.state,
            version=self._versions.version or 0,
            lease=None if lease is None else _on_the_wire(lease),
            blocks_done=self._record.blocks_done,
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
            return await self._take_in(seat, sent)

    async def _take_in(self, seat: Seat, sent: Contribution) -> Accepted | Refused | Missing:
        async with self._bytes_lock:
            missing = await asyncio.to_thread(self._missing, sent.fragments)
            if missing:
                return Missing(fragments=missing)
            fault = await self._damage(sent)
            async with self._lock:
                answer = await self._book(Sent(**msgspec.structs.asdict(sent)), fault)
                return self._answer(seat, sent, answer)

    async def seed(self, seed: Seed) -> Parameters | Refused | Missing:
        """The first parameters; those that are there already are the answer to whoever is late."""
        seat = await self._seat(seed.island, seed.epoch)
        if isinstance(seat, Refused):
            return seat
        missing = await asyncio.to_thread(
            self._missing, tuple(part.sha256 for part in seed.fragments)
        )
        if missing:
            return Missing(fragments=missing)
        async with self._lock:
            if self._record.version is None:
                try:
                    row = await self._in_numbers(
                        lambda: self._versions.seed(seed.island, seed.tensors, seed.fragments)
                    )
                except ValueError as error:
                    return Refused(code="unlike", reason=str(error))
                await self._in_books(lambda: self._ledger.seed(row))
                await self._in_numbers(lambda: self._versions.begin(0, self._rounds))
                self._uploaded.pop(seed.island, None)
                await self._tell()
        parameters = self.parameters_now()
        return parameters or Refused(code="unlike", reason="there are no parameters")

    def parameters_now(self) -> Parameters | None:
        """The newest version; None: nobody has sent any."""
        made = self._versions.newest
        return None if made is None else self._parameters(made)

    async def parameters(self, *, newer_than: int | None, wait_s: float) -> Parameters | Seeding:
        """The newest, once it is beyond that; after `wait_s`, whatever there is."""

        def is_there() -> bool:
            version = self._versions.version
            return version is not None and (newer_than is None or version > newer_than)

        await self._wait(is_there, wait_s)
        if self._record.version is None and not self._seeder_lives():
            self._seeder = next(
                ((seat.island, seat.epoch) for seat in self.seats.seats.values()), None
            )
        return self.parameters_now() or Seeding(island=self._seeder[0] if self._seeder else "")

    async def update(self, version: int, *, wait_s: float) -> Update | Parameters | None:
        """What leads to that version. None: not yet; Parameters: it is kept no more."""
        await self._wait(lambda: (self._versions.version or 0) >= version, wait_s)
        made = self._versions.made.get(version)
        if made is not None and made.update:
            return Update(version=version, fragments=made.update, parameters=self._parameters(made))
        if (self._versions.version or 0) >= version:
            return self.parameters_now()
        return None

    async def evaluated(self, what: Evaluated) -> None:
        """A point of the validation curve."""
        await self._in_books(lambda: self._ledger.note_loss(what.island, what.version, what.loss))
        self._measuring.done(what.island, what.version)

    async def leave(self, leave: Leave) -> None:
        """It goes."""
        seat = self.seats.seats.get(leave.island)
        if seat is not None and seat.epoch == leave.epoch:
            async with self._lock:
                await self._part(seat, "left")

    async def status(self) -> Status:
        """For people."""
        now_s = self._now_s()
        record = self._record
        free = _free(record)
        return Status(
            run=self.run.run,
            state=record.state,
            version=self._versions.version,
            blocks=record.blocks,
            blocks_done=record.blocks_done,
            blocks_leased=record.blocks - record.blocks_done - free,
            waits=self._waits,
            refused=tuple(self._refusals),
            fault=self._fault,
            islands=self.seats.status(now_s=now_s, blocks_done=self._done),
        )

    def fragment(self, name: str) -> memoryview | None:
        """Of the newest parameters, or the version before; others are in the vault."""
        return self._versions.published_fragment(name)

    def may_upload(self, island: str, name: str) -> bool:
        """Not more than a few deltas that were never contributed."""
        parts = self._versions.map
        most = 4096 if parts is None else len(parts.fragments) * (self.run.outer.staleness_max + 2)
        names = self._uploaded.setdefault(island, set())
        if name not in names and len(names) >= most:
            return False
        names.add(name)
        return True

    def count_bytes(self, island: str, *, came: int = 0, went: int = 0) -> None:
        """Of fragments, by island."""
        seat = self.seats.seats.get(island)
        if seat is not None:
            seat.bytes_in += came
            seat.bytes_out += went

    # Inside.

    async def _tick(self) -> None:
        now_s = self._now_s()
        if now_s - self._ticked_s > _STALL_S:  # this process was paused: nobody could be heard
            self.seats.excuse(now_s - self._ticked_s)
        self._ticked_s = now_s
        gone = self.seats.silent(now_s=now_s)
        if gone:
            async with self._lock:
                for seat in gone:
                    logger.warning("%s was silent for too long: its blocks are free", seat.island)
                    await self._part(seat, "silent")
        if now_s - self._noted_s >= NOTE_EVERY_S:
            self._noted_s = now_s
            await self._note()
        if self._round is None and now_s >= self._retry_s and self._versions.version is not None:
            verdict = self.seats.closing(is_last=_free(self._record) == 0, now_s=now_s)
            self._waits = verdict.reason
            if isinstance(verdict, Close) or self._record.version != self._versions.version:
                self._round = asyncio.create_task(self._close_round(verdict.reason))

    async def _close_round(self, reason: str) -> None:
        try:
            await self._close_and_compute(reason)
            self._fault = None
        except FencedError as error:
            self.fenced = error
        except (FullError, StoreError, OSError) as error:
            self._say(str(error))
            self._retry_s = self._now_s() + RETRY_S
        finally:
            self._round = None

    async def _close_and_compute(self, reason: str) -> None:
        version = self._versions.version or 0
        if self._record.version == version:
            plan = await self._plan(version)
            await self._enter_round(version + 1, plan, reason)
        for closed in await self._in_books(lambda: list(self._rounds(version))):
            await self._in_numbers(functools.partial(self._versions.close, closed))
            logger.info("version %d: %s", closed.version, closed.reason)
        await self._tell()
        needed_after = await self._in_numbers(self._versions.snapshot_if_due)
        if needed_after is not None:
            await self._collect(needed_after)
        await self._check_end()

    async def _plan(self, version: int) -> RoundPlan:
        pending = await self._in_books(self._ledger.pending)
        products = await self._in_numbers(
            lambda: self._versions.products([one.fragments for one in pending])
        )
        return self._judge.plan(
            pending, products, version=version, tokens_full=self.seats.tokens_full()
        )

    async def _enter_round(self, version: int, plan: RoundPlan, reason: str) -> None:
        async with self._lock:
            await self._in_books(
                lambda: self._ledger.close_round(
                    version,
                    plan.taken,
                    distrusted=plan.distrusted,
                    settings=plan.settings,
                    reason=reason,
                )
            )
            self.seats.round_closed()
            settled = [*((one, "") for one in plan.taken), *plan.distrusted]
            self._settled.add(version, settled)
            for one, why in plan.distrusted:
                self._note_refusal(one.island, one.number, why)
                self._done[one.island] = self._done.get(one.island, 0) - one.blocks
            for one in await self._in_books(self._ledger.pending):
                self.seats.contributed(one.island, now_s=self._now_s())

    async def _check_end(self) -> None:
        """The last version is made: finished; or nothing is left to lease: finishing."""
        record = self._record
        if record.state == "finished":
            return
        if record.wanted == "stopped" and record.state != "stopped":
            await self._in_books(lambda: self._ledger.set_state("stopped"))
            await self._tell()
        elif record.blocks_done == record.blocks and record.version == self._versions.version:
            if await self._in_books(self._ledger.pending):
                return
            await self._in_numbers(self._write_end)
            await self._in_books(lambda: self._ledger.set_state("finished"))
            logger.info("finished at version %s", record.version)
            await self._tell()
        elif _free(record) == 0 and record.state == "training":
            await self._in_books(lambda: self._ledger.set_state("finishing"))

    def _write_end(self) -> None:
        self._versions.snapshot_if_due(always=True)
        self._versions.write_final()

    async def _collect(self, needed_after: int) -> None:
        """Throw away what no restart and no island needs."""
        names = self._versions.live_names()
        for closed in await self._in_books(lambda: list(self._rounds(needed_after))):
            names.update(name for one in closed.contributions for name in one.fragments)
        async with self._bytes_lock:
            for one in await self._in_books(self._ledger.pending):
                names.update(one.fragments)
            await asyncio.to_thread(self.vault.keep_only, names, older_than_s=_ORPHAN_S)

    async def _next_lease(self, seat: Seat, beat: Beat) -> LeaseRecord | None:
        """One that it does not know it has, else a new one."""
        lost = [name for name in seat.held if name not in beat.holds]
        if lost:
            for lease in await self._in_books(self._ledger.open_leases):
                if lease.lease == lost[0]:
                    return lease
            seat.held.pop(lost[0])
        if not beat.wants_lease or len(seat.held) > self.run.outer.staleness_max + _LEASES_AHEAD:
            return None
        blocks = self.seats.blocks_to_lease(seat, blocks_free=_free(self._record))
        if blocks == 0 or self._versions.version is None:
            return None
        lease = await self._in_books(
            lambda: self._ledger.grant(seat.island, seat.epoch, blocks=blocks)
        )
        if lease is not None:
            self.seats.leased(seat, lease.lease, blocks=lease.blocks, now_s=self._now_s())
            await self._check_end()
        return lease

    async def _seat(self, island: str, epoch: int) -> Seat | Refused:
        """Of an island whose newest life this is; one that was silent is heard again."""
        seat = self.seats.seats.get(island)
        if seat is None or seat.epoch != epoch:
            newest = await self._in_books(lambda: self._ledger.epoch(island))
            if newest != epoch:
                reason = f"{island} is at epoch {newest}, this is {epoch}: join anew"
                return Refused(code="stale_epoch", reason=reason)
            seat = self.seats.sit(island, epoch, now_s=self._now_s())
            for lease in await self._in_books(self._ledger.open_leases):
                if lease.island == island and lease.epoch == epoch:
                    self.seats.leased(seat, lease.lease, blocks=lease.blocks, now_s=self._now_s())
        self.seats.hear(seat, now_s=self._now_s())
        return seat

    @contextlib.contextmanager
    def _waiting_for_us(self, seat: Seat) -> Iterator[None]:
        """An island is not silent because the ledger's disk is slow to answer it."""
        seat.asking += 1
        try:
            yield
        finally:
            seat.asking -= 1
            self.seats.hear(seat, now_s=self._now_s())

    async def _part(self, seat: Seat, state: str) -> None:
        await self._in_books(
            lambda: self._ledger.part(
                seat.island, seat.epoch, state="left" if state == "left" else "silent"
            )
        )
        self.seats.rise(seat.island)
        self._measuring.gone(seat.island)

    async def _note(self) -> None:
        heard = [seat for seat in self.seats.seats.values() if not seat.is_noted]
        notes = [
            Noted(
                island=seat.island,
                epoch=seat.epoch,
                steps_per_s=seat.steps_per_s,
                waited_s=seat.waited_s,
                bytes_in=seat.bytes_in,
                bytes_out=seat.bytes_out,
            )
            for seat in heard
        ]
        await self._in_books(lambda: self._ledger.note(notes))
        for seat in heard:
            seat.is_noted = True
        await self._check_end()

    async def _damage(self, sent: Contribution) -> str | None:
        if self._versions.version is None:
            return "there are no parameters yet"
        try:
            await self._in_numbers(lambda: self._versions.norm(sent.fragments, self.run.outer.bits))
        except (DamagedError, OSError) as error:
            return str(error)
        return None

    async def _book(self, sent: Sent, fault: str | None) -> Booked | Declined:
        most = self.run.outer.staleness_max
        if fault is None:
            return await self._in_books(lambda: self._ledger.accept(sent, staleness_max=most))
        return await self._in_books(
            lambda: self._ledger.decline(sent, code="damaged", reason=fault)
        )

    def _answer(
        self, seat: Seat, sent: Contribution, answer: Booked | Declined
    ) -> Accepted | Refused:
        """What became of it, noted in its seat."""
        now_s = self._now_s()
        self.seats.hear(seat, now_s=now_s)
        self._uploaded.pop(sent.island, None)
        if isinstance(answer, Declined):
            self._note_refusal(sent.island, sent.number, f"{answer.code}: {answer.reason}")
            if answer.code not in ("stale_epoch", "replayed"):
                self.seats.returned(seat, sent.lease, now_s=now_s)
            return Refused(code=answer.code, reason=answer.reason)
        self.seats.returned(seat, sent.lease, now_s=now_s)
        seat.loss = sent.loss
        if answer.is_new:
            self._done[sent.island] = self._done.get(sent.island, 0) + sent.blocks
            self.seats.contributed(sent.island, now_s=now_s)
        version = answer.contribution.version
        newest = self._record.version or 0
        return Accepted(closes_version=newest + 1 if version is None else version)

    def _missing(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if not self.vault.has(name))

    def _unlike(self, join: Join) -> Refused | None:
        seed = self._record.seed
        if join.wire_version != WIRE_VERSION:
            reason = f"it speaks version {join.wire_version} of the wire; here is {WIRE_VERSION}"
        elif join.run != self.run.run:
            reason = f'it asks for the run "{join.run}"; here is "{self.run.run}"'
        elif seed is not None and seed.tensors_sha256 != join.tensors_sha256:
            reason = (
                f"its parameters are others: {join.tensors_sha256[:12]} of their names and shapes;"
                f" this run's are {seed.tensors_sha256[:12]}"
            )
        elif self._record.state in ("finished", "stopped"):
            return Refused(code="over", reason=f"the run is {self._record.state}")
        else:
            return None
        return Refused(code="unlike", reason=reason)

    def _parameters(self, made: MadeVersion) -> Parameters:
        return Parameters(
            version=made.version,
            fragments=made.fragments,
            settled=self._settled.at(made.version),
        )

    def _to_evaluate(self, seat: Seat) -> int | None:
        """The newest version is measured by one island that has it."""
        version = self._versions.version
        if not version or seat.version != version or not self.run.data.validation_blocks:
            return None
        return self._measuring.asked(seat.island, version)

    def _seeder_lives(self) -> bool:
        if self._seeder is None:
            return False
        seat = self.seats.seats.get(self._seeder[0])
        return seat is not None and seat.epoch == self._seeder[1]

    def _note_refusal(self, island: str, number: int, reason: str) -> None:
        self._refusals.append(f"{island} #{number}: {reason}")
        logger.warning("contribution %d of %s is refused: %s", number, island, reason)

    def _say(self, fault: str) -> None:
        if fault != self._fault:
            logger.error("%s", fault)
        self._fault = fault

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _wait(self, is_there: Callable[[], bool], wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s), self._news:
                await self._news.wait_for(lambda: is_there() or self._is_ending)
        except TimeoutError:
            return

    async def _in_books(self, act: Callable[[], _Result]) -> _Result:
        """One entry; what the run's row says afterwards is known."""

        def both() -> tuple[_Result, RunRecord]:
            result = act()
            return result, self._ledger.record()

        loop = asyncio.get_running_loop()
        result, self._record = await loop.run_in_executor(self._book_thread, both)
        return result

    async def _in_numbers(self, act: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._number_thread, act)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


def _free(record: RunRecord) -> int:
    """Blocks that nobody has."""
    return record.blocks - record.frontier + sum(stop - start for start, stop in record.freed)


def _on_the_wire(lease: LeaseRecord) -> Lease:
    spans = tuple(Span(start=start, stop=stop) for start, stop in lease.spans)
    return Lease(lease=lease.lease, spans=spans)
