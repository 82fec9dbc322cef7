"""What was decided: what to hold, where each hour's requests go, what it costs, what binds."""

import msgspec

from argosy.planner.problem import Problem


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of one supply that are held over its periods."""

    supply: int
    nodes: int


class Bought(msgspec.Struct, frozen=True, kw_only=True):
    """Credit of one committed spend."""

    credit: int
    units: int
    usd: float
    used_usd: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas of one option, by slot."""

    option: int
    replicas: tuple[int, ...]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Requests per second of one need on one option, by slot."""

    need: int
    option: int
    requests_per_s: tuple[float, ...]


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """Chips in use of one supply, by slot."""

    supply: int
    chips: tuple[float, ...]


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """Chips of one pool on one training run, by slot."""

    training: int
    pool: int
    chips: tuple[float, ...]


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint without slack, and what one unit more of it would save."""

    constraint: str  # in words: "azure-h100: all 24 nodes are in use at 14:00"
    unit: str  # "node", "USD", "kW"
    usd_per_unit_hour: float  # saved, on average over the horizon
    slots: tuple[int, ...] = ()


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """USD over the horizon, by what it is paid for."""

    own: float = 0.0
    on_demand: float = 0.0
    spot: float = 0.0
    reserved: float = 0.0
    committed_spend: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.own + self.on_demand + self.spot + self.reserved + self.committed_spend


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan of a problem: whole replicas and nodes, and how far from the best it can be."""

    problem: Problem
    money: Money
    bound_usd: float  # no plan costs less
    held: tuple[Held, ...]
    bought: tuple[Bought, ...]
    runs: tuple[Run, ...]
    routes: tuple[Route, ...]
    drawn: tuple[Drawn, ...]
    trained: tuple[Trained, ...] = ()
    binding: tuple[Binding, ...] = ()  # the dearest first
    energy_kwh_per_day: float | None = None  # of the site, where power is known
    carbon_kg_per_day: float | None = None
    losses_checked: int = 0  # pairs of a lost domain and a slot
    losses_added: int = 0  # of them, those that had to become constraints
    seconds: float = 0.0  # that it took

    @property
    def usd_per_hour(self) -> float:
        """On average over the horizon."""
        return self.money.total / self.problem.hours

    @property
    def gap(self) -> float:
        """Proven: the best plan costs at least (1 - gap) of this one."""
        total = self.money.total
        return 0.0 if total <= 0 else max(0.0, 1.0 - self.bound_usd / total)


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """There is no plan: these constraints cannot hold together, and any one less would do."""

    constraints: tuple[str, ...]  # in words
    reliefs: tuple[str, ...]  # what would work, the cheapest first
