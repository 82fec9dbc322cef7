"""What the rooms tell each other about batches: files, batches, items and how each one ended.

The store keeps these, the gateway speaks them in OpenAI's and Anthropic's shapes. A batch is many
requests that may wait: each item of it is sent as a request of its own, in the tier `batch`.
"""

from typing import Literal

from argosy.fleet.messages import Message

BatchApi = Literal["openai", "anthropic"]
BatchState = Literal[
    "validating",  # its input file is being read
    "in_progress",
    "cancelling",  # asked for; what runs is being stopped
    "completed",
    "failed",  # the input file was wrong; nothing was sent
    "expired",
    "cancelled",
]
OPEN_STATES: tuple[BatchState, ...] = ("validating", "in_progress", "cancelling")
ItemOutcome = Literal["succeeded", "errored", "canceled", "expired"]
ResultPart = Literal["output", "error"]

BATCH_S_MAX = 24 * 3600.0  # a batch that is not done by then expires
KEPT_S = 30 * 24 * 3600.0  # files since their upload, batches since their end
FILE_BYTES_MAX = 100_000_000
BATCH_ITEMS_MAX = 50_000


class Owner(Message, frozen=True, kw_only=True):
    """Whose a file or a batch is. None: the gateway asks for no keys."""

    tenant: str | None
    key: str | None


class Page(Message, frozen=True, kw_only=True):
    """Which part of a list is wanted: at most one of `after` and `before` is set."""

    limit: int
    after: str | None = None  # an id; what comes next in the list's order
    before: str | None = None  # an id; what comes just before it
    oldest_first: bool = False


class StoredFile(Message, frozen=True, kw_only=True):
    """A file that a tenant uploaded, or the results of a batch."""

    id: str
    tenant: str | None
    key: str | None
    purpose: Literal["batch", "batch_output"]
    filename: str
    bytes: int
    created_at_s: float  # Unix time
    batch: str | None = None  # whose results it holds
    part: ResultPart | None = None


class Upload(Message, frozen=True, kw_only=True):
    """A file as it arrived. `content` looks into the request's body: no copy is made."""

    filename: str
    content: memoryview


class BatchFault(Message, frozen=True, kw_only=True):
    """Why an input file was refused; `line` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchDraft(Message, frozen=True, kw_only=True):
    """A batch that is asked for. Without an input file its items come along."""

    owner: Owner
    api: BatchApi
    endpoint: str  # the path of its requests, e.g. "/v1/chat/completions"
    input_file: str | None = None
    metadata: dict[str, str] | None = None


class Batch(Message, frozen=True, kw_only=True):
    """A batch as it stands. Times are Unix times."""

    id: str
    tenant: str | None
    key: str | None
    api: BatchApi
    endpoint: str
    state: BatchState
    model: str | None = None
    input_file: str | None = None
    output_file: str | None = None
    error_file: str | None = None
    metadata: dict[str, str] | None = None
    faults: tuple[BatchFault, ...] = ()
    created_at_s: float
    expires_at_s: float
    started_at_s: float | None = None  # its first item may be sent
    cancelling_at_s: float | None = None
    ended_at_s: float | None = None
    items: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def is_open(self) -> bool:
        """True while something is left to do."""
        return self.state in OPEN_STATES

    @property
    def items_unserved(self) -> int:
        """Those that ended without an answer of status 200."""
        return self.errored + self.canceled + self.expired


class NewItem(Message, frozen=True, kw_only=True):
    """One request of a batch, as it was asked for."""

    custom_id: str
    body: bytes  # JSON


class BatchItem(Message, frozen=True, kw_only=True):
    """One request of a batch, to be sent."""

    position: int
    custom_id: str
    body: bytes
    attempts: int  # this one included, those of runs that were killed too


class ItemResult(Message, frozen=True, kw_only=True):
    """How one item ended, for good."""

    position: int
    outcome: ItemOutcome
    line: bytes  # of the results file, in the shape of the batch's API, newline included
    status: int | None = None  # the HTTP answer's; None: it was never answered
    request: str | None = None  # the gateway's id of the last attempt
