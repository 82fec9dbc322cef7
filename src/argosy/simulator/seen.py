"""What came and what was answered in a simulation, by steps of time, as live it is counted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from argosy.policies.autoscaling import Demand

RECENT_STEP_S = 10.0
RECENT_STEPS = 30
HISTORY_STEP_S = 60.0


class Seen:
    """What came and what was answered, by steps of `RECENT_STEP_S`: [model, what, step]."""

    WHAT = tuple(field for field in Demand.__struct_fields__ if field not in ("step_s", "until_s"))

    def __init__(self, models: int) -> None:
        self._counts = np.zeros((models, len(self.WHAT), 4096), np.int64)
        self._minutes: list[list[tuple[int, ...]]] = [[()] * len(self.WHAT) for _ in range(models)]
        self._until = [0] * models

    def add(
        self, model: NDArray[np.int64], what: NDArray[np.int64] | int, at_s: NDArray[np.float64],
        counts: NDArray[np.int64] | int,
    ) -> None:  # fmt: skip
        """So many at these times."""
        if not at_s.size:
            return
        step = (at_s / RECENT_STEP_S).astype(np.int64)
        while int(step.max()) >= self._counts.shape[2]:
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)], axis=2)
        flat = np.ravel_multi_index(
            (model, np.broadcast_to(what, step.shape), step), self._counts.shape
        )
        np.add.at(self._counts.reshape(-1), flat, counts)

    def recent(self, model: int, now_s: float) -> Demand:
        """The last whole steps of seconds."""
        until = int(now_s / RECENT_STEP_S)
        return self._demand(
            RECENT_STEP_S,
            until,
            [
                tuple(row)
                for row in self._counts[model, :, max(0, until - RECENT_STEPS) : until].tolist()
            ],
        )

    def history(self, model: int, now_s: float) -> Demand:
        """All whole minutes."""
        until, each = int(now_s / HISTORY_STEP_S), round(HISTORY_STEP_S / RECENT_STEP_S)
        done = self._until[model]
        if until > done:
            new = self._counts[model, :, done * each : until * each]
            sums = new.reshape(len(self.WHAT), until - done, each).sum(axis=2).tolist()
            kept = self._minutes[model]
            self._minutes[model] = [(*old, *more) for old, more in zip(kept, sums, strict=True)]
            self._until[model] = until
        return self._demand(HISTORY_STEP_S, until, self._minutes[model])

    def _demand(self, step_s: float, until: int, rows: Sequence[tuple[int, ...]]) -> Demand:
        return Demand(
            step_s=step_s, until_s=until * step_s, **dict(zip(self.WHAT, rows, strict=True))
        )
