"""How many replicas are stopped at one tick: what is beyond waits for the next."""

from argosy.policies.placement.cover import trim
from argosy.policies.placement.frame import Frame
from argosy.policies.placement.rows import LAST
from argosy.policies.placement.search import All, Search
from argosy.policies.placement.views import Tuning

_Stop = tuple[bool, float, int, int]  # makes no room, -USD an hour saved, model, option


def limited(frame: Frame, counts: All, tuning: Tuning) -> tuple[All, bool]:
    """The same with no more stops than are allowed; True: some were put off.

    Stops in pools that no longer have the chips are forced: neither counted nor put off. Those
    that make room for starts go first, then those that save most. What may start beside the
    replicas that stay is then found anew, level by level.
    """
    ups = sum(sum(model.up) for model in frame.models)
    allowed = max(1, int(tuning.stops_share_max * ups + 1e-9))
    stops = _voluntary(frame, counts)
    if len(stops) <= allowed:
        return counts, False
    stay: All = [
        {option: min(count, model.up[option]) for option, count in own.items() if model.up[option]}
        for model, own in zip(frame.models, counts, strict=True)
    ]
    for _, _, place, option in stops[allowed:]:
        stay[place][option] = stay[place].get(option, 0) + 1
    return _started(frame, stay, tuning), True


def _started(frame: Frame, stay: All, tuning: Tuning) -> All:
    """With these left alone, what starts."""
    frame.market.used[:] = [0] * len(frame.market.used)
    search = Search(frame.market, frame.models, level=0, effort=tuning.effort)
    search.start(stay)
    for level in range(LAST + 1):
        search.level = level
        search.add(range(len(frame.models)))
    for model, own, kept in zip(frame.models, search.counts, stay, strict=True):
        trim(model, own, frame.market, LAST, keep=kept)
    return search.counts


def _voluntary(frame: Frame, counts: All) -> list[_Stop]:
    market = frame.market
    used_up = [0] * len(market.used)
    started = set[int]()
    for model, own in zip(frame.models, counts, strict=True):
        for option, pool in enumerate(model.pools):
            used_up[pool] += model.up[option] * model.chips[option]
            if own.get(option, 0) > model.up[option]:
                started.add(pool)
    stops: list[_Stop] = []
    for place, (model, own) in enumerate(zip(frame.models, counts, strict=True)):
        for option in model.counts_up():
            pool, chips = model.pools[option], model.chips[option]
            if used_up[pool] <= market.chips[pool]:
                used = market.used[pool]
                usd = market.cost_usd(pool, used + chips) - market.cost_usd(pool, used)
                gone = model.up[option] - own.get(option, 0)
                stops += [(pool not in started, -usd, place, option)] * max(0, gone)
    return sorted(stops)
