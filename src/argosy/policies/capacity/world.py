"""What a fleet file says of its pools, as the placement of its deployments needs it.

Prices are each deployment's (`DeploymentView.price_usd_per_hour`); here is what of them need not be
paid: nodes that are kept anyway (`nodes.min`) or reserved, and the discount of committed spend.
Spot nodes are the planner's alone: a replica does not know on which kind of node it starts.
"""

from collections.abc import Iterator
from datetime import date

from argosy.fleet.areas import may_stay
from argosy.fleet.config import Fleet, Pool
from argosy.fleet.contracts import CommittedSpend, Reserved
from argosy.policies.capacity.views import Limit, Sited, Stock, World
from argosy.policies.placement import DomainKind

_KINDS: tuple[DomainKind, ...] = ("cloud", "maker", "region", "pool")


def world_of(fleet: Fleet, *, on: date | None = None) -> World:
    """Of a checked fleet; signed contracts count that hold on that day, all where it is None."""
    return World(
        stocks=tuple(_stock(fleet, pool, on) for pool in fleet.pools),
        sites=tuple(_sites(fleet)),
        limits=tuple(
            Limit(model=model.name, kind=kind, share_max=share)
            for model in fleet.models
            for kind in _KINDS
            if (share := getattr(model.spread, kind)) is not None
        ),
        residency={
            model.name: " or ".join(model.residency) for model in fleet.models if model.residency
        },
    )


def _stock(fleet: Fleet, pool: Pool, on: date | None) -> Stock:
    nodes, cloud = pool.nodes, (pool.region or "").split("/")[0]
    paid, share = nodes.min, 1.0
    for one in fleet.contracts:
        match one:
            case Reserved() if pool.name in one.pools and _holds(one, on):
                paid = max(paid, one.nodes.min)
            case CommittedSpend() if one.cloud == cloud and _holds(one, on):
                share = min(share, 1.0 - one.discount)
            case _:
                pass
    if pool.chip is None:
        return Stock(pool=pool.name, chips=None, price_share=share)
    return Stock(
        pool=pool.name,
        chips=nodes.max * nodes.chips_per_node,
        chips_paid=paid * nodes.chips_per_node,
        price_share=share,
    )


def _holds(one: Reserved | CommittedSpend, on: date | None) -> bool:
    return one.is_signed and (on is None or one.begin <= on < one.until)


def _sites(fleet: Fleet) -> Iterator[Sited]:
    for one in fleet.deployments:
        pool, residency = fleet.pool(one.pool), fleet.model(one.model).residency
        stays = not residency or (
            pool.region is not None and may_stay(residency, pool.region, pool.country)
        )
        yield Sited(
            deployment=one.name, pool=one.pool, chips=max(1, one.layout.chips), may_serve=stays
        )
