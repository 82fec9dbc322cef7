"""A tick as places and numbers, ready to be searched."""

from collections.abc import Iterable
from typing import NamedTuple

from argosy.fleet.layout import Layout
from argosy.policies.placement.market import Counts, Market, Model, Row
from argosy.policies.placement.rows import LAST, Grouped, caps_of, rows_of
from argosy.policies.placement.views import NeedView, OptionView, ShareView, Tick, Tuning, UpView

Key = tuple[str, str, str, Layout]  # model, pool, engine, layout
_Rank = tuple[int, int, int, int, str, str]


class Held(NamedTuple):
    """Replicas that are up and left alone: nothing is known to decide about them by."""

    view: UpView
    reason: str


class Frame(NamedTuple):
    """A tick, ready to be searched."""

    market: Market
    models: list[Model]  # by name
    needs: dict[str, Grouped]  # less those that no pool is near
    asked: dict[str, list[Row]]  # rows as they were, within reach or not
    held: list[Held]
    barred: list[UpView]  # to be stopped: no need of the model may be served there
    unable: list[UpView]  # to be stopped: the SLO cannot be met there
    base_usd: float = 0.0  # an hour, of what is kept in any case


def frame_of(tick: Tick, tuning: Tuning) -> Frame:
    """Places and numbers of a tick."""
    market = Market(tick.pools, tuning)
    needs = _grouped(tick.needs, market)
    models = {
        name: Model(
            name,
            rows_of(
                own,
                [one for one in tick.survive if one.model == name],
                [one for one in tick.spread if one.model == name],
            ),
        )
        for name, own in sorted(needs.items())
    }
    frame = Frame(market, list(models.values()), needs, {}, [], [], [])
    _add_options(tick, frame, tuning)
    _sort_out(tick, frame)
    frame = frame._replace(base_usd=_set_base(frame))
    _add_known(tick, frame)
    for model in frame.models:
        frame.asked[model.name] = model.rows.copy()
        _bring_within_reach(model, market)
    return frame


def key_of(view: OptionView | UpView | ShareView) -> Key:
    """What tells options apart."""
    return view.model, view.pool, view.engine, view.layout


def _grouped(needs: Iterable[NeedView], market: Market) -> dict[str, Grouped]:
    """By model."""
    grouped: dict[str, Grouped] = {}
    for need in needs:
        mask = 0
        for region in need.regions:
            mask |= market.region_bits.get(region, 0)
        own = grouped.setdefault(need.model, [])
        if mask:
            own.append((mask, need))
    return grouped


def allowed(needs: Grouped) -> int:
    """All regions in which some need may be served, as bits."""
    joined = 0
    for mask, _ in needs:
        joined |= mask
    return joined


def _add_options(tick: Tick, frame: Frame, tuning: Tuning) -> None:
    """Options in an order that depends on what they are, not on how they were listed."""
    market, models = frame.market, {model.name: model for model in frame.models}
    near = {name: allowed(needs) for name, needs in frame.needs.items()}
    ranks: dict[Layout, _Rank] = {}
    found: dict[str, list[tuple[float, int, int, str, _Rank, OptionView]]] = {}
    places, bits, prices = market.place, market.bits, market.price_min
    for view in tick.options:
        mask, pool = near.get(view.model), places.get(view.pool)
        if mask is None or pool is None or view.sustains <= 0 or not bits[pool] & mask:
            continue
        layout = view.layout
        rank = ranks.get(layout)
        if rank is None:
            rank = ranks[layout] = _rank_of(layout)
        usd = view.chips * (prices[pool] + tuning.chip_usd_per_hour) / view.sustains
        found.setdefault(view.model, []).append((usd, pool, view.chips, view.engine, rank, view))
    stay_h = tuning.stay_s / 3600
    starts = [
        (tuning.move_usd_per_chip + price * view.start_s / 3600) / stay_h
        for price, view in zip(prices, market.views, strict=True)
    ]
    for name, views in sorted(found.items()):
        views.sort()
        for usd, pool, chips, _, _, view in views:
            models[name].add(view, pool, usd * view.sustains, chips * starts[pool])


def _set_base(frame: Frame) -> float:
    """What is kept in any case, as far as there are chips; what that costs an hour."""
    market, usd = frame.market, 0.0
    for model in frame.models:
        for option, view in enumerate(model.views):
            if view.least > 0:
                pool = model.pools[option]
                count = min(view.least, market.chips[pool] // view.chips)
                usd += market.set_aside(pool, count * view.chips)
                model.base[option] = count
    return usd


def _add_known(tick: Tick, frame: Frame) -> None:
    """What is up of the options, and what the plan has on them."""
    up = {key_of(view): view.replicas for view in tick.up if view.replicas > 0}
    shares = {key_of(view): view.share for view in tick.plan}
    where = {key[:2] for key in (*up, *shares)}
    for model in frame.models:
        counts: Counts = {}
        for option, view in enumerate(model.views if where else ()):
            if (view.model, view.pool) in where:
                key = key_of(view)
                model.planned[option] = shares.get(key, 0.0)
                if key in up:
                    model.was[option] = up[key]
                    beyond = min(up[key] - model.base.get(option, 0), model.most[option])
                    if beyond > 0:
                        counts[option] = int(beyond)
        model.set_up(counts, frame.market)


def _rank_of(layout: Layout) -> _Rank:
    return layout.tp, layout.pp, layout.dp, layout.ep, layout.dtype, layout.kv_dtype


def _sort_out(tick: Tick, frame: Frame) -> None:
    """What is up and is no option: held, with its chips, or to be stopped."""
    if not tick.up:
        return
    market = frame.market
    where = {(view.model, view.pool) for view in tick.up}
    options = (view for view in tick.options if (view.model, view.pool) in where)
    sustains = {key_of(view): view.sustains for view in options}
    for view in sorted(tick.up, key=lambda view: (view.model, view.pool, view.engine)):
        pool, able = market.place.get(view.pool), sustains.get(key_of(view))
        if view.model not in frame.needs:
            reason = "no need of the model is known"
        elif pool is None:
            reason = "nothing is known of its pool"
        elif not market.bits[pool] & allowed(frame.needs[view.model]):
            frame.barred.append(view)
            continue
        elif able is None:
            reason = "what it sustains is not known"
        else:
            if able <= 0:
                frame.unable.append(view)
            continue
        frame.held.append(Held(view, reason))
        if pool is not None:
            market.chips[pool] = max(0, market.chips[pool] - view.chips * view.replicas)


def _bring_within_reach(model: Model, market: Market) -> None:
    """Cut the rows to what all chips together could cover.

    What is out of reach must not keep the rest of the needs from being met.
    """
    sizes: dict[int, list[tuple[int, float]]] = {}
    first: dict[int, int] = {}
    caps: dict[int, float] = {}
    for option, pool in enumerate(model.pools):
        caps[pool] = caps.get(pool, 0.0) + model.most[option] * model.rates[option]
        sizes.setdefault(pool, []).append((model.chips[option], model.rates[option]))
        first.setdefault(pool, option)
    best = [
        (min(_most(market.chips[pool], own), caps[pool]), first[pool])
        for pool, own in sizes.items()
    ]
    for place, row in enumerate(model.rows):
        reach = _reach(place, row, model, market, best)
        needs = tuple(min(need, reach) for need in row.needs)
        model.rows[place] = row._replace(needs=needs, domains=market.domains_of(row))


def _most(chips: int, sizes: list[tuple[int, float]]) -> float:
    """Capacity of so many chips at most: a size as often as it fits, smaller ones in the rest."""
    return max(
        (
            chips // size * rate
            + (
                _most(chips % size, [one for one in sizes if one[0] < size])
                if chips % size
                else 0.0
            )
            for size, rate in sizes
            if size <= chips
        ),
        default=0.0,
    )


def _reach(
    place: int, row: Row, model: Model, market: Market, best: list[tuple[float, int]]
) -> float:
    need, limit = row.needs[LAST], row.limits[LAST]
    own = {domain: min(kept, limit) for domain, kept in caps_of(model, {}, market)[place].items()}
    total, largest = sum(own.values()), max(own.values(), default=0.0)
    if total - (largest if row.is_lost else 0.0) >= need:
        return need
    for most, option in best:
        for other, domain in model.links(option, market):
            if other != place:
                continue
            before = own.get(domain, 0.0)
            own[domain] = now = min(before + most, limit)
            total += now - before
            largest = max(largest, now)
        if total - (largest if row.is_lost else 0.0) >= need:
            return need
    return total - (largest if row.is_lost else 0.0)
