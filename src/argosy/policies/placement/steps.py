"""The best placement that a bounded search finds: from what is up, from the plan, from nothing."""

from collections.abc import Iterator

from argosy.policies.placement.claims import claims
from argosy.policies.placement.cover import trim
from argosy.policies.placement.frame import Frame
from argosy.policies.placement.market import Counts
from argosy.policies.placement.rows import LAST, LEVELS
from argosy.policies.placement.search import All, Search
from argosy.policies.placement.views import Tuning

SETTLED_SHARE = 0.005  # what stands is kept unless something else is better by this share
ROUNDS_MAX = 6
_BUILD_PER_OPTION = 4  # about how often each option is weighed when all is built anew
_WORK_OF_LEVEL = 2000  # options weighed in exchanges to cover one level
_EPS = 1e-6


class Found:
    """A placement, what it lacks by level, and its cost an hour with the moves."""

    def __init__(self, search: Search) -> None:
        self.counts: All = [counts.copy() for counts in search.counts]
        lacking, self.usd = search.total()
        self.lacking = search.lacking() if lacking > _EPS else ()

    def is_better(self, other: "Found", share: float = 0.0) -> bool:
        """Lacks less at the first level where they differ; or costs less by that share."""
        for mine, its in zip(self.lacking or _NOTHING, other.lacking or _NOTHING, strict=True):
            if abs(mine - its) > _EPS:
                return mine < its
        return self.usd < other.usd - max(share * abs(other.usd), _EPS)


_NOTHING = (0.0,) * (LAST + 1)


def settled(frame: Frame, tuning: Tuning) -> tuple[All, bool]:
    """Search; then as if that were up, search again, until what is found stands.

    So the next tick finds nothing to do. Each round is worth its moves on top of the last one's,
    and moves by way of another place never cost less than straight ones: the end is no worse than
    the first round, seen from what is really up. True: the effort ended before the exchanges did,
    and another tick goes on from here.
    """
    up = [model.counts_up() for model in frame.models]
    counts, is_cut = up, False
    for _ in range(ROUNDS_MAX):
        found, is_cut = _step(frame, tuning)
        if found == counts:
            break
        counts = found
        if is_cut:
            break
        for model, own in zip(frame.models, counts, strict=True):
            model.set_up(own, frame.market)
    market = frame.market
    market.used[:] = [0] * len(market.used)
    for model, own, new in zip(frame.models, up, counts, strict=True):
        if model.counts_up() != own:
            model.set_up(own, market)
        market.take(model, new)
    return counts, is_cut


def _step(frame: Frame, tuning: Tuning) -> tuple[All, bool]:
    """From what is up; then from elsewhere, as long as the effort lasts."""
    market = frame.market
    market.used[:] = [0] * len(market.used)
    search = Search(market, frame.models, level=LAST, effort=tuning.effort)
    orders = list(_orders(search))
    build_work = _BUILD_PER_OPTION * sum(len(model.views) for model in frame.models)
    best: Found | None = None
    is_cut = False
    starts = _starts(search, orders)
    while best is None or search.effort_left >= build_work:
        order = next(starts, None)
        if order is None:
            break
        search.build(order)
        search.improve()
        found = Found(search)
        if best is None:
            best, is_cut = found, search.is_over
        elif found.is_better(best, SETTLED_SHARE):
            best = found
    assert best is not None
    if best.lacking:
        found = _by_level(search, orders, tuning.effort)
        if found.is_better(best, SETTLED_SHARE):
            best = found
    return best.counts, is_cut


def _orders(search: Search) -> Iterator[list[int]]:
    """Those models first that can go to fewest pools; then each one first in turn."""

    def freedom(place: int) -> tuple[int, int]:
        return len({*search.models[place].pools}), place

    order = sorted(range(len(search.models)), key=freedom)
    yield order
    yield order[::-1]
    for place in order[1:]:
        rest = [other for other in order if other != place]
        yield [place, *rest]
        yield [place, *rest[::-1]]


def _starts(search: Search, orders: list[list[int]]) -> Iterator[list[int]]:
    """Put the search somewhere to begin; and in which order models are then built."""
    models = search.models
    nothing: All = [{} for _ in models]
    if any(any(model.up) for model in models):
        search.start([model.counts_up() for model in models])
        search.evict()
        yield orders[0]
    if any(any(model.planned) for model in models):
        search.start(nothing)
        for place in range(len(models)):
            search.put(place, _planned(search, place))
        yield orders[0]
    search.start(nothing)
    search.counts = claims(search.market, models, search.level)
    yield orders[0]
    for order in orders:
        search.start(nothing)
        yield order


def _planned(search: Search, place: int) -> Counts:
    """The plan's shares of what the model needs now, in whole replicas, less what does not fit."""
    model = search.models[place]
    need = max((row.needs[LAST] for row in model.rows if row.kind is None), default=0.0)
    market, taken = search.market, dict[int, int]()
    counts: Counts = {}
    for option, share in enumerate(model.planned):
        if share > 0:
            pool, chips = model.pools[option], model.chips[option]
            free = market.chips[pool] - market.used[pool] - taken.get(pool, 0)
            count = int(share * need / model.rates[option] + 0.5) - model.base.get(option, 0)
            count = int(max(0, min(free // chips, count, model.most[option])))
            taken[pool] = taken.get(pool, 0) + count * chips
            if count:
                counts[option] = count
    return counts


def _by_level(search: Search, orders: list[list[int]], effort: int) -> Found:
    """Where not all can be had: level by level, and none takes from those before it."""
    search.start([{} for _ in search.models])
    search.work_max = search.market.work + effort
    options = sum(len(model.views) for model in search.models)
    is_full = _BUILD_PER_OPTION * options * len(LEVELS) > effort  # too large to search: greed alone
    for level in range(LAST + 1):
        search.level = level
        if not is_full:
            is_full = not _covers_level(search, orders)
        if is_full:
            search.add(orders[0])
    search.level = LAST
    for model, counts in zip(search.models, search.counts, strict=True):
        trim(model, counts, search.market, LAST)
    return Found(search)


def _covers_level(search: Search, orders: list[list[int]]) -> bool:
    """Whether all of the level was covered; where not, nothing was changed."""
    before = [counts.copy() for counts in search.counts]
    work_max = search.work_max
    for tries, order in enumerate(orders):
        if tries:
            if search.is_over:
                break
            search.start([{} for _ in search.models])
        search.build(order)
        if search.total()[0] > _EPS:
            search.work_max = min(work_max, search.market.work + _WORK_OF_LEVEL)
            search.improve()
            search.work_max = work_max
        if search.total()[0] <= _EPS:
            return True
    search.start(before)
    return False
