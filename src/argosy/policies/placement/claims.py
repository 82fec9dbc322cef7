"""Who gets the cheap chips when many models want them: whose others would be dearest.

A pool's committed chips cost nothing more, so every model on its own would take them, and the
first in line would, whatever they are worth to the next. Here all models draw at once. What a
replica covers is worth what the model would pay for it if all chips were at their pool's last
price; the replica goes first that saves most by each of its chips.
"""

from heapq import heapify, heappop, heappush

from argosy.policies.placement.cover import Aims, usd_of_next
from argosy.policies.placement.market import Counts, Market, Model

WIDTH = 3
# What is covered is worth so many times what it would cost in fractions of replicas: whole ones
# cover more than is asked for. 1.5 to 2.5 make no difference, 1 leaves cheap chips unclaimed.
_WHOLE = 2.0


def claims(market: Market, models: list[Model], level: int) -> list[Counts]:
    """Replicas of every model for a start; their chips are counted as used."""
    aims: list[Aims] = []
    counts: list[Counts] = [{} for _ in models]
    heap: list[tuple[float, int, int]] = []
    worths: list[float] = []
    for place, model in enumerate(models):
        aims.append(Aims(model, {}, market, level))
        aims[-1].set(WIDTH)
        worths.append(_WHOLE * _usd_alone(aims[-1]))
        heap += [
            (-saved, place, option)
            for option in range(len(model.views))
            if (saved := _saved(aims[-1], option, counts[place], worths[-1])) > 0
        ]
    heapify(heap)
    while heap:
        _, place, option = heappop(heap)
        saved = _saved(aims[place], option, counts[place], worths[place])
        if saved <= 0:
            continue
        if not heap or (-saved, place, option) <= heap[0]:
            aims[place].put(option, counts[place])
        heappush(heap, (-saved, place, option))
    return counts


def _saved(aims: Aims, option: int, counts: Counts, worth: float) -> float:
    """An hour, by each chip of one replica more; 0: none, or it does not fit."""
    model, market = aims.model, aims.market
    pool, chips = model.pools[option], model.chips[option]
    if not aims.left or market.chips[pool] - market.used[pool] < chips:
        return 0.0
    if counts.get(option, 0) >= model.most[option]:
        return 0.0
    market.work += 1
    gain, _ = aims.gain(option)
    if gain <= 0.0:
        return 0.0
    usd, _ = usd_of_next(model, market, option, counts.get(option, 0))
    return (gain * worth - usd) / chips


def _usd_alone(aims: Aims) -> float:
    """Of a unit of what is missing, if the model were alone and all chips at their last price."""
    model, market = aims.model, aims.market
    units: list[tuple[float, float]] = []
    for option, pool in enumerate(model.pools):
        rows = len(model.links(option, market))
        if rows and (steps := market.steps[pool]):
            usd = model.chips[option] * (steps[-1][0] + market.worth_usd)
            count = min(market.chips[pool] // model.chips[option], model.most[option])
            most = count * model.rates[option] * rows
            units.append(((usd + model.starts_usd[option]) / (model.rates[option] * rows), most))
    units.sort()
    need = left = sum(aims.short)
    total = 0.0
    for usd, most in units:
        total += usd * min(left, most)
        left -= most
        if left <= 0:
            break
    return total / need if need else 0.0
