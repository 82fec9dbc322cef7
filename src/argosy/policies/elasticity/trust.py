"""Which delta is not believed: a chip that computes wrongly in silence shows here. Pure.

Norms are compared as logarithms of norm / sqrt(steps), with the island's own recent ones and with
all islands'; both must be far off, so that a change that all undergo (the learning rate, a new part
of the text) refuses nobody. A delta's cosine with the mean of the round's others is compared with
the usual of recent rounds.
"""

import math
from collections.abc import Sequence
from statistics import median

import msgspec

from argosy.policies.elasticity.views import DeltaSeen, ElasticitySettings


class Trusted(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing speaks against it."""


class Distrust(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse it; its blocks are to be leased anew."""

    reason: str


def trust(
    delta: DeltaSeen, recent: Sequence[DeltaSeen], settings: ElasticitySettings
) -> Trusted | Distrust:
    """Judge one delta by those that were believed in recent rounds, its own island's among them."""
    if not math.isfinite(delta.norm):
        return Distrust(reason=f"the delta of {delta.island} is not finite")
    return _norm(delta, recent, settings) or _cosine(delta, recent, settings) or Trusted()


def _norm(
    delta: DeltaSeen, recent: Sequence[DeltaSeen], settings: ElasticitySettings
) -> Distrust | None:
    own = [_size(seen) for seen in recent if seen.island == delta.island and seen.norm > 0]
    all_of = [_size(seen) for seen in recent if seen.norm > 0]
    if len(all_of) < settings.seen_min:
        return None
    size = _size(delta)
    usual = median(all_of)
    ratios = [size / usual]
    if own:
        ratios.append(size / median(own))
    most = settings.norm_ratio_max
    if min(ratios) > most or max(ratios) < 1 / most:
        return Distrust(
            reason=f"the delta of {delta.island} has a norm of {delta.norm:.3g} after "
            f"{delta.steps} steps, {ratios[0]:.2g} times the usual and {ratios[-1]:.2g} times its "
            f"own; believed is 1/{most:g} to {most:g} times"
        )
    return None


def _cosine(
    delta: DeltaSeen, recent: Sequence[DeltaSeen], settings: ElasticitySettings
) -> Distrust | None:
    seen = [one.cosine for one in recent if one.cosine is not None]
    if delta.cosine is None or len(seen) < settings.seen_min:
        return None
    usual = median(seen)
    if delta.cosine < min(0.0, usual - settings.cosine_below_max):
        return Distrust(
            reason=f"the delta of {delta.island} has a cosine of {delta.cosine:.2f} with the mean "
            f"of the others; usual is {usual:.2f}, believed is down to "
            f"{min(0.0, usual - settings.cosine_below_max):.2f}"
        )
    return None


def _size(seen: DeltaSeen) -> float:
    return seen.norm / math.sqrt(max(1, seen.steps))
