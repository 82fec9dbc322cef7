"""One batch on its way: its items are claimed, sent, tried again and their results written.

Owns how many of them run at once (`policies.batch_pace`) and which answers are final. Killed at
any moment, it begins again with the items that have no result.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from argosy.fleet.batches import Batch, BatchItem, ItemResult
from argosy.gateway.batches.item_client import ItemAnswer, ItemClient, ItemRequest
from argosy.gateway.batches.ports import BatchDesk
from argosy.gateway.batches.results import answered
from argosy.policies.batch_pace import Pace, pushed_back, went_well

log = logging.getLogger(__name__)

_WRITES_MAX = 6  # of one result, before the batch is begun again
_T = TypeVar("_T")

Verdict = Literal["final", "failed", "pushed_back"]


class SenderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the runner is."""

    in_flight_max: int = 64  # items of all batches at once
    failures_max: int = 5  # answers of an item that say that the server failed; the last is kept
    failure_wait_s: float = 0.5  # after the first; doubles up to failure_wait_s_max
    failure_wait_s_max: float = 30.0


def verdict_of(answer: ItemAnswer | None) -> Verdict:
    """What an answer means for its item."""
    if answer is None or answer.status in (429, 503, 529):
        return "pushed_back"  # the item was not tried: it may wait as long as its batch lives
    if answer.status == 408 or answer.status >= 500:
        return "failed"
    return "final"


class Sender:
    """Sends one batch. `slots` are shared by all batches."""

    def __init__(
        self,
        batch: Batch,
        *,
        desk: BatchDesk,
        client: ItemClient,
        slots: asyncio.Semaphore,
        chance: Callable[[], float],
        settings: SenderSettings,
    ) -> None:
        self._batch = batch
        self._desk = desk
        self._client = client
        self._slots = slots
        self._chance = chance
        self._settings = settings
        self._pace = Pace()
        self._held = 0  # items that are claimed and have no result
        self._in_flight = 0
        self._moved = asyncio.Condition()

    async def run(self) -> None:
        """Until every item has its result."""
        await asyncio.to_thread(self._desk.reclaim, self._batch.id)
        after = -1
        async with asyncio.TaskGroup() as group:
            while items := await self._claim(after):
                after = items[-1].position
                self._held += len(items)
                for item in items:
                    group.create_task(self._serve(item))

    async def _claim(self, after: int) -> list[BatchItem]:
        await self._until(lambda: self._held < int(self._pace.limit))
        free = int(self._pace.limit) - self._held
        return await asyncio.to_thread(self._desk.claim, self._batch.id, after=after, limit=free)

    async def _serve(self, item: BatchItem) -> None:
        failures = 0
        while True:
            answer = await self._send(item)
            match verdict_of(answer):
                case "pushed_back":
                    pass  # the pace waits
                case "failed" if (failures := failures + 1) < self._settings.failures_max:
                    await asyncio.sleep(self._failure_wait_s(failures))
                case _:
                    assert answer is not None
                    result = answered(self._batch, item.position, item.custom_id, answer)
                    break
            await self._write(self._desk.try_again, self._batch.id, item.position)
        await self._write(self._take, result)
        await self._change(held=-1)

    def _take(self, result: ItemResult) -> None:
        self._desk.write_results(self._batch.id, [result])

    async def _send(self, item: BatchItem) -> ItemAnswer | None:
        await self._until(lambda: self._in_flight < int(self._pace.limit))
        self._in_flight += 1
        try:
            async with self._slots:
                sent_at_s = _now_s()
                request = ItemRequest(
                    path=self._batch.endpoint, body=item.body, key=self._batch.key
                )
                answer = await self._client.send(request)
                self._learn(answer, sent_at_s)
        finally:
            self._in_flight -= 1
        await self._change()
        return answer

    def _learn(self, answer: ItemAnswer | None, sent_at_s: float) -> None:
        if verdict_of(answer) == "pushed_back":
            self._pace = pushed_back(
                self._pace,
                sent_at_s=sent_at_s,
                now_s=_now_s(),
                retry_after_s=answer.retry_after_s if answer else None,
                chance=self._chance(),
            )
        else:
            limit_max = self._settings.in_flight_max
            self._pace = went_well(self._pace, sent_at_s=sent_at_s, limit_max=limit_max)

    async def _until(self, has_room: Callable[[], bool]) -> None:
        """Until the pace allows one more. No other task runs before the caller goes on."""
        while True:
            await asyncio.sleep(max(0.0, self._pace.not_before_s - _now_s()))
            async with self._moved:
                await self._moved.wait_for(has_room)
            if _now_s() >= self._pace.not_before_s:
                return

    async def _change(self, *, held: int = 0) -> None:
        async with self._moved:
            self._held += held
            self._moved.notify_all()

    def _failure_wait_s(self, failures: int) -> float:
        settings = self._settings
        wait_s = settings.failure_wait_s * 2.0 ** (failures - 1)
        return min(settings.failure_wait_s_max, wait_s) * (0.5 + self._chance() / 2)

    async def _write(self, write: Callable[..., _T], *arguments: object) -> _T:
        """In a thread, and again when the store cannot take it: an answer costs tokens."""
        for wait_s in (0.1 * 2**count for count in range(_WRITES_MAX - 1)):
            try:
                return await asyncio.to_thread(write, *arguments)
            except Exception:
                log.exception("batch %s: tried again in %g s", self._batch.id, wait_s)
            await asyncio.sleep(wait_s)
        return await asyncio.to_thread(write, *arguments)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
