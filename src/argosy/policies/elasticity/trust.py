"""Which delta is not believed: a chip that computes wrongly in silence shows here. Pure.

Norms are compared as norm / sqrt(steps), with the median of all islands' recent ones and of its
own; both must be far exceeded, so that an island that always differs is believed. A small delta is:
the learning rate falls, and a lease may be short; only one of zero, after steps, is not.

A delta whose cosine with the mean of the round's others is well below zero goes against them, as
one of the wrong sign does. Honest ones had 0.1 to 0.3 in docs/TRAINING_PARITY.md's runs.
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
    own = [_size(seen) for seen in recent if seen.island == delta.island]
    all_of = [_size(seen) for seen in recent]
    if len(all_of) < settings.seen_min:
        return None
    if delta.norm == 0:
        return Distrust(reason=f"the delta of {delta.island} is zero after {delta.steps} steps")
    usual = max(median(all_of), median(own) if own else 0.0)
    ratio = _size(delta) / usual if usual > 0 else 1.0
    if ratio > settings.norm_ratio_max:
        return Distrust(
            reason=f"the delta of {delta.island} has a norm of {delta.norm:.3g} after "
            f"{delta.steps} steps, {ratio:.2g} times what is usual for all and for it; believed "
            f"is {settings.norm_ratio_max:g} times"
        )
    return None


def _cosine(
    delta: DeltaSeen, recent: Sequence[DeltaSeen], settings: ElasticitySettings
) -> Distrust | None:
    seen = [one.cosine for one in recent if one.cosine is not None]
    if delta.cosine is None or len(seen) < settings.seen_min:
        return None
    usual = median(seen)
    least = -max(settings.cosine_noise, settings.cosine_against_max * usual)
    if delta.cosine < least:
        return Distrust(
            reason=f"the delta of {delta.island} has a cosine of {delta.cosine:.2f} with the mean "
            f"of the others: it goes against them; usual is {usual:.2f}, believed is down to "
            f"{least:.2f}"
        )
    return None


def _size(seen: DeltaSeen) -> float:
    return seen.norm / math.sqrt(max(1, seen.steps))
