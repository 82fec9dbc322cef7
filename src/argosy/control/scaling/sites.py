"""What the fleet file says of a deployment, as the autoscaling policy reads it.

As the simulator reads it too: by name within a model (the first is the unit in which load is
counted), at the contract's price or the cheapest list price, in the same failure domains.
"""

from collections.abc import Sequence

import msgspec

from argosy.fleet.catalogue import NotInCatalogue, chip, offers
from argosy.fleet.config import BatchingEngine, Deployment, EndpointEngine, Fleet, Pool
from argosy.fleet.launchers import EndpointLauncher, LocalLauncher, PlannedLauncher
from argosy.policies.autoscaling import DomainKind

START_S_ASSUMED = 300.0  # where the pool does not say
START_S_LOCAL = 60.0  # of a process of this machine: weights are read from its disk
DOMAINS: tuple[DomainKind, ...] = ("cloud", "maker", "region", "pool")
_HERE = "local/this-machine"  # the region of a pool that names none


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment."""

    name: str
    replicas: int  # where scaling begins
    min: int
    max: int
    is_scaled: bool
    start_s: float  # a cold start, before any was measured
    slots: int | None
    price_usd_per_hour: float | None  # of one replica
    domains: tuple[tuple[DomainKind, str], ...]
    chips: int = 1  # of one replica
    is_only: bool = True  # its model has no other

    @property
    def pool(self) -> str:
        """Where it is."""
        return dict(self.domains)["pool"]


def sites_of(fleet: Fleet) -> dict[str, tuple[Site, ...]]:
    """By model, those of its deployments that are not merely planned."""
    found: dict[str, tuple[Site, ...]] = {}
    for model in fleet.models:
        own = [one for one in fleet.deployments if one.model == model.name]
        real = [one for one in own if not _is_planned(fleet.pool(one.pool))]
        found[model.name] = tuple(
            _site(one, fleet.pool(one.pool), is_only=len(real) == 1)
            for one in sorted(real, key=lambda one: one.name)
        )
    return found


def survived(fleet: Fleet, model: str) -> tuple[DomainKind, ...]:
    """The kinds of domain of which the loss of any one is to be survived."""
    wanted: Sequence[str] = fleet.model(model).survive
    return tuple(kind for kind in DOMAINS if f"any_one_{kind}" in wanted)


def _is_planned(pool: Pool) -> bool:
    return isinstance(pool.launcher, PlannedLauncher)


def _site(deployment: Deployment, pool: Pool, *, is_only: bool) -> Site:
    bounds, fixed = deployment.autoscale, deployment.replicas
    is_scaled = bounds.max is not None and not isinstance(pool.launcher, EndpointLauncher)
    return Site(
        name=deployment.name,
        replicas=fixed,
        min=bounds.min if is_scaled else fixed,
        max=bounds.max if bounds.max is not None and is_scaled else fixed,
        is_scaled=is_scaled,
        start_s=_start_s(pool),
        slots=slots_of(deployment),
        price_usd_per_hour=_price_usd_per_hour(pool, deployment.layout.chips),
        domains=_domains(pool),
        chips=max(1, deployment.layout.chips),
        is_only=is_only,
    )


def slots_of(deployment: Deployment) -> int | None:
    """Requests that one replica decodes together; None of an endpoint that does not say."""
    engine = deployment.engine
    return engine.requests_max if isinstance(engine, BatchingEngine) else engine.slots


def is_ours(deployment: Deployment) -> bool:
    """Not an endpoint, where every request costs money."""
    return not isinstance(deployment.engine, EndpointEngine)


def _start_s(pool: Pool) -> float:
    if pool.start_s is not None:
        return pool.start_s
    return START_S_LOCAL if isinstance(pool.launcher, LocalLauncher) else START_S_ASSUMED


def _price_usd_per_hour(pool: Pool, chips: int) -> float | None:
    if pool.price_usd_per_chip_hour is not None:
        return pool.price_usd_per_chip_hour * chips
    if pool.chip is None or pool.region is None:
        return None
    try:
        found = offers(pool.chip, pool.region)
    except NotInCatalogue:  # a region of one's own
        return None
    prices = [one.price_usd_per_chip_hour for one in found if one.term == "on_demand"]
    return min(prices) * chips if prices else None


def _domains(pool: Pool) -> tuple[tuple[DomainKind, str], ...]:
    region = pool.region or _HERE
    names: dict[DomainKind, str] = {
        "cloud": region.split("/")[0],
        "maker": "generic" if pool.chip is None else chip(pool.chip).maker,
        "region": region,
        "pool": pool.name,
    }
    return tuple((kind, names[kind]) for kind in DOMAINS)
