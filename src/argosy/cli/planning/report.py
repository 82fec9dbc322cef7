"""What `argosy plan` answers, as one Struct: the JSON, and what tables and page are made of.

Owns the published schema (docs/PLAN.md describes it) and the sums that a reader wants of a plan.
A field is added without a new number of the schema; one that is renamed or removed gets one.
"""

from typing import Literal

import msgspec

SCHEMA = "argosy.plan/1"

CommitmentKind = Literal["own", "reserved", "committed_spend"]


class PeriodRow(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the horizon over which demand and contracts stay as they are."""

    name: str
    begin: str  # date, YYYY-MM-DD
    until: str  # the day after its last
    days: float
    requests_per_s_mean: float
    requests_per_s_peak: float
    chips_mean: float  # running
    chips_peak: float


class SlotRow(msgspec.Struct, frozen=True, kw_only=True):
    """One hour of the typical day of a period. Lists "by slot" follow the order of `slots`."""

    period: str
    hour: int  # of the UTC day
    hours: float  # of the horizon, that it stands for


class Commitment(msgspec.Struct, frozen=True, kw_only=True):
    """What is held or owed whether it is used or not."""

    contract: str  # as the fleet file names it; of nodes without one, the supply's name
    kind: CommitmentKind
    pools: tuple[str, ...]
    chips_of: tuple[str, ...]  # kinds of chip
    is_signed: bool  # it binds already: the plan only says how to use it
    begin: str
    until: str  # within the horizon
    ends: str | None = None  # the contract's own last day, where that is later
    nodes: int | None = None  # own, reserved
    chips: int | None = None
    usd_per_chip_hour: float | None = None
    units: int | None = None  # committed_spend
    usd: float  # over the horizon
    used_usd: float  # of it, for chips that run
    used_usd_by_period: tuple[float, ...]
    used_share: float


class SupplyRow(msgspec.Struct, frozen=True, kw_only=True):
    """Chips in use at one price term."""

    supply: str
    kind: str
    contract: str | None
    pool: str
    region: str
    cloud: str
    maker: str
    chip: str
    usd_per_chip_hour: float
    usd: float  # over the horizon; of nodes that are held, used or not
    chips_mean: float
    chips_peak: float
    chips: tuple[float, ...]  # by slot


class Spell(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas in one period: at the hour of the model's least demand, on average, at its most."""

    night: int
    mean: float
    peak: int


class ReplicaRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model on one pool in one layout."""

    model: str
    pool: str
    region: str
    chip: str
    engine: str
    layout: str  # "tp4 fp8"
    prefill_tokens_max: int | None = None  # of a step of its engine: set, or chosen by the planner
    chips: int  # of a replica
    by_period: tuple[Spell, ...]
    replicas: tuple[int, ...]  # by slot
    load: tuple[float, ...]  # by slot: of the replicas, how many the routed requests take
    requests_per_s: tuple[float, ...]  # of one replica, by length class: believed
    requests_per_s_low: tuple[float, ...]  # the 80 % interval
    requests_per_s_high: tuple[float, ...]
    is_uncalibrated: bool


class RouteRow(msgspec.Struct, frozen=True, kw_only=True):
    """Where one kind of demand is served."""

    need: str
    model: str
    tier: str
    origin: str
    length_class: int
    pool: str
    region: str
    layout: str
    share: float  # of that demand's requests over the horizon
    requests_per_s: tuple[float, ...]  # by slot


class TrainingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A training run on one pool."""

    run: str
    pool: str
    tokens: float  # of the run, on this pool
    chips_mean: float  # over the horizon
    chips_peak: float
    chips: tuple[float, ...]  # by slot


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes; its cost is its share of the chip-hours of each pool."""

    model: str
    requests_per_s_mean: float
    requests_per_s_peak: float
    tokens_in_per_day: float
    tokens_out_per_day: float
    chip_hours_per_day: float
    usd: float
    usd_per_mtok_out: float | None


class BindingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint without slack."""

    constraint: str
    unit: str
    usd_per_unit_hour: float  # one unit more would save so much, on average over the horizon
    hours: tuple[str, ...]  # "2027 14:00"; empty: all


class BaselineRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a naive way would cost, or why it cannot serve."""

    kind: str
    name: str
    usd: float | None  # None: there is no such plan, and `conflict` says why
    usd_per_hour: float | None
    times: float | None  # of the plan's cost
    usd_by_kind: dict[str, float] = {}
    gives_up: tuple[str, ...] = ()  # what the plan keeps and this does not
    conflict: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class ReplayRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the simulator measured of one model and tier."""

    model: str
    tier: str
    requests: int  # simulated and counted
    slo_met_share: float  # of all that is asked for: refused and unserved ones missed it
    slo_met_share_low: float | None  # with every step at the slow end of its 80 % interval
    slo_met_share_high: float | None
    is_promised: bool = True  # in a loss: that it is to be survived


class ReplayedLoss(msgspec.Struct, frozen=True, kw_only=True):
    """A domain that is gone, in its worst hour."""

    what: str  # "cloud azure lost"
    hour: str  # "2027 14:00"
    slo_met_share: float | None
    rows: tuple[ReplayRow, ...]


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The plan, simulated; not the planner's own belief."""

    is_kept: bool  # every promise, in every hour that was replayed and in every loss
    hours: tuple[str, ...]  # that were replayed: "2027 14:00"
    requests: int
    slo_met_share: float | None
    rows: tuple[ReplayRow, ...]
    losses: tuple[ReplayedLoss, ...]
    plans: int  # that were made until this one: each round cuts rates and solves again
    cuts: tuple[str, ...]  # in words: what was violated, and which rate was cut for it
    hopeless: tuple[str, ...]  # promises that no lower rate would keep


class PlanReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. USD are over the horizon unless the name says otherwise."""

    schema: str = SCHEMA
    fleet: str
    currency: str = "USD"
    demand: str  # in words: whose, and how it grows
    begin: str
    until: str
    hours: float
    periods: tuple[PeriodRow, ...]
    slots: tuple[SlotRow, ...]

    cost_usd: float
    cost_usd_by_kind: dict[str, float]
    usd_per_hour: float
    bound_usd: float  # no plan costs less
    gap: float  # proven: the best plan costs at least (1 - gap) of this one
    usd_per_mtok_out: float | None
    requests_per_s_mean: float
    requests_per_s_peak: float
    tokens_in_per_day: float
    tokens_out_per_day: float
    headroom: float
    headroom_lost: float
    energy_kwh_per_day: float | None
    carbon_kg_per_day: float | None

    commitments: tuple[Commitment, ...]
    supplies: tuple[SupplyRow, ...]
    replicas: tuple[ReplicaRow, ...]
    routes: tuple[RouteRow, ...]
    models: tuple[ModelRow, ...]
    training: tuple[TrainingRow, ...]
    binding: tuple[BindingRow, ...]
    baselines: tuple[BaselineRow, ...]
    replay: Replay | None
    survives: tuple[str, ...]  # in words
    losses_checked: int
    losses_added: int

    uncalibrated: tuple[str, ...]  # options in use whose chip nobody measured
    power_unknown: tuple[str, ...]  # in no sum of energy
    carbon_unknown: tuple[str, ...]
    assumed: tuple[str, ...]
    refused: tuple[str, ...]  # what could not be considered, and why


class ConflictReport(msgspec.Struct, frozen=True, kw_only=True):
    """There is no plan."""

    schema: str = SCHEMA
    fleet: str
    conflict: tuple[str, ...]  # cannot hold together; any one less would do
    reliefs: tuple[str, ...]  # what would work, the cheapest first
