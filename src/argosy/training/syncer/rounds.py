"""What a round takes, with which weights, and whom it does not believe: policies on real deltas."""

import math
from collections.abc import Collection, Sequence

import msgspec

from argosy.fleet.runs import Run
from argosy.policies.elasticity import (
    Counted,
    DeltaSeen,
    Distrust,
    ElasticitySettings,
    TrustState,
    judge,
    lr_of,
    momentum_of,
    usual_momentum,
    weights,
)
from argosy.store.runs import ContributionRecord, RoundSettings, Weighed


class RoundPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A round, before it is in the ledger."""

    taken: tuple[Weighed, ...]
    distrusted: tuple[tuple[ContributionRecord, str], ...]
    settings: RoundSettings


class Judge:
    """Remembers recent deltas. A syncer that starts anew has none to compare with for a while."""

    def __init__(self, run: Run, settings: ElasticitySettings) -> None:
        self._run = run
        self._settings = settings
        self._trust = TrustState()

    def plan(
        self,
        pending: Sequence[ContributionRecord],
        products: Sequence[Sequence[float]],
        *,
        version: int,
        live: Collection[str],
        tokens_full: int,
    ) -> RoundPlan:
        """All that waits is taken, or refused; `products` are of each delta with each.

        `live`: the islands that take part, `tokens_full`: what their rations come to.
        """
        seen = [
            DeltaSeen(island=one.island, norm=_norm(products[at][at]), steps=one.steps)
            for at, one in enumerate(pending)
        ]
        self._trust, words = judge(self._trust, seen, products, self._settings)
        reasons = [
            f"{word.kind}: {word.reason}" if isinstance(word, Distrust) else None for word in words
        ]
        kept = [one for one, why in zip(pending, reasons, strict=True) if why is None]
        distrusted = tuple((one, why) for one, why in zip(pending, reasons, strict=True) if why)
        if not kept:  # the next version is the same but for what the last update could not say
            settings = RoundSettings(lr=0.0, momentum=1.0, bits=self._run.outer.bits)
            return RoundPlan(taken=(), distrusted=distrusted, settings=settings)
        counted = [
            Counted(
                tokens=one.blocks * self._run.context_tokens, staleness=version - one.base_version
            )
            for one in kept
        ]
        islands = len({*live, *(one.island for one in kept)})
        weighed = weights(counted, self._settings, islands=islands, tokens_full=tokens_full)
        outer = self._run.outer
        momentum = usual_momentum(islands) if outer.momentum is None else outer.momentum
        return RoundPlan(
            taken=tuple(
                Weighed(
                    island=one.island,
                    epoch=one.epoch,
                    number=one.number,
                    weight=weight,
                    fragments=one.fragments,
                )
                for one, weight in zip(kept, weighed.weights, strict=True)
            ),
            distrusted=distrusted,
            settings=RoundSettings(
                lr=lr_of(outer.lr, momentum, weighed.share),
                momentum=momentum_of(momentum, weighed.share),
                bits=outer.bits,
            ),
        )


def _norm(square: float) -> float:
    return math.sqrt(square) if square >= 0 else math.nan  # of a nan, too
