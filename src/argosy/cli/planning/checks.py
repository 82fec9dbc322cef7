"""What a plan was checked against: naive plans, and the simulator; as rows of its report."""

from collections.abc import Sequence

from argosy.cli.planning.report import BaselineRow, Replay, ReplayedLoss, ReplayRow
from argosy.cli.planning.sums import by_kind, hour_text
from argosy.fleet.fields import Tier
from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Problem
from argosy.planner.questions.baselines import Baseline
from argosy.planner.replay.replay import Replay as Replayed
from argosy.planner.replay.replay import Verified


def baseline_row(one: Baseline, plan: Plan) -> BaselineRow:
    """A baseline beside the plan."""
    gives_up = tuple(given.text for given in one.gives_up)
    match one.answer:
        case Conflict(constraints=constraints):
            return BaselineRow(
                kind=one.kind, name=one.name, usd=None, usd_per_hour=None, times=None,
                gives_up=gives_up, conflict=constraints, remarks=one.remarks,
            )  # fmt: skip
        case naive:
            return BaselineRow(
                kind=one.kind,
                name=one.name,
                usd=naive.money.total,
                usd_per_hour=naive.usd_per_hour,
                times=naive.money.total / plan.money.total if plan.money.total else None,
                usd_by_kind=by_kind(naive.money),
                gives_up=gives_up,
                remarks=one.remarks,
            )


def replay_of(verified: Verified) -> Replay | None:
    """The last round's replays, and what all rounds cut."""
    if not verified.rounds or not isinstance(verified.answer, Plan):
        return None
    last = verified.rounds[-1]
    planned = next(one for one in last.replays if one.lost is None)
    slots = sorted({one.slot for one in planned.attained})
    problem = verified.answer.problem
    return Replay(
        is_kept=verified.is_kept,
        hours=tuple(hour_text(problem, slot) for slot in slots),
        requests=sum(one.requests for one in planned.attained),
        slo_met_share=planned.share(),
        rows=_replayed(planned, problem),
        losses=tuple(
            ReplayedLoss(
                what=one.what,
                hour=hour_text(problem, one.attained[0].slot),
                slo_met_share=one.share(),
                rows=_replayed(one, problem),
            )
            for one in last.replays
            if one.lost is not None and one.attained
        ),
        plans=len(verified.rounds),
        cuts=tuple(
            f"{cut.text} serves {cut.times:.1%} of what was believed: {cut.because}"
            for one in verified.rounds[:-1]
            for cut in one.cuts
        ),
        hopeless=last.hopeless,
    )


def _replayed(replay: Replayed, problem: Problem) -> tuple[ReplayRow, ...]:
    """By model and tier, over all slots."""
    kinds: dict[tuple[str, Tier], None] = {(one.model, one.tier): None for one in replay.attained}
    return tuple(_replay_row(replay, model, tier, problem) for model, tier in kinds)


def _replay_row(replay: Replayed, model: str, tier: Tier, problem: Problem) -> ReplayRow:
    mine = [one for one in replay.attained if (one.model, one.tier) == (model, tier)]
    asked = sum(one.asked_per_s for one in mine)

    def mean(shares: Sequence[float | None]) -> float | None:
        known = [share for share in shares if share is not None]
        if len(known) < len(mine) or not asked:
            return None
        pairs = zip(known, mine, strict=True)
        return sum(share * one.asked_per_s for share, one in pairs) / asked

    return ReplayRow(
        model=model,
        tier=tier,
        requests=sum(one.requests for one in mine),
        slo_met_share=replay.share(model, tier) or 0.0,
        slo_met_share_low=mean([one.slo_met_share_low for one in mine]),
        slo_met_share_high=mean([one.slo_met_share_high for one in mine]),
        is_promised=replay.lost is None
        or any(
            one.model == model and one.kind == replay.lost.kind and tier in one.tiers
            for one in problem.survivals
        ),
    )
