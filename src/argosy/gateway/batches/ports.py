"""What batches ask of the store. All of it blocks: it is called from threads."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from argosy.fleet.batches import (
    Batch,
    BatchApi,
    BatchDraft,
    BatchFault,
    BatchItem,
    BatchState,
    ItemResult,
    NewItem,
    Owner,
    Page,
    StoredFile,
    Upload,
)

Piece = tuple[int, bytes]  # its position, to ask for what comes after it, and its bytes


class FileStore(Protocol):
    """The files of all tenants."""

    def add(self, owner: Owner, upload: Upload, *, now_s: float) -> StoredFile:
        """Keep an upload: all of it, or nothing when the process dies."""
        ...

    def find(self, file: str, *, tenant: str | None) -> StoredFile | None:
        """That tenant's file of that id."""
        ...

    def page(
        self, tenant: str | None, page: Page, *, purpose: str | None = None
    ) -> tuple[list[StoredFile], bool]:
        """A part of that tenant's list, and whether there is more in its direction."""
        ...

    def delete(self, file: str, *, tenant: str | None) -> bool:
        """Forget the file and its bytes; False when that tenant has none of that id."""
        ...

    def read(self, file: StoredFile, *, after: int) -> list[Piece]:
        """The next pieces behind position `after` (-1: from the start); none at the end."""
        ...

    def forget_before(self, before_s: float) -> int:
        """Delete the files that were made before then; how many."""
        ...


class BatchBook(Protocol):
    """The batches of all tenants, for their clients."""

    def create(self, draft: BatchDraft, items: Iterable[NewItem] = (), *, now_s: float) -> Batch:
        """A new batch: `in_progress` with its items, or `validating` when it names a file."""
        ...

    def find(self, batch: str, *, tenant: str | None, api: BatchApi) -> Batch | None:
        """That tenant's batch of that id, made through that API."""
        ...

    def page(self, tenant: str | None, page: Page, *, api: BatchApi) -> tuple[list[Batch], bool]:
        """A part of that tenant's list, and whether there is more in its direction."""
        ...

    def cancel(self, batch: str, *, now_s: float) -> bool:
        """Ask for its end; False when it has ended, or was asked before."""
        ...

    def delete(self, batch: str) -> bool:
        """Forget a batch that has ended, and its results; False when it has not."""
        ...

    def results_bytes(self, batch: str) -> int:
        """How long all result lines are together."""
        ...

    def read_results(self, batch: str, *, after: int) -> list[Piece]:
        """The next result lines behind position `after` (-1: from the start); none at the end."""
        ...


class BatchDesk(Protocol):
    """The batches of all tenants, for their runner."""

    def list_open(self) -> list[Batch]:
        """All that are not at their end, oldest first."""
        ...

    def add_items(self, batch: str, items: Sequence[NewItem], *, first: int) -> bool:
        """Items from position `first` on; False when the batch is no longer validating."""
        ...

    def start(self, batch: str, *, items: int, model: str | None, now_s: float) -> bool:
        """Its input was found good; False when it is no longer validating."""
        ...

    def fail(self, batch: str, faults: Sequence[BatchFault], *, now_s: float) -> bool:
        """Its input was found wrong: nothing of it is sent."""
        ...

    def reclaim(self, batch: str) -> int:
        """What a run that is over left running is pending again; how many."""
        ...

    def claim(self, batch: str, *, after: int, limit: int) -> list[BatchItem]:
        """The next pending items behind position `after`, now running, one attempt more each."""
        ...

    def try_again(self, batch: str, position: int) -> None:
        """One attempt more of an item that runs."""
        ...

    def list_unfinished(self, batch: str, *, limit: int) -> list[tuple[int, str]]:
        """Position and custom id of the first items without a result."""
        ...

    def write_results(self, batch: str, results: Sequence[ItemResult]) -> int:
        """Take the results of items that have none yet; how many those were."""
        ...

    def end(self, batch: str, state: BatchState, *, now_s: float) -> bool:
        """Close a batch whose items are all done; its results become files."""
        ...

    def forget_before(self, before_s: float) -> int:
        """Delete the batches that ended before then, with their items; how many."""
        ...
