"""What no placement can cost less than, and why one may cost more."""

from argosy.policies.placement.frame import Frame
from argosy.policies.placement.market import Counts, Market, Model, Row
from argosy.policies.placement.rows import LAST, caps_of, covered
from argosy.policies.placement.search import All
from argosy.policies.placement.views import DearCode

DEAR_SHARE = 0.05
_Item = tuple[float, float, int, bool]  # USD per capacity, capacity, region bit, is spot


def bound_usd(frame: Frame, counts: All) -> float:
    """An hour, of covering as much as these do: every model alone, in fractions, its dearest row.

    A row of a loss asks for at least n/(n-1) of its need where n domains could share it: the
    largest of n holds at least the n-th part.
    """
    total = frame.base_usd
    for model, own in zip(frame.models, counts, strict=True):
        items = _items(model, frame.market)
        caps = caps_of(model, own, frame.market)
        kept = [sum(cap.values()) for cap in caps_of(model, {}, frame.market)]
        total += max(
            (
                _least_usd(row, min(row.needs[LAST], covered(row, cap, LAST)), items, there)
                for row, cap, there in zip(model.rows, caps, kept, strict=True)
                if row.kind is None or row.is_lost
            ),
            default=0.0,
        )
    return total


def _items(model: Model, market: Market) -> list[_Item]:
    """All chips by step, at the best that the model makes of a chip there; the cheapest first."""
    ratios: dict[int, float] = {}
    for option, pool in enumerate(model.pools):
        ratio = model.rates[option] / model.chips[option]
        if ratio > ratios.get(pool, 0.0):
            ratios[pool] = ratio
    return sorted(
        (price / ratio, chips * ratio, market.bits[pool], market.is_spot[pool])
        for pool, ratio in ratios.items()
        for price, chips in market.steps[pool]
    )


def _least_usd(row: Row, need: float, items: list[_Item], there: float) -> float:
    if row.is_lost:
        if row.domains < 2:
            return 0.0
        need *= row.domains / (row.domains - 1)
    need -= there
    total = 0.0
    for usd, most, bit, is_spot in items:
        if need <= 0:
            break
        if bit & row.regions and not (row.is_lost and is_spot):
            taken = min(most, need)
            total += usd * taken
            need -= taken
    return total


def why_dear(frame: Frame, counts: All, *, is_put_off: bool, is_cut: bool) -> DearCode:
    """The likeliest reason, of a placement that costs more than the bound."""
    if is_put_off:
        return "stops"
    if is_cut:
        return "effort"
    if _is_contended(frame, counts):
        return "contended"
    if any(
        model.up[option] for model, own in zip(frame.models, counts, strict=True) for option in own
    ):
        return "moves"
    return "whole_replicas"


def _is_contended(frame: Frame, counts: list[Counts]) -> bool:
    """Some pool's cheap chips are gone, and a model that could use them has less cheap ones."""
    market = frame.market
    for pool, used in enumerate(market.used):
        steps = market.steps[pool]
        if used and used >= steps[0][1] - 7:
            wanted = sum(pool in model.pools for model in frame.models)
            if wanted > 1:
                return True
    return False
