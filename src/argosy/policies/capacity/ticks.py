"""What models ask for, as a tick of the placement policy; and its counts back again."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from argosy.fleet.layout import Layout
from argosy.policies.autoscaling import Ask, Part
from argosy.policies.capacity.views import Closed, Sited, Stock, World
from argosy.policies.placement import (
    Change,
    NeedView,
    OptionView,
    PoolView,
    ShareView,
    SpreadView,
    Step,
    SurviveView,
    Tick,
    UpView,
)

_ENGINE = ""  # a deployment is known by its model and pool
_LAYOUT = Layout()
_NOTHING = 1e-6  # of a replica


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment of an ask, with what is known of it and its pool."""

    part: Part
    site: Sited
    stock: Stock
    closed: Closed | None
    low: int  # replicas that it keeps
    high: int  # and that it may have

    @property
    def usd_per_capacity(self) -> float:
        """An hour, of what a replica does, where its chips are not paid for anyway."""
        price = self.part.price_usd_per_hour * self.stock.price_share
        return price / self.part.capacity

    @property
    def up(self) -> int:
        """Of its replicas, those that may stay."""
        return min(self.part.replicas, self.high)

    def domain(self, kind: str) -> str:
        """What it is lost with."""
        return dict(self.part.domains).get(kind, self.site.pool)  # type: ignore[arg-type]


def places_of(ask: Ask, world: World) -> tuple[Place, ...]:
    """Its deployments, in its order."""
    stocks = {one.pool: one for one in world.stocks}
    sites = {one.deployment: one for one in world.sites}
    closed = {one.pool: one for one in world.closed}
    found: list[Place] = []
    for part in ask.parts:
        site = sites[part.name]
        shut = closed.get(site.pool)
        low, high = _bounds(part, site, shut)
        found.append(
            Place(part=part, site=site, stock=stocks[site.pool], closed=shut, low=low, high=high)
        )
    return tuple(found)


def _bounds(part: Part, site: Sited, closed: Closed | None) -> tuple[int, int]:
    if not site.may_serve or (closed is not None and closed.is_left):
        return 0, 0
    high = part.max
    if closed is not None:
        high = min(high, max(part.min, part.replicas))
    there = min(part.replicas, part.max)
    return min(high, max(part.min, there - part.shrink_max)), high


def tick_of(asks: Mapping[str, tuple[Ask, tuple[Place, ...]]], world: World) -> Tick:
    """Of some models; the others' chips are `world.taken`."""
    every = [place for _, places in asks.values() for place in places if place.site.may_serve]
    models = {ask.model for ask, _ in asks.values()}
    return Tick(
        pools=tuple(
            _pool([one for one in every if one.site.pool == pool], taken_of(world, pool))
            for pool in sorted({one.site.pool for one in every})
        ),
        options=tuple(
            OptionView(
                model=ask.model, pool=one.site.pool, engine=_ENGINE, layout=_LAYOUT,
                chips=one.site.chips, sustains=one.part.capacity, least=one.low, most=one.high,
            )
            for ask, places in asks.values()
            for one in places
            if one.site.may_serve
        ),
        needs=tuple(need for ask, places in asks.values() for need in _needs(ask, places)),
        survive=tuple(
            SurviveView(model=ask.model, kind=kind)
            for ask, _ in asks.values()
            for kind in ask.survive
        ),
        spread=tuple(
            SpreadView(model=one.model, kind=one.kind, share_max=one.share_max)
            for one in world.limits
            if one.model in models
        ),
        up=tuple(
            UpView(
                model=ask.model, pool=one.site.pool, engine=_ENGINE, layout=_LAYOUT,
                chips=one.site.chips, replicas=one.up,
            )
            for ask, places in asks.values()
            for one in places
            if one.site.may_serve and one.up > 0
        ),
        plan=tuple(
            share for ask, places in asks.values() for share in _shares(ask, places, world)
        ),
    )  # fmt: skip


def _shares(ask: Ask, places: Sequence[Place], world: World) -> Iterator[ShareView]:
    """Of the model's capacity by the plan."""
    planned = [world.planned.get(one.part.name, 0) * one.part.capacity for one in places]
    for one, capacity in zip(places, planned, strict=True):
        if capacity > 0 and one.site.may_serve:
            yield ShareView(
                model=ask.model, pool=one.site.pool, engine=_ENGINE, layout=_LAYOUT,
                share=capacity / sum(planned),
            )  # fmt: skip


def chips_of(places: Sequence[Place], taken: int) -> int:
    """Of one pool, for these deployments: what is up has them, whatever the file says."""
    stock = places[0].stock
    up = sum(one.up * one.site.chips for one in places)
    if stock.chips is None:
        return sum(one.high * one.site.chips for one in places)
    return max(stock.chips - taken, up)


def taken_of(world: World, pool: str) -> int:
    """By models that are not decided on."""
    return sum(one.chips for one in world.taken if one.pool == pool)


def _pool(places: Sequence[Place], taken: int) -> PoolView:
    first = places[0]
    chips = chips_of(places, taken)
    paid = min(chips, max(0, first.stock.chips_paid - taken))
    price = first.part.price_usd_per_hour / first.site.chips * first.stock.price_share
    return PoolView(
        name=first.site.pool,
        region=first.domain("region"),
        cloud=first.domain("cloud"),
        maker=first.domain("maker"),
        steps=(Step(chips=paid), Step(chips=chips - paid, usd_per_chip_hour=price)),
        start_s=max(one.part.start_s for one in places),
    )


def _needs(ask: Ask, places: Sequence[Place]) -> tuple[NeedView, ...]:
    """What people need goes before what batch work does; both may be served in all its regions."""
    regions = tuple(sorted({one.domain("region") for one in places if one.site.may_serve}))
    people = max(0.0, ask.whole - ask.batch)
    need = NeedView(
        model=ask.model,
        tier="consumer",
        capacity=people,
        regions=regions,
        capacity_lost=min(people, ask.lost),
    )
    if ask.batch <= _NOTHING:
        return (need,)
    batch = NeedView(model=ask.model, tier="batch", capacity=ask.batch, regions=regions)
    return need, batch


def changes_by(changes: Sequence[Change]) -> dict[tuple[str, str], Change]:
    """By model and pool."""
    return {(one.model, one.pool): one for one in changes}
