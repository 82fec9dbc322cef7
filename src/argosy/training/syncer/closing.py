"""Closing a round: in the ledger first, with all that it is made of; then it is computed.

Islands hear of a version once it is computed. A full disk delays it; it is tried again.
"""

import asyncio
import functools
import logging

from argosy.policies.elasticity import Close
from argosy.store.errors import FencedError, StoreError
from argosy.training.syncer.affairs import Affairs, blocks_free
from argosy.training.syncer.rounds import Judge, RoundPlan
from argosy.training.syncer.vault import FullError

RETRY_S = 1.0  # after a full disk or a store that cannot be written
_ORPHAN_S = 120.0  # bytes that no contribution names are kept so long

logger = logging.getLogger(__name__)


class Closing:
    """The round under way, if one is."""

    def __init__(self, affairs: Affairs) -> None:
        self._at = affairs
        self._judge = Judge(affairs.run, affairs.seats.settings)
        self._round: asyncio.Task[None] | None = None
        self._retry_s = 0.0
        self.waits = "nobody has joined"

    def close_if_due(self, *, now_s: float) -> None:
        """Begin to close it where that pays, or where the ledger is ahead of the parameters."""
        versions, record = self._at.versions, self._at.record
        if self._round is not None or now_s < self._retry_s or versions.version is None:
            return
        verdict = self._at.seats.closing(is_last=blocks_free(record) == 0, now_s=now_s)
        self.waits = verdict.reason
        if isinstance(verdict, Close) or record.version != versions.version:
            self._round = asyncio.create_task(self._close_round(verdict.reason))

    async def wait(self) -> None:
        """Until the round under way is closed, 30 s at most."""
        if self._round is not None:
            await asyncio.wait([self._round], timeout=30)

    async def _close_round(self, reason: str) -> None:
        try:
            await self._close_and_compute(reason)
            self._at.fault = None
        except FencedError as error:
            self._at.fenced = error
        except (FullError, StoreError, OSError) as error:
            self._at.say(str(error))
            self._retry_s = self._at.now_s() + RETRY_S
        finally:
            self._round = None

    async def _close_and_compute(self, reason: str) -> None:
        version = self._at.versions.version or 0
        if self._at.record.version == version:
            plan = await self._plan(version)
            await self._enter_round(version + 1, plan, reason)
        for closed in await self._at.in_books(lambda: list(self._at.rounds(version))):
            await self._at.in_numbers(functools.partial(self._at.versions.close, closed))
            logger.info("version %d: %s", closed.version, closed.reason)
        await self._at.tell()
        needed_after = await self._at.in_numbers(self._at.versions.snapshot_if_due)
        if needed_after is not None:
            await self._collect(needed_after)
        await self._at.check_end()

    async def _plan(self, version: int) -> RoundPlan:
        pending = await self._at.in_books(self._at.ledger.pending)
        products = await self._at.in_numbers(
            lambda: self._at.versions.products([one.fragments for one in pending])
        )
        seats = self._at.seats
        return self._judge.plan(
            pending,
            products,
            version=version,
            live=seats.seats.keys(),
            tokens_full=seats.tokens_full(),
        )

    async def _enter_round(self, version: int, plan: RoundPlan, reason: str) -> None:
        async with self._at.lock:
            await self._at.in_books(
                lambda: self._at.ledger.close_round(
                    version,
                    plan.taken,
                    distrusted=plan.distrusted,
                    settings=plan.settings,
                    reason=reason,
                )
            )
            self._at.seats.round_closed()
            settled = [*((one, "") for one in plan.taken), *plan.distrusted]
            self._at.settled.add(version, settled)
            for one, why in plan.distrusted:
                self._at.note_refusal(one.island, one.number, why)
                self._at.done[one.island] = self._at.done.get(one.island, 0) - one.blocks
            for one in await self._at.in_books(self._at.ledger.pending):
                self._at.seats.contributed(one.island, now_s=self._at.now_s())

    async def _collect(self, needed_after: int) -> None:
        """Throw away what no restart and no island needs."""
        names = self._at.versions.live_names()
        for closed in await self._at.in_books(lambda: list(self._at.rounds(needed_after))):
            names.update(name for one in closed.contributions for name in one.fragments)
        async with self._at.bytes_lock:
            for one in await self._at.in_books(self._at.ledger.pending):
                names.update(one.fragments)
            await asyncio.to_thread(self._at.vault.keep_only, names, older_than_s=_ORPHAN_S)
