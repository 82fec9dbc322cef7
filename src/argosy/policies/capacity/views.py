"""What is known of pools and deployments beside the demand. Pure data.

Capacity is in replicas of a model's first deployment, as in `policies/autoscaling`.
"""

import msgspec

from argosy.policies.placement import DomainKind, Tuning

# Stops are capped by deployment already: what may go is in each ask. On fleets of some dozen
# deployments a third of the effort finds as much (160 random ones: all within 5 % of the best).
LIVE_TUNING = Tuning(stops_share_max=1.0, effort=6_000)


class Stock(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as the fleet file and its contracts have it."""

    pool: str
    chips: int | None  # None: nothing limits it but the bounds of its deployments
    chips_paid: int = 0  # of these: paid for whether they are used or not
    price_share: float = 1.0  # of its price, that is paid where spend was committed


class Sited(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment: where its replicas are, and what one of them takes."""

    deployment: str
    pool: str
    chips: int
    may_serve: bool = True  # by its model's residency


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """The largest share of a model in any one domain of that kind."""

    model: str
    kind: DomainKind
    share_max: float


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """A pool where nothing may be started now."""

    pool: str
    why: str  # "it is drained"
    is_left: bool = False  # what runs there is to go as well


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """Chips of a pool that models have on which nothing is decided here."""

    pool: str
    chips: int


class World(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known at one tick beside what the models ask for."""

    stocks: tuple[Stock, ...]
    sites: tuple[Sited, ...]
    limits: tuple[Limit, ...] = ()
    residency: dict[str, str] = {}  # by model: the places, in words
    closed: tuple[Closed, ...] = ()
    taken: tuple[Taken, ...] = ()
    planned: dict[str, int] = {}  # by deployment: replicas of a plan at this hour
