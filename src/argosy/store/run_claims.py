"""What islands claim, and what is wrong with a claim: pure, of what the ledger's rows say.

`run_ledger.py` makes entries of it. A block is free, in one open lease, or done.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from argosy.fleet.messages import Message
from argosy.store.runs import (
    ContributionRecord,
    IslandRecord,
    LeaseRecord,
    RunRecord,
    Sent,
    Spans,
)

Code = Literal["stale_epoch", "replayed", "too_stale", "unknown_lease", "damaged", "unlike", "over"]


class Booked(Message, frozen=True, kw_only=True):
    """It is in the ledger, with its blocks done; `is_new` is False where it was there already."""

    contribution: ContributionRecord
    is_new: bool


class Declined(Message, frozen=True, kw_only=True):
    """It counts for nothing; its blocks, where they were its own, are free again."""

    code: Code
    reason: str


class Noted(Message, frozen=True, kw_only=True):
    """What is known of an island apart from its deltas."""

    island: str
    epoch: int
    steps_per_s: float | None
    waited_s: float
    bytes_in: int
    bytes_out: int
    mfu: float | None = None
    energy_j_per_million_tokens: float | None = None
    cost_usd_per_million_tokens: float | None = None


def impostor(
    sent: Sent, row: IslandRecord | None, before: ContributionRecord | None
) -> Declined | None:
    """Why it is not what this island's newest life sends next; nothing is noted of it."""
    if row is None or row.epoch != sent.epoch:
        now = "never joined" if row is None else f"is at epoch {row.epoch}"
        return Declined(
            code="stale_epoch",
            reason=f"{sent.island} contributes under epoch {sent.epoch}, but {now}: join anew",
        )
    if before is not None and sent.number == row.number and _is_same(sent, before):
        return None
    if sent.number <= row.number:
        return Declined(
            code="replayed",
            reason=f"number {sent.number} of {sent.island} is over: the last was {row.number},"
            f" the next is {row.number + 1}",
        )
    return None


def _is_same(sent: Sent, before: ContributionRecord) -> bool:
    return all(
        getattr(sent, name) == getattr(before, name)
        for name in ("lease", "base_version", "steps", "blocks", "fragments", "tokens_sha256")
    )


def as_before(before: ContributionRecord) -> Booked | Declined:
    """The answer that it got when it came first."""
    if before.state != "refused" or before.version is not None:
        return Booked(contribution=before, is_new=False)  # distrusted by a round: settled there
    code, _, reason = before.reason.partition(": ")
    return Declined(code=msgspec.convert(code, Code), reason=reason)


def fault_of(sent: Sent, record: RunRecord, lease: LeaseRecord | None) -> Declined | None:
    """Why it is none of the lease, or of these parameters."""
    if lease is None or lease.state != "open" or not is_own(sent, lease):
        what = "was never granted to it" if lease is None else f"is {lease.state}"
        return Declined(
            code="unknown_lease",
            reason=f"the lease {sent.lease} {what}: it was silent for too long, or its delta is"
            " counted already. Take the delta back and ask for another lease",
        )
    if sent.blocks != lease.blocks or sent.steps * record.blocks_a_step != sent.blocks:
        return Declined(
            code="unlike",
            reason=f"{sent.steps} steps on {sent.blocks} blocks were sent for a lease of"
            f" {lease.blocks} blocks, {record.blocks_a_step} a step",
        )
    newest = record.version
    if newest is None or sent.base_version > newest:
        return Declined(
            code="unlike",
            reason=f"its base is version {sent.base_version}; the newest is {newest}",
        )
    return None


def too_stale(
    sent: Sent, record: RunRecord, own_rounds: int, staleness_max: int
) -> Declined | None:
    """Why its base is too old."""
    behind = (record.version or 0) - sent.base_version - own_rounds
    if behind <= staleness_max:
        return None
    return Declined(
        code="too_stale",
        reason=f"its base is version {sent.base_version}, {behind} of others' rounds behind the"
        f" newest, {record.version}; at most {staleness_max} are allowed (outer.staleness_max)",
    )


def is_own(sent: Sent, lease: LeaseRecord) -> bool:
    """Whether the lease was granted to this life of the island."""
    return lease.island == sent.island and lease.epoch == sent.epoch


def taken_from(record: RunRecord, wanted: int) -> tuple[Spans, Spans, int]:
    """Spans of at most `wanted` blocks; then what stays freed, and the frontier."""
    spans: list[tuple[int, int]] = []
    freed: list[tuple[int, int]] = []
    left = wanted
    for start, stop in record.freed:
        middle = min(stop, start + left)
        if middle > start:
            spans.append((start, middle))
            left -= middle - start
        if stop > middle:
            freed.append((middle, stop))
    frontier = min(record.blocks, record.frontier + left)
    if frontier > record.frontier:
        spans.append((record.frontier, frontier))
    return tuple(spans), tuple(freed), frontier


def merged(spans: Iterable[tuple[int, int]]) -> Spans:
    """In order, neighbours joined."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)


def count_of(spans: Iterable[tuple[int, int]]) -> int:
    """Blocks in them."""
    return sum(stop - start for start, stop in spans)
