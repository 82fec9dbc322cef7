"""What a round takes, with which weights, and whom it does not believe: policies on real deltas."""

import math
from collections import deque
from collections.abc import Sequence

import msgspec

from argosy.fleet.runs import Run
from argosy.policies.elasticity import (
    Counted,
    DeltaSeen,
    Distrust,
    ElasticitySettings,
    lr_of,
    momentum_of,
    trust,
    weights,
)
from argosy.store.runs import ContributionRecord, RoundSettings, Weighed

_SEEN_MAX = 64  # believed deltas that new ones are compared with
_DOUBTED_MAX = 2  # rounds in a row of which nothing was believed; then the usual has changed


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
        self._recent: deque[DeltaSeen] = deque(maxlen=_SEEN_MAX)
        self._doubted = 0  # rounds in a row of which nothing was believed

    def plan(
        self,
        pending: Sequence[ContributionRecord],
        products: Sequence[Sequence[float]],
        *,
        version: int,
        tokens_full: int,
    ) -> RoundPlan:
        """All that waits is taken, or refused; `products` are of each delta with each."""
        seen = [self._seen(pending, products, at) for at in range(len(pending))]
        reasons = [self._doubt(one) for one in seen]
        if pending and all(reasons):
            self._doubted += 1
            if self._doubted > _DOUBTED_MAX:  # else nobody could end a run whose norms have changed
                self._recent.clear()
                reasons = [None] * len(seen)
        if not all(reasons):
            self._doubted = 0
        self._recent.extend(one for one, why in zip(seen, reasons, strict=True) if why is None)
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
        weighed = weights(counted, self._settings, tokens_full=tokens_full)
        outer = self._run.outer
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
                lr=lr_of(outer.lr, outer.momentum, weighed.share),
                momentum=momentum_of(outer.momentum, weighed.share),
                bits=outer.bits,
            ),
        )

    def _doubt(self, delta: DeltaSeen) -> str | None:
        """Why it is not believed."""
        word = trust(delta, tuple(self._recent), self._settings)
        return word.reason if isinstance(word, Distrust) else None

    def _seen(
        self,
        pending: Sequence[ContributionRecord],
        products: Sequence[Sequence[float]],
        at: int,
    ) -> DeltaSeen:
        one = pending[at]
        norm = math.sqrt(max(0.0, products[at][at]))
        others = [other for other in range(len(pending)) if other != at]
        blocks = {other: pending[other].blocks for other in others}
        dot = sum(blocks[other] * products[at][other] for other in others)
        square = sum(
            blocks[first] * blocks[second] * products[first][second]
            for first in others
            for second in others
        )
        length = norm * math.sqrt(max(0.0, square))
        return DeltaSeen(
            island=one.island,
            norm=norm,
            steps=one.steps,
            cosine=dot / length if others and length > 0 else None,
        )
