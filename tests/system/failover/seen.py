"""What was seen of one scenario, by the client and by the two upstreams: all that is graded."""

from typing import Literal

import msgspec

Ending = Literal["answered", "refused", "reset", "cut", "left", "open"]
End = Literal["whole", "refused", "lost", "hung"]

PREFILL_REFUSED = "invalid_prefill"  # the code of an upstream that takes no assistant prefill


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request as an upstream counted it."""

    at_s: float  # since the scenario began
    ending: Ending  # left: the gateway closed its side; open: nobody has
    code: str | None = None  # of a refusal
    is_continuation: bool = False  # it came with the start of the answer


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """An API error as the client raised it."""

    status: int | None  # None: an error event inside a stream
    code: str | None
    message: str


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of a stream, read as they came and not by the client."""

    text: str
    models: tuple[str, ...] = ()  # each name once, in order
    finishes: tuple[str, ...] = ("stop",)
    tokens_out: tuple[int, ...] = ()  # of each usage event
    dones: int = 1
    events_unreadable: int = 0


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One request as its client saw it."""

    at_s: float  # since the scenario began
    seconds: float
    end: End  # refused: an API error; lost: no error and no end; hung: the client gave up
    text: str = ""  # as the official client read it
    error: Error | None = None
    detail: str = ""  # of lost
    wire: Wire


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario, from both sides."""

    replies: tuple[Reply, ...]
    primary: tuple[Attempt, ...]
    backup: tuple[Attempt, ...] = ()
    is_alive_after: bool = True  # a healthy request was answered right after it
