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

# Of about the rate from which on requests wait at the gateway. Dense where waits grow.
LOADS = (
    0.003, 0.012, 0.035, 0.08, 0.16, 0.26, 0.36, 0.46, 0.56, 0.64, 0.72, 0.78, 0.82, 0.86, 0.9,
    0.94, 0.98, 1.03, 1.1, 1.2, 1.4, 1.8, 2.5, 3.2, 4.0, 5.0, 6.5, 8.0, 11.0, 15.0, 20.0, 35.0,
    *(60.0 * 3.0**power for power in range(11)),
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
        """What leaves, finished, once the cell has settled."""
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
    in_system: Floats = np.maximum.accumulate(np.array([point.in_system for point in all_]))
    return Surface(
        points=all_,
        requests_per_s=rates,
        # Chance may measure less at more; a little slope keeps the inverse unique.
        in_system=in_system + 1e-9 * np.arange(len(all_)) * max(1.0, float(in_system[-1])),
        accepted_share=np.array([point.accepted_share for point in all_]),
    )


def enlarged(point: Point, times: float, group_times: Floats) -> Point:
    """As a cell that is so many times as large would have it; by group, so many times each."""
    by_group = group_times[:, None]
    return point._replace(
        requests_per_s=point.requests_per_s * times,
        in_system=point.in_system * times,
        queued=point.queued * times,
        accounts=point.accounts * by_group,
        standing=point.standing * by_group,
        itl=point.itl * by_group,
    )


class Blend(NamedTuple):
    """Two surfaces of the same groups, for a mix of kinds between theirs; in the fleet's units."""

    one: Surface
    other: Surface
    share: float  # of the other
    times: float  # so many cells
    requests_per_s: Floats  # [point]
    served_per_s: Floats  # [point]
    in_system: Floats  # [point]
    full: int  # the last point at which nobody waits at the gateway

    def accepted_at(self, place: float) -> float:
        """Of what comes, where the cells stand there."""
        rate = between(self.requests_per_s, place)
        return between(self.served_per_s, place) / rate if rate > 0.0 else 1.0

    def corners(self, place: float, *, is_by_request: bool) -> list[tuple[Surface, int, float]]:
        """Points around a place and their weights: by requests that come, or by time.

        Between two points rates are straight lines; so of the requests more are the higher one's.
        """
        low = min(int(place), self.requests_per_s.size - 2)
        high_share = place - low
        if is_by_request:
            low_rate, high_rate = self.requests_per_s[low], self.requests_per_s[low + 1]
            rate = (1.0 - high_share) * low_rate + high_share * high_rate
            high_share = high_share * high_rate / rate if rate > 0.0 else 1.0
        found = [
            (surface, point, part * share)
            for surface, part in ((self.one, 1.0 - self.share), (self.other, self.share))
            for point, share in ((low, 1.0 - high_share), (low + 1, high_share))
        ]
        return [corner for corner in found if corner[2] > 0.0]


def blended(one: Surface, other: Surface, share: float, times: float) -> Blend:
    """`share` of the way from one to the other, up to the loads that both were measured at."""
    points = min(len(one.points), len(other.points))

    def mixed(low: Floats, high: Floats) -> Floats:
        return (low[:points] * (1.0 - share) + high[:points] * share) * times

    return Blend(
        one,
        other,
        share,
        times,
        mixed(one.requests_per_s, other.requests_per_s),
        mixed(one.served_per_s, other.served_per_s),
        mixed(one.in_system, other.in_system),
        max(
            place
            for place in range(points)
            if one.points[place].queued < 1.0 or other.points[place].queued < 1.0
        ),
    )


def between(values: Floats, place: float) -> float:
    """On straight lines between points."""
    low = min(int(place), values.size - 2)
    return float(values[low] + (values[low + 1] - values[low]) * (place - low))


def place_of(values: Floats, value: float) -> float:
    """Where `values`, which rise, reach it; the last place where they never do."""
    high = int(np.searchsorted(values, value))
    if high >= values.size:
        return float(values.size - 1)
    if high == 0:
        return 0.0
    low = values[high - 1]
    return high - 1 + (value - float(low)) / float(values[high] - low)
