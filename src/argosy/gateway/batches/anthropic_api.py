"""Anthropic's `/v1/messages/batches`: its objects, and what may be asked of them."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from argosy.fleet.batches import BATCH_ITEMS_MAX, Batch, BatchDraft, NewItem, Page
from argosy.gateway.batches.ports import BatchBook
from argosy.gateway.batches.replies import (
    JSON_LINES,
    Call,
    Reply,
    download,
    json_reply,
    not_found,
    read_limit,
)
from argosy.gateway.surfaces.decode import decode, refused

PATH = "/v1/messages/batches"


class _Entry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    custom_id: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}(?!\n)$")]
    params: msgspec.Raw


class _Create(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    requests: Annotated[list[_Entry], Meta(min_length=1, max_length=BATCH_ITEMS_MAX)]


class _Params(msgspec.Struct, kw_only=True):
    model: str
    stream: bool | None = None


_decoder = msgspec.json.Decoder(_Create)
_params_decoder = msgspec.json.Decoder(_Params)


class AnthropicBatches:
    """The batches of whoever asks. `changed` is called when the runner has something to see."""

    def __init__(
        self,
        batches: BatchBook,
        *,
        unix_time_s: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._batches = batches
        self._unix_time_s = unix_time_s
        self._changed = changed

    async def create(self, call: Call) -> Reply:
        """A batch, its items durable before the answer."""
        batch = await asyncio.to_thread(self._create, call)
        self._changed()
        return json_reply(call, _batch_body(batch))

    def _create(self, call: Call) -> Batch:
        # One call holds the interpreter, and with it all other requests: 80 ms for 96 MB.
        entries = decode(_decoder, call.request.body).requests
        _check(entries)
        draft = BatchDraft(owner=call.owner, api="anthropic", endpoint="/v1/messages")
        return self._batches.create(draft, _items(entries), now_s=self._unix_time_s())

    async def list(self, call: Call) -> Reply:
        """A page of them, newest first."""
        page = Page(
            limit=read_limit(call, default=20, limit_max=1000),
            after=call.query.get("after_id"),
            before=call.query.get("before_id"),
        )
        if page.after is not None and page.before is not None:
            raise refused("bad_request", "after_id and before_id are given; one of them works.")
        batches, has_more = await asyncio.to_thread(
            self._batches.page, call.owner.tenant, page, api="anthropic"
        )
        body = {
            "data": [_batch_body(batch) for batch in batches],
            "has_more": has_more,
            "first_id": batches[0].id if batches else None,
            "last_id": batches[-1].id if batches else None,
        }
        return json_reply(call, body)

    async def retrieve(self, call: Call) -> Reply:
        """One."""
        return json_reply(call, _batch_body(await self._find(call)))

    async def cancel(self, call: Call) -> Reply:
        """Ask for its end; what has an answer by then keeps it."""
        batch = await self._find(call)
        if batch.state != "cancelling":
            now_s = self._unix_time_s()
            if not await asyncio.to_thread(self._batches.cancel, batch.id, now_s=now_s):
                message = f"Message Batch {batch.id} has ended and cannot be canceled."
                raise refused("bad_request", message)
            self._changed()
        return json_reply(call, _batch_body(await self._find(call)))

    async def delete(self, call: Call) -> Reply:
        """Forget one that has ended."""
        batch = await self._find(call)
        if not await asyncio.to_thread(self._batches.delete, batch.id):
            message = f"Message Batch {batch.id} has not ended: cancel it first."
            raise refused("bad_request", message)
        return json_reply(call, {"id": batch.id, "type": "message_batch_deleted"})

    async def results(self, call: Call) -> Reply:
        """How each item ended, a line each, in the order of the requests."""
        batch = await self._find(call)
        if batch.is_open:
            message = f"Message Batch {batch.id} has no results yet: it has not ended."
            raise refused("bad_request", message)
        return download(
            call.request,
            length_bytes=await asyncio.to_thread(self._batches.results_bytes, batch.id),
            content_type=JSON_LINES,
            read=lambda after: self._batches.read_results(batch.id, after=after),
        )

    async def _find(self, call: Call) -> Batch:
        tenant = call.owner.tenant
        batch = await asyncio.to_thread(self._batches.find, call.id, tenant=tenant, api="anthropic")
        if batch is None:
            raise not_found("Message Batch", call.id)
        return batch


def _check(entries: list[_Entry]) -> None:
    """Refuse what is wrong with any request, as far as it can be told before it is sent."""
    custom_ids: set[str] = set()
    for index, entry in enumerate(entries):
        where = f"requests.{index}"
        if entry.custom_id in custom_ids:
            message = f"{where}.custom_id: '{entry.custom_id}' is used by an earlier request."
            raise refused("bad_request", message)
        custom_ids.add(entry.custom_id)
        try:
            params = _params_decoder.decode(entry.params)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise refused("bad_request", f"{where}.params: {error}.") from None
        if params.stream:
            message = f"{where}.params.stream: a batch does not stream; leave it out."
            raise refused("bad_request", message)


def _items(entries: list[_Entry]) -> Iterator[NewItem]:
    """One by one, for each is a copy of its part of the body."""
    for entry in entries:
        yield NewItem(custom_id=entry.custom_id, body=bytes(entry.params))


def _batch_body(batch: Batch) -> dict[str, object]:
    status = "ended"
    if batch.is_open:
        status = "canceling" if batch.state == "cancelling" else "in_progress"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": _counts_body(batch),
        "created_at": _time(batch.created_at_s),
        "expires_at": _time(batch.expires_at_s),
        "ended_at": _time(batch.ended_at_s),
        "cancel_initiated_at": _time(batch.cancelling_at_s),
        "archived_at": None,
        # A path: clients join it to where they found this gateway, which it cannot know itself.
        "results_url": None if batch.is_open else f"{PATH}/{batch.id}/results",
    }


def _counts_body(batch: Batch) -> dict[str, int]:
    """As this API has it: all are processing until the batch ends."""
    is_open = batch.is_open
    return {
        "processing": batch.items if is_open else 0,
        "succeeded": 0 if is_open else batch.succeeded,
        "errored": 0 if is_open else batch.errored,
        "canceled": 0 if is_open else batch.canceled,
        "expired": 0 if is_open else batch.expired,
    }


def _time(time_s: float | None) -> str | None:
    if time_s is None:
        return None
    return (
        datetime.fromtimestamp(time_s, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
