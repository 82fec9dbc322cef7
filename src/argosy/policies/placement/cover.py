"""One model's rows covered for little: greedily, then less what is not needed after all.

A row of a loss (what is left without the largest domain must suffice) is flat where greed looks
first: beside one full domain, nothing but another helps, and the cheapest answer is often many
domains evenly. So greed is given the row of spread that implies it: for a width w,

    M = need / w:    sum over domains of min(capacity, M) >= need + M

and several widths are tried. All rows are then concave with gains that only fall, so an option
that once looked worse than the next need not be looked at again before it comes up (lazy greed,
Minoux 1978): of 400 options some dozens are weighed.
"""

from heapq import heappop, heappush
from typing import NamedTuple

from argosy.policies.placement.market import Counts, Market, Model, Row
from argosy.policies.placement.rows import add, caps_of, covered, missing

WORK_OF_COVER = 25  # what one takes beside the options that it weighs, in such
_EPS = 1e-7
WORTH_SHARE = 0.003  # of a cost: what a change must save at least, so that few are made
_NEVER = float("inf")


class Aims:
    """What is still missing of each row, by place, and the limit of its domains."""

    def __init__(self, model: Model, counts: Counts, market: Market, level: int) -> None:
        self.model, self.market, self.level = model, market, level
        self.caps = caps_of(model, counts, market)
        self.limits = [row.limits[level] for row in model.rows]
        self.short = [0.0] * len(model.rows)
        self.left = 0  # rows that miss something

    def set(self, width: float) -> None:
        """Aim, for losses, at that width."""
        self.left = 0
        for place, row in enumerate(self.model.rows):
            own, need = self.caps[place], row.needs[self.level]
            missing = need - covered(row, own, self.level)
            if missing <= _EPS * need:
                self.short[place] = 0.0
                continue
            if row.is_lost:
                limit = need / max(1.0, min(width, row.domains - 1))
                self.limits[place] = limit
                missing = need + limit - sum(min(value, limit) for value in own.values())
            self.short[place] = missing if missing > _EPS * need else 0.0
            self.left += self.short[place] > 0

    def bound(self, place: int) -> float:
        """No option from that place of the keys on covers capacity for less."""
        if not self.left or place >= len(self.model.keys):
            return _NEVER
        of_unit, of_replica = self.model.floors[place]
        return max(
            self.model.keys[place][0], of_unit / self.left, of_replica / max(_EPS, sum(self.short))
        )

    def gain(self, option: int) -> tuple[float, int]:
        """What one replica covers, and how many in a row would cover as much each."""
        rate, total, times = self.model.rates[option], 0.0, 1_000_000
        short, limits, caps = self.short, self.limits, self.caps
        for row, domain in self.model.links(option, self.market):
            room = short[row]
            if room <= 0.0:
                continue
            limit = limits[row] - caps[row].get(domain, 0.0)
            room = min(room, limit)
            if room >= rate:
                total += rate
                times = min(times, int(room / rate))
            elif room > 0.0:
                total += room
                times = 1
        return total, times

    def score(self, option: int, counts: Counts) -> float:
        """An hour's cost of covering a unit of capacity with one replica more; or never."""
        model, market = self.model, self.market
        pool = model.pools[option]
        if market.chips[pool] - market.used[pool] < model.chips[option]:
            return _NEVER
        if counts.get(option, 0) >= model.most[option]:
            return _NEVER
        market.work += 1
        gain, _ = self.gain(option)
        if gain <= 0.0:
            return _NEVER
        return usd_of_next(model, market, option, counts.get(option, 0))[0] / gain

    def put(self, option: int, counts: Counts) -> None:
        """One replica more, or as many as cost and cover alike."""
        model, market = self.model, self.market
        pool, chips, count = model.pools[option], model.chips[option], counts.get(option, 0)
        alike = self.gain(option)[1], usd_of_next(model, market, option, count)[1]
        times = min(*alike, (market.chips[pool] - market.used[pool]) // chips)
        times = int(min(times, model.most[option] - count))
        counts[option] = count + times
        market.used[pool] += times * chips
        capacity = model.rates[option] * times
        links = model.links(option, market)
        for row, domain in links:
            if self.short[row] > 0.0:
                room = max(0.0, self.limits[row] - self.caps[row].get(domain, 0.0))
                self.short[row] -= min(room, capacity)
                if self.short[row] <= _EPS * model.rows[row].needs[self.level]:
                    self.short[row] = 0.0
                    self.left -= 1
        add(self.caps, links, capacity)


def fill(
    model: Model, counts: Counts, market: Market, level: int, width: float, banned: int = -1
) -> None:
    """Add to `counts`, and to what is used, until the rows are covered or nothing more can."""
    aims = Aims(model, counts, market, level)
    while True:
        aims.set(width)
        if not aims.left:
            return
        _greed(aims, counts, banned)
        if width <= 1:
            return
        width = max(1.0, width * 0.7)  # fewer, fuller domains: some could not hold their part


def _greed(aims: Aims, counts: Counts, banned: int) -> None:
    """Put the option that costs least for what it covers, again and again."""
    keys = aims.model.keys
    looked: list[tuple[float, int]] = []  # a heap: what each cost per capacity when last looked at
    fresh = 0  # the place of the first not looked at yet
    best, bound = (_NEVER, -1), aims.bound(fresh)
    while aims.left:
        if looked and looked[0][0] <= bound:
            option = heappop(looked)[1]
        elif fresh < len(keys):
            option = keys[fresh][1]
            fresh += 1
            bound = aims.bound(fresh)
        else:
            return
        found = aims.score(option, counts) if option != banned else _NEVER
        if found < _NEVER:
            heappush(looked, (found, option))
            best = min(best, (found, option))
        if best[0] == _NEVER:
            continue
        if best[0] > bound or best != looked[0]:
            continue
        aims.put(best[1], counts)
        best, bound = (_NEVER, -1), aims.bound(fresh)


def usd_of_next(model: Model, market: Market, option: int, count: int) -> tuple[float, int]:
    """An hour of one replica more, and how many there are at that price (one at least)."""
    pool, chips = model.pools[option], model.chips[option]
    price, at_price = market.step_of(pool)
    usd = chips * (market.worth_usd + market.toll_usd[pool])
    if at_price >= chips:
        usd, times = usd + chips * price, at_price // chips
    else:
        used = market.used[pool]
        usd += market.cost_usd(pool, used + chips) - market.cost_usd(pool, used)
        times = 1
    up = model.up[option]
    if count >= up:
        return usd + model.starts_usd[option], times
    return usd, min(times, up - count)


def trim(
    model: Model, counts: Counts, market: Market, level: int, keep: Counts | None = None
) -> None:
    """Take away what no row needs, the dearest first; but keep so many of each option."""
    caps = caps_of(model, counts, market)
    targets = [
        min(row.needs[level], covered(row, own, level))
        for row, own in zip(model.rows, caps, strict=True)
    ]

    def dearest(option: int) -> tuple[float, int]:
        starts = counts[option] > model.up[option]
        usd, _ = usd_of_next(model, market, option, counts[option] - 1 if starts else 0)
        return -usd, -option

    for option in sorted(counts, key=dearest):
        rate, links = model.rates[option], model.links(option, market)
        spare = float("inf")
        for place, domain in links:
            row = model.rows[place]
            if (need := row.needs[level]) <= 0:
                continue
            own = caps[place]
            spare = min(spare, _spare(row, own, domain, level, targets[place]) + _EPS * need)
            if spare < rate:
                break
        times = counts[option] - (keep.get(option, 0) if keep else 0)
        times = times if spare == float("inf") else min(times, int(spare / rate))
        if times <= 0:
            continue
        add(caps, links, -rate * times)
        counts[option] -= times
        market.used[model.pools[option]] -= times * model.chips[option]
        if not counts[option]:
            del counts[option]
            for place, domain in links:
                caps[place].pop(domain, None) if caps[place][domain] < _EPS else None


def _spare(row: Row, own: dict[int, float], domain: int, level: int, target: float) -> float:
    """How much capacity of that domain may go while the row stays covered up to `target`."""
    if row.kind is None:
        return own[0] - target
    mine = own[domain]
    if row.is_lost:
        others = [value for other, value in own.items() if other != domain]
        return sum(others) + mine - max(others, default=0.0) - target if others else mine - target
    limit = row.limits[level]
    rest = sum(min(value, limit) for other, value in own.items() if other != domain)
    return mine - max(0.0, target - rest)


class Cover(NamedTuple):
    """Replicas of one model: what they leave uncovered, and what they add to an hour's cost."""

    missing: float
    usd: float
    counts: Counts

    def is_better(self, other: "Cover") -> bool:
        """Covers more, or the same for less; by more than rounding."""
        if abs(self.missing - other.missing) > _EPS:
            return self.missing < other.missing
        return self.usd < other.usd - max(_EPS, WORTH_SHARE * abs(other.usd))


def weighed(model: Model, counts: Counts, market: Market, level: int) -> Cover:
    """As it is; `market` does not count the model's own chips."""
    lacking = missing(model, counts, market, level)
    return Cover(lacking, market.added_usd(model, counts), counts)


def cover(model: Model, base: Counts, market: Market, level: int, banned: int = -1) -> Cover:
    """The best of all widths that keeps no more of `base` than it needs.

    `market` does not count the model's own chips, before and after.
    """
    widest = max((row.domains for row in model.rows if row.is_lost), default=2) - 1
    best, was_short = _at_width(model, base, market, level, (min(2, widest), banned))
    if not was_short or widest <= 1:
        return best  # there was nothing to add, or there is no other way
    wider, _ = _at_width(model, base, market, level, (3, banned)) if widest >= 3 else (best, False)
    if wider.is_better(best):
        best = wider
        other = 5
    else:
        other = 1
    if other <= widest:
        found, _ = _at_width(model, base, market, level, (other, banned))
        best = found if found.is_better(best) else best
    return best


def _at_width(
    model: Model, base: Counts, market: Market, level: int, how: tuple[float, int]
) -> tuple[Cover, bool]:
    """The cover at that width without the banned option; and whether there was any to add."""
    counts = base.copy()
    market.take(model, counts)
    market.work += WORK_OF_COVER
    before = market.work
    fill(model, counts, market, level, *how)
    is_filled = market.work == before
    trim(model, counts, market, level)
    market.take(model, counts, -1)
    return weighed(model, counts, market, level), not is_filled
