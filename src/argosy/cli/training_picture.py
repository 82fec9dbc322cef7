"""What a run has come to, from its ledger alone: of one that trains, that stopped, that ended.

Owns the figures and what they mean; how they look is `training_page.py`'s. Nothing here asks a
process: `argosy runs show` tells as much of a dead run as `argosy train` of a live one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from argosy.fleet.runs import Run

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from argosy.store.runs import (
        ContributionRecord,
        IslandRecord,
        RunRecord,
    )

_PACE_S = 120.0  # what is called "now" of a speed
_REFUSALS_SHOWN = 10

State = Literal["training", "finishing", "finished", "stopped", "interrupted"]


class IslandPicture(msgspec.Struct, frozen=True, kw_only=True):
    """One island, in all its lives; `state` is "away" where it has not joined yet."""

    island: str
    state: Literal["live", "silent", "left", "away"]
    lives: int  # how often it joined
    tokens_done: int
    tokens_per_s: float | None  # as it measures itself
    waited_share: float | None  # of this life: without a block to train on
    loss: float | None
    bytes_up: int
    bytes_down: int
    silent_s: float | None  # since it was last heard
    mfu: float | None = None  # of its last lease, waiting included; None: no peak is known
    usd_per_million_tokens: float | None = None  # likewise; else of the file's price and its speed
    joules_per_million_tokens: float | None = None  # likewise, of measured watts or its power_w


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A delta that counted for nothing; its tokens were leased anew."""

    island: str
    number: int
    tokens: int
    reason: str
    at_s: float  # Unix time


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A run now. Bytes are those of fragments, both ways, of all islands."""

    run: str
    state: State
    version: int | None  # rounds closed
    tokens: int
    tokens_done: int
    tokens_per_s: float | None  # counted, of late; before that what islands measure
    loss: float | None  # of the last deltas, by tokens
    loss_validation: float | None
    loss_validation_version: int | None
    eta_s: float | None
    began_at_s: float  # Unix time
    lasted_s: float
    bytes_moved: int
    bytes_ratio: float | None  # of what an all-reduce of fp32 gradients each step had moved
    goodput: float | None  # tokens counted / tokens leased and ended: what was lost is the rest
    islands: tuple[IslandPicture, ...]
    deltas: int
    deltas_refused: int
    refusals: tuple[Refusal, ...]  # the last ones
    round_reason: str | None  # why the last round closed


def picture(engine: "Engine", run: Run, *, is_kept: bool, now_s: float) -> Picture:
    """Of the run of that name; `is_kept`: a supervisor lives. Raises UnknownRunError, StoreError.

    `now_s` is Unix time.
    """
    from argosy.store.runs import (
        contributions_of,
        islands_of,
        leases_of,
        points_of,
        read_run,
        rounds_of,
    )

    record = read_run(engine, run.run)
    contributions = contributions_of(engine, run.run)
    islands = islands_of(engine, run.run)
    validations = [one for one in points_of(engine, run.run) if one.kind == "validation"]
    last = validations[-1] if validations else None
    void = sum(lease.blocks for lease in leases_of(engine, run.run, state="void"))
    rounds = rounds_of(engine, run.run, after=max(0, (record.version or 0) - 1))
    end_s = record.ended_at_s if record.ended_at_s is not None else now_s
    if not is_kept:
        end_s = max([record.created_at_s, *(island.beat_at_s for island in islands)])
    tokens = run.context_tokens
    pace = (_pace(contributions, end_s) or _speed(islands, run)) if is_kept else None
    done, moved = record.blocks_done, sum(one.bytes_in + one.bytes_out for one in islands)
    return Picture(
        run=run.run,
        state=state_of(record, is_kept=is_kept),
        version=record.version,
        tokens=record.blocks * tokens,
        tokens_done=done * tokens,
        tokens_per_s=None if pace is None else pace * tokens,
        loss=_loss(contributions),
        loss_validation=None if last is None else last.loss,
        loss_validation_version=None if last is None else last.version,
        eta_s=(record.blocks - done) / pace if pace else None,
        began_at_s=record.created_at_s,
        lasted_s=max(0.0, end_s - record.created_at_s),
        bytes_moved=moved,
        bytes_ratio=_bytes_ratio(record, run, len(islands), moved),
        goodput=done / (done + void) if done else None,
        islands=tuple(_islands(run, islands, contributions, now_s)),
        deltas=len(contributions),
        deltas_refused=sum(one.state == "refused" for one in contributions),
        refusals=tuple(_refusals(contributions, tokens)),
        round_reason=rounds[-1].reason if rounds else None,
    )


def state_of(record: "RunRecord", *, is_kept: bool) -> State:
    """A run that nobody keeps alive and that did not end in order was interrupted."""
    if is_kept or record.state in ("finished", "stopped"):
        return record.state
    return "interrupted"


def _pace(contributions: "Sequence[ContributionRecord]", now_s: float) -> float | None:
    """Blocks counted a second, of late. The first delta of all tells no pace: it began before."""
    counted = [one for one in contributions if one.state != "refused"]
    recent = [one for one in counted if one.at_s > now_s - _PACE_S]
    if not recent or len(counted) < 2:
        return None
    began_s = max(counted[0].at_s, now_s - _PACE_S)
    blocks = sum(one.blocks for one in recent if one.at_s > counted[0].at_s)
    return blocks / max(1.0, now_s - began_s) or None


def _speed(islands: "Sequence[IslandRecord]", run: Run) -> float | None:
    """Blocks a second, as those that live measure themselves."""
    steps = sum(one.steps_per_s or 0.0 for one in islands if one.state == "live")
    return steps * run.batch_blocks or None


def _loss(contributions: "Sequence[ContributionRecord]") -> float | None:
    """Of each island's last delta, weighted by its tokens."""
    last = {one.island: one for one in contributions if one.state != "refused"}
    blocks = sum(one.blocks for one in last.values())
    return sum(one.loss * one.blocks for one in last.values()) / blocks if blocks else None


def _bytes_ratio(record: "RunRecord", run: Run, islands: int, moved: int) -> float | None:
    """Against data parallelism of the same islands in step, its gradients all-reduced as fp32.

    A ring moves 2 (n - 1) / n of the gradient out of each of n islands and as much in; one step of
    all trains n batches. Ours counts what was sent up and fetched, with parameters of joins.
    """
    if record.seed is None or not moved or islands < 2 or not record.blocks_done:
        return None
    last = record.seed.fragments[-1]
    gradient_bytes = 4 * (last.start + last.values)
    steps = record.blocks_done / (run.batch_blocks * islands)
    return steps * islands * 2 * (2 * (islands - 1) / islands) * gradient_bytes / moved


def _islands(
    run: Run,
    islands: "Sequence[IslandRecord]",
    contributions: "Sequence[ContributionRecord]",
    now_s: float,
) -> list[IslandPicture]:
    known = {one.island: one for one in islands}
    losses = {one.island: one.loss for one in contributions if one.state != "refused"}
    names = [island.name for island in run.islands]
    gone = [name for name in known if name not in names]
    return [_island(run, name, known.get(name), losses.get(name), now_s) for name in names + gone]


def _island(
    run: Run, name: str, record: "IslandRecord | None", loss: float | None, now_s: float
) -> IslandPicture:
    if record is None:
        return IslandPicture(
            island=name, state="away", lives=0, tokens_done=0, tokens_per_s=None,
            waited_share=None, loss=None, bytes_up=0, bytes_down=0, silent_s=None,
        )  # fmt: skip
    lasted_s = record.beat_at_s - record.joined_at_s
    speed = record.steps_per_s if record.state == "live" else None
    pace = None if speed is None else speed * run.batch_blocks * run.context_tokens
    told = next((one for one in run.islands if one.name == name), None)
    usd, joules = record.cost_usd_per_million_tokens, record.energy_j_per_million_tokens
    if told is not None and usd is None and told.price_usd_per_hour is not None:
        usd = _per_million(told.price_usd_per_hour / 3600, pace)
    if told is not None and joules is None:
        joules = _per_million(told.power_w, pace)
    return IslandPicture(
        island=name,
        state=record.state,
        lives=record.epoch,
        tokens_done=record.blocks_done * run.context_tokens,
        tokens_per_s=pace,
        waited_share=min(1.0, record.waited_s / lasted_s) if lasted_s > 0 else None,
        loss=loss,
        bytes_up=record.bytes_in,
        bytes_down=record.bytes_out,
        silent_s=max(0.0, now_s - record.beat_at_s),
        mfu=record.mfu,
        usd_per_million_tokens=usd,
        joules_per_million_tokens=joules,
    )


def _per_million(per_s: float | None, tokens_per_s: float | None) -> float | None:
    return None if per_s is None or not tokens_per_s else 1e6 * per_s / tokens_per_s


def _refusals(contributions: "Sequence[ContributionRecord]", block_tokens: int) -> list[Refusal]:
    refused = [one for one in contributions if one.state == "refused"]
    return [
        Refusal(
            island=one.island,
            number=one.number,
            tokens=one.blocks * block_tokens,
            reason=one.reason,
            at_s=one.at_s,
        )
        for one in refused[-_REFUSALS_SHOWN:]
    ]
