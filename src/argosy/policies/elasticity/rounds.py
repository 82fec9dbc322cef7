"""When a round closes, and what each delta in it counts. Pure.

No island waits for a round; a round waits for islands, and only as long as that pays: a delta that
comes soon is worth it, for it would else be of an older base in the next. How soon is known from
what the island was leased and how fast it is. After a syncer's restart each island is waited for
that was there: it may have several deltas to send, and rounds without it would make them stale.
"""

import math
from collections.abc import Sequence

from argosy.policies.elasticity.views import (
    Close,
    Counted,
    DeltaWeight,
    ElasticitySettings,
    IslandSeen,
    RoundView,
    Wait,
)


def closing(view: RoundView, settings: ElasticitySettings, now_s: float) -> Close | Wait:
    """Close when all that live have contributed; or with quorum, when no other is worth a wait."""
    if view.contributed == 0:
        return Wait(until_s=None, reason="no delta has come")
    missing = [seen for seen in view.islands if not seen.has_contributed]
    if view.is_last and not any(seen.steps_leased or seen.back_by_s for seen in missing):
        return Close(reason=f"the last round, of {view.contributed} islands")
    if view.contributed < settings.quorum:
        return Wait(
            until_s=None, reason=f"{view.contributed} of a quorum of {settings.quorum} contributed"
        )
    if not missing:
        return Close(reason=f"all {view.contributed} islands that live contributed")
    end_s = (now_s if view.quorum_s is None else view.quorum_s) + settings.grace_s_max
    until_s = max(_worth_s(seen, settings, end_s, now_s) for seen in missing)
    names = ", ".join(sorted(seen.island for seen in missing))
    if until_s <= now_s:
        return Close(reason=f"{view.contributed} islands contributed; too late: {names}")
    return Wait(
        until_s=until_s, reason=f"with quorum, for {until_s - now_s:.1f} s at most: {names}"
    )


def weights(
    deltas: Sequence[Counted],
    settings: ElasticitySettings,
    *,
    islands: int,
    tokens_full: int | None = None,
) -> DeltaWeight:
    """1 / islands each, less for a stale base; and the round's share of a full one, in tokens.

    A delta is as long as its island's steps have made it, so that the steps of all islands count
    alike, however the rounds close: three rounds of one island each move the parameters as far as
    one of three. By tokens as well, those of a fast island would count more than a slow one's, and
    most of what is noise in the mean would be its own (docs/TRAINING_PARITY.md).

    `islands`: that live or have a delta here. `tokens_full` is what all live islands' rations come
    to; None: any round counts as full. Raises ValueError where no delta has tokens.
    """
    tokens = sum(delta.tokens for delta in deltas)
    if tokens <= 0:
        raise ValueError("a round was to close without one token; wait for a delta")
    share = min(1.0, tokens / tokens_full) if tokens_full else 1.0
    discount = settings.staleness_discount
    freshest = min(delta.staleness for delta in deltas)  # that all lag alike is no one's fault
    each = (discount ** (delta.staleness - freshest) / islands for delta in deltas)
    return DeltaWeight(weights=tuple(each), share=share)


def usual_momentum(islands: int) -> float:
    """Where the run's file names none.

    The mean of k islands' steps has 1 / sqrt(k) of one's noise and bears sqrt(k) times AdamW's
    rate, which is what 1 / (1 - momentum) makes of it in the end. Of one island: none.
    """
    return 1 - 1 / math.sqrt(islands)


def momentum_of(momentum: float, share: float) -> float:
    """Of a round that is `share` of a full one: as many of them as make one decay alike."""
    return momentum**share


def lr_of(lr: float, momentum: float, share: float) -> float:
    """Beside `momentum_of`: a delta moves the parameters by lr / (1 - momentum) in the end.

    However small the rounds are that the momentum is then spent in; with `lr` itself, a last round
    of a few steps would add the whole momentum once more.
    """
    return lr * (1 - momentum**share) / (1 - momentum)


def _worth_s(seen: IslandSeen, settings: ElasticitySettings, end_s: float, now_s: float) -> float:
    """Until when this one is worth a wait; now or before: it is not."""
    if seen.back_by_s is not None:
        return seen.back_by_s
    if seen.steps_leased is None or seen.leased_s is None:
        return now_s  # it trains on nothing: it will send nothing soon
    if not seen.steps_per_s:
        return end_s
    took_s = seen.steps_leased / seen.steps_per_s + seen.upload_s
    if seen.leased_s + took_s > end_s:
        return now_s  # not in time anyway
    return min(end_s, seen.leased_s + took_s * (1 + settings.late_share))
