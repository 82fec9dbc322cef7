"""How an item ended, as the line that its API's results have for it."""

import msgspec

from argosy.fleet.batches import Batch, BatchApi, ItemOutcome, ItemResult
from argosy.gateway.batches.item_client import ItemAnswer

# Code and words of OpenAI's error files.
_UNSERVED: dict[str, tuple[str, str]] = {
    "canceled": ("batch_cancelled", "This request was not executed: the batch was cancelled."),
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
}


def answered(batch: Batch, position: int, custom_id: str, answer: ItemAnswer) -> ItemResult:
    """The result of an item whose answer is final."""
    outcome: ItemOutcome = "succeeded" if answer.status == 200 else "errored"
    body = _one_line(answer.body)
    if batch.api == "openai":
        response = {"status_code": answer.status, "request_id": answer.request, "body": body}
        line = _openai_line(batch.id, position, custom_id, response=response, error=None)
    else:
        key = "message" if outcome == "succeeded" else "error"
        line = _anthropic_line(custom_id, {"type": outcome, key: body})
    return ItemResult(
        position=position,
        outcome=outcome,
        line=line,
        status=answer.status,
        request=answer.request,
    )


def unserved(
    api: BatchApi, batch: str, position: int, custom_id: str, outcome: ItemOutcome
) -> ItemResult:
    """The result of an item that was `canceled`, or `expired`, before it had an answer."""
    if api == "openai":
        code, message = _UNSERVED[outcome]
        error = {"code": code, "message": message}
        line = _openai_line(batch, position, custom_id, response=None, error=error)
    else:
        line = _anthropic_line(custom_id, {"type": outcome})
    return ItemResult(position=position, outcome=outcome, line=line)


def _openai_line(
    batch: str, position: int, custom_id: str, *, response: object, error: object
) -> bytes:
    line = {
        "id": f"batch_req_{batch.removeprefix('batch_')}_{position}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return msgspec.json.encode(line) + b"\n"


def _anthropic_line(custom_id: str, result: object) -> bytes:
    return msgspec.json.encode({"custom_id": custom_id, "result": result}) + b"\n"


def _one_line(body: bytes) -> object:
    """JSON without line ends, which would cut the line; what is no JSON becomes a string."""
    try:
        return msgspec.Raw(msgspec.json.format(body, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")
