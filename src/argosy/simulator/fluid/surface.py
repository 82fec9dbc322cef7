"""What a cell answers at rising rates: points that the exact simulator measured, and between them.

The points of all surfaces stand at the same multiples of their cell's capacity (`LOADS`), so that
a point of one can be blended with the same point of another. A place on a surface is a number of
points: 3.25 is a quarter of the way from point 3 to point 4; 0 is where nobody asks.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from argosy.simulator.engine import Account

Floats = NDArray[np.float64]

# Of what the cell finishes when it is given too much. Dense where waits grow.
LOADS = (
    0.03, 0.08, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.74, 0.82, 0.88, 0.92, 0.96, 1.0, 1.04, 1.1,
    1.2, 1.4, 1.8, 2.5, 4.0, 8.0, *(2.0**power for power in range(4, 21)),
)  # fmt: skip
ACCOUNT_FIELDS: tuple[str, ...] = Account.__struct_fields__
RUNNING, WAITING, BLOCKS = 0, 1, 2  # columns of `Point.standing`


class Point(NamedTuple):
    """A cell at one rate, settled. Shares and means are of all requests of a tier that came."""

    requests_per_s: float
    in_system: float  # at the gateway and in the engines
    queued: float  # of them, at the gateway
    outcomes: Floats  # [tier, outcome], shares
    met: Floats  # [tier], share that met the SLO
    in_time: Floats  # [tier], share whose first token came in time
    tokens_in: Floats  # [tier], means
    tokens_out: Floats  # [tier]
    waited_s: Floats  # [tier]
    ttft: Floats  # [tier, bin], shares
    tpot: Floats  # [tier, bin]
    accounts: Floats  # [group, field of Account], per second
    standing: Floats  # [group, 3]: requests running and waiting, KV blocks
    itl: Floats  # [group, bin], gaps per second
    accepted_share: float  # of all requests, that end done


class Surface(NamedTuple):
    """Points by rising rate, the first where nobody asks."""

    points: tuple[Point, ...]
    requests_per_s: Floats  # [point]
    in_system: Floats  # [point], strictly rising
    accepted_share: Floats  # [point], of requests

    @property
    def served_per_s(self) -> Floats:
        """What leaves where as much comes in."""
        return self.requests_per_s * self.accepted_share


def surface_of(points: list[Point]) -> Surface:
    """Of measured points, by rising rate."""
    first = points[0]
    idle = first._replace(
        requests_per_s=0.0,
        in_system=0.0,
        queued=0.0,
        accounts=np.zeros_like(first.accounts),
        standing=np.zeros_like(first.standing),
        itl=np.zeros_like(first.itl),
    )
    all_ = (idle, *points)
    rates = np.array([point.requests_per_s for point in all_])
    in_system = np.maximum.accumulate(np.array([point.in_system for point in all_]))
    return Surface(
        points=all_,
        requests_per_s=rates,
        # Chance may measure less at more; a little slope keeps the inverse unique.
        in_system=in_system + 1e-9 * np.arange(len(all_)) * max(1.0, float(in_system[-1])),
        accepted_share=np.array([point.accepted_share for point in all_]),
    )



class Blend(NamedTuple):
    """Two surfaces of the same groups, for a mix of kinds between theirs; in the fleet's units."""

    one: Surface
    other: Surface
    share: float  # of the other
    times: float  # so many cells

    def _mixed(self, one: Floats, other: Floats) -> Floats:
        points = min(one.size, other.size)
        if not self.share:
            return one[:points]
        return one[:points] * (1 - self.share) + other[:points] * self.share

    @property
    def requests_per_s(self) -> Floats:
        return self._mixed(self.one.requests_per_s, self.other.requests_per_s) * self.times

    @property
    def in_system(self) -> Floats:
        return self._mixed(self.one.in_system, self.other.in_system) * self.times

    @property
    def accepted_share(self) -> Floats:
        return self._mixed(self.one.accepted_share, self.other.accepted_share)
