"""Where a model's requests may be served: by where its data may be, and by how far the way is.

Residency names regions, clouds, areas (`fleet/areas.py`) or `on-premises`. The way to a region and
back may take a share of the TTFT that is promised; replicas are then sized for the rest of it.
"""

from collections.abc import Sequence

import msgspec

from argosy.fleet.areas import may_stay
from argosy.fleet.config import Fleet, Model, Pool
from argosy.simulator.scenario import ROUND_TRIP_S_ASSUMED, ROUND_TRIP_S_INSIDE


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Regions in which requests of one origin may be served, and why in no other."""

    regions: tuple[str, ...]
    not_there: tuple[str, ...]  # by residency
    too_far: tuple[str, ...]  # by the way, with its seconds
    assumed: tuple[str, ...] = ()  # whose round trip the fleet file does not give


def reach_of(fleet: Fleet, model: Model, origin: str, pools: Sequence[Pool]) -> Reach:
    """Of a model's requests that come from near `origin`, among the regions of these pools."""
    regions: list[str] = []
    not_there: list[str] = []
    too_far: list[str] = []
    assumed: list[str] = []
    share = fleet.plan.network_share_max
    most_s = None if model.slo.ttft_s_p95 is None else share * model.slo.ttft_s_p95
    for region, pool in sorted({str(pool.region): pool for pool in pools}.items()):
        trip_s, is_known = round_trip_s(fleet, origin, region)
        if not may_stay(model.residency, str(pool.region), pool.country):
            not_there.append(region)
        elif most_s is not None and trip_s > most_s:
            too_far.append(f"{region}, {trip_s:g} s away")
        else:
            regions.append(region)
            if not is_known:
                assumed.append(region)
    return Reach(
        regions=tuple(regions),
        not_there=tuple(not_there),
        too_far=tuple(too_far),
        assumed=tuple(assumed),
    )


def round_trip_s(fleet: Fleet, origin: str, region: str) -> tuple[float, bool]:
    """Seconds there and back, and whether the fleet file says so; else as the simulator assumes."""
    if origin == region:
        return ROUND_TRIP_S_INSIDE, True
    for link in fleet.links:
        if {origin, region} == set(link.between):
            return link.round_trip_s, True
    return ROUND_TRIP_S_ASSUMED, False
