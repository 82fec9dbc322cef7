"""OpenAI's `/v1/files` and `/v1/batches`: their objects, and what may be asked of them."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from argosy.fleet.batches import (
    FILE_BYTES_MAX,
    KEPT_S,
    Batch,
    BatchDraft,
    StoredFile,
    Upload,
)
from argosy.gateway.batches.ports import BatchBook, FileStore
from argosy.gateway.batches.replies import (
    Call,
    Reply,
    download,
    json_reply,
    not_found,
    openai_page,
)
from argosy.gateway.batches.upload import read_form
from argosy.gateway.surfaces.decode import decode, refused

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")


class _Create(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: (
        Annotated[
            dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
            Meta(max_length=16),
        ]
        | None
    ) = None


_decoder = msgspec.json.Decoder(_Create)


class OpenAIFiles:
    """The files of whoever asks."""

    def __init__(self, files: FileStore, *, unix_time_s: Callable[[], float]) -> None:
        self._files = files
        self._unix_time_s = unix_time_s

    async def create(self, call: Call) -> Reply:
        """Take an upload."""
        upload = await asyncio.to_thread(_read_upload, call)
        file = await asyncio.to_thread(
            self._files.add, call.owner, upload, now_s=self._unix_time_s()
        )
        return json_reply(call, _file_body(file))

    async def list(self, call: Call) -> Reply:
        """A page of them."""
        page = openai_page(call, default=10_000, limit_max=10_000)
        files, has_more = await asyncio.to_thread(
            self._files.page, call.owner.tenant, page, purpose=call.query.get("purpose")
        )
        return json_reply(call, _list_body([_file_body(file) for file in files], has_more))

    async def retrieve(self, call: Call) -> Reply:
        """One."""
        return json_reply(call, _file_body(await self._find(call)))

    async def content(self, call: Call) -> Reply:
        """Its bytes."""
        file = await self._find(call)
        return download(
            call.request,
            length_bytes=file.bytes,
            content_type="application/octet-stream",
            read=lambda after: self._files.read(file, after=after),
        )

    async def delete(self, call: Call) -> Reply:
        """Forget it."""
        if not await asyncio.to_thread(self._files.delete, call.id, tenant=call.owner.tenant):
            raise not_found("File object", call.id)
        return json_reply(call, {"id": call.id, "object": "file", "deleted": True})

    async def _find(self, call: Call) -> StoredFile:
        file = await asyncio.to_thread(self._files.find, call.id, tenant=call.owner.tenant)
        if file is None:
            raise not_found("File object", call.id)
        return file


class OpenAIBatches:
    """The batches of whoever asks. `changed` is called when the runner has something to see."""

    def __init__(
        self,
        files: FileStore,
        batches: BatchBook,
        *,
        unix_time_s: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._files = files
        self._batches = batches
        self._unix_time_s = unix_time_s
        self._changed = changed

    async def create(self, call: Call) -> Reply:
        """A batch whose input is yet to be read."""
        asked = decode(_decoder, call.request.body)
        if asked.endpoint not in ENDPOINTS:
            message = f"endpoint '{asked.endpoint[:100]}' takes no batches: {', '.join(ENDPOINTS)}."
            raise refused("bad_request", message, param="endpoint")
        tenant = call.owner.tenant
        file = await asyncio.to_thread(self._files.find, asked.input_file_id, tenant=tenant)
        if file is None or file.purpose != "batch":
            message = f"input_file_id '{asked.input_file_id[:100]}' is no file of purpose 'batch'."
            raise refused("bad_request", message, param="input_file_id")
        draft = BatchDraft(
            owner=call.owner,
            api="openai",
            endpoint=asked.endpoint,
            input_file=file.id,
            metadata=asked.metadata,
        )
        batch = await asyncio.to_thread(self._batches.create, draft, now_s=self._unix_time_s())
        self._changed()
        return json_reply(call, _batch_body(batch))

    async def list(self, call: Call) -> Reply:
        """A page of them."""
        page = openai_page(call, default=20, limit_max=100)
        batches, has_more = await asyncio.to_thread(
            self._batches.page, call.owner.tenant, page, api="openai"
        )
        return json_reply(call, _list_body([_batch_body(batch) for batch in batches], has_more))

    async def retrieve(self, call: Call) -> Reply:
        """One."""
        return json_reply(call, _batch_body(await self._find(call)))

    async def cancel(self, call: Call) -> Reply:
        """Ask for its end; what has an answer by then keeps it."""
        batch = await self._find(call)
        if batch.state != "cancelling":
            now_s = self._unix_time_s()
            if not await asyncio.to_thread(self._batches.cancel, batch.id, now_s=now_s):
                message = f"Cannot cancel a batch with status '{(await self._find(call)).state}'."
                raise refused("bad_request", message)
            self._changed()
        return json_reply(call, _batch_body(await self._find(call)))

    async def _find(self, call: Call) -> Batch:
        tenant = call.owner.tenant
        batch = await asyncio.to_thread(self._batches.find, call.id, tenant=tenant, api="openai")
        if batch is None:
            raise not_found("batch", call.id)
        return batch


def _read_upload(call: Call) -> Upload:
    form = read_form(call.request.body, call.request.headers.get(b"content-type", b""))
    if unknown := sorted(set(form.fields) - {"purpose"}):
        message = f"Unknown parameter: '{unknown[0][:100]}'. Files take: file, purpose."
        raise refused("unsupported", message, param=unknown[0][:100])
    purpose = form.fields.get("purpose")
    if purpose != "batch":
        said = "is missing" if purpose is None else f"'{purpose[:50]}' is not served"
        raise refused("bad_request", f"purpose {said}: 'batch' is.", param="purpose")
    if form.file is None:
        raise refused("bad_request", "Missing required parameter: 'file'.", param="file")
    if form.file.content.nbytes > FILE_BYTES_MAX:
        message = f"A file of {form.file.content.nbytes} bytes; the limit is {FILE_BYTES_MAX}."
        raise refused("too_large", message, param="file")
    return form.file


def _list_body(objects: list[dict[str, object]], has_more: bool) -> dict[str, object]:
    return {
        "object": "list",
        "data": objects,
        "first_id": objects[0]["id"] if objects else None,
        "last_id": objects[-1]["id"] if objects else None,
        "has_more": has_more,
    }


def _file_body(file: StoredFile) -> dict[str, object]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at_s),
        "expires_at": int(file.created_at_s + KEPT_S),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _batch_body(batch: Batch) -> dict[str, object]:
    # A batch is finalized in the write that ends it, so nobody sees it `finalizing`.
    was_finalized = batch.started_at_s is not None and not batch.is_open
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": _errors_body(batch),
        "input_file_id": batch.input_file,
        "completion_window": "24h",
        "status": batch.state,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.created_at_s),
        "in_progress_at": _whole(batch.started_at_s),
        "expires_at": int(batch.expires_at_s),
        "finalizing_at": _whole(batch.ended_at_s if was_finalized else None),
        "completed_at": _ended_as(batch, "completed"),
        "failed_at": _ended_as(batch, "failed"),
        "expired_at": _ended_as(batch, "expired"),
        "cancelling_at": _whole(batch.cancelling_at_s),
        "cancelled_at": _ended_as(batch, "cancelled"),
        "request_counts": {
            "total": batch.items,
            "completed": batch.succeeded,
            "failed": batch.items_unserved,
        },
        "metadata": batch.metadata,
    }


def _errors_body(batch: Batch) -> dict[str, object] | None:
    return {"object": "list", "data": batch.faults} if batch.faults else None


def _ended_as(batch: Batch, state: str) -> int | None:
    return _whole(batch.ended_at_s) if batch.state == state else None


def _whole(time_s: float | None) -> int | None:
    return None if time_s is None else int(time_s)
