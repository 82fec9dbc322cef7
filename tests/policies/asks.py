"""Asks and worlds for tests of `policies/capacity`: a model's need and its deployments, by hand."""

import math

from argosy.policies.autoscaling import Ask, Need, Part
from argosy.policies.capacity import Closed, Sited, Stock, World

FAR_MORE = 10**6


def part(
    name: str, region: str, *, usd: float = 1.0, maker: str = "nvidia", **changes: object
) -> Part:
    """`model@pool`, in the region `cloud/region`."""
    known = {
        "replicas": 0, "min": 0, "max": 8, "capacity": 1.0, "price_usd_per_hour": usd,
        "start_s": 60.0, "shrink_max": FAR_MORE,
        "domains": (("cloud", region.split("/")[0]), ("maker", maker), ("region", region),
                    ("pool", name.partition("@")[2])),
    }  # fmt: skip
    known |= changes
    known.setdefault("ready", known["replicas"])
    return Part(name=name, **known)  # type: ignore[arg-type]


def ask(*parts: Part, whole: float, lost: float | None = None, **changes: object) -> Ask:
    need = Need(now=0.0, likely=0.0, quantile=0.0, headroom=0.0, total=whole, whole=whole,
                lost=0.0, batch=0.0, words="so much")  # fmt: skip
    known = {
        "model": parts[0].name.partition("@")[0], "now_s": 0.0, "survive": (), "total": whole,
        "whole": whole, "lost": whole if lost is None else lost, "batch": 0.0, "need": need,
        "horizon_s": 60.0, "is_panic": False,
    }  # fmt: skip
    return Ask(parts=parts, **(known | changes))  # type: ignore[arg-type]


def world(*asks: Ask, chips: dict[str, int] | None = None, **changes: object) -> World:
    """A chip a replica; pools without `chips` have no limit."""
    names = sorted({one.name for asked in asks for one in asked.parts})
    pools = sorted({name.partition("@")[2] for name in names})
    known = {
        "stocks": tuple(Stock(pool=pool, chips=(chips or {}).get(pool)) for pool in pools),
        "sites": tuple(
            Sited(deployment=name, pool=name.partition("@")[2], chips=1) for name in names
        ),
    }
    return World(**(known | changes))  # type: ignore[arg-type]


def full(pool: str) -> Closed:
    return Closed(pool=pool, why="has no room")


def capacity(asked: Ask, counts: list[int]) -> float:
    return math.fsum(one.capacity * count for one, count in zip(asked.parts, counts, strict=True))
