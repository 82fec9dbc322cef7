"""Taking a delta in: Accepted once its bytes are on the disk and its row is in the ledger."""

import asyncio
from collections.abc import Sequence

import msgspec

from argosy.store.run_claims import Booked, Declined
from argosy.store.runs import Sent
from argosy.training.outer.codec import DamagedError
from argosy.training.syncer.affairs import Affairs
from argosy.training.syncer.seats import Seat
from argosy.training.wire import (
    Accepted,
    Contribution,
    Missing,
    Refused,
)


class Intake:
    """What becomes of contributions."""

    def __init__(self, affairs: Affairs) -> None:
        self._at = affairs

    async def take_in(self, seat: Seat, sent: Contribution) -> Accepted | Refused | Missing:
        """Its bytes are to be here."""
        async with self._at.bytes_lock:
            missing = await asyncio.to_thread(self.missing, sent.fragments)
            if missing:
                return Missing(fragments=missing)
            fault = await self._damage(sent)
            async with self._at.lock:
                answer = await self._book(Sent(**msgspec.structs.asdict(sent)), fault)
                return self._answer(seat, sent, answer)

    async def _damage(self, sent: Contribution) -> str | None:
        if self._at.versions.version is None:
            return "there are no parameters yet"
        try:
            await self._at.in_numbers(
                lambda: self._at.versions.norm(sent.fragments, self._at.run.outer.bits)
            )
        except (DamagedError, OSError) as error:
            return str(error)
        return None

    async def _book(self, sent: Sent, fault: str | None) -> Booked | Declined:
        most = self._at.run.outer.staleness_max
        if fault is None:
            return await self._at.in_books(lambda: self._at.ledger.accept(sent, staleness_max=most))
        return await self._at.in_books(
            lambda: self._at.ledger.decline(sent, code="damaged", reason=fault)
        )

    def _answer(
        self, seat: Seat, sent: Contribution, answer: Booked | Declined
    ) -> Accepted | Refused:
        """What became of it, noted in its seat."""
        now_s = self._at.now_s()
        self._at.seats.hear(seat, now_s=now_s)
        self._at.uploaded.pop(sent.island, None)
        if isinstance(answer, Declined):
            self._at.note_refusal(sent.island, sent.number, f"{answer.code}: {answer.reason}")
            if answer.code not in ("stale_epoch", "replayed"):
                self._at.seats.returned(seat, sent.lease, now_s=now_s)
            return Refused(code=answer.code, reason=answer.reason)
        self._at.seats.returned(seat, sent.lease, now_s=now_s)
        seat.loss = sent.loss
        if answer.is_new:
            self._at.done[sent.island] = self._at.done.get(sent.island, 0) + sent.blocks
            self._at.seats.contributed(sent.island, now_s=now_s)
        version = answer.contribution.version
        newest = self._at.record.version or 0
        return Accepted(closes_version=newest + 1 if version is None else version)

    def missing(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of these fragments that are not here."""
        return tuple(name for name in names if not self._at.vault.has(name))
