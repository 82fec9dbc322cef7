"""All models together: built one after the other, then exchanged for better until nothing is."""

from collections.abc import Iterable, Iterator

from argosy.policies.placement.cover import Cover, cover, fill, weighed
from argosy.policies.placement.market import Counts, Market, Model
from argosy.policies.placement.rows import LAST, missing

All = list[Counts]  # by model
NEAR = 10  # options, the cheapest, that are tried in place of others


class Search:
    """The state of one: replicas of every model, whose chips the market counts as used."""

    def __init__(self, market: Market, models: list[Model], *, level: int, effort: int) -> None:
        self.market, self.models, self.level = market, models, level
        self.work_max = market.work + effort
        self.counts: All = [{} for _ in models]

    def start(self, counts: All) -> None:
        """From there; beyond what pools have, replicas are taken away."""
        for model, old, new in zip(self.models, self.counts, counts, strict=True):
            self.market.take(model, old, -1)
            self.market.take(model, new)
        self.counts = [one.copy() for one in counts]

    @property
    def effort_left(self) -> int:
        """Options that may yet be weighed."""
        return self.work_max - self.market.work

    @property
    def is_over(self) -> bool:
        """No more effort is to be made."""
        return self.effort_left <= 0

    def total(self) -> tuple[float, float]:
        """What is missing, and an hour's cost with the moves."""
        lacking = sum(
            missing(model, counts, self.market, self.level)
            for model, counts in zip(self.models, self.counts, strict=True)
        )
        moves = sum(
            model.moves_usd(counts) for model, counts in zip(self.models, self.counts, strict=True)
        )
        return lacking, self.market.total_usd() + moves

    def lacking(self) -> tuple[float, ...]:
        """What is missing, by level."""
        return tuple(
            sum(
                missing(model, counts, self.market, level)
                for model, counts in zip(self.models, self.counts, strict=True)
            )
            for level in range(LAST + 1)
        )

    def evict(self) -> None:
        """Where a pool no longer has the chips: take away what is missed least."""
        market = self.market
        for pool in range(len(market.used)):
            while market.used[pool] > market.chips[pool]:
                place, option = self._least_missed(pool)
                self.counts[place] = _plus(self.counts[place], {option: -1})
                market.used[pool] -= self.models[place].chips[option]

    def _least_missed(self, pool: int) -> tuple[int, int]:
        best: tuple[tuple[float, ...], int, int] | None = None
        for place, (model, counts) in enumerate(zip(self.models, self.counts, strict=True)):
            for option in counts:
                if model.pools[option] == pool:
                    less = _plus(counts, {option: -1})
                    lacking = tuple(
                        round(missing(model, less, self.market, level), 6)
                        - round(missing(model, counts, self.market, level), 6)
                        for level in range(LAST + 1)
                    )
                    found = (*lacking, -float(model.chips[option])), place, option
                    best = found if best is None else min(best, found)
        assert best is not None
        return best[1], best[2]

    def build(self, order: Iterable[int]) -> None:
        """Cover what is not covered, model by model."""
        for place in order:
            self.put(place, self._cover(place, self.counts[place]).counts)

    def add(self, order: Iterable[int]) -> None:
        """Cover what can be without taking anything away."""
        for place in order:
            fill(self.models[place], self.counts[place], self.market, self.level, 2)

    def improve(self) -> None:
        """Exchange until nothing is better, or the effort is spent."""
        better = True
        while better and not self.is_over:
            better = False
            for place in range(len(self.models)):
                left = len(self.models) - place
                better |= self.polish(place, self.market.work + self.effort_left // left)
            better = better or self.trade()

    def polish(self, place: int, work_max: int) -> bool:
        """One model: without some of its replicas, or with others, it may do better."""
        model, changed = self.models[place], False
        self.market.take(model, self.counts[place], -1)
        best = weighed(model, self.counts[place], self.market, self.level)
        is_better = True
        while is_better:
            is_better = False
            for base, banned in _ruins(model, best.counts):
                if self.market.work >= work_max:
                    break
                if not self.market.fits(model, base):
                    continue
                found = cover(model, base, self.market, self.level, banned)
                if found.is_better(best):
                    best, is_better, changed = found, True, True
                    break
        self.market.take(model, best.counts)
        self.counts[place] = best.counts
        return changed

    def trade(self) -> bool:
        """Chips of a full pool, from a model that has some to one that may want them more."""
        changed = False
        for pool, used in enumerate(self.market.used):
            if used and used + 8 > self.market.chips[pool]:
                for giver, taker, option in self._pairs(pool):
                    if self.is_over:
                        return changed
                    changed |= self._gives(giver, taker, option)
        return changed

    def _pairs(self, pool: int) -> list[tuple[int, int, int]]:
        """Givers, takers, and the taker's option of that pool."""
        models = self.models
        givers = [
            place
            for place, counts in enumerate(self.counts)
            if any(models[place].pools[option] == pool for option in counts)
        ]
        takers = [
            (place, option)
            for place, model in enumerate(models)
            for option, other in enumerate(model.pools)
            if other == pool
        ]
        return [
            (giver, taker, option) for giver in givers for taker, option in takers if giver != taker
        ]

    def _gives(self, giver: int, taker: int, option: int) -> bool:
        models, market = self.models, self.market
        model, other = models[giver], models[taker]
        pool, chips = other.pools[option], other.chips[option]
        before = [self.counts[giver], self.counts[taker]]
        lacking, usd = self._pair(giver, taker)
        market.take(model, before[0], -1)
        market.used[pool] += chips
        base = _out_of(model, before[0], pool, market.used[pool] - market.chips[pool])
        if market.fits(model, base):
            base = cover(model, base, market, self.level).counts
        self.counts[giver] = base
        market.used[pool] -= chips
        market.take(model, self.counts[giver])
        market.take(other, before[1], -1)
        more = {**before[1], option: before[1].get(option, 0) + 1}
        found = weighed(other, before[1], market, self.level)
        for base in (more, {option: 1}):
            if market.fits(other, base):
                tried = cover(other, base, market, self.level)
                found = tried if tried.is_better(found) else found
        self.counts[taker] = found.counts
        market.take(other, found.counts)
        now = self._pair(giver, taker)
        if (round(now[0] - lacking, 6), now[1]) < (0.0, usd - 1e-6 * max(1.0, usd)):
            return True
        for place, counts in zip((giver, taker), before, strict=True):
            market.take(models[place], self.counts[place], -1)
            self.counts[place] = counts
            market.take(models[place], counts)
        return False

    def _pair(self, first: int, second: int) -> tuple[float, float]:
        lacking, usd = 0.0, self.market.total_usd()
        for place in (first, second):
            lacking += missing(self.models[place], self.counts[place], self.market, self.level)
            usd += self.models[place].moves_usd(self.counts[place])
        return lacking, usd

    def _cover(self, place: int, base: Counts) -> Cover:
        model = self.models[place]
        self.market.take(model, self.counts[place], -1)
        found = cover(model, base, self.market, self.level)
        self.market.take(model, self.counts[place])
        return found

    def put(self, place: int, counts: Counts) -> None:
        """These replicas of a model instead of those it has."""
        model = self.models[place]
        self.market.take(model, self.counts[place], -1)
        self.market.take(model, counts)
        self.counts[place] = counts


def _ruins(model: Model, counts: Counts) -> Iterator[tuple[Counts, int]]:
    """Replicas to begin again from, and an option that may not come back."""
    yield {}, -1
    options = sorted(counts)
    for option in options:
        yield {}, option
    near = [option for _, option in model.keys[:NEAR]]
    for option in options:
        for left in sorted({0, counts[option] - 1, counts[option] // 2}):
            yield _plus(counts, {option: left - counts[option]}), option
    for option in near:
        yield {option: 1}, -1
        yield _plus(counts, {option: 1}), -1
    for one in options:
        for other in near:
            if other != one:
                yield _plus(counts, {one: -1, other: 1}), one
    for place, one in enumerate(options):
        for other in options[:place]:
            less = _plus(counts, {one: -1, other: -1})
            yield less, -1


def _plus(counts: Counts, change: Counts) -> Counts:
    both = {
        option: counts.get(option, 0) + change.get(option, 0) for option in {**counts, **change}
    }
    return {option: count for option, count in sorted(both.items()) if count > 0}


def _out_of(model: Model, counts: Counts, pool: int, chips: int) -> Counts:
    """Less so many replicas on the pool that their chips are free, the smallest first."""
    left = counts.copy()
    mine = sorted((model.chips[option], option) for option in counts if model.pools[option] == pool)
    over = chips + sum(model.chips[option] * counts[option] for _, option in mine)
    for size, option in mine:
        gone = min(counts[option], -(-over // size)) if over > 0 else 0
        left[option] -= gone
        over -= gone * size
    return {option: count for option, count in left.items() if count}
