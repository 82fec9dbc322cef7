"""What is to be decided, in numbers: where each hour's requests go, on chips of which contract.

The planner's own words, free of fleet files and catalogues: `framing` makes a `Problem` of a
fleet, `solving` a `plan.Plan` of a `Problem`. Places are indices into its tuples. Money is USD,
rates are requests per second, power is watts at the chip (a pool's `pue` makes it the site's).
"""

from typing import Literal

import msgspec

from argosy.fleet.fields import Tier
from argosy.fleet.layout import Layout

DomainKind = Literal["cloud", "maker", "region", "pool"]
SupplyKind = Literal["own", "on_demand", "spot", "reserved", "committed_spend"]


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One hour of the typical day of one period; it stands for `hours` hours of the horizon."""

    period: int  # place in `Problem.periods`
    hour: int  # of the UTC day
    hours: float


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the horizon over which demand and contracts stay as they are."""

    name: str  # "2027", "2027 Q1"
    begin: str  # date, YYYY-MM-DD
    days: float


class SupplyPool(msgspec.Struct, frozen=True, kw_only=True):
    """Identical nodes in one region, whatever contracts pay for them."""

    name: str
    region: str
    cloud: str
    maker: str
    chip: str
    chips_per_node: int
    nodes_max: int  # stock, quota, or what the site holds
    pue: float
    carbon_g_per_kwh: float | None  # None: not known, and in no sum

    def domain(self, kind: DomainKind) -> str:
        """Its name as a failure domain of that kind."""
        return self.name if kind == "pool" else str(getattr(self, kind))


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of one pool at one price term.

    `own` and `reserved` nodes are paid for in every slot of `periods`, used or not; how many is
    decided once, a whole number in [nodes_min, nodes_max]. `on_demand` and `spot` are paid while
    used. `committed_spend` is paid while used too, out of the credit of its contract.
    """

    name: str
    pool: int
    kind: SupplyKind
    price_usd_per_chip_hour: float
    nodes_min: int = 0
    nodes_max: int
    periods: tuple[int, ...]  # in which it can be had
    contract: str | None = None  # as the fleet file names it
    is_signed: bool = False  # it is paid for already: what is decided is not whether
    availability: float = 1.0  # of spot: the share of time in which it is there
    survives: bool = True  # counts when a failure domain is lost; spot does not


class Credit(msgspec.Struct, frozen=True, kw_only=True):
    """A committed spend: paid whole whatever is used (take-or-pay); beyond it the list price holds.

    The credit is bought in units, a whole number in [units_min, units_max].
    """

    contract: str
    supplies: tuple[int, ...]  # what draws on it
    usd_per_unit: float  # over all of `periods` together
    units_min: int
    units_max: int
    periods: tuple[int, ...]
    is_signed: bool = False


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A model on one pool, in one layout: what a replica of it takes and gives."""

    model: str
    pool: int
    engine: str
    layout: Layout
    prefill_tokens_max: int | None = None  # of a step of its engine; None: as the fleet has it
    chips: int  # of a replica
    # By length class of the model: requests that a replica serves within the SLO when it serves no
    # other class; 0: the SLO cannot be met. A mix fills it in proportion.
    requests_per_s: tuple[float, ...]
    requests_per_s_low: tuple[float, ...]  # of the 80 % interval
    requests_per_s_high: tuple[float, ...]
    power_w: float | None  # of a replica at that rate; None: the chip's is not known
    power_w_idle: float | None
    uncalibrated: bool = False  # no measurement of this chip was ever seen

    def text(self, pools: tuple[SupplyPool, ...]) -> str:
        """large@azure-h100 tp4 fp8."""
        return f"{self.model}@{pools[self.pool].name} {layout_text(self.layout)}"


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Demand of one kind: a model, a tier, an origin, a length class."""

    name: str
    model: str
    tier: Tier
    origin: str
    length_class: int  # of its model
    tokens_in: float  # of a request, on average
    tokens_out: float
    requests_per_s: tuple[float, ...]  # by slot
    regions: tuple[str, ...]  # where it may be served: by residency and by the way there
    may_wait: bool = False  # batch: its day's sum counts, not its hours


class Survival(msgspec.Struct, frozen=True, kw_only=True):
    """Any one domain of that kind may be lost: the model's requests of these tiers are served."""

    model: str
    kind: DomainKind
    tiers: tuple[Tier, ...] = ("enterprise", "consumer")


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """At most `share_max` of a model's requests in any one domain of that kind, in every slot."""

    model: str
    kind: DomainKind
    share_max: float


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A training run that competes for the same chips."""

    name: str
    tokens: float
    tokens_per_chip_s: dict[int, float]  # by pool, of those it may use
    periods: tuple[int, ...]  # before its deadline


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan may not exceed; None: no cap."""

    power_w_of_region: dict[str, float] = {}  # of the site, PUE included, in every slot
    energy_kwh_per_day: float | None = None  # on average over the horizon
    carbon_kg_per_day: float | None = None
    usd_per_hour: float | None = None  # on average over the horizon


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    periods: tuple[Period, ...]
    slots: tuple[Slot, ...]
    pools: tuple[SupplyPool, ...]
    supplies: tuple[Supply, ...]
    credits: tuple[Credit, ...] = ()
    options: tuple[Option, ...]
    needs: tuple[Need, ...]
    survivals: tuple[Survival, ...] = ()
    spreads: tuple[Spread, ...] = ()
    trainings: tuple[Training, ...] = ()
    caps: Caps = Caps()
    headroom: float = 0.5  # replicas have room for so much more than is expected
    headroom_lost: float = 0.0  # while a domain is lost

    @property
    def hours(self) -> float:
        """Of the horizon."""
        return sum(slot.hours for slot in self.slots)


def layout_text(layout: Layout) -> str:
    """tp4 fp8; degrees of one are left out."""
    degrees = [f"{name}{getattr(layout, name)}" for name in ("tp", "pp", "dp", "ep")]
    shown = [text for text in degrees if not text.endswith("p1")]
    return " ".join([*(shown or ["tp1"]), layout.dtype])
