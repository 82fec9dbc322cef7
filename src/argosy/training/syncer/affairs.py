"""What the syncer knows and has, and its two threads: the ledger's and the parameters'.

One event loop; neither a slow disk nor a long sum keeps an island from being heard. `desk.py`
answers islands with it, `intake.py` takes deltas in, `closing.py` closes rounds.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from argosy.fleet.runs import Run
from argosy.store.errors import FencedError
from argosy.store.run_claims import Noted
from argosy.store.run_ledger import Ledger
from argosy.store.runs import (
    ContributionRecord,
    IslandRecord,
    RoundRecord,
    RunRecord,
)
from argosy.training.inner import Figures
from argosy.training.syncer.seats import Seat, Seats
from argosy.training.syncer.settled import Measuring, SettledByVersion
from argosy.training.syncer.vault import Vault
from argosy.training.syncer.versions import MadeVersion, Versions
from argosy.training.wire import (
    WIRE_VERSION,
    Join,
    Parameters,
    Refused,
)

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says when the syncer starts."""

    record: RunRecord
    islands: tuple[IslandRecord, ...]
    settled: tuple[ContributionRecord, ...]  # in a version, or distrusted by a round


class Affairs:
    """Of one run. Raises StoreError, FencedError and FullError where they say so."""

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
        self.seats.speeds = {
            row.island: row.steps_per_s for row in books.islands if row.steps_per_s
        }
        self.seats.moved = {row.island: (row.bytes_in, row.bytes_out) for row in books.islands}
        self.ledger = ledger
        self.versions = versions
        self.rounds = rounds
        self.record = books.record
        self.book_thread = ThreadPoolExecutor(1, "ledger")
        self.number_thread = ThreadPoolExecutor(1, "parameters")
        self.lock = asyncio.Lock()  # one change of ledger and seats at a time
        self.bytes_lock = asyncio.Lock()  # nothing is thrown away while a delta is taken in
        self.news = asyncio.Condition()  # a version came, or the state changed
        self.refusals: deque[str] = deque(maxlen=20)
        self.fault: str | None = None
        self.uploaded: dict[str, set[str]] = {}  # since the last contribution, by island
        self.done: dict[str, int] = {row.island: row.blocks_done for row in books.islands}
        self.lived = {row.island: row.epoch for row in books.islands if row.state == "live"}
        self.settled = SettledByVersion(books.settled)
        self.measuring = Measuring()
        self.is_ending = False
        self.fenced: FencedError | None = None

    def parameters_now(self) -> Parameters | None:
        """The newest version; None: nobody has sent any."""
        made = self.versions.newest
        return None if made is None else self.parameters_of(made)

    def parameters_of(self, made: MadeVersion) -> Parameters:
        """What islands are told of a version."""
        return Parameters(
            version=made.version,
            fragments=made.fragments,
            settled=self.settled.at(made.version),
        )

    async def check_end(self) -> None:
        """The last version is made: finished; or nothing is left to lease: finishing."""
        record = self.record
        if record.state == "finished":
            return
        if record.wanted == "stopped" and record.state != "stopped":
            await self.in_books(lambda: self.ledger.set_state("stopped"))
            await self.tell()
        elif record.blocks_done == record.blocks and record.version == self.versions.version:
            if await self.in_books(self.ledger.pending):
                return
            await self.in_numbers(self._write_end)
            await self.in_books(lambda: self.ledger.set_state("finished"))
            logger.info("finished at version %s", record.version)
            await self.tell()
        elif blocks_free(record) == 0 and record.state == "training":
            await self.in_books(lambda: self.ledger.set_state("finishing"))

    def _write_end(self) -> None:
        self.versions.snapshot_if_due(always=True)
        self.versions.write_final()

    async def part(self, seat: Seat, state: str) -> None:
        """It fell silent, or left: its blocks are free."""
        await self.in_books(
            lambda: self.ledger.part(
                seat.island, seat.epoch, state="left" if state == "left" else "silent"
            )
        )
        self.seats.rise(seat.island)
        self.measuring.gone(seat.island)

    def unlike(self, join: Join) -> Refused | None:
        """Why it cannot take part."""
        seed = self.record.seed
        if join.wire_version != WIRE_VERSION:
            reason = f"it speaks version {join.wire_version} of the wire; here is {WIRE_VERSION}"
        elif join.run != self.run.run:
            reason = f'it asks for the run "{join.run}"; here is "{self.run.run}"'
        elif seed is not None and seed.tensors_sha256 != join.tensors_sha256:
            reason = (
                f"its parameters are others: {join.tensors_sha256[:12]} of their names and shapes;"
                f" this run's are {seed.tensors_sha256[:12]}"
            )
        elif self.record.state in ("finished", "stopped"):
            return Refused(code="over", reason=f"the run is {self.record.state}")
        else:
            return None
        return Refused(code="unlike", reason=reason)

    async def note(self) -> None:
        """What islands said of themselves since the last time."""
        heard = [seat for seat in self.seats.seats.values() if not seat.is_noted]
        notes = [
            Noted(
                island=seat.island,
                epoch=seat.epoch,
                steps_per_s=seat.steps_per_s,
                waited_s=seat.waited_s,
                bytes_in=self.seats.moved.get(seat.island, (0, 0))[0],
                bytes_out=self.seats.moved.get(seat.island, (0, 0))[1],
                **_measured(seat.figures),
            )
            for seat in heard
        ]
        await self.in_books(lambda: self.ledger.note(notes))
        for seat in heard:
            seat.is_noted = True
        await self.check_end()

    def note_refusal(self, island: str, number: int, reason: str) -> None:
        """For the status and the log."""
        self.refusals.append(f"{island} #{number}: {reason}")
        logger.warning("contribution %d of %s is refused: %s", number, island, reason)

    def say(self, fault: str) -> None:
        """What is wrong now, in the log once."""
        if fault != self.fault:
            logger.error("%s", fault)
        self.fault = fault

    async def tell(self) -> None:
        """Whoever waits for news looks again."""
        async with self.news:
            self.news.notify_all()

    async def wait(self, is_there: Callable[[], bool], wait_s: float) -> None:
        """Until it is there, for so long at most."""
        try:
            async with asyncio.timeout(wait_s), self.news:
                await self.news.wait_for(lambda: is_there() or self.is_ending)
        except TimeoutError:
            return

    async def in_books(self, act: Callable[[], _Result]) -> _Result:
        """One entry; what the run's row says afterwards is known."""

        def both() -> tuple[_Result, RunRecord]:
            result = act()
            return result, self.ledger.record()

        loop = asyncio.get_running_loop()
        result, self.record = await loop.run_in_executor(self.book_thread, both)
        return result

    async def in_numbers(self, act: Callable[[], _Result]) -> _Result:
        """In the thread that has the parameters."""
        return await asyncio.get_running_loop().run_in_executor(self.number_thread, act)

    def now_s(self) -> float:
        """The loop's clock."""
        return asyncio.get_running_loop().time()


def _measured(figures: Figures | None) -> dict[str, float | None]:
    """What the ledger keeps of them."""
    if figures is None:
        return {}
    return {
        "mfu": figures.mfu,
        "energy_j_per_million_tokens": figures.energy_j_per_million_tokens,
        "cost_usd_per_million_tokens": figures.cost_usd_per_million_tokens,
    }


def blocks_free(record: RunRecord) -> int:
    """Blocks that nobody has."""
    return record.blocks - record.frontier + sum(stop - start for start, stop in record.freed)
