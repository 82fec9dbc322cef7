"""What the placement policy is told at one tick and what it answers. Pure data.

Capacity is in the model's own unit, the same in its needs and its options: requests/s, tokens/s,
or replicas (then every option sustains 1). Chips are whole. Money is USD per hour.
"""

from typing import Literal

import msgspec

from argosy.fleet.fields import Tier
from argosy.fleet.layout import Layout

DomainKind = Literal["cloud", "maker", "region", "pool"]
DOMAIN_KINDS: tuple[DomainKind, ...] = ("cloud", "maker", "region", "pool")
DEFAULT_TIERS: tuple[Tier, ...] = ("enterprise", "consumer")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Chips of a pool at one price."""

    chips: int
    usd_per_chip_hour: float = 0.0  # what one more costs: 0 where a contract pays for it anyway


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as it is now. A pool's spot chips are a view of their own."""

    name: str
    region: str
    cloud: str
    maker: str
    steps: tuple[Step, ...]  # all chips that may be used, those of replicas that are up included
    is_spot: bool = False  # it does not count when a domain is lost
    start_s: float = 300.0  # until a replica started here is ready

    @property
    def chips(self) -> int:
        """All of them."""
        return sum(step.chips for step in self.steps)

    def domain(self, kind: DomainKind) -> str:
        """Its name as a failure domain of that kind."""
        return self.name if kind == "pool" else str(getattr(self, kind))


class OptionView(msgspec.Struct, frozen=True, kw_only=True):
    """A model on one pool, in one layout: what a replica takes and gives.

    `chips` is what its nodes set aside for it: where layouts do not divide a node, the caller
    rounds up. Sizes that divide each other (1, 2, 4, 8, 16) always pack.
    """

    model: str
    pool: str
    engine: str
    layout: Layout
    chips: int
    sustains: float  # capacity of one replica within the SLO; 0: it cannot meet it
    least: int = 0  # replicas that are kept whatever is needed, where the pool has the chips
    most: int | None = None  # replicas; None: as many as the pool has chips for


class NeedView(msgspec.Struct, frozen=True, kw_only=True):
    """Capacity that one model is to have for one tier, and where."""

    model: str
    tier: Tier
    capacity: float  # headroom included
    regions: tuple[str, ...]  # where it may be served: by residency and by the way there
    capacity_lost: float | None = None  # of it, while a domain is lost; None: all


class SurviveView(msgspec.Struct, frozen=True, kw_only=True):
    """Any one domain of that kind may be lost: the model's needs of these tiers still fit."""

    model: str
    kind: DomainKind
    tiers: tuple[Tier, ...] = DEFAULT_TIERS


class SpreadView(msgspec.Struct, frozen=True, kw_only=True):
    """At most `share_max` of a model's needs in any one domain of that kind."""

    model: str
    kind: DomainKind
    share_max: float


class UpView(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas that are up or starting; those that drain are no longer `up`."""

    model: str
    pool: str
    engine: str
    layout: Layout
    chips: int  # of one replica
    replicas: int


class ShareView(msgspec.Struct, frozen=True, kw_only=True):
    """The share of a model's capacity that the plan has on one option, at this hour."""

    model: str
    pool: str
    engine: str
    layout: Layout
    share: float


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known at one tick. Names are unique; order changes nothing."""

    pools: tuple[PoolView, ...]
    options: tuple[OptionView, ...]
    needs: tuple[NeedView, ...]
    survive: tuple[SurviveView, ...] = ()
    spread: tuple[SpreadView, ...] = ()
    up: tuple[UpView, ...] = ()
    plan: tuple[ShareView, ...] = ()


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set.

    A start costs `move_usd_per_chip` and what the chips cost while they start, spread over
    `stay_s`. A change is made when it saves more than that.
    """

    stay_s: float = 3600.0  # for how long a placement is expected to stand
    move_usd_per_chip: float = 0.1
    chip_usd_per_hour: float = 0.01  # what a chip left free is worth beyond its price
    stops_share_max: float = 0.25  # of the replicas up; at least one; forced ones do not count
    effort: int = 18_000  # options weighed in search of something better: bounds the time


DEFAULT_TUNING = Tuning()


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas that are wanted of one option."""

    model: str
    pool: str
    engine: str
    layout: Layout
    replicas: int


ChangeCode = Literal[
    "demand",  # what is up does not suffice
    "least",  # so many are kept in any case
    "survive",  # it suffices, but not when a domain is lost
    "spread",  # too much of it would be in one domain
    "saves",  # the same for less
    "room",  # it goes where it leaves the chips to another model
    "surplus",  # more is up than is needed
    "chips",  # the pool no longer has the chips
    "residency",  # no need of the model may be served there
    "unable",  # it cannot meet the SLO there
]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One option's replicas, before and after, and why."""

    model: str
    pool: str
    engine: str
    layout: Layout
    before: int
    after: int
    code: ChangeCode
    reason: str


ShortCode = Literal[
    "nowhere",  # no pool in its regions can serve the model
    "chips",  # all chips that could serve it would not suffice
    "domains",  # too much of what could serve it is in one domain
    "contended",  # needs that go first have the chips
    "stops",  # the chips come free at a later tick: so many stops were allowed
]


class Short(msgspec.Struct, frozen=True, kw_only=True):
    """Capacity that is missing."""

    model: str
    tier: Tier  # the highest that misses some
    when: Literal["now", "lost", "spread"]  # lost: while the worst domain of `kind` is lost
    kind: DomainKind | None  # None: now
    capacity: float  # missing, of all tiers
    of: float  # needed
    code: ShortCode
    reason: str


DearCode = Literal[
    "stops",  # only so many stops were allowed at this tick
    "effort",  # the search ended before it had tried all it knows
    "contended",  # models share pools that are full: the bound gives each all of them
    "moves",  # what is up would cost more to replace than it saves
    "whole_replicas",  # of few replicas: fractions would do
]


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What should run, and what that costs.

    `bound_usd_per_hour`: no placement that serves as much costs less; it knows neither moves nor
    that models share pools. `dear`: why the placement may cost over 5 % more than the bound, if so.
    """

    replicas: tuple[Placed, ...]
    changes: tuple[Change, ...]
    short: tuple[Short, ...]
    usd_per_hour: float  # of the chips at their prices
    bound_usd_per_hour: float
    dear: DearCode | None
