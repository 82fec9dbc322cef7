"""What the needs of one model ask of its replicas, as rows; and how much of a row is covered."""

from collections.abc import Iterable, Sequence

from argosy.fleet.fields import Tier
from argosy.policies.placement.market import Counts, Market, Model, Row
from argosy.policies.placement.views import DomainKind, NeedView, SpreadView, SurviveView

# What is served first: people who ask now, before the loss of what is not lost; batch last.
LEVELS: tuple[tuple[Tier, bool], ...] = (
    ("enterprise", False),
    ("consumer", False),
    ("enterprise", True),
    ("consumer", True),
    ("batch", False),
    ("batch", True),
)
LAST = len(LEVELS) - 1
UNIONS_MAX = 24  # of region sets of one model; where there are more, sets are narrowed
_NO_LIMIT = (float("inf"),) * len(LEVELS)

Grouped = list[tuple[int, NeedView]]  # the regions of each need as bits, never 0
Caps = list[dict[int, float]]  # by row: capacity by domain


def rows_of(
    needs: Grouped, survive: Iterable[SurviveView], spread: Iterable[SpreadView]
) -> list[Row]:
    """All rows of one model."""
    needs = narrowed(needs)
    tiers: dict[DomainKind, set[Tier]] = {}
    for one in survive:
        tiers.setdefault(one.kind, set()).update(one.tiers)
    shares: dict[DomainKind, float] = {}
    for one in spread:
        shares[one.kind] = min(one.share_max, shares.get(one.kind, 1.0))
    everything = _now(needs)
    masks = unions({mask for mask, _ in needs})
    rows: list[Row] = []
    for mask in masks:
        own = [(bits, need) for bits, need in needs if not bits & ~mask]
        rows.append(Row(mask, None, False, _now(own), _NO_LIMIT))
        for kind, kept in sorted(tiers.items()):
            rows.append(Row(mask, kind, True, _lost(own, kept), _NO_LIMIT))
        for kind, share in sorted(shares.items()):
            limits = tuple(share * value for value in everything)
            rows.append(Row(mask, kind, False, _now(own), limits))
    if shares and len(masks) > 1:
        rows += _whole(masks, everything, shares)
    return [row for row in rows if row.needs[LAST] > 0]


def _whole(
    masks: Sequence[int], everything: tuple[float, ...], shares: dict[DomainKind, float]
) -> list[Row]:
    """A domain's share is of all the model's needs, also where they have no region in common."""
    whole = 0
    for mask in masks:
        whole |= mask
    if whole in masks:
        return []
    return [
        Row(whole, kind, False, everything, tuple(share * value for value in everything))
        for kind, share in sorted(shares.items())
    ]


def _now(needs: Grouped) -> tuple[float, ...]:
    """By level: all that is needed while nothing is lost, of this level and those before."""
    total, sums = 0.0, list[float]()
    for tier, is_lost in LEVELS:
        if not is_lost:
            total += sum(need.capacity for _, need in needs if need.tier == tier)
        sums.append(total)
    return tuple(sums)


def _lost(needs: Grouped, kept: set[Tier]) -> tuple[float, ...]:
    """By level: what is needed of the tiers that are kept, while a domain is lost."""
    total, sums = 0.0, list[float]()
    for tier, is_lost in LEVELS:
        if is_lost and tier in kept:
            total += sum(lost_of(need) for _, need in needs if need.tier == tier)
        sums.append(total)
    return tuple(sums)


def lost_of(need: NeedView) -> float:
    """Of a need, while a domain is lost."""
    return need.capacity if need.capacity_lost is None else need.capacity_lost


def unions(masks: set[int]) -> list[int]:
    """The sets, and all unions of sets that overlap: others add nothing to their parts."""
    found = set(masks)
    fresh: list[int] = sorted(masks)
    while fresh:
        joined: set[int] = {one | other for one in fresh for other in masks if one & other}
        joined -= found
        found |= joined
        fresh = sorted(joined)
    return sorted(found)


def narrowed(needs: Grouped) -> Grouped:
    """With few enough unions: where not, the two sets most alike become what both have in common.

    That is the safe side: what is placed then serves both, at a cost that may be higher.
    """
    while len(unions({mask for mask, _ in needs})) > UNIONS_MAX:
        masks = sorted({mask for mask, _ in needs})
        pairs = [(a, b) for place, a in enumerate(masks) for b in masks[:place] if a & b]
        one, other = min(pairs, key=lambda pair: ((pair[0] ^ pair[1]).bit_count(), pair))
        needs = [(one & other if mask in (one, other) else mask, need) for mask, need in needs]
    return needs


def caps_of(model: Model, counts: Counts, market: Market) -> Caps:
    """What these replicas can do beside those that are kept in any case."""
    caps: Caps = [{} for _ in model.rows]
    for own in (model.base, counts):
        for option in sorted(own):
            add(caps, model.links(option, market), model.rates[option] * own[option])
    return caps


def add(caps: Caps, links: list[tuple[int, int]], capacity: float) -> None:
    """So much more (or less) of an option."""
    for row, domain in links:
        own = caps[row]
        own[domain] = own.get(domain, 0.0) + capacity


def covered(row: Row, own: dict[int, float], level: int) -> float:
    """How much of the row is."""
    if not own:
        return 0.0
    if row.is_lost:
        return sum(own.values()) - max(own.values())
    if row.kind is None:
        return own[0]
    limit = row.limits[level]
    return sum(min(value, limit) for value in own.values())


def missing(model: Model, counts: Counts, market: Market, level: int) -> float:
    """The share of its need that each row of the levels up to this one lacks, all together."""
    caps = caps_of(model, counts, market)
    total = 0.0
    for row, own in zip(model.rows, caps, strict=True):
        need = row.needs[level]
        lack = need - covered(row, own, level)
        if lack > 1e-7 * need:
            total += lack / need
    return total
