"""Brings every open batch to its end: reads its input, has it sent, stops it when it must.

One task a batch. What it needs to know is in the store, so a run that was killed is simply begun
again. Exactly one runner may work on a store: `argosy up` holds the lock of the state folder.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec

from argosy.fleet.batches import KEPT_S, Batch, BatchFault, BatchState, ItemOutcome, NewItem
from argosy.gateway.batches.input_file import InputFile
from argosy.gateway.batches.item_client import ItemClient
from argosy.gateway.batches.ports import BatchDesk, FileStore
from argosy.gateway.batches.results import unserved
from argosy.gateway.batches.sender import Sender, SenderSettings

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_FORGET_EVERY_S = 3600.0
_UNSERVED_A_WRITE = 500
_ENDINGS: dict[BatchState, ItemOutcome] = {"cancelled": "canceled", "expired": "expired"}


class RunnerWiring(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner is given by whoever starts it."""

    files: FileStore
    desk: BatchDesk
    client: ItemClient
    unix_time_s: Callable[[], float]
    chance: Callable[[], float]  # in [0, 1): jitters retries
    settings: SenderSettings = SenderSettings()


class _Job(msgspec.Struct, frozen=True):
    task: asyncio.Task[None]
    ending: BatchState | None  # what it brings the batch to; None: it reads or sends


class BatchRunner:
    """The batches of one store. `start` and `stop` it in the loop of the gateway."""

    def __init__(self, wiring: RunnerWiring) -> None:
        self._wiring = wiring
        self._jobs: dict[str, _Job] = {}
        self._woken = asyncio.Event()
        self._slots = asyncio.Semaphore(wiring.settings.in_flight_max)
        self._watching: asyncio.Task[None] | None = None
        self._forgot_at_s = float("-inf")

    def start(self) -> None:
        """Begin, or begin again after a run that was killed."""
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Let go of everything; what has no result is sent again by the next run."""
        tasks = [job.task for job in self._jobs.values()]
        tasks += [self._watching] if self._watching is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """Something has changed: a batch was made, or is to be cancelled."""
        self._woken.set()

    async def _watch(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._look()
                await self._forget()
            except Exception:
                log.exception("looking after the batches; tried again in %g s", _LOOK_EVERY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._woken.wait()

    async def _look(self) -> None:
        for batch in await asyncio.to_thread(self._wiring.desk.list_open):
            job = self._jobs.get(batch.id)
            ending = self._ending(batch)
            if job is None:
                task = asyncio.create_task(self._advance(batch, ending))
                self._jobs[batch.id] = _Job(task, ending)
                task.add_done_callback(lambda task, id=batch.id: self._done(id, task))
            elif ending is not None and job.ending is None:
                job.task.cancel()  # the next look begins its end

    def _ending(self, batch: Batch) -> BatchState | None:
        if batch.state == "cancelling":
            return "cancelled"
        is_late = self._wiring.unix_time_s() >= batch.expires_at_s
        return "expired" if is_late and batch.state == "in_progress" else None

    def _done(self, batch: str, task: asyncio.Task[None]) -> None:
        del self._jobs[batch]
        if task.cancelled():
            self.wake()
        elif error := task.exception():  # the next look, in a second, begins it again
            log.error("batch %s", batch, exc_info=error)
        else:
            self.wake()

    async def _advance(self, batch: Batch, ending: BatchState | None) -> None:
        """Do what the batch needs next; the look after this finds it in another state."""
        if ending is not None:
            await asyncio.to_thread(self._leave_unserved, batch, ending)
        elif batch.state == "validating":
            await self._validate(batch)
        else:
            wiring = self._wiring
            sender = Sender(
                batch,
                desk=wiring.desk,
                client=wiring.client,
                slots=self._slots,
                chance=wiring.chance,
                settings=wiring.settings,
            )
            await sender.run()
            await asyncio.to_thread(
                wiring.desk.end, batch.id, "completed", now_s=wiring.unix_time_s()
            )

    def _leave_unserved(self, batch: Batch, ending: BatchState) -> None:
        """Give each item without a result the one that says so, then end the batch."""
        desk = self._wiring.desk
        while left := desk.list_unfinished(batch.id, limit=_UNSERVED_A_WRITE):
            desk.write_results(
                batch.id,
                [
                    unserved(batch.api, batch.id, position, custom_id, _ENDINGS[ending])
                    for position, custom_id in left
                ],
            )
        desk.end(batch.id, ending, now_s=self._wiring.unix_time_s())

    async def _validate(self, batch: Batch) -> None:
        """Read the input file; one wrong line fails the batch before any item is sent."""
        reading = InputFile(batch.endpoint)
        desk = self._wiring.desk
        is_whole = await self._read_input(batch, reading)
        now_s = self._wiring.unix_time_s()
        if not is_whole:
            fault = BatchFault(code="file_deleted", message="The input file is gone.")
            await asyncio.to_thread(desk.fail, batch.id, [fault], now_s=now_s)
        elif reading.faults:
            await asyncio.to_thread(desk.fail, batch.id, reading.faults, now_s=now_s)
        else:
            await asyncio.to_thread(
                desk.start, batch.id, items=reading.items, model=reading.model, now_s=now_s
            )

    async def _read_input(self, batch: Batch, reading: InputFile) -> bool:
        """Whether all of the file was there; read in pieces, for each holds the interpreter."""
        files = self._wiring.files
        file = await asyncio.to_thread(files.find, batch.input_file or "", tenant=batch.tenant)
        if file is None:
            return False
        after, read_bytes, first = -1, 0, 0
        while pieces := await asyncio.to_thread(files.read, file, after=after):
            for after, content in pieces:  # noqa: B007  the last one is asked for again below
                read_bytes += len(content)
                items = await asyncio.to_thread(reading.feed, content)
                first = await self._keep(batch, items, reading, first)
        await self._keep(batch, reading.close(), reading, first)
        return read_bytes == file.bytes

    async def _keep(
        self, batch: Batch, items: list[NewItem], reading: InputFile, first: int
    ) -> int:
        """Put the items down, if the file is good so far; the position of the next."""
        if items and not reading.faults:
            await asyncio.to_thread(self._wiring.desk.add_items, batch.id, items, first=first)
        return first + len(items)

    async def _forget(self) -> None:
        now_s = self._wiring.unix_time_s()
        if now_s - self._forgot_at_s < _FORGET_EVERY_S:
            return
        self._forgot_at_s = now_s
        wiring = self._wiring
        await asyncio.to_thread(wiring.desk.forget_before, now_s - KEPT_S)
        await asyncio.to_thread(wiring.files.forget_before, now_s - KEPT_S)
