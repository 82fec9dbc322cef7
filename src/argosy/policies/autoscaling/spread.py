"""Which deployments have the replicas that a model needs: a few more here, a few fewer there.

From what is there, one at a time: the cheapest capacity is added first and the dearest removed
first; where the loss of a domain is to be survived, the smallest domain grows and the largest
shrinks. Of a model with several deployments `policies/capacity` has the placement policy say it.
"""

from collections.abc import Iterable, Sequence

import msgspec

from argosy.policies.autoscaling.view import DomainKind

_ENOUGH = 1e-9  # of a replica: sums of shares are not exact


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment as it is counted here."""

    name: str
    replicas: int  # ready, and pending that have not expired
    ready: int = 0
    start_s: float = 0.0  # from asking for one to its being ready
    min: int
    max: int
    capacity: float  # of one, in replicas of the model's first deployment
    price_usd_per_hour: float
    domains: tuple[tuple[DomainKind, str], ...]
    may_grow: bool = True
    shrink_max: int = 0  # that may be removed now


def spread(parts: Sequence[Part], total: float, survive: Sequence[DomainKind]) -> tuple[int, ...]:
    """Replicas of each, so that their capacity is at least `total`, as far as bounds allow."""
    counts = [min(max(part.replicas, part.min), part.max) for part in parts]
    least = [
        max(part.min, count - part.shrink_max) for part, count in zip(parts, counts, strict=True)
    ]
    have = sum(count * part.capacity for count, part in zip(counts, parts, strict=True))
    while have < total - _ENOUGH:
        able = [place for place, part in enumerate(parts) if part.may_grow]
        able = [place for place in able if counts[place] < parts[place].max]
        if not able:
            break
        place = min(
            able, key=lambda one: (_domain(parts, counts, one, survive), *_cost(parts[one]))
        )
        counts[place] += 1
        have += parts[place].capacity
    else:
        _shrink(parts, counts, least, have - total, survive)
    return tuple(counts)


def _shrink(
    parts: Sequence[Part],
    counts: list[int],
    least: Sequence[int],
    spare: float,
    survive: Sequence[DomainKind],
) -> None:
    """Remove what is not needed; in place."""
    while True:
        able = [
            place
            for place, part in enumerate(parts)
            if counts[place] > least[place] and part.capacity <= spare + _ENOUGH
        ]
        if not able:
            return
        place = max(
            able, key=lambda one: (_domain(parts, counts, one, survive), *_cost(parts[one]))
        )
        counts[place] -= 1
        spare -= parts[place].capacity


def _cost(part: Part) -> tuple[float, str]:
    """Of its capacity; the name breaks ties."""
    return part.price_usd_per_hour / part.capacity, part.name


def _domain(
    parts: Sequence[Part], counts: Sequence[int], place: int, survive: Sequence[DomainKind]
) -> float:
    """The capacity of the largest domain that is to be survived and that it is in."""
    own = dict(parts[place].domains)
    return max((_size(parts, counts, kind, own.get(kind)) for kind in survive), default=0.0)


def _size(
    parts: Sequence[Part], counts: Sequence[int], kind: DomainKind, name: str | None
) -> float:
    pairs = zip(parts, counts, strict=True)
    return sum(
        part.capacity * count for part, count in pairs if dict(part.domains).get(kind) == name
    )


def largest_domain(parts: Sequence[Part], survive: Iterable[DomainKind]) -> float:
    """Its capacity; 0 where there is one domain alone, whose loss nothing here can make good."""
    counts = [part.replicas for part in parts]
    largest = 0.0
    for kind in survive:
        names = {dict(part.domains).get(kind) for part in parts}
        if len(names) > 1:
            sizes = (_size(parts, counts, kind, name) for name in names)
            largest = max(largest, *sizes)
    return largest
